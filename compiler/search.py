"""Level 3: which rewrites pay on this machine, found by measuring the model without them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import onnx_ir as ir

from ..backends.errors import OnnxpressError
from ..backends.timing import EFFECT
from ..passes.base import Pass
from .guard import Timer
from .pipeline import Step
from .records import LEFT_OUT, Progress, Run, silent

GLANCE: Final = 1.5
"""How long a model without a rewrite is timed before it is dismissed."""
SECONDS: Final = 6.0
"""How long it is timed where the glance leaves hope."""

NOT_MEASURED: Final[dict[str, Any]] = {
    "status": "not-measured",
    "reason": "rewrites are measured one by one at level 3",
}


@dataclass(frozen=True)
class Choices:
    """What is left out: whole steps, each with the reason, and single rewrites of steps.

    ``held`` names the nodes that a step leaves alone, by the step's pipeline text.
    """

    withdrawn: Mapping[Step, str] = field(default_factory=dict)
    held: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def without(self, step: Step, nodes: frozenset[str] | None, reason: str) -> Choices:
        """These choices, with ``step`` left out, or only its rewrites of ``nodes``."""
        if nodes is None:
            return Choices({**self.withdrawn, step: reason}, self.held)
        before = self.held.get(str(step), frozenset())
        return Choices(self.withdrawn, {**self.held, str(step): before | nodes})


@dataclass(frozen=True)
class _Proposal:
    """A step to try the model without, or some of the nodes that it rewrote."""

    step: Step
    nodes: frozenset[str] | None = None

    def halves(self, rewrites: Mapping[Step, list[str]]) -> Iterator[_Proposal]:
        """The same for half of its rewrites each, in their order."""
        names = [
            name for name in rewrites.get(self.step, ()) if self.nodes is None or name in self.nodes
        ]
        middle = len(names) // 2
        if middle:
            yield _Proposal(self.step, frozenset(names[:middle]))
            yield _Proposal(self.step, frozenset(names[middle:]))


@dataclass
class Search:
    """Leaves out of a result what does not pay, as far as time allows.

    Every step that changed the model is tried first: the model without it, everything after it run
    again, is timed against the best so far, interleaved. A glance dismisses what cannot be faster;
    what may be is timed for longer, and left out if it is *faster* by the whole interval. Then the
    steps that stay are tried without half of their rewrites, without quarters, and so on.

    Args:
        timer: Times two models.
        build: The model that comes out under some choices, unchecked; ``None`` if that fails.
        deadline: When to stop, by ``clock``.
        progress: Called as ``progress(stage, done, total)``.
        clock: Seconds of a monotonic clock.
    """

    timer: Timer
    build: Callable[[Choices], ir.Model | None]
    deadline: float = float("inf")
    progress: Progress = silent
    clock: Callable[[], float] = time.monotonic
    tried: list[dict[str, Any]] = field(default_factory=list)

    def run(self, start: Run) -> tuple[Choices, dict[str, Any]]:
        """What is best left out of ``start``, what was left out of it included, and the report."""
        best, choices = start.model, Choices(dict(start.left_out))
        seen = {_shape(best)}
        rewrites = _rewrites(start)
        waiting = deque(_Proposal(step) for step in dict.fromkeys(start.applied))
        total = len(waiting)
        while waiting and self.clock() < self.deadline:
            proposal = waiting.popleft()
            if proposal.step in choices.withdrawn:
                continue
            self.progress("measuring without " + proposal.step.name, len(self.tried), total)
            candidate = choices.without(proposal.step, proposal.nodes, LEFT_OUT)
            model = self.build(candidate)
            if model is None or _shape(model) in seen:
                continue
            seen.add(_shape(model))
            found = self._compared(best, model)
            kept = found.get("verdict") == "faster"
            self._note(proposal, found, kept=kept)
            if kept:
                best, choices = model, candidate
            else:
                halves = list(proposal.halves(rewrites))
                waiting.extend(halves)
                total += len(halves)
        report: dict[str, Any] = {"status": "measured", "tried": self.tried}
        report["not_tried"] = len(waiting)
        if best is start.model:
            return choices, report | {"verdict": "nothing is better left out"}
        self.progress("measuring what is left", 0, None)
        found = self.timer(start.model, best, SECONDS)
        report |= {key: found[key] for key in ("speedup", "ci95", "verdict") if key in found}
        if found.get("verdict") == "slower":  # then what was found was noise
            choices = Choices(dict(start.left_out))
        return choices, report

    def _compared(self, best: ir.Model, model: ir.Model) -> dict[str, Any]:
        found = self.timer(best, model, GLANCE)
        if found["status"] != "measured" or found["ci95"][1] <= 1 + EFFECT:
            return found
        return self.timer(best, model, SECONDS)

    def _note(self, proposal: _Proposal, found: Mapping[str, Any], *, kept: bool) -> None:
        entry = {
            "pass": proposal.step.name,
            "rewrites": None if proposal.nodes is None else len(proposal.nodes),
            "verdict": found.get("verdict", "not measured"),
            "left_out": kept,
        }
        entry |= {key: found[key] for key in ("speedup", "ci95", "reason") if found.get(key)}
        self.tried.append(entry)


def _unsearchable(run: Run) -> str:
    """Why the rewrites of ``run`` are not measured one by one; empty if they are."""
    if not run.applied:
        return "no pass changed the model"
    if any(isinstance(step.run, Pass) and not step.run.contract.exact for step in run.applied):
        return "it is not done with passes that change answers on purpose"
    return ""


def _rewrites(run: Run) -> dict[Step, list[str]]:
    """The nodes that each step rewrote, each once."""
    found: dict[Step, list[str]] = {}
    for step in run.applied:
        names = (
            name
            for record in run.records
            if record.name == step.name and record.options == step.all_options()
            for name in record.rewrites
        )
        found.setdefault(step, list(dict.fromkeys(names)))
    return found


def _shape(model: ir.Model) -> int:
    """A number that tells models of different nodes apart."""
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    rows = [(one.domain, one.op_type, *_names(one.inputs), *_names(one.outputs)) for one in nodes]
    return hash(tuple(rows))


def _names(values: Sequence[ir.Value | None]) -> Iterator[str | None]:
    return (None if value is None else value.name for value in values)


def search(
    start: Run,
    timer: Timer,
    build: Callable[[Choices], ir.Model],
    *,
    budget: float,
    progress: Progress = silent,
) -> tuple[Choices | None, dict[str, Any]]:
    """What is best left out of ``start``, ``None`` where nothing is; at most ``budget`` seconds.

    ``build`` may raise for choices that do not work; those are passed over.
    """
    if reason := _unsearchable(start):
        return None, {"status": "not-measured", "reason": reason}

    def attempt(choices: Choices) -> ir.Model | None:
        try:
            return build(choices)
        except OnnxpressError:
            return None

    searching = Search(timer, attempt, time.monotonic() + budget, progress)
    choices, report = searching.run(start)
    before = Choices(dict(start.left_out))
    return (None if choices == before else choices), report
