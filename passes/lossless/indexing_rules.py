"""Rules that make one of several slices, gathers, splits and concats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx_ir as ir

from ..graph import constant, feeds_only, graph_of, is_op
from .cuts import Cut, after
from .indexing import Indexing, Rule
from .movement import Place, axes_of, is_settled
from .pieces import Piece


def _only(node: ir.Node, kind: str) -> ir.Node | None:
    """The node of that ``kind`` that computes what ``node`` reads, for it alone."""
    source = node.inputs[0]
    before = None if source is None else source.producer()
    if source is None or not is_op(before, kind) or not is_settled(before):
        return None
    return before if before.graph is node.graph and feeds_only(source, node) else None


def _squeezed_slice(indexing: Indexing, node: ir.Node) -> bool:
    """``Squeeze(Slice(x, 3:4))`` is ``Gather(x, 3)``."""
    before = _only(node, "Slice")
    source = None if before is None else before.inputs[0]
    rank = indexing.rank(source)
    axes = None if rank is None else axes_of(node, rank)
    cuts = None if before is None else indexing.cuts(before)
    if source is None or cuts is None or len(cuts) != 1 or not axes or cuts[0].axis not in axes:
        return False
    cut, opset = cuts[0], indexing.places.before(node).opset
    # That there is but one element is what Squeeze insists on.
    if cut.step != 1 or (cut.start < 0 and (cut.start != -1 or opset < 11)):
        return False
    others = [axis - (axis > cut.axis) for axis in axes if axis != cut.axis]

    def write(place: Place) -> ir.Value:
        index = place.constant("index", np.array(cut.start, np.int64))
        element = place.add("Gather", [source, index], {"axis": cut.axis}, like=source)
        return place.squeeze(element, others)

    indexing.replace(node, write)
    return True


def _unsqueezed_gather(indexing: Indexing, node: ir.Node) -> bool:
    """``Unsqueeze(Gather(x, 3))`` along the same axis is ``Gather(x, [3])``."""
    before = _only(node, "Gather")
    source = None if before is None else before.inputs[0]
    rank = indexing.rank(source)
    if before is None or source is None or rank is None:
        return False
    index = constant(before.inputs[1])
    axis = before.attributes.get_int("axis", 0) % rank
    inserted = indexing.rank(node.outputs[0])
    axes = None if inserted is None else axes_of(node, inserted)
    if index is None or index.ndim or not axes:
        return False
    # The axis that was taken from comes back where it was, if as many go before as come.
    back = next((one for one in axes if one - sum(a < one for a in axes) == axis), None)
    if back is None:
        return False
    others = [one for one in axes if one != back]

    def write(place: Place) -> ir.Value:
        return place.unsqueeze(place.gather(source, axis, [int(index)]), others)

    indexing.replace(node, write)
    return True


def _slice_of_slice(indexing: Indexing, node: ir.Node) -> bool:
    """Slices of slices are one slice."""
    before = _only(node, "Slice")
    source = None if before is None else before.inputs[0]
    cuts = None if before is None else _merged(indexing, before, node)
    if source is None or cuts is None:
        return False
    indexing.replace(node, lambda place: _sliced(place, source, cuts))
    return True


def _merged(indexing: Indexing, before: ir.Node, node: ir.Node) -> list[Cut] | None:
    """What the slice ``before`` and the slice ``node`` of it cut together."""
    inner, outer = indexing.cuts(before), indexing.cuts(node)
    if inner is None or outer is None:
        return None
    merged = {cut.axis: cut for cut in inner}
    for cut in outer:
        first = merged.get(cut.axis)
        both = cut if first is None else after(first, cut)
        if both is None:
            return None
        merged[cut.axis] = both
    return list(merged.values())


def _sliced(place: Place, x: ir.Value, cuts: Sequence[Cut]) -> ir.Value:
    parts = {
        "starts": [cut.start for cut in cuts],
        "ends": [cut.stop for cut in cuts],
        "axes": [cut.axis for cut in cuts],
    }
    if place.opset < 10:
        return place.add("Slice", [x], parts, like=x)
    if any(cut.step != 1 for cut in cuts):
        parts["steps"] = [cut.step for cut in cuts]
    return place.add("Slice", [x, *(place.ints(*part) for part in parts.items())], like=x)


def _parts(indexing: Indexing, join: ir.Node, axis: int) -> list[tuple[int, int, ir.Value]] | None:
    """Where each input of a ``Concat`` along ``axis`` starts and stops in it."""
    rank = indexing.rank(join.outputs[0])
    if rank is None or not is_settled(join) or join.attributes.get_int("axis", 0) % rank != axis:
        return None
    found, start = [], 0
    for value in join.inputs:
        dims = indexing.dims(value)
        size = None if dims is None else dims[axis]
        if value is None or not isinstance(size, int):
            return None
        found.append((start, start + size, value))
        start += size
    return found


def _slice_of_concat(indexing: Indexing, node: ir.Node) -> bool:
    """A slice that lies in one of several joined tensors is a slice of that one."""
    cuts, source = indexing.cuts(node), node.inputs[0]
    join = None if source is None else source.producer()
    if cuts is None or len(cuts) != 1 or cuts[0].step != 1 or not is_op(join, "Concat"):
        return False
    cut = cuts[0]
    for start, stop, value in _parts(indexing, join, cut.axis) or ():
        if start <= cut.start < cut.stop <= stop:
            _replace_by_piece(
                indexing, node, Piece(value, cut.axis, cut.start - start, cut.stop - start)
            )
            return True
    return False


def _replace_by_piece(indexing: Indexing, node: ir.Node, piece: Piece) -> None:
    source, axis = piece.source, piece.axis
    if indexing.pieces.is_whole(piece):
        indexing.replace(node, lambda _: source)
    else:
        indexing.replace(node, lambda place: place.slice(source, axis, piece.start, piece.stop))


def _split_of_concat(indexing: Indexing, node: ir.Node) -> bool:
    """What is joined and split again at the same places has not changed."""
    source = node.inputs[0]
    join = None if source is None else source.producer()
    dims = indexing.dims(source)
    if dims is None or not is_op(join, "Concat"):
        return False
    axis = node.attributes.get_int("axis", 0) % len(dims)
    sizes, parts = indexing.pieces.split_sizes(node, dims[axis]), _parts(indexing, join, axis)
    if parts is None or sizes != [stop - start for start, stop, _ in parts]:
        return False
    if any(output.is_graph_output() for output in node.outputs):
        return False
    for output, (_, _, value) in zip(node.outputs, parts, strict=True):
        output.replace_all_uses_with(value)
    indexing.replaced += node.outputs
    return True


def _concat(indexing: Indexing, node: ir.Node) -> bool:
    """Concats inside of concats, and slices that go on one after the other, are one."""
    rank = indexing.rank(node.outputs[0])
    if rank is None:
        return False
    axis = node.attributes.get_int("axis", 0) % rank
    parts = [part for part in node.inputs if part is not None]
    flat = [value for part in parts for value in _joined(part, node, axis, rank)]
    runs = _runs(indexing, node, flat, axis)
    if len(parts) == len(flat) == len(runs):
        return False

    def write(place: Place) -> ir.Value:
        values = [
            place.slice(run.source, axis, run.start, run.stop) if isinstance(run, Piece) else run
            for run in runs
        ]
        return values[0] if len(values) == 1 else place.concat(values, axis)

    indexing.replace(node, write)
    return True


def _joined(part: ir.Value, node: ir.Node, axis: int, rank: int) -> list[ir.Value]:
    """What ``part`` is joined of, along the same axis and for ``node`` alone."""
    before = part.producer()
    if not is_op(before, "Concat") or before.graph is not node.graph or not feeds_only(part, node):
        return [part]
    if not is_settled(before) or before.attributes.get_int("axis", 0) % rank != axis:
        return [part]
    return [value for value in before.inputs if value is not None]


def _runs(
    indexing: Indexing, node: ir.Node, values: list[ir.Value], axis: int
) -> list[ir.Value | Piece]:
    """``values``, with slices that go on one after the other as one where that is less."""
    runs: list[ir.Value | Piece] = []
    place = 0
    while place < len(values):
        piece, last = indexing.pieces.of(values[place]), place + 1
        while piece is not None and piece.axis == axis and last < len(values):
            longer = indexing.pieces.joined([piece, indexing.pieces.of(values[last])])
            if longer is None:
                break
            piece, last = longer, last + 1
        if piece is not None and last > place + 1 and indexing.pieces.is_whole(piece):
            runs.append(piece.source)
        elif piece is not None and last > place + 1 and _go(values[place:last], node):
            runs.append(piece)
        else:
            runs += values[place:last]
        place = last
    return runs


def _go(values: list[ir.Value], node: ir.Node) -> bool:
    """Whether nothing needs the slices ``values`` besides ``node``."""
    return all(is_op(v.producer(), "Slice", "Gather") and feeds_only(v, node) for v in values)


def _split(indexing: Indexing, node: ir.Node) -> bool:
    """Slices that make up all of a tensor are one ``Split``."""
    first, source = indexing.pieces.of(node.outputs[0]), node.inputs[0]
    if first is None or source is None or (source, first.axis) in indexing.split:
        return False
    if is_op(source.producer(), "DequantizeLinear"):
        return False
    indexing.split.add((source, first.axis))
    found: dict[int, tuple[Piece, ir.Node]] = {}
    for use in source.uses():
        piece = indexing.pieces.of(use.node.outputs[0]) if is_op(use.node, "Slice") else None
        if piece is None or piece.axis != first.axis or use.node.graph is not node.graph:
            continue
        if piece.start in found or piece.size < 1 or use.node.outputs[0].is_graph_output():
            return False
        found[piece.start] = (piece, use.node)
    pieces = [found[start][0] for start in sorted(found)]
    whole = indexing.pieces.joined(pieces)
    dims = indexing.dims(source)
    if len(pieces) < 2 or whole is None or dims is None or whole.start:
        return False
    if whole.stop != dims[whole.axis] or all(_is_element(piece) for piece in found.values()):
        return False
    nodes = [found[start][1] for start in sorted(found)]
    # Slices that slices of them make superfluous are no more than a Split and those would be.
    if sum(_is_sliced_again(indexing, one) for one in nodes) >= len(nodes) - 1:
        return False
    _write_split(indexing, node, source, pieces, nodes)
    return True


def _is_element(found: tuple[Piece, ir.Node]) -> bool:
    """Whether a slice is one element that ``Gather`` may take, without its axis."""
    piece, node = found
    output = node.outputs[0]
    squeezed = (
        is_op(use.node, "Squeeze") and feeds_only(output, use.node) for use in output.uses()
    )
    return piece.size == 1 and all(squeezed)


def _is_sliced_again(indexing: Indexing, node: ir.Node) -> bool:
    """Whether nothing but another slice, which can do both, reads the slice ``node``."""
    again = next((use.node for use in node.outputs[0].uses()), None)
    if not is_op(again, "Slice") or _only(again, "Slice") is not node:
        return False
    return _merged(indexing, node, again) is not None


def _write_split(
    indexing: Indexing,
    node: ir.Node,
    source: ir.Value,
    pieces: Sequence[Piece],
    nodes: Sequence[ir.Node],
) -> None:
    """Put a ``Split`` before ``node``, the first of the slices ``nodes``."""
    place = indexing.places.before(node)
    sizes, axis = [piece.size for piece in pieces], pieces[0].axis
    inputs: list[ir.Value] = [source]
    attributes: dict[str, int | list[int]] = {"axis": axis}
    if place.opset < 13:
        attributes["split"] = sizes
    else:
        inputs.append(place.ints("split", sizes))
    outputs = [ir.Value(type=old.outputs[0].type) for old in nodes]
    for old, output in zip(nodes, outputs, strict=True):
        output.name = place.writer.names.fresh(f"{old.outputs[0].name}.split")
    converted = ir.convenience.convert_attributes(attributes)
    graph_of(node).insert_before(node, ir.Node("", "Split", inputs, converted, outputs=outputs))
    for old, output in zip(nodes, outputs, strict=True):
        old.outputs[0].replace_all_uses_with(output)
        indexing.replaced.append(old.outputs[0])


RULES: Final[dict[str, tuple[Rule, ...]]] = {
    "Concat": (_concat,),
    "Slice": (_slice_of_slice, _slice_of_concat, _split),
    "Split": (_split_of_concat,),
    "Squeeze": (_squeezed_slice,),
    "Unsqueeze": (_unsqueezed_gather,),
}
"""The rules for each operator, tried in order until one fits."""
