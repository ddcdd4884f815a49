"""A session in a process of its own, which this module also is.

ONNX Runtime takes some options once a process: whether denormal numbers are flushed to zero is what
the first session says, for whatever the thread that made it computes from then on. And threads that
a session keeps spinning take time from the sessions beside it. So session options are measured with
one process for each.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from .base import Array, Feeds, SessionConfig, TensorSpec
from .errors import BackendError
from .timing import REST


class RemoteSession:
    """A :class:`~.base.Session` whose process loads nothing but this model.

    Called, it runs once on ``feeds``, in the manner of :meth:`~.ort.OrtSession.bind`; in
    :func:`~.timing.compare_latency` it times its turns where it runs. Close it, or use it in
    ``with``.

    Raises:
        BackendError: The model cannot be loaded there, or does not take ``feeds``.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]

    def __init__(self, model: Path, config: SessionConfig, feeds: Feeds | None = None) -> None:
        self.name = str(model)
        self.rest = 0.0 if config.threads == 1 else REST
        # -P: modules of the working folder must not stand in for others.
        command = [sys.executable, "-P", "-m", f"{__package__}.remote"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        try:
            given = None if feeds is None else dict(feeds)
            self.inputs, self.outputs = self._ask("load", str(model.absolute()), config, given)
        except BaseException:
            self.close()
            raise

    def __call__(self) -> None:
        """Run once. Raises ``BackendError``."""
        self.turn(1)

    def turn(self, count: int) -> list[float]:
        """Run ``count`` times; how long each run took, in milliseconds. Raises ``BackendError``."""
        spent: list[float] = self._ask("turn", count)
        return spent

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once on other feeds. Raises ``BackendError``."""
        answers: dict[str, Array] = self._ask("run", dict(feeds))
        return answers

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, *request: Any) -> Any:
        try:
            requests, answers = self._process.stdin, self._process.stdout
            if requests is None or answers is None or requests.closed:
                raise EOFError
            pickle.dump(request, requests, protocol=pickle.HIGHEST_PROTOCOL)
            requests.flush()
            answer = pickle.load(answers)  # noqa: S301 - from our own process
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            code = self._process.wait()
            raise BackendError(
                f"{self.name} cannot be run in a process of its own: it ended with code {code}",
                hint="code -9 is what the system gives a process for which it has no memory left",
            ) from error
        if isinstance(answer, BackendError):
            raise answer
        return answer


class _Server:
    """The other end: one model, and the requests made of it."""

    def __init__(self) -> None:
        self.session: Any = None
        self.bound: Any = None

    def load(self, model: str, config: SessionConfig, feeds: Feeds | None) -> Any:
        from .ort import session_of

        self.session = session_of(Path(model), config)
        self.bound = None if feeds is None else self.session.bind(feeds)
        return self.session.inputs, self.session.outputs

    def turn(self, count: int) -> list[float]:
        spent = []
        for _ in range(count):
            before = time.perf_counter_ns()
            self.bound()
            spent.append((time.perf_counter_ns() - before) / 1e6)
        return spent

    def run(self, feeds: Feeds) -> dict[str, Array]:
        answers: dict[str, Array] = self.session.run(feeds)
        return answers


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    server = _Server()
    while True:
        try:
            what, *arguments = pickle.load(requests)  # noqa: S301 - from the process that made us
        except EOFError:
            return
        try:
            answer = getattr(server, what)(*arguments)
        except BackendError as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - it becomes the other end's BackendError
            answer = BackendError(f"{type(error).__name__}: {error}")
        pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends what made us, and that ends us
    _answers, sys.stdout = sys.stdout.buffer, sys.stderr  # what is printed must not be in between
    _serve(sys.stdin.buffer, _answers)
