"""Kinds of values an input can be fed with, as text and as seeded arrays.

========================  =======================================================================
``normal(mean,std)``      normally distributed; ``normal`` is ``normal(0,1)``
``uniform(low,high)``     evenly distributed; ``uniform`` is ``uniform(0,1)``
``outliers``              ``normal(0,0.1)``, one value in 64 eight times as large, one in 64 zero
``floats``                ``normal``, ``uniform`` and ``outliers`` in turn, from case to case
``integers(low,high)``    whole numbers from ``low`` to ``high - 1``, in whatever type is asked for
``constant(value)``       that value everywhere; ``zeros`` and ``ones`` for short
``choice(a,b,…)``         one of these: an array draws them, a single value is ``a`` first
``bools``                 true or false, evenly
``mask``                  along the last axis ones, then in some rows a tail of zeros
``lengths(high)``         whole numbers from 1 to ``high``, ``high`` itself first
``positions``             0, 1, 2, … along the last axis
``words``                 short texts, an empty one among them
========================  =======================================================================

An argument is a number, a text in double quotes, or the name of a dynamic dimension, which stands
for its size: ``integers(0,vocabulary)``.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .base import Array
from .errors import UsageError


@dataclass(frozen=True)
class Size:
    """The size of a dynamic dimension, known once the sizes of a run are chosen."""

    dim: str


Argument: TypeAlias = int | float | str | Size
"""A number, a text, or the size of a dimension."""


@dataclass(frozen=True)
class Kind:
    """How the values of one input are made; :func:`parse_kind` reads it, ``str`` writes it.

    Raises:
        UsageError: There is no such kind, or it takes another number of arguments.
    """

    name: str
    arguments: tuple[Argument, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in _MAKERS:
            raise UsageError(
                f"there is no kind of values {self.name!r}",
                hint=f"the kinds are {', '.join(_MAKERS)}",
            )
        _, counts = _MAKERS[self.name]
        if len(self.arguments) not in counts:
            wanted = " or ".join(map(str, counts)) if len(counts) <= 2 else "at least one"
            raise UsageError(f"{self.name} takes {wanted} arguments, not {len(self.arguments)}")

    def __str__(self) -> str:
        if not self.arguments:
            return self.name
        return f"{self.name}({','.join(_argument_text(one) for one in self.arguments)})"

    def draw(
        self,
        name: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        *,
        seed: int = 0,
        case: int = 0,
        turn: int = 0,
        sizes: Mapping[str, int] | None = None,
    ) -> Array:
        """Values for the input ``name``, the same for the same arguments on every machine.

        Args:
            name: The input; two inputs of one kind get different values.
            dtype: The type of the result; NumPy's ``object`` stands for strings.
            shape: The shape of the result.
            seed: The root of the random choice.
            case: Which of several runs this is for.
            turn: Which option a single value of kind ``choice`` takes.
            sizes: The sizes of the dimensions that arguments may name.

        Raises:
            UsageError: An argument names a dimension that ``sizes`` lacks, or the kind gives no
                values of type ``dtype``.
        """
        maker, _ = _MAKERS[self.name]
        rng = np.random.default_rng([seed, case, zlib.crc32(name.encode())])
        try:
            values = maker(_Draw(rng, shape, case, turn, _resolve(self.arguments, sizes or {})))
            return _cast(values, dtype)
        except (ValueError, TypeError, IndexError) as error:
            raise UsageError(f"{self} gives no {dtype} values for {name!r}: {error}") from error


def parse_kind(text: str) -> Kind:
    """Read a kind from its text: ``uniform(0,1)``, ``mask``, ``choice("a","b")``.

    Raises:
        UsageError: The text is not well formed, or names no kind, or has a wrong argument count.
    """
    found = re.fullmatch(r"\s*([a-z]+)\s*(?:\((.*)\))?\s*", text, re.DOTALL)
    if found is None:
        raise UsageError(f"{text!r} is no kind of values", hint="write it as uniform(0,1) or ones")
    return Kind(found[1], tuple(_arguments(found[2] or "", text)))


_ARGUMENT = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^",()\s][^",()]*?))\s*(,|$)')


def _arguments(inner: str, whole: str) -> list[Argument]:
    found: list[Argument] = []
    at, more = 0, bool(inner.strip())
    while more:
        match = _ARGUMENT.match(inner, at)
        if match is None:
            raise UsageError(f"{whole!r} is no kind of values: cannot read {inner[at:]!r}")
        quoted, bare, comma = match.groups()
        found.append(re.sub(r"\\(.)", r"\1", quoted) if bare is None else _number_or_size(bare))
        at, more = match.end(), comma == ","
    return found


def _number_or_size(text: str) -> int | float | Size:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return Size(text)


def _argument_text(argument: Argument) -> str:
    if isinstance(argument, Size):
        return argument.dim
    if isinstance(argument, str):
        escaped = argument.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(argument)


def _resolve(arguments: tuple[Argument, ...], sizes: Mapping[str, int]) -> list[Any]:
    missing = [one.dim for one in arguments if isinstance(one, Size) and one.dim not in sizes]
    if missing:
        raise UsageError(f"no size is known for the dimension {missing[0]!r}")
    return [sizes[one.dim] if isinstance(one, Size) else one for one in arguments]


@dataclass(frozen=True)
class _Draw:
    rng: np.random.Generator
    shape: tuple[int, ...]
    case: int
    turn: int
    arguments: list[Any]


_VOCABULARY = ("", "a", "The", "quick brown", "fox", "größe", "7", "jumps!")


def _normal(draw: _Draw) -> Array:
    mean, deviation = draw.arguments or (0, 1)
    return draw.rng.normal(mean, deviation, draw.shape)


def _uniform(draw: _Draw) -> Array:
    low, high = draw.arguments or (0, 1)
    return draw.rng.uniform(low, high, draw.shape)


def _outliers(draw: _Draw) -> Array:
    values = draw.rng.normal(0, 0.1, draw.shape)
    lot = draw.rng.integers(0, 64, draw.shape)
    return np.where(lot == 0, 0.0, np.where(lot == 1, 8 * values, values))


def _floats(draw: _Draw) -> Array:
    return (_normal, _uniform, _outliers)[draw.case % 3](draw)


def _integers(draw: _Draw) -> Array:
    low, high = (int(bound) for bound in draw.arguments)
    return draw.rng.integers(low, high, draw.shape)


def _choice(draw: _Draw) -> Array:
    options = np.array(draw.arguments, dtype=object)
    if math.prod(draw.shape) == 1:
        return np.full(draw.shape, options[draw.turn % len(options)], dtype=object)
    return options[draw.rng.integers(0, len(options), draw.shape)]


def _mask(draw: _Draw) -> Array:
    if not draw.shape:
        return np.ones(())
    *rows, length = draw.shape
    kept = draw.rng.integers((length + 1) // 2, length + 1, rows)
    kept.reshape(-1)[:1] = length
    return np.arange(length) < kept[..., None]


def _lengths(draw: _Draw) -> Array:
    high = int(draw.arguments[0])
    values = np.asarray(draw.rng.integers(1, high + 1, draw.shape))
    values.reshape(-1)[:1] = high
    return values


def _positions(draw: _Draw) -> Array:
    length = draw.shape[-1] if draw.shape else 1
    return np.broadcast_to(np.arange(length), draw.shape or (1,)).reshape(draw.shape)


def _words(draw: _Draw) -> Array:
    options = np.array(_VOCABULARY, dtype=object)
    return np.asarray(options[draw.rng.integers(0, len(options), draw.shape)], dtype=object)


def _cast(values: Array, dtype: np.dtype[Any]) -> Array:
    values = np.asarray(values)
    if dtype.kind == "O":
        texts = [value if isinstance(value, str) else f"{value:g}" for value in values.reshape(-1)]
        return np.array(texts, dtype=object).reshape(values.shape)
    if dtype.kind == "b":
        values = values.astype(np.float64) > 0
    if dtype.kind in "iu" and values.dtype.kind == "f":
        values = np.rint(values)
    if dtype.kind == "V" or values.dtype.kind == "O":
        values = values.astype(np.float64)
    return np.array(values, dtype)  # NumPy makes scalars of arrays without axes


_MANY = range(1, 1 << 16)
_MAKERS: dict[str, tuple[Callable[[_Draw], Array], tuple[int, ...] | range]] = {
    "normal": (_normal, (0, 2)),
    "uniform": (_uniform, (0, 2)),
    "outliers": (_outliers, (0,)),
    "floats": (_floats, (0,)),
    "integers": (_integers, (2,)),
    "constant": (lambda draw: np.full(draw.shape, draw.arguments[0]), (1,)),
    "zeros": (lambda draw: np.zeros(draw.shape), (0,)),
    "ones": (lambda draw: np.ones(draw.shape), (0,)),
    "choice": (_choice, _MANY),
    "bools": (lambda draw: draw.rng.integers(0, 2, draw.shape), (0,)),
    "mask": (_mask, (0,)),
    "lengths": (_lengths, (1,)),
    "positions": (_positions, (0,)),
    "words": (_words, (0,)),
}
