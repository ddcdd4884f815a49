"""How near a candidate's answers are to a reference's: one number per idea of nearness."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ...backends.base import Array

_CHUNK = 1 << 20
"""Elements that are converted to double precision at a time."""


@dataclass
class Fidelity:
    """Distances between the answers of two models for one output, over any number of runs.

    It holds sums and maxima, never arrays, so it may run over any amount of data, and parts that
    were gathered apart can be merged. Differences are taken in double precision. Elements that
    are NaN or infinite enter no distance: where both answers have the same one, they agree, where
    only one has it, they are ``misplaced``.

    Attributes:
        elements: How many elements were compared.
        differing: How many of them are not exactly equal.
        misplaced: How many are NaN or infinite in one answer and something else in the other.
        max_abs: The largest ``|a - b|``; for numbers only.
        max_rel: The largest ``|a - b| / max(|a|, scale(a))``, see :func:`scale_of`: against the
            element's own size where it is large, against its surroundings where it is small.
            Cancellation makes the relative error of a single small element meaningless.
        rows: How many rows (along the last axis, of at least two elements) were compared.
        agreeing: How many of them have their largest element at the same place.
    """

    elements: int = 0
    differing: int = 0
    misplaced: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    rows: int = 0
    agreeing: int = 0
    signal: float = 0.0
    noise: float = 0.0
    product: float = 0.0
    candidate_power: float = 0.0

    def update(self, reference: Array, candidate: Array, *, floor: float = 0.0) -> None:
        """Compare two answers.

        Args:
            reference: What is right.
            candidate: What is compared with it, of the same shape.
            floor: Differences of floats up to this size count as none in every ratio, only
                ``max_abs`` tells them: what a Sigmoid rounds at 1 swamps an answer of 1e-9.

        Raises:
            ValueError: They differ in shape, or one is text and the other is not.
        """
        if reference.shape != candidate.shape:
            raise ValueError(f"the shapes {reference.shape} and {candidate.shape} differ")
        if is_text(reference) != is_text(candidate):
            raise ValueError(f"{reference.dtype} and {candidate.dtype} cannot be compared")
        self.elements += reference.size
        if is_text(reference):
            self.differing += int(np.count_nonzero(reference != candidate))
        elif reference.dtype.kind in "iub" and candidate.dtype.kind in "iub":
            self._update_exact(reference, candidate)
        else:
            self._update_floats(as_floats(reference), as_floats(candidate), floor)
        if reference.ndim and reference.shape[-1] > 1 and not is_text(reference):
            self._update_top1(as_floats(reference), as_floats(candidate))

    def merge(self, other: Fidelity) -> None:
        """Take in what ``other`` has gathered."""
        for name in (field.name for field in fields(self)):
            join: Callable[[Any, Any], Any] = max if name.startswith("max_") else lambda a, b: a + b
            setattr(self, name, join(getattr(self, name), getattr(other, name)))

    @property
    def equal(self) -> bool:
        """Whether all elements are exactly equal, NaN being equal to NaN."""
        return self.differing == 0

    @property
    def sqnr_db(self) -> float:
        """The signal-to-noise ratio ``10 log10(sum a^2 / sum (a - b)^2)``, in decibels.

        Infinite where nothing differs; minus infinity where the reference is zero and the
        candidate is not.
        """
        if self.noise == 0:
            return math.inf
        if self.signal == 0:
            return -math.inf
        return 10 * (math.log10(self.signal) - math.log10(self.noise))

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between all answers, as two vectors; ``None`` if one is zero."""
        if self.signal == 0 or self.candidate_power == 0:
            return None
        return self.product / math.sqrt(self.signal) / math.sqrt(self.candidate_power)

    @property
    def top1_agreement(self) -> float | None:
        """The share of rows whose largest element is at the same place; ``None`` without rows."""
        return self.agreeing / self.rows if self.rows else None

    def to_json(self) -> dict[str, float | int | None]:
        """The metrics; ``null`` for what is infinite or does not apply.

        ``sqnr_db`` is ``null`` where the answers are equal (``max_abs`` is 0) and where the
        reference is zero.
        """
        values = {name: metric.of(self) for name, metric in METRICS.items()}
        finite = {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}
        return {**finite, "differing": self.differing, "misplaced": self.misplaced}

    def _update_exact(self, reference: Array, candidate: Array) -> None:
        for a, b in _chunks(reference, candidate):
            distance = _integer_distance(a, b)
            self.differing += int(np.count_nonzero(distance))
            self.max_abs = max(self.max_abs, float(distance.max()))
            self._add(a.astype(np.float64), b.astype(np.float64), distance, np.abs(a, dtype=float))

    def _update_floats(self, reference: Array, candidate: Array, floor: float) -> None:
        for a, b, scale in _chunks(reference, candidate, scale_of(reference)):
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            finite = np.isfinite(a) & np.isfinite(b)
            self.differing += int(a.size - np.count_nonzero(same))
            self.misplaced += int(np.count_nonzero(~finite & ~same))
            left, right = a[finite].astype(np.float64), b[finite].astype(np.float64)
            distance = np.abs(left - right)
            self.max_abs = max(self.max_abs, float(distance.max(initial=0)))
            rounding = distance <= floor
            distance[rounding], right[rounding] = 0, left[rounding]
            self._add(left, right, distance, np.maximum(np.abs(left), scale[finite]))

    def _add(self, a: Array, b: Array, distance: Array, against: Array) -> None:
        wrong = distance > 0
        with np.errstate(divide="ignore", over="ignore"):
            relative = distance[wrong] / against[wrong]
            self.max_rel = max(self.max_rel, float(relative.max(initial=0)))
            # Not np.dot: BLAS threads cost more than they save here, and sum adds pairwise.
            self.signal += float(np.sum(a * a))
            self.noise += float(np.sum(distance * distance))
            self.product += float(np.sum(a * b))
            self.candidate_power += float(np.sum(b * b))

    def _update_top1(self, reference: Array, candidate: Array) -> None:
        width = reference.shape[-1]
        rows = max(1, _CHUNK // width)
        left, right = reference.reshape(-1, width), candidate.reshape(-1, width)
        for start in range(0, len(left), rows):
            best = left[start : start + rows].argmax(axis=1)
            other = right[start : start + rows].argmax(axis=1)
            self.rows += best.size
            self.agreeing += int(np.count_nonzero(best == other))


def is_text(array: Array) -> bool:
    """Whether ``array`` holds text: objects, or NumPy's strings."""
    return array.dtype.kind in "OSUT"


def as_floats(array: Array) -> Array:
    """``array`` in a type that NumPy computes with: complex as pairs, ``bfloat16`` as float."""
    if array.dtype.kind == "c":
        pairs = np.ascontiguousarray(array).reshape(*array.shape, 1)
        return pairs.view(array.real.dtype)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def scale_of(array: Array) -> Array:
    """For every element the size of what surrounds it, the yardstick of rounding errors.

    That is the root mean square of the whole array, or of the slice across any one axis that the
    element lies in, whichever is least: one array may hold pixels and probabilities in different
    rows. Slices of fewer than 64 elements are not asked, chance makes some of them small.
    Elements that are not finite count as zero.
    """
    finite = np.where(np.isfinite(array), array, 0).astype(np.float64)
    peak = float(np.abs(finite).max(initial=0)) or 1.0
    power = np.square(finite / peak)
    least = np.full(array.shape, power.mean() if power.size else 0.0)
    for axis, length in enumerate(array.shape):
        if length > 1 and array.size >= 64 * length:
            others = tuple(other for other in range(array.ndim) if other != axis)
            np.minimum(least, power.mean(axis=others, keepdims=True), out=least)
    scale: Array = peak * np.sqrt(least)
    return scale


def _chunks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, _CHUNK):
        yield tuple(array[start : start + _CHUNK] for array in flat)


def _integer_distance(a: Array, b: Array) -> Array:
    """``|a - b|`` without overflow: differences of 64-bit integers fit in 64 bits unsigned."""
    if a.dtype != np.uint64 or b.dtype != np.uint64:
        a, b = a.astype(np.int64), b.astype(np.int64)
    low, high = np.minimum(a, b).astype(np.uint64), np.maximum(a, b).astype(np.uint64)
    return (high - low).astype(np.float64)


@dataclass(frozen=True)
class Metric:
    """A measure of nearness: how to read it off, and whether more of it is better."""

    of: Callable[[Fidelity], float | None]
    higher_is_better: bool


METRICS: dict[str, Metric] = {
    "max_abs": Metric(lambda fidelity: fidelity.max_abs, higher_is_better=False),
    "max_rel": Metric(lambda fidelity: fidelity.max_rel, higher_is_better=False),
    "sqnr_db": Metric(lambda fidelity: fidelity.sqnr_db, higher_is_better=True),
    "cosine": Metric(lambda fidelity: fidelity.cosine, higher_is_better=True),
    "top1_agreement": Metric(lambda fidelity: fidelity.top1_agreement, higher_is_better=True),
}
"""Every metric by the name that reports and the command line use."""
