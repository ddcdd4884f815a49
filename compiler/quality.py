"""How good the answers of a rewritten model are, by the measure that a user names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from ..backends.base import Array, Feeds, Session, SessionConfig
from ..backends.data import Data
from ..backends.data_function import load_function
from ..backends.errors import DataError, UsageError
from ..backends.ort import session_of
from ..passes.analysis.fidelity import METRICS, Fidelity, is_text
from ..passes.quantization.observers import batches_of

BLOCK = 8
HELD = 4
"""One of so many blocks of :data:`BLOCK` samples is held out from calibration."""

BUILT_IN = ("sqnr", "cosine", "top1-agreement", "accuracy")

Judge: TypeAlias = Callable[[Callable[[Feeds], dict[str, Array]]], float]
"""A user's own measure: given what runs the model, a number of which more is better."""


@dataclass(frozen=True)
class Part:
    """The samples of ``data`` that are held out, or those that are not."""

    data: Data
    held: bool

    def batches(self, size: int) -> Iterator[Feeds]:
        """Whole blocks of samples: which ones does not depend on ``size``."""
        step = next(one for one in (8, 4, 2, 1) if one <= max(size, 1))
        seen = 0
        for feeds in self.data.batches(step):
            if _is_held(seen) == self.held:
                yield feeds
            seen += max((len(array) for array in feeds.values() if array.ndim), default=1)

    def pick(self, array: Array) -> Array:
        """The entries of ``array``, one for each sample of the whole, that go with this part."""
        chosen = [index for index in range(len(array)) if _is_held(index) == self.held]
        return np.asarray(array[chosen])


def _is_held(sample: int) -> bool:
    return sample // BLOCK % HELD == HELD - 1


@dataclass(frozen=True)
class Demand:
    """What the answers have to be worth.

    Attributes:
        max_drop: How much worse than the original by ``metric``. For ``sqnr``, where the original
            has no noise to compare with, the least ratio in decibels.
        metric: ``sqnr``, ``cosine`` or ``top1-agreement`` with the original's answers;
            ``accuracy``, the share of samples whose largest answer is at their label; or
            ``module:function``, which is called with a function that runs the model on feeds, and
            gives a number of which more is better.
        labels: One whole number for each sample, for ``accuracy``.
    """

    max_drop: float
    metric: str = "top1-agreement"
    labels: Array | None = None

    def __post_init__(self) -> None:
        if self.metric not in BUILT_IN and ":" not in self.metric:
            raise UsageError(
                f"there is no metric {self.metric!r}",
                hint=f"it is one of {', '.join(BUILT_IN)}, or module:function",
            )
        if (self.metric == "accuracy") != (self.labels is not None):
            raise UsageError("the metric accuracy needs labels, and only that does")
        if self.labels is not None and (
            self.labels.ndim != 1 or self.labels.dtype.kind not in "iu"
        ):
            raise DataError("labels are one whole number for each sample")
        if not self.max_drop >= 0:
            raise UsageError(f"a drop of {self.max_drop} is not zero or more")


class Quality:
    """Measures models against ``original`` on samples that calibration does not see.

    Args:
        demand: What is measured, and how much is enough.
        original: The model whose answers are right, or whose accuracy is to be kept.
        data: The held-out samples.
        config: How sessions run.
    """

    def __init__(
        self,
        demand: Demand,
        original: ir.Model,
        data: Data,
        config: SessionConfig = SessionConfig(),  # noqa: B008
    ) -> None:
        self.demand = demand
        self._original = original
        self._data = data
        self._config = config

    def value(self, model: ir.Model) -> float:
        """What ``model`` is worth, in a default session; more is better.

        Raises:
            DataError: There are no held-out samples, or they do not fit the labels.
            BackendError: The model does not run.
        """
        metric, session = self.demand.metric, session_of(model, self._config)
        if metric == "accuracy":
            return self._accuracy(session)
        if metric not in BUILT_IN:
            judge: Judge = load_function(metric)
            return float(judge(session.run))
        return self._nearness(session)

    @cached_property
    def reference(self) -> float:
        """What the original is worth; for ``sqnr`` infinitely much."""
        if self.demand.metric in BUILT_IN[:3]:
            return np.inf if self.demand.metric == "sqnr" else 1.0
        return self.value(self._original)

    def enough(self, value: float) -> bool:
        """Whether a model that is worth ``value`` is good enough."""
        if self.demand.metric == "sqnr":
            return value >= self.demand.max_drop
        return self.reference - value <= self.demand.max_drop + 1e-9

    @cached_property
    def _exact(self) -> Session:
        return session_of(self._original, self._config)

    def _feeds(self) -> Iterator[Feeds]:
        empty = True
        for feeds, _ in batches_of(self._original, self._data, 0, BLOCK):
            empty = False
            yield feeds
        if empty:
            raise DataError(
                "there are too few samples to hold some out, which accuracy is measured on",
                hint=f"give at least {BLOCK * HELD}",
            )

    def _nearness(self, session: Session) -> float:
        """The worst of all outputs."""
        found: dict[str, Fidelity] = {}
        for feeds in self._feeds():
            answers = session.run(feeds)
            for name, right in self._exact.run(feeds).items():
                if not is_text(right) and right.shape == answers[name].shape:
                    found.setdefault(name, Fidelity()).update(right, answers[name])
        name = self.demand.metric.replace("sqnr", "sqnr_db").replace("-", "_")
        values: list[float | None] = [METRICS[name].of(one) for one in found.values()]
        known = [value for value in values if value is not None]
        if not known:
            raise UsageError(f"no output of the model has a {self.demand.metric}")
        return float(min(known))

    def _accuracy(self, session: Session) -> float:
        labels = np.asarray(self.demand.labels)
        labels = self._data.pick(labels) if isinstance(self._data, Part) else labels
        right, at = 0, 0
        for feeds in self._feeds():
            answer = next(iter(session.run(feeds).values()))
            best = answer.reshape(len(answer), -1).argmax(axis=1)
            expected = labels[at : at + len(best)]
            if len(expected) < len(best):
                raise DataError(f"there are {len(labels)} labels for more samples")
            right += int((best == expected).sum())
            at += len(best)
        return right / at
