"""Finds inputs that a model accepts, by asking the model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from .base import Array, Feeds
from .errors import BackendError
from .feeds import (
    SEQUENCE_LADDER,
    Dim,
    base_size,
    draw_feeds,
    elements,
    other_sizes,
    resolve_kinds,
    settle_dims,
    shape_at,
)
from .guess import fed_inputs
from .kinds import Kind

Run: TypeAlias = Callable[[Feeds], Mapping[Any, Array]]

_PROBES = 96
"""How many runs a search may take with values of one kind; most models are content with three."""


_COMMONEST = 8
"""How many of the numbers that stand in a model are tried as sizes."""

_RANK = 8
"""How many numbers a shape may have."""

_ELEMENTS = 1 << 24
"""How many elements the inputs of one run may have together."""

_GROWN = 1 << 22
"""How many they may have where sizes grew: what a model computes may be thousands of times larger,
and grow with the square of a size."""

_TIMES = 32
"""How many times the smallest inputs they may have in any case."""

_ROW = 64
"""So many elements an integer counts for where sizes grew: it may stand for a row of a table."""


@dataclass(frozen=True)
class Case:
    """Inputs that the model accepts, with what it answers.

    ``sizes`` holds the size of every dynamic dimension.
    """

    sizes: dict[str, int]
    feeds: Feeds
    answers: Mapping[Any, Array]


@dataclass
class Cases:
    """What a search found.

    Attributes:
        accepted: The inputs that ran; empty if none did.
        rejected: The sizes that did not, each with the error.
        kinds: The kinds of values that the accepted inputs are made of.
    """

    accepted: list[Case] = field(default_factory=list)
    rejected: list[tuple[dict[str, int], str]] = field(default_factory=list)
    kinds: dict[str, Kind] = field(default_factory=dict)


def find_cases(
    model: ir.Model,
    run: Run,
    *,
    dims: Mapping[str, int] | None = None,
    kinds: Mapping[str, str | Kind] | None = None,
    seed: int = 0,
    wanted: int = 3,
) -> Cases:
    """Find inputs that ``run`` accepts, at several sizes of every dynamic dimension.

    First the sizes grow, rung by rung, until some are accepted. If none are, a dimension may
    count something else than it seems to (a state's batch stands on its second axis), so each
    rung also tries other roles. Then come sizes that stand in the model: an exporter that traces
    may call a dimension dynamic and yet keep its size. Then come simpler values. From the
    accepted sizes all dimensions move together, else role by role (two inputs may have to agree),
    else one by one.

    Args:
        model: The model, for its inputs and for what it does with them.
        run: Runs it; raises ``BackendError`` for what it does not accept.
        dims: Sizes that are settled; these dimensions do not vary.
        kinds: Kinds of values by input name, instead of those guessed.
        seed: The root of every random choice.
        wanted: How many cases to find; inputs that choose a branch add one for each other choice.

    Raises:
        UsageError: ``dims`` or ``kinds`` names what the model does not have.
        DataError: An input is no tensor.
    """
    free, settled = settle_dims(model, dims)
    search = _Search(model, run, settled, seed, resolve_kinds(model, kinds))
    fixed = frozenset(kinds or {})
    base, roles = search.first(free, fixed)
    if base is None:
        return search.found
    search.more(base, roles, wanted)
    search.other_choices(base)
    search.found.kinds = search.kinds
    return search.found


class _Search:
    def __init__(
        self, model: ir.Model, run: Run, settled: dict[str, int], seed: int, kinds: dict[str, Kind]
    ) -> None:
        self.model = model
        self.run = run
        self.settled = settled
        self.seed = seed
        self.kinds = kinds
        self.found = Cases()
        self.refused: set[tuple[str, ...]] = set()
        self.left = _PROBES
        self.least = 0

    def probe(
        self, sizes: Mapping[str, int], case: int, turns: Mapping[str, int] | None = None
    ) -> Case | None:
        """Run once at ``sizes``; ``None`` if the model does not accept them."""
        full = self.settled | dict(sizes)
        known = tuple(map(str, (full, turns, self.kinds)))
        if self.left == 0 or known in self.refused:
            return None
        self.left -= 1
        size = elements(self.model, full)
        if size > _ELEMENTS or self.weight(full) > max(_GROWN, _TIMES * self.least):
            self.found.rejected.append((full, f"the inputs would take {size} elements"))
            return None
        feeds = draw_feeds(self.model, full, self.kinds, seed=self.seed, case=case, turns=turns)
        try:
            return Case(full, feeds, self.run(feeds))
        except BackendError as error:
            self.refused.add(known)
            self.found.rejected.append((full, error.message))
            return None

    def weight(self, sizes: Mapping[str, int]) -> int:
        """How many elements the inputs are worth at ``sizes``."""
        return sum(
            math.prod(shape_at(value, sizes))
            * (_ROW if value.dtype is not None and value.dtype.is_integer() else 1)
            for value in fed_inputs(self.model)
        )

    def first(
        self, free: list[Dim], fixed: frozenset[str]
    ) -> tuple[dict[str, int] | None, list[Dim]]:
        """The first sizes that are accepted, and the roles that the dimensions turn out to have.

        Answers that are not finite are a second choice: they show too little.
        """
        guessed, second = self.kinds, None
        smallest = {dim.name: base_size(dim, 0) for dim in free}
        self.least = self.weight(self.settled | smallest)
        for kinds in _simpler(guessed, fixed):
            self.kinds, self.left = kinds, _PROBES
            for roles, sizes in chain(_rungs(free), _kept(self.model, free)):
                case = self.probe(sizes, 0)
                if case is None:
                    continue
                if all(_finite(answer) for answer in case.answers.values()):
                    self.found.accepted.append(case)
                    return sizes, roles
                second = second or (kinds, roles, sizes, case)
                break
        if second is None:
            return None, free
        self.kinds, roles, sizes, case = second
        self.found.accepted.append(case)
        return sizes, roles

    def more(self, base: dict[str, int], dims: list[Dim], wanted: int) -> None:
        """Add cases until there are ``wanted``, at other sizes where there is anything to vary."""
        attempts = len(other_sizes(dims[0], 1)) if dims else 0
        for nth in range(attempts):
            case = self.moved(base, dims, nth)
            if case is not None:
                self.found.accepted.append(case)
            if len(self.found.accepted) == wanted:
                return
        for number in range(len(self.found.accepted), wanted):
            if (case := self.probe(base, number)) is not None:
                self.found.accepted.append(case)

    def moved(self, base: dict[str, int], dims: list[Dim], nth: int) -> Case | None:
        """A case at sizes other than ``base``: in all dimensions, or in as many as possible."""
        number = len(self.found.accepted)
        moves = {dim.name: other_sizes(dim, base[dim.name])[nth] for dim in dims}
        if (case := self.probe(base | moves, number)) is not None:
            return case
        sizes, best = base, None
        for role in dict.fromkeys(dim.role for dim in dims):
            names = [dim.name for dim in dims if dim.role == role]
            for group in [names] if len(names) == 1 else [names, *([name] for name in names)]:
                attempt = sizes | {name: moves[name] for name in group}
                if (case := self.probe(attempt, number)) is not None:
                    sizes, best = attempt, case
                    if group is names:
                        break
        return best

    def other_choices(self, base: dict[str, int]) -> None:
        """Add a case for each other option of an input that selects one: a rate, a branch."""
        for name, kind in self.kinds.items():
            if kind.name != "choice" or self.found.accepted[0].feeds[name].size != 1:
                continue
            for turn in range(1, min(4, len(kind.arguments))):
                # Every third case has normal floats: those of either sign show most of a branch.
                if (case := self.probe(base, 3 * turn, {name: turn})) is not None:
                    self.found.accepted.append(case)


def _rungs(free: list[Dim]) -> Iterator[tuple[list[Dim], dict[str, int]]]:
    """Sizes from small to large; on each rung the likely roles of the dimensions come first."""
    if not free:
        yield free, {}
        return
    for level in range(len(SEQUENCE_LADDER)):
        for roles in _role_choices(free):
            yield roles, {dim.name: base_size(dim, level) for dim in roles}


def _kept(model: ir.Model, free: list[Dim]) -> Iterator[tuple[list[Dim], dict[str, int]]]:
    """Sizes that the exporter may have kept: the commonest numbers among the model's integers."""
    numbers: Counter[int] = Counter()
    for graph in model.graphs():
        for value in graph.initializers.values():
            numbers.update(_integers(value.const_value))
        for node in graph:
            for attribute in node.attributes.values() if node.op_type == "Constant" else ():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    numbers.update(_integers(attribute.as_tensor()))
                elif attribute.name in {"value_int", "value_ints"} and not attribute.is_ref():
                    numbers.update(np.atleast_1d(attribute.value).tolist())
    common = [number for number, _ in numbers.most_common() if 1 < number <= SEQUENCE_LADDER[-1]]
    for batch in (False, True):
        for number in common[:_COMMONEST]:
            yield (
                free,
                {
                    dim.name: number if (dim.role == "batch") == batch else base_size(dim, 0)
                    for dim in free
                },
            )


def _integers(tensor: ir.TensorProtocol | None) -> list[int]:
    """The numbers in ``tensor`` if it can be a shape or a size, else none."""
    if tensor is None or tensor.dtype != ir.DataType.INT64 or tensor.size > _RANK:
        return []
    return [int(number) for number in tensor.numpy().reshape(-1)]


def _role_choices(free: list[Dim]) -> Iterator[list[Dim]]:
    """The roles as they seem, then with one dimension taken for something else, then with two.

    That a batch is taken for a length is the likelier mistake, so it is mended first.
    """
    yield free
    by_likelihood = sorted(free, key=lambda dim: dim.role == "batch")[:4]
    for count in (1, 2):
        for swapped in combinations(by_likelihood, count):
            yield [_swap(dim) if dim in swapped else dim for dim in free]


def _swap(dim: Dim) -> Dim:
    return replace(dim, role="sequence" if dim.role == "batch" else "batch")


def _simpler(kinds: dict[str, Kind], fixed: frozenset[str]) -> Iterator[dict[str, Kind]]:
    """The guessed kinds, then plainer ones for the inputs whose kind the user did not fix."""
    yield kinds
    for name, plain in (("floats", "uniform"), ("integers", "ones"), ("integers", "zeros")):
        loose = [key for key, kind in kinds.items() if kind.name == name and key not in fixed]
        if loose:
            yield kinds | dict.fromkeys(loose, Kind(plain))


def _finite(answer: Array) -> bool:
    return answer.dtype.kind not in "fc" or bool(np.isfinite(answer).all())
