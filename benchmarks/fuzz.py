"""Random models through the exact passes, their answers against those of the originals.

Case ``n`` of a seed is the same model in every run: it is drawn from ``tests/graphs.py``. The cases
run in a worker process that is started anew where it crashes or hangs, which is a finding as any
other. Each finding is cut down and saved: the model, its inputs, and what is wrong.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from .apart import first_line
from .corpus import CorpusError

PIPELINES = ("1", "2", "shuffled")
"""What each case goes through by default: two levels, and all exact passes in a random order."""

VERIFIED = 50
"""Every so many cases one is compiled as users do, with onnxsim and the verifier."""

LIMIT = 120.0
"""Seconds that one case may take before it counts as hanging."""


@dataclass
class Finding:
    """A case that went wrong: where, what, and the files that show it."""

    case: int
    pipeline: str
    what: str
    nodes: int = 0
    saved: str = ""


@dataclass
class Fuzzing:
    """How far a run has come: enough to go on with it."""

    seed: int
    pipelines: list[str]
    cases: int = 0
    not_run: int = 0
    seconds: float = 0.0
    operators: dict[str, int] = field(default_factory=dict)
    rewrites: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, outcome: dict[str, Any]) -> None:
        """Count one case."""
        self.cases += 1
        self.not_run += outcome["status"] == "not-run"
        for mine, more in (
            (self.operators, outcome["operators"]),
            (self.rewrites, outcome["rewrites"]),
        ):
            for name, count in more.items():
                mine[name] = mine.get(name, 0) + count
        self.findings += [Finding(**one) for one in outcome["findings"]]

    def save(self, folder: Path) -> None:
        """Write the state, so that an interrupted run can go on."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "state.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        part.replace(path)


def start(folder: Path, seed: int, pipelines: list[str], *, resume: bool) -> Fuzzing:
    """A new run, or the one in ``folder`` with the same seed and pipelines, as far as it came."""
    path = folder / "state.json"
    if resume and path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        findings = [Finding(**one) for one in found.pop("findings")]
        state = Fuzzing(**found, findings=findings)
        if (state.seed, state.pipelines) == (seed, pipelines):
            return state
    return Fuzzing(seed, pipelines)


def fuzz(state: Fuzzing, cases: int, folder: Path, step: Callable[[dict[str, Any]], None]) -> None:
    """Run the cases from where ``state`` stands up to ``cases``; ``step`` gets each outcome."""
    started, before = time.monotonic(), state.seconds
    with _Worker(state.seed, state.pipelines, folder) as worker:
        while state.cases < cases:
            outcome = worker.outcome(state.cases)
            state.add(outcome)
            state.seconds = before + time.monotonic() - started
            if state.cases % 100 == 0 or state.cases == cases or outcome["findings"]:
                state.save(folder)
            step(outcome)


class _Worker:
    """A process that answers with the outcome of one case after the other."""

    def __init__(self, seed: int, pipelines: list[str], folder: Path) -> None:
        self._arguments = (seed, pipelines, folder)
        self._context = multiprocessing.get_context("spawn")
        self._child: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.join()

    def outcome(self, case: int) -> dict[str, Any]:
        if self._pipe is None:
            self._pipe, other = self._context.Pipe()
            self._child = self._context.Process(
                target=_serve, args=(other, *self._arguments), daemon=True
            )
            self._child.start()
            other.close()
        try:
            self._pipe.send(case)
            if self._pipe.poll(LIMIT):
                found: dict[str, Any] = self._pipe.recv()
                return found
            what = f"no answer within {LIMIT:g} s"
        except (EOFError, ConnectionError):
            self._child.join()
            what = f"the process ended with code {self._child.exitcode}"
        self._child.kill()
        self._child.join()
        self._pipe = None
        finding = asdict(Finding(case, "unknown", what))
        return _outcome("crashed", findings=[finding])


def _outcome(status: str, **more: Any) -> dict[str, Any]:
    return {"status": status, "operators": {}, "rewrites": {}, "findings": []} | more


def _serve(pipe: Connection, seed: int, pipelines: list[str], folder: Path) -> None:
    import warnings

    warnings.simplefilter("ignore")  # overflows in what is folded
    try:
        while True:
            pipe.send(run_case(seed, pipe.recv(), pipelines, folder))
    except EOFError:
        return


def run_case(seed: int, number: int, pipelines: list[str], folder: Path) -> dict[str, Any]:
    """The outcome of one case: what it holds, what was rewritten, and what went wrong.

    Raises :class:`~benchmarks.corpus.CorpusError` without the software that tests need.
    """
    try:
        from tests.compiler.answers import Expected, with_inner
        from tests.graphs import plan_of
    except ImportError as error:
        raise CorpusError(f"{error}", hint="pip install -e '.[test]'") from error
    plan = plan_of(case_seed(seed, number))
    case = plan.case()
    nodes = with_inner(case.model.graph.node)
    operators = dict(Counter(node.op_type for node in nodes if not node.domain))
    try:
        expected = Expected(case)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no base of their own
        what = f"{type(error).__name__}: {first_line(error)}"
        return _outcome("not-run", operators=operators, what=what)
    from . import fuzz_faults as faults

    rewrites: Counter[str] = Counter()
    findings = []
    for pipeline in pipelines:
        text = faults.text_of(pipeline, plan.seed)
        if what := faults.fault(expected, text, rewrites):
            findings.append(faults.report(number, plan, pipeline, text, what, folder))
    if number % VERIFIED == 0 and (what := faults.alarm(expected)):
        findings.append(faults.save(number, case, "2, verified", what, folder))
    status = "found" if findings else "ok"
    return _outcome(
        status,
        operators=operators,
        rewrites=dict(rewrites),
        findings=[asdict(one) for one in findings],
    )


def case_seed(seed: int, number: int) -> int:
    """The seed of case ``number``: those of different runs do not meet."""
    return seed * 10_000_000 + number
