"""Decides, array by array, whether a candidate's answer is the reference's."""

from __future__ import annotations

import numpy as np

from ...backends.base import Array
from ...passes.analysis.fidelity import Fidelity
from ...passes.base import Contract
from .answers import Answers, Leaf
from .reference import Reference
from .tolerance import Tolerance, deviation
from .verification import OutputCheck

_BEYOND = 8
"""An answer that is this many times farther off than the original's own answers lie apart is wrong,
however unsure those are: rounding errors of a rewrite are about as large as the errors tried."""


class Judge:
    """Compares the answers of one candidate, run after run.

    ``checks`` holds the verdict on every output so far. Call :meth:`conclude` after the last run.
    """

    def __init__(self, reference: Reference, contract: Contract) -> None:
        self.reference = reference
        self.contract = contract
        self.checks: dict[str, OutputCheck] = {}
        for value in reference.model.graph.outputs:
            reason = reference.random.get(value.name or "", "")
            check = OutputCheck("not-comparable", reason) if reason else OutputCheck()
            self.checks[value.name or ""] = check
        self._fidelities: dict[tuple[str, str], Fidelity] = {}

    def compare(self, answers: Answers, case: int, level: str, where: str) -> None:
        """Take in the answers to the feeds number ``case`` of a session at ``level``.

        ``where`` tells the user which run it was.
        """
        for leaf, right in self.reference.answers[case].items():
            check = self.checks[leaf.output]
            if leaf in answers:
                problem = self._problem(check, leaf, right, answers[leaf], case, level)
            else:  # what is squashed can be missing: the candidate may compute it in another way
                problem = "" if leaf.part.startswith("before") else f"{_label(leaf)} is missing"
            if problem:
                check.fail(f"{problem}, {where}")

    def conclude(self) -> None:
        """Judge what needs all runs: fidelity, and whether enough could be decided."""
        for (name, _), fidelity in self._fidelities.items():
            known = self.checks[name].fidelity
            worst = min(known, fidelity, key=_nearness) if known.elements else fidelity
            self.checks[name].fidelity = worst
        for check in self.checks.values():
            self._conclude(check)

    def _conclude(self, check: OutputCheck) -> None:
        if check.status != "ok":
            return
        floor = self.contract.min_sqnr_db
        if not self.contract.exact and check.is_float and check.fidelity.sqnr_db < floor:
            check.fail(
                f"the signal-to-noise ratio is {check.fidelity.sqnr_db:.1f} dB, "
                f"the contract asks for {floor:.1f} dB"
            )
        elif check.undecided > check.elements / 2:
            check.status = "not-comparable"
            check.reason = (
                f"rounding errors alone move {check.undecided} of {check.elements} "
                "elements of the original's own answers by more than the tolerance"
            )

    def _problem(
        self, check: OutputCheck, leaf: Leaf, right: Array, answer: Array, case: int, level: str
    ) -> str:
        """What is wrong with ``answer``; empty if nothing is."""
        inner = leaf.part.startswith("before")
        if right.dtype != answer.dtype and not inner:
            return f"{_label(leaf)} is {answer.dtype}, not {right.dtype}"
        if right.shape != answer.shape:
            return "" if inner else self._shape_problem(check, leaf, right, answer, case)
        if check.status == "not-comparable":
            return ""
        tolerance = self.reference.tolerance(leaf)
        if not inner:
            check.is_float = right.dtype.kind not in "iubOSUT"
            fidelity = self._fidelities.setdefault((leaf.output, level), Fidelity())
            fidelity.update(right, answer, floor=tolerance.floor)
        if not self.contract.exact:
            lost = not inner and _loses_numbers(right, answer)
            return f"{_label(leaf)} has NaN or infinity where the original has not" if lost else ""
        check.elements += right.size
        return self._exact_problem(check, leaf, right, answer, case, tolerance)

    def _exact_problem(
        self,
        check: OutputCheck,
        leaf: Leaf,
        right: Array,
        answer: Array,
        case: int,
        tolerance: Tolerance,
    ) -> str:
        off = deviation(right, answer, tolerance.floor)
        if tolerance.accepts(off):
            return ""
        # The original itself answers this once it is optimized: then it is the original's answer.
        if (own := self.reference.own_answer(case, leaf)) is not None:
            off = np.minimum(off, deviation(own, answer, tolerance.floor))
            if tolerance.accepts(off):
                return ""
        spread = self.reference.spread(case, leaf)
        if spread is None:
            check.undecided += right.size
            return ""
        undecided = (spread > tolerance.element) & (off <= _BEYOND * spread)
        check.undecided += int(np.count_nonzero(undecided))
        decided = off[~undecided]
        # The mean of errors settles nothing where the original's own mean is as large.
        if tolerance.accepts(decided) or (
            _largest(decided) <= tolerance.element and not tolerance.accepts(spread[~undecided])
        ):
            return ""
        return _describe(leaf, right, decided, tolerance)

    def _shape_problem(
        self, check: OutputCheck, leaf: Leaf, right: Array, answer: Array, case: int
    ) -> str:
        counted = leaf.output in self.reference.counted
        if counted and not self.contract.exact:
            check.status = "not-comparable"
            check.reason = "how many results there are depends on the values"
            return ""
        if counted and self.reference.spread(case, leaf) is None:
            count = max(right.size, answer.size)
            check.elements += count
            check.undecided += count
            return ""
        return f"{_label(leaf)} has shape {answer.shape}, not {right.shape}"


def _label(leaf: Leaf) -> str:
    return f"its part {leaf.part}" if leaf.part else "it"


def _nearness(fidelity: Fidelity) -> tuple[float, float, float]:
    return (-fidelity.misplaced, fidelity.sqnr_db, -fidelity.differing)


def _loses_numbers(right: Array, answer: Array) -> bool:
    if right.dtype.kind not in "fc":
        return False
    return bool(np.any(np.isfinite(right) & ~np.isfinite(answer)))


def _largest(deviations: Array) -> float:
    return float(deviations.max(initial=0.0))


def _describe(leaf: Leaf, right: Array, off: Array, tolerance: Tolerance) -> str:
    wrong = int(np.count_nonzero(off > tolerance.element))
    what = "" if not leaf.part else f" ({leaf.part})"
    if right.dtype.kind in "iubOSUT":
        return f"{wrong} of {right.size} elements are different{what}"
    largest = _largest(off)
    if wrong == 0:
        rms = float(np.sqrt(np.mean(np.square(off))))
        return (
            f"all in all it is off by {rms:.1e} of its size, allowed are {tolerance.rms:.1e}{what}"
        )
    size = "NaN or infinity" if np.isinf(largest) else f"up to {largest:.1e} of their size"
    allowed = f"allowed are {tolerance.element:.1e}"
    return f"{wrong} of {right.size} elements are off by {size}, {allowed}{what}"
