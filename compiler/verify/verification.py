"""What a comparison of two models found, and how the report tells it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ...passes.analysis.fidelity import Fidelity

Status: TypeAlias = Literal["ok", "failed", "not-run", "not-comparable"]


@dataclass
class OutputCheck:
    """One output, over all runs.

    Attributes:
        status: ``failed`` if any run was wrong; ``not-comparable`` if the original itself does
            not settle what is right.
        reason: Why it is not ``ok``.
        fidelity: The distance between the two models' answers, of all runs; of the session in
            which it is larger.
        elements: How many elements were checked, each run counted.
        undecided: How many of them were left out, because the original's own answers move there
            by more than the tolerance when its numbers move by rounding errors.
        is_float: Whether it holds floats.
    """

    status: Literal["ok", "failed", "not-comparable"] = "ok"
    reason: str = ""
    fidelity: Fidelity = field(default_factory=Fidelity)
    elements: int = 0
    undecided: int = 0
    is_float: bool = True

    def fail(self, reason: str) -> None:
        """Count the output as wrong; the first reason is kept."""
        if self.status != "failed":
            self.status, self.reason = "failed", reason

    def to_json(self) -> dict[str, Any]:
        """The entry of the report."""
        return {
            "status": self.status,
            "reason": self.reason,
            **self.fidelity.to_json(),
            "undecided": self.undecided,
        }


@dataclass
class Verification:
    """Whether a model gives another's answers.

    Attributes:
        status: ``ok`` if every output that can be compared agrees in every run; ``failed`` if one
            does not, or the model does not run where the original does; ``not-comparable`` if no
            output can be compared; ``not-run`` if nothing could be run.
        reason: Why it is not ``ok``, or what is left out although it is.
        outputs: Every output by name.
        sizes: The sizes of the dynamic dimensions, run by run.
        cases: How many different inputs both models were run on.
        sessions: ONNX Runtime's optimization levels that the candidate was run at.
        not_run: What could not be checked, and why.
        noise: How far the original is from itself, optimized by ONNX Runtime: ``max_abs``,
            ``max_rel`` and ``sqnr_db`` per output; empty where it was not measured.
    """

    status: Status = "ok"
    reason: str = ""
    outputs: dict[str, OutputCheck] = field(default_factory=dict)
    sizes: list[dict[str, int]] = field(default_factory=list)
    cases: int = 0
    sessions: list[str] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    noise: dict[str, Fidelity] = field(default_factory=dict)

    def conclude(self) -> Verification:
        """Draw the status from the outputs', unless it is settled already."""
        if self.status != "ok":
            return self
        for name, output in self.outputs.items():
            if output.status == "failed":
                self.status, self.reason = "failed", f"output {name!r}: {output.reason}"
                return self
        open_ = {n: one.reason for n, one in self.outputs.items() if one.status != "ok"}
        if self.outputs and len(open_) == len(self.outputs):
            self.status, self.reason = "not-comparable", next(iter(open_.values()))
            return self
        apart = [f"output {name!r} is not comparable: {why}" for name, why in open_.items()]
        self.reason = "; ".join([*apart, *self.not_run])
        return self

    @property
    def max_abs(self) -> float:
        """The largest difference of any two numbers."""
        return max((one.fidelity.max_abs for one in self._compared()), default=0.0)

    @property
    def max_rel(self) -> float:
        """The largest difference as a share of the element's size."""
        return max((one.fidelity.max_rel for one in self._compared()), default=0.0)

    @property
    def sqnr_db(self) -> float:
        """The least signal-to-noise ratio of a float output, in decibels."""
        floats = [one for one in self._compared() if one.is_float]
        return min((one.fidelity.sqnr_db for one in floats), default=math.inf)

    def _compared(self) -> list[OutputCheck]:
        return [one for one in self.outputs.values() if one.fidelity.elements]

    def to_json(self) -> dict[str, Any]:
        """The ``verified`` entry of the report; ``null`` stands for what is infinite."""
        measured = bool(self._compared())
        numbers = {"max_abs": self.max_abs, "max_rel": self.max_rel, "sqnr_db": self.sqnr_db}
        return {
            "status": self.status,
            "reason": self.reason,
            **{k: v if measured and math.isfinite(v) else None for k, v in numbers.items()},
            "cases": self.cases,
            "sizes": self.sizes,
            "sessions": self.sessions,
            "outputs": {name: output.to_json() for name, output in self.outputs.items()},
            "not_run": self.not_run,
            "noise": {
                name: {key: noise.to_json()[key] for key in ("max_abs", "max_rel", "sqnr_db")}
                for name, noise in self.noise.items()
            },
        }
