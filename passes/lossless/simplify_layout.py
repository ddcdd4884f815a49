"""Fewer transposes and reshapes: merged, cancelled, or moved to where they cancel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from ..analysis.partial import Dims
from ..analysis.values import Facts
from ..base import Context, Pass, Result
from ..graph import feeds_only, is_op, nodes_of
from .constants import drop_unused
from .movement import Places, is_settled, numbers, permutation
from .sinking import sink_all
from .sinking_rules import RULES
from .view_forms import Move, Moves, shortest
from .views import VIEWS, NoViewError, View

_LONGEST = 32
"""Rows of more operators are looked at in parts."""


@dataclass(frozen=True)
class SimplifyLayout(Pass):
    """Write rows of ``Transpose``, ``Reshape``, ``Squeeze``, ``Unsqueeze`` and ``Flatten`` shorter.

    What a row does to the sizes of its input, known numbers and names alike, is followed factor by
    factor; then the fewest operators that do the same take its place, none at all if nothing
    moves. ::

        Reshape(Transpose(Reshape(x: [N, 3, 8, 4], [-1, 8, 4]), [0, 2, 1]), [-1, 3, 4, 8])
                = Transpose(x, [0, 1, 3, 2])
        Transpose(Unsqueeze(x: [N, 8, 4], 0), [1, 0, 3, 2])  =  …
        Transpose(x: [N, 1, 8], [0, 2, 1])  =  Reshape(x, [0, 8, 1])

    Targets are constants, with 0 for a size that is copied and -1 for one that is left over, and
    mean the same for empty tensors too. Declined: sizes that a constant target cannot say.
    """

    name: ClassVar[str] = "simplify-layout"
    summary: ClassVar[str] = "merge and cancel transposes and reshapes"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Shorten every row of operators that only move elements."""
        del context
        result = Result(model)
        if not any(is_op(node, *VIEWS) for node in nodes_of(model)):
            return result
        facts = Facts(model)
        _shorten_all(model, facts, result)
        done = len(result.rewritten)
        sink_all(model, facts, RULES, result)
        if len(result.rewritten) > done:
            _shorten_all(model, facts, result)
        return result


def _shorten_all(model: ir.Model, facts: Facts, result: Result) -> None:
    places = Places(model)
    for node in nodes_of(model):
        if is_op(node, *VIEWS) and is_settled(node):
            _shorten(node, facts, places, result)


def _shorten(node: ir.Node, facts: Facts, places: Places, result: Result) -> None:
    row = _row(node)
    found = _known_target(row, facts) or _shorter(row, facts)
    if found is None:
        return
    source, moves = found
    if source is None:
        return
    result.rewrote(node)
    place = places.before(node)
    value = source
    for move in moves:
        value = move.write(place, value)
    place.answer(value)
    drop_unused(node.outputs[0])


def _row(node: ir.Node) -> list[ir.Node]:
    """The operators in a row that end in ``node``."""
    row = [node]
    while len(row) < _LONGEST:
        source = row[-1].inputs[0]
        before = None if source is None else source.producer()
        if not is_op(before, *VIEWS) or not is_settled(before) or before.graph is not node.graph:
            break
        row.append(before)
    return row[::-1]


def _known_target(row: list[ir.Node], facts: Facts) -> tuple[ir.Value | None, Moves] | None:
    """The target of a ``Reshape`` that ends a row without transposes; those before do nothing."""
    last, first = row[-1], len(row) - 1
    target = numbers(last, 1, "shape") if is_op(last, "Reshape") else None
    while first and not is_op(row[first - 1], "Transpose"):
        first -= 1
    if target is None or first == len(row) - 1:
        return None
    source, copied = row[first].inputs[0], last.inputs[0]
    if 0 in target:
        dims = [None if value is None else _dims(value, facts) for value in (source, copied)]
        if last.attributes.get_int("allowzero", 0) != 0:
            return None
        for place in (place for place, size in enumerate(target) if size == 0):
            ahead, here = (None if d is None or place >= len(d) else d[place] for d in dims)
            if here is None or here == 0 or (isinstance(here, str) and here != ahead):
                return None
            target[place] = 0 if isinstance(here, str) else here
    return source, (Move("Reshape", tuple(target)),)


def _shorter(row: list[ir.Node], facts: Facts) -> tuple[ir.Value | None, Moves] | None:
    """What does the same as the end of ``row``, from as early as possible, with less."""
    first = 0
    while first < len(row):
        source, part = row[first].inputs[0], row[first:]
        moves, failed = _moves(part, source, facts)
        if moves is None:
            first += max(failed, 1)
            continue
        if _effort(moves) < (len(part), sum(is_op(node, "Transpose") for node in part)):
            return (source, moves) if len(moves) <= _spared(part) else None
        first += 1
    return None


def _effort(moves: Moves) -> tuple[int, int]:
    return len(moves), sum(move.kind == "Transpose" for move in moves)


def _spared(row: list[ir.Node]) -> int:
    """How many nodes of ``row`` nothing needs once its answer comes from elsewhere."""
    spared = 1
    while spared < len(row) and feeds_only(row[-spared - 1].outputs[0], row[-spared]):
        spared += 1
    return spared


def _moves(row: list[ir.Node], source: ir.Value | None, facts: Facts) -> tuple[Moves | None, int]:
    """The fewest operators that do what ``row`` does, or after how many it cannot be told."""
    if source is None:
        return None, 1
    dims = _dims(source, facts)
    if dims is None and is_op(row[0], "Transpose") and (perm := permutation(row[0])) is not None:
        dims = tuple(f"{source.name}:{axis}" for axis in range(len(perm)))
    if dims is None:
        return None, 1
    done = 0
    try:
        view = View.of(dims)
        for node in row:
            view.then(node)
            done += 1
    except NoViewError:
        return None, done
    return shortest(view), 1


def _dims(value: ir.Value, facts: Facts) -> Dims | None:
    facts.follow_to(value)
    return facts.dims(value)
