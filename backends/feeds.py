"""Seeded inputs that a model can be run with, at several sizes of its dynamic dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from .base import Array, Feeds
from .errors import DataError, UsageError
from .guess import fed_inputs, guess_kinds
from .kinds import Kind, parse_kind
from .serde import MAP_TYPE

__all__ = ["Dim", "Kind", "dynamic_dims", "parse_kind", "plan_sizes", "seeded_feeds", "sizes_in"]

Role: TypeAlias = Literal["batch", "space", "sequence"]


@dataclass(frozen=True)
class Dim:
    """A dynamic dimension: its name, what it seems to count, and where it stands.

    One that the model leaves without a name is called ``input[axis]``.
    """

    name: str
    role: Role
    axis: int
    inputs: tuple[str, ...]


_BATCH_NAMES = frozenset({"batch", "batch_size", "batchsize", "n", "b", "bs", "num", "none"})


def dynamic_dims(model: ir.Model) -> list[Dim]:
    """The dynamic dimensions of the inputs, in the order in which they are met.

    A dimension whose name is an expression of others (``past + 1``) is not listed: it follows.
    """
    found: dict[str, Dim] = {}
    for value in fed_inputs(model):
        shape = shape_of(value)
        for axis, dim in enumerate(shape):
            if isinstance(dim, int) or (isinstance(dim, ir.SymbolicDim) and _is_expression(dim)):
                continue
            name = _dim_name(value, axis, dim)
            before = found.get(name)
            inputs = (*(before.inputs if before else ()), value.name or "")
            role = before.role if before else _role(name, axis, len(shape))
            found[name] = Dim(name, role, before.axis if before else axis, inputs)
    return list(found.values())


def shape_of(value: ir.Value) -> list[int | ir.SymbolicDim]:
    """The declared shape of an input; two dynamic dimensions where even the rank is unknown.

    A negative size counts as dynamic, which is how Paddle's exporter writes it.

    Raises:
        DataError: The input is no tensor, so that no array can be fed to it.
    """
    if MAP_TYPE in value.meta or not isinstance(value.type, (ir.TensorType, type(None))):
        raise DataError(
            f"the input {value.name!r} is no tensor, so its values cannot be made up",
            hint="give samples with --data",
        )
    if value.shape is None:
        return [ir.SymbolicDim(None), ir.SymbolicDim(None)]
    return [
        ir.SymbolicDim(None) if isinstance(dim, int) and dim < 0 else dim for dim in value.shape
    ]


def _dim_name(value: ir.Value, axis: int, dim: ir.SymbolicDim) -> str:
    return dim.value if dim.value and dim.value != "?" else f"{value.name}[{axis}]"


def _symbols(dim: ir.SymbolicDim) -> frozenset[str]:
    try:
        return frozenset(dim.free_symbols())
    except ValueError:  # a name such as "batch size" is no expression
        return frozenset({dim.value or ""})


def _is_expression(dim: ir.SymbolicDim) -> bool:
    return dim.value not in {None, "", "?"} and _symbols(dim) != {dim.value}


def _role(name: str, axis: int, rank: int) -> Role:
    if name.lower() in _BATCH_NAMES or (axis == 0 and rank > 1):
        return "batch"
    return "space" if rank > 3 else "sequence"


SPACE_LADDER = ((64, 96), (128, 160), (224, 256), (320, 384), (640, 640))
"""Heights and widths to try, small first: multiples of 32, because most networks of images halve
their input five times; different from each other, so that a mix-up of the two shows."""
SEQUENCE_LADDER = (16, 64, 256, 512, 1024, 4096, 16000)
"""Lengths of sequences and signals to try, small first."""


def base_size(dim: Dim, level: int) -> int:
    """The size of ``dim`` on rung ``level`` of its ladder."""
    if dim.role == "batch":
        return 1
    if dim.role == "space":
        return SPACE_LADDER[min(level, len(SPACE_LADDER) - 1)][dim.axis % 2]
    return SEQUENCE_LADDER[min(level, len(SEQUENCE_LADDER) - 1)]


def other_sizes(dim: Dim, base: int) -> tuple[int, ...]:
    """Sizes of ``dim`` other than ``base``, in the order in which to try them."""
    if dim.role == "batch":
        return (base + 1, base + 2, 2 * base + 3)
    if dim.role == "space":
        return (base + 32, 2 * base, max(32, base - 32))
    return (base + 5, base - 5, 2 * base)


def plan_sizes(model: ir.Model, dims: Mapping[str, int] | None = None) -> list[dict[str, int]]:
    """Three assignments of sizes to the dynamic dimensions, all different; one if there is none.

    They are a guess from names and ranks; :func:`~.search.find_cases` asks the model itself.

    Args:
        model: The model whose inputs are planned.
        dims: Sizes that are settled; these dimensions do not vary.

    Raises:
        UsageError: ``dims`` names a dimension that the model does not have, or a size below 1.
    """
    free, settled = settle_dims(model, dims)
    base = {dim.name: base_size(dim, 0) for dim in free}
    plans = [settled | base]
    if free:
        plans += [
            settled | {dim.name: other_sizes(dim, base[dim.name])[nth] for dim in free}
            for nth in range(2)
        ]
    return plans


def settle_dims(
    model: ir.Model, dims: Mapping[str, int] | None
) -> tuple[list[Dim], dict[str, int]]:
    """The dimensions that may vary, and the sizes of those that ``dims`` settles.

    Raises:
        UsageError: As for :func:`plan_sizes`.
    """
    known = dynamic_dims(model)
    for name, size in (dims or {}).items():
        if name not in {dim.name for dim in known}:
            names = ", ".join(dim.name for dim in known)
            raise UsageError(
                f"no input has a dynamic dimension {name!r}",
                hint=f"the dynamic dimensions are {names}" if names else "all shapes are fixed",
            )
        if size < 1:
            raise UsageError(f"the dimension {name!r} cannot have size {size}")
    settled = dict(dims or {})
    return [dim for dim in known if dim.name not in settled], settled


def sizes_in(model: ir.Model, feeds: Feeds) -> dict[str, int]:
    """The size of every dynamic dimension that ``feeds`` come with."""
    found: dict[str, int] = {}
    for value in fed_inputs(model):
        array = feeds.get(value.name or "")
        if array is None or value.shape is None:
            continue
        for axis, (dim, size) in enumerate(zip(shape_of(value), array.shape, strict=False)):
            if not isinstance(dim, int) and not _is_expression(dim):
                found.setdefault(_dim_name(value, axis, dim), size)
    return found


def seeded_feeds(
    model: ir.Model,
    *,
    sizes: Sequence[Mapping[str, int]] | None = None,
    dims: Mapping[str, int] | None = None,
    kinds: Mapping[str, str | Kind] | None = None,
    seed: int = 0,
    count: int = 1,
) -> list[Feeds]:
    """Make inputs, the same for the same arguments on every machine.

    Args:
        model: The model to feed. Inputs that have an initializer as default are left out.
        sizes: The size of every dynamic dimension, once per feed; :func:`plan_sizes` by default.
        dims: Sizes that are settled in the default plan.
        kinds: Kinds of values by input name, instead of those guessed from the graph; as text
            (:mod:`.kinds`) or parsed.
        seed: The root of every random choice.
        count: How many feeds to make for each assignment of sizes.

    Raises:
        UsageError: A kind or a size is not well formed, or names no input or dimension.
        DataError: An input is no tensor.
    """
    chosen = resolve_kinds(model, kinds)
    plans = plan_sizes(model, dims) if sizes is None else sizes
    return [
        draw_feeds(model, plan, chosen, seed=seed, case=index * count + repeat)
        for index, plan in enumerate(plans)
        for repeat in range(count)
    ]


def resolve_kinds(model: ir.Model, kinds: Mapping[str, str | Kind] | None) -> dict[str, Kind]:
    """The guessed kind of every input, with ``kinds`` in their place where given.

    Raises:
        UsageError: ``kinds`` names no input that is fed, or a text is not well formed.
    """
    guessed = guess_kinds(model)
    for name in kinds or {}:
        if name not in guessed:
            raise UsageError(
                f"the model has no input {name!r} to feed",
                hint=f"its inputs are {', '.join(guessed)}" if guessed else "it has no inputs",
            )
    given = {
        name: parse_kind(kind) if isinstance(kind, str) else kind
        for name, kind in (kinds or {}).items()
    }
    return guessed | given


def draw_feeds(
    model: ir.Model,
    sizes: Mapping[str, int],
    kinds: Mapping[str, Kind],
    *,
    seed: int = 0,
    case: int = 0,
    turns: Mapping[str, int] | None = None,
) -> Feeds:
    """One array per input that must be fed.

    Args:
        model: The model to feed.
        sizes: The size of every dynamic dimension.
        kinds: The kind of values of every input.
        seed: The root of every random choice.
        case: Which of several runs this is for.
        turns: Which option a single value of kind ``choice`` takes; the first by default.

    Raises:
        UsageError: ``sizes`` lacks a dimension.
    """
    feeds: dict[str, Array] = {}
    for value in fed_inputs(model):
        name = value.name or ""
        shape = shape_at(value, sizes)
        dtype = np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()
        turn = (turns or {}).get(name, 0)
        feeds[name] = kinds[name].draw(
            name, dtype, shape, seed=seed, case=case, turn=turn, sizes=sizes
        )
    return feeds


def elements(model: ir.Model, sizes: Mapping[str, int]) -> int:
    """How many elements all inputs have together, at ``sizes``.

    Raises:
        UsageError: ``sizes`` lacks a dimension.
    """
    return sum(math.prod(shape_at(value, sizes)) for value in fed_inputs(model))


def shape_at(value: ir.Value, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of an input where its dynamic dimensions have ``sizes``.

    Raises:
        UsageError: ``sizes`` lacks a dimension.
        DataError: The input is no tensor.
    """
    return tuple(_size(value, axis, dim, sizes) for axis, dim in enumerate(shape_of(value)))


def _size(value: ir.Value, axis: int, dim: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    name = _dim_name(value, axis, dim)
    if name in sizes:
        return sizes[name]
    if _is_expression(dim):
        size = dim.evaluate(dict(sizes))
        if isinstance(size, int):
            return size
    raise UsageError(f"no size is given for the dimension {name!r} of the input {value.name!r}")
