"""Pipelines as text and as passes, and the presets behind ``-O``.

The grammar, blanks allowed between any two tokens::

    pipeline := [ item { "," item } ]
    item     := "fixpoint" "{" pipeline "}" | name [ "{" option { "," option } "}" ]
    option   := key "=" value
    value    := "[" [ value { "," value } ] "]" | '"' … '"' | bare

``name`` is a pass from ``onnxpress passes`` or ``module:Class``. ``str(pipeline)`` gives the text
back, without the options that have their default.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, NoReturn, TypeAlias

import onnx_ir as ir

from ..backends.errors import PipelineError, UsageError
from ..backends.targets import Target
from ..passes import registry
from ..passes.base import Pass, option_text

Option: TypeAlias = bool | int | float | str | tuple[Any, ...]

FIXPOINT_LIMIT = 10
"""How often a ``fixpoint`` group runs at most; a group still changing then is left as it is."""


@dataclass(frozen=True)
class Step:
    """One pass of a pipeline, under the name it was asked for by."""

    name: str
    run: ir.passes.PassBase
    options: tuple[tuple[str, Option], ...] = ()

    def __str__(self) -> str:
        if isinstance(self.run, Pass) and self.name == self.run.name:
            return str(self.run)
        inner = ",".join(f"{key}={option_text(value)}" for key, value in self.options)
        return f"{self.name}{{{inner}}}" if inner else self.name

    def all_options(self) -> dict[str, Option]:
        """Every option with its value, defaults included, for the report."""
        if isinstance(self.run, Pass):
            return {option.name: getattr(self.run, option.name) for option in fields(self.run)}
        return dict(self.options)


@dataclass(frozen=True)
class Fixpoint:
    """Steps that are repeated until none of them changes the model any more."""

    steps: Pipeline

    def __str__(self) -> str:
        return f"fixpoint{{{self.steps}}}"


@dataclass(frozen=True)
class Pipeline:
    """What the manager runs, in order."""

    items: tuple[Step | Fixpoint, ...] = ()

    def __str__(self) -> str:
        return ",".join(str(item) for item in self.items)

    def __iter__(self) -> Iterator[Step | Fixpoint]:
        return iter(self.items)

    def __add__(self, other: Pipeline) -> Pipeline:
        return Pipeline(self.items + other.items)

    def steps(self) -> Iterator[Step]:
        """Every step once, those inside fixpoint groups included."""
        for item in self.items:
            if isinstance(item, Fixpoint):
                yield from item.steps.steps()
            else:
                yield item


def as_pipeline(passes: str | Pipeline | Iterable[ir.passes.PassBase]) -> Pipeline:
    """A pipeline from text, from passes in order, or from a pipeline.

    Raises:
        PipelineError: The text is not well formed or names something unknown.
    """
    if isinstance(passes, Pipeline):
        return passes
    if isinstance(passes, str):
        return parse(passes)
    return Pipeline(tuple(Step(_name_of(one), one) for one in passes))


def _name_of(one: ir.passes.PassBase) -> str:
    if isinstance(one, Pass):
        return one.name
    return f"{type(one).__module__}:{type(one).__qualname__}"


def preset(level: int, target: Target) -> Pipeline:
    """The pipeline of ``-O level``.

    Level 0 is empty. Level 1 is lossless and leaves standard operators only, as few as it can: it
    stores weights that nodes compute. Level 2 is lossless for the target: it also writes what that
    runs fastest, and lets onnxsim try its own rules, as one more step that is checked.
    Level 3 starts from level 2's pipeline.

    Raises:
        UsageError: ``level`` is not 0, 1, 2 or 3.
    """
    if level not in range(4):
        raise UsageError(f"there is no optimization level {level}", hint="-O takes 0, 1, 2 or 3")
    if level == 0:
        return Pipeline()
    if level == 1 or target.name == "portable":
        return parse(f"{_ALL_STORED},{_STRUCTURE}")
    return parse(
        f"inline-functions,batch-slices,{_FOR_TARGET},{_STRUCTURE},{_OF_NEWER_VERSIONS},"
        "fuse-siblings,simplify-with-onnxsim,fold-constants,fill-blocks,conv-heads,widen-convs,"
        "simplify-layout,cleanup,name-sizes"
    )


_ALGEBRA = "fold-constants,recognize-activations,fold-affine,cleanup"
"""Activations before factors: a division that is folded hides the activation it belonged to. And
factors before equal nodes are merged, which makes layers that nothing can be folded into."""
_ALL_STORED = _ALGEBRA.replace("fold-constants", f"fold-constants{{max_weight={2**30}}}")
"""Weights that nodes compute from little are stored, whatever their size: fewest nodes."""
_FOR_TARGET = _ALGEBRA.replace("recognize-activations", "recognize-activations{for_target=true}")
_OF_NEWER_VERSIONS = "fuse-attention,recognize-activations{for_target=true}"
"""The first may raise the version of the operators, and there are more operators to write then."""
_STRUCTURE = (
    "simplify-layout,simplify-indexing,fold-affine,compose-layers,merge-branches,fuse-gemm,simplify-shapes,"
    "hoist-invariants,fold-constants,cleanup"
)


def choose(passes: str | None, level: int | None, target: Target) -> Pipeline:
    """The pipeline that ``--passes`` or ``-O`` asks for; level 2's by default.

    Raises:
        UsageError: Both are given, or the level does not exist.
        PipelineError: ``passes`` is not well formed.
    """
    if passes is None:
        return preset(2 if level is None else level, target)
    if level is not None:
        raise UsageError("-O and --passes exclude each other: a level is a pipeline of its own")
    return parse(passes)


def parse(text: str) -> Pipeline:
    """Read pipeline text.

    Raises:
        PipelineError: The text is not well formed, or names an unknown pass or option, or gives
            an option a value that it cannot have. The message shows the place.
    """
    reader = _Reader(text)
    pipeline = reader.pipeline()
    reader.end()
    return pipeline


_NAME = re.compile(r"[A-Za-z_][\w.:-]*")
_BARE = re.compile(r"[^\s,{}\[\]\"=]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


class _Reader:
    """A recursive-descent reader of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, what: str, at: int | None = None, hint: str = "") -> NoReturn:
        column = self.at if at is None else at
        shown = f"{what}, at column {column + 1}\n  {self.text}\n  {' ' * column}^"
        raise PipelineError(shown, hint=hint)

    def blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def take(self, mark: str) -> bool:
        self.blanks()
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def expect(self, mark: str) -> None:
        if not self.take(mark):
            found = repr(self.text[self.at]) if self.at < len(self.text) else "the end"
            self.fail(f"expected {mark!r}, found {found}")

    def match(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        self.blanks()
        found = pattern.match(self.text, self.at)
        if found is None:
            self.fail(f"expected {what}")
        self.at = found.end()
        return found

    def end(self) -> None:
        self.blanks()
        if self.at < len(self.text):
            self.fail(f"unexpected {self.text[self.at]!r}")

    def pipeline(self) -> Pipeline:
        self.blanks()
        if self.at == len(self.text) or self.text[self.at] == "}":
            return Pipeline()
        items = [self.item()]
        while self.take(","):
            items.append(self.item())
        return Pipeline(tuple(items))

    def item(self) -> Step | Fixpoint:
        self.blanks()
        start = self.at
        name = self.match(_NAME, "the name of a pass")[0]
        if name == "fixpoint":
            self.expect("{")
            inner = self.pipeline()
            self.expect("}")
            return Fixpoint(inner)
        try:
            cls = registry.find(name)
        except PipelineError as error:
            self.fail(error.message, start, error.hint)
        options = self.options(cls, name) if self.take("{") else ()
        try:
            return Step(name, cls(**dict(options)), options)
        except (UsageError, TypeError, ValueError) as error:
            hint = error.hint if isinstance(error, UsageError) else ""
            self.fail(f"{name}: {error}", start, hint)

    def options(self, cls: type[ir.passes.PassBase], name: str) -> tuple[tuple[str, Option], ...]:
        found: list[tuple[str, Option]] = []
        if self.take("}"):
            return ()
        while True:
            self.blanks()
            start = self.at
            key = self.match(_NAME, "the name of an option")[0]
            self.expect("=")
            self.blanks()
            value_at = self.at
            raw = self.value()
            if any(key == known for known, _ in found):
                self.fail(f"{name}: the option {key!r} is given twice", start)
            try:
                found.append((key, _typed(cls, key, raw)))
            except KeyError as error:
                self.fail(f"{name} has no option {key!r}", start, str(error.args[0]))
            except ValueError as error:
                self.fail(f"{name}: {key} {error}", value_at)
            if self.take("}"):
                return tuple(found)
            self.expect(",")

    def value(self) -> str | list[Any]:
        if self.take("["):
            items: list[Any] = []
            while not self.take("]"):
                if items:
                    self.expect(",")
                items.append(self.value())
            return items
        self.blanks()
        if self.text.startswith('"', self.at):
            return re.sub(r"\\(.)", r"\1", self.match(_QUOTED, 'a closing "')[1])
        return self.match(_BARE, "a value")[0]


def _typed(cls: type[ir.passes.PassBase], key: str, raw: str | list[Any]) -> Option:
    """``raw`` as the type that the option ``key`` of ``cls`` declares."""
    if not issubclass(cls, Pass):
        return _guess(raw)
    known = [option.name for option in fields(cls)]
    if key not in known:
        raise KeyError(f"its options are {', '.join(known)}" if known else "it has no options")
    return _convert(typing.get_type_hints(cls)[key], raw)


def _convert(kind: Any, raw: str | list[Any]) -> Option:
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        inner = [one for one in typing.get_args(kind) if one is not type(None)]
        return _convert(inner[0], raw)
    if origin is tuple:
        items = raw if isinstance(raw, list) else [raw]
        return tuple(_convert(typing.get_args(kind)[0], item) for item in items)
    if isinstance(raw, list):
        raise ValueError("takes one value, not a list")
    if origin is typing.Literal:
        choices = typing.get_args(kind)
        for choice in choices:
            if str(choice) == raw:
                return typing.cast("Option", choice)
        raise ValueError(f"is one of {', '.join(map(str, choices))}, not {raw!r}")
    if kind is bool:
        if raw.lower() in {"true", "false"}:
            return raw.lower() == "true"
        raise ValueError(f"is true or false, not {raw!r}")
    if kind in {int, float}:
        try:
            return typing.cast("int | float", kind(raw))
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"is {what}, not {raw!r}") from None
    return raw


def _guess(raw: str | list[Any]) -> Option:
    """The value of an option whose type is not declared: true, false, a number, or text."""
    if isinstance(raw, list):
        return tuple(_guess(item) for item in raw)
    if raw.lower() in {"true", "false"}:
        return raw.lower() == "true"
    for kind in (int, float):
        try:
            return kind(raw)
        except ValueError:
            continue
    return raw
