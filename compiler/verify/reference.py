"""The model that others are compared with: its answers, and how sure it is of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx_ir as ir

from ...backends.base import Array, Feeds, Provider, SessionConfig
from ...backends.errors import BackendError
from ...passes.analysis.cost import weight_bytes
from ...passes.analysis.fidelity import Fidelity, as_floats
from ...passes.base import SessionFactory
from .ancestry import counts_data, randomness
from .answers import Answers, Leaf, Runner
from .jitter import moved_feeds, moved_model
from .tolerance import Tolerance, deviation, tolerances

EXACTLY = SessionConfig(level="disabled", prepacking=False)
"""The session that says what is right: nothing is optimized, no weights are copied."""

LARGE = 500_000_000
"""From this many bytes of weights on no copies are made: the model is not moved, and the
optimized session does not pack its weights."""

_PAIRS = 2


def optimized(model: ir.Model, provider: Provider) -> SessionConfig:
    """The session that users deploy; it needs less memory where ``model`` is large."""
    return SessionConfig(provider=provider, prepacking=weight_bytes(model) <= LARGE)


class Reference:
    """The answers of a model on some feeds, and what its own rounding makes of them.

    Raises:
        BackendError: The model cannot be loaded, or does not run on one of the feeds.
    """

    def __init__(
        self,
        model: ir.Model,
        feeds: Sequence[Feeds],
        sessions: SessionFactory,
        provider: Provider = "cpu",
        answers: Sequence[Answers] | None = None,
    ) -> None:
        self.model = model.clone()
        self.feeds = list(feeds)
        self.sessions = sessions
        self.tolerances = tolerances(self.model)
        self.random = {
            value.name or "": reason
            for value in self.model.graph.outputs
            if (reason := randomness(self.model, value))
        }
        self.counted = {
            value.name for value in self.model.graph.outputs if counts_data(self.model, value)
        }
        if answers is None:
            runner = Runner(self.model, EXACTLY, sessions, inner=True)
            answers = [runner.run(one) for one in self.feeds]
            del runner
        self.answers = list(answers)
        self.optimized = self._optimized(optimized(self.model, provider))
        self._spreads: dict[int, dict[Leaf, Array | None]] = {}

    def _optimized(self, config: SessionConfig) -> list[Answers | BackendError]:
        try:
            runner = Runner(self.model, config, self.sessions, inner=False)
        except BackendError as error:
            return [error] * len(self.feeds)
        return [runner.attempt(one) for one in self.feeds]

    def tolerance(self, leaf: Leaf) -> Tolerance:
        """The tolerance for ``leaf``; what an activation squashes is not rounded at 1."""
        tolerance = self.tolerances[leaf.output]
        return replace(tolerance, floor=0.0) if leaf.part.startswith("before") else tolerance

    @cached_property
    def noise(self) -> dict[str, Fidelity]:
        """How far ONNX Runtime's default session is from the exact answers, per output."""
        found: dict[str, Fidelity] = {}
        for case, right in enumerate(self.answers):
            for leaf, array in right.items():
                if (other := self.own_answer(case, leaf)) is not None:
                    noise = found.setdefault(leaf.output, Fidelity())
                    noise.update(array, other, floor=self.tolerance(leaf).floor)
        return found

    def own_answer(self, case: int, leaf: Leaf) -> Array | None:
        """What the default session says, if it says something of the same shape."""
        other = self.optimized[case]
        if isinstance(other, BackendError) or leaf not in other:
            return None
        return other[leaf] if other[leaf].shape == self.answers[case][leaf].shape else None

    def spread(self, case: int, leaf: Leaf) -> Array | None:
        """How far the model's own answers lie apart when its numbers move by rounding errors.

        In deviations as :func:`~.tolerance.deviation` counts them; ``None`` where even the shape
        moves. The model is run with weights and inputs moved a little, forth and back, so that
        what lies on an edge falls to either side.
        """
        if case not in self._spreads:
            self._spreads[case] = self._measure(case)
        return self._spreads[case][leaf]

    def _measure(self, case: int) -> dict[Leaf, Array | None]:
        right = self.answers[case]
        spreads: dict[Leaf, Array | None] = {
            leaf: np.zeros(as_floats(array).shape) for leaf, array in right.items()
        }
        for answers in self._variants(case):
            for leaf, array in answers.items():
                so_far = spreads.get(leaf)
                if so_far is None:
                    continue
                if array.shape == right[leaf].shape:
                    off = deviation(right[leaf], array, self.tolerance(leaf).floor)
                    spreads[leaf] = np.maximum(so_far, off)
                else:
                    spreads[leaf] = None
        return spreads

    def _variants(self, case: int) -> Iterator[Answers]:
        if weight_bytes(self.model) > LARGE:
            return
        for pair in range(_PAIRS):
            for direction in (1, -1):
                answers = self._moved(case, pair, direction)
                if not isinstance(answers, BackendError):
                    yield answers

    def _moved(self, case: int, seed: int, direction: int) -> Answers | BackendError:
        model = moved_model(self.model, seed, direction)
        runner = Runner(model, EXACTLY, self.sessions, inner=True)
        return runner.attempt(moved_feeds(self.feeds[case], seed, direction))
