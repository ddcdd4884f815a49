"""Never slower: finds the passes that made a result slower than its input, and withdraws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import onnx_ir as ir

from ..passes.base import Pass
from .pipeline import Step
from .records import Progress, Run
from .report_text import speedup_text

SECONDS: Final = 4.0
"""How long the closing measurement takes."""
CONFIRMING: Final = 12.0
"""How long it takes when it is repeated, before anything is withdrawn for it."""
_ROUNDS: Final = 4
"""How often a guilty pass is looked for before all passes are withdrawn."""


class Timer(Protocol):
    """Times two models against each other; :func:`~.latency.latency_before_and_after` by default.

    The answer is as in the reports: ``status``, and where that is ``measured`` at least
    ``speedup``, ``ci95`` and ``verdict``.
    """

    def __call__(self, before: ir.Model, after: ir.Model, seconds: float) -> dict[str, Any]:
        """Time both, interleaved, for about so many ``seconds``."""
        ...


@dataclass(frozen=True)
class Guard:
    """Keeps a result from being slower than its input.

    A result that is measured to be slower is measured again, longer and in new sessions. Only if
    it is slower once more, the passes that were kept are bisected by the latency of the models
    that they left: each half is measured against the input, until two neighbours are found of
    which the later lost what the result lacks. The pass between them is withdrawn, and the others
    run again from the start. What is left after :data:`_ROUNDS` such rounds is withdrawn whole.

    Passes that change answers on purpose were asked for, for size, so they stay; so does what
    runs after them. The passes before them are held against the input by themselves.

    Args:
        original: The input.
        time: Times two models.
        rerun: Runs the pipeline without the steps given, each with the reason why.
        replay: The original after the steps given.
        progress: Called as ``progress(stage, done, total)``.
    """

    original: ir.Model
    time: Timer
    rerun: Callable[[Mapping[Step, str]], Run]
    replay: Callable[[Sequence[Step]], ir.Model]
    progress: Progress

    def settle(self, run: Run) -> tuple[Run, dict[str, Any]]:
        """``run``, or one without the passes that made it slower, and its latency."""
        withdrawn: dict[Step, str] = {}
        latency = self._confirmed(run.model)
        for number in range(_ROUNDS + 1):
            lossless = list(_exact(run.applied))
            if latency.get("verdict") != "slower" or not lossless:
                break
            found = latency
            if len(lossless) < len(run.applied):
                found = self._confirmed(self.replay(lossless))
                if found.get("verdict") != "slower":
                    break
            if number == _ROUNDS:
                withdrawn |= dict.fromkeys(lossless, "the result is slower with any of the passes")
            else:
                step, reason = self._guilty(lossless, found["speedup"])
                withdrawn[step] = reason
            run = self.rerun(withdrawn)
            if not run.applied:
                return run, {"status": "not-measured", "reason": "no pass changed the model"}
            latency = self._confirmed(run.model)
        return run, latency

    def _confirmed(self, model: ir.Model) -> dict[str, Any]:
        """The latency of ``model`` against the original; ``slower`` is said only if twice found."""
        self.progress("timing before and after", 0, None)
        latency = self.time(self.original, model, SECONDS)
        if latency.get("verdict") == "slower":
            self.progress("slower than the original: timing again, longer", 0, None)
            latency = self.time(self.original, model, CONFIRMING)
        return latency

    def _guilty(self, steps: Sequence[Step], speedup: float) -> tuple[Step, str]:
        """The step after which the model is slow, and how much slower it made the model."""
        fast, slow = 0, len(steps)
        enough = speedup**0.5  # half of the loss, as a ratio
        while slow - fast > 1:
            self.progress("looking for what made it slower", fast, len(steps))
            middle = (fast + slow) // 2
            latency = self.time(self.original, self.replay(steps[:middle]), SECONDS)
            if latency.get("speedup", 1.0) < enough:
                slow = middle
            else:
                fast = middle
        before, after = self.replay(steps[:fast]), self.replay(steps[:slow])
        latency = self.time(before, after, SECONDS)
        ratio = "the model was slower with it"
        if latency["status"] == "measured":
            ratio += f", {speedup_text(latency['speedup'], latency['ci95'])}"
        return steps[fast], ratio


def _exact(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps before the first that changes answers on purpose."""
    for index, step in enumerate(steps):
        if isinstance(step.run, Pass) and not step.run.contract.exact:
            return steps[:index]
    return steps
