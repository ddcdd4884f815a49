"""What runs and checks of passes leave behind, and who may look on meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, TypeAlias

import onnx_ir as ir

from ..passes.base import EXACT, Contract
from .pipeline import Step

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Told what is being done, ``(stage, done, total)``; ``total`` is ``None`` if unknown."""


LEFT_OUT: Final = "the model is faster without it"
"""Why level 3 leaves out a step, or single rewrites of one."""


def silent(_stage: str, _done: int, _total: int | None) -> None:
    """Nobody asked for progress."""


Status: TypeAlias = Literal["ok", "no-change", "quarantined", "withdrawn", "skipped"]


class Verdict(Protocol):
    """What a check of one step says."""

    @property
    def status(self) -> str:
        """``ok``, ``failed``, ``not-run`` or ``not-comparable``."""
        ...

    @property
    def reason(self) -> str:
        """Why it is not ``ok``."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The check for a report."""
        ...


class Checker(Protocol):
    """Compares a rewritten model with the original; :class:`~.verify.Verifier` is one."""

    def check(self, candidate: ir.Model, contract: Contract) -> Verdict:
        """Run both and compare."""
        ...

    def rebase(self, model: ir.Model) -> None:
        """Compare with ``model`` from now on: an approximate pass has moved the answers."""
        ...


@dataclass
class PassRecord:
    """What became of one step, as the report tells it.

    ``nodes`` and ``bytes`` are counts before and after. ``seconds`` is the time of the rewrite
    alone. A step inside a fixpoint group has one record for all its runs.
    """

    name: str
    options: dict[str, Any]
    contract: Contract = EXACT
    status: Status = "no-change"
    reason: str = ""
    seconds: float = 0.0
    rewritten: int = 0
    rewrites: list[str] = field(default_factory=list)
    """What was rewritten, by the names of the nodes."""
    declined: Counter[str] = field(default_factory=Counter)
    nodes: tuple[int, int] = (0, 0)
    bytes: tuple[int, int] = (0, 0)
    verified: str = "not-run"
    details: dict[str, Any] = field(default_factory=dict)
    reproduction: str = ""

    @property
    def modified(self) -> bool:
        """Whether the step changed the model, and the change was kept."""
        return self.status == "ok"


class Hook:
    """What may look on, or decide, while a pipeline runs. Override what is wanted.

    The names are those of TVM's pass instruments. A hook must not change the model.
    """

    def should_run(self, step: Step, model: ir.Model) -> bool:
        """Whether ``step`` runs at all; a step that any hook refuses is reported as skipped."""
        del step, model
        return True

    def run_before_pass(self, step: Step, model: ir.Model) -> None:
        """Called right before ``step`` runs on ``model``."""

    def run_after_pass(self, step: Step, model: ir.Model, record: PassRecord) -> None:
        """Called after ``step`` was run, checked and kept or undone."""


@dataclass
class Run:
    """A finished pipeline: the model that came out and what every step did."""

    model: ir.Model
    records: list[PassRecord]
    seconds: float
    verdict: Verdict | None = None
    """The check of ``model`` itself, unless it was compared with a reference set on the way."""
    applied: list[Step] = field(default_factory=list)
    """The steps that changed the model, in order, as often as each did."""
    left_out: Mapping[Step, str] = field(default_factory=dict)
    """The steps that were not run because they do not pay, and why."""

    @property
    def quarantined(self) -> list[PassRecord]:
        """The steps that were wrong and undone."""
        return [record for record in self.records if record.status == "quarantined"]

    @property
    def withdrawn(self) -> list[PassRecord]:
        """The steps that were right, but did not pay."""
        return [record for record in self.records if record.status == "withdrawn"]
