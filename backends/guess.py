"""What values the inputs of a model can take, guessed from what the graph does with them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from .demands import demand
from .kinds import Kind, Size


def fed_inputs(model: ir.Model) -> list[ir.Value]:
    """The graph inputs that a run has to be fed with: those without an initializer as default."""
    graph = model.graph
    return [value for value in graph.inputs if value.name not in graph.initializers]


def guess_kinds(model: ir.Model) -> dict[str, Kind]:
    """A kind of values for every input that must be fed.

    An input is followed through what keeps values as they are (``Cast``, ``Reshape``, ``Slice``,
    subgraphs, functions …) to the operators that ask something of it: an index must lie inside
    the table it points into, a sequence length within the sequence, a denominator apart from
    zero. Of two demands the narrower counts. Without any, the type decides; the name of the
    input is asked last.
    """
    inputs = fed_inputs(model)
    known = {dim.value for value in inputs for dim in value.shape or () if not isinstance(dim, int)}
    return {value.name or "": _settled(_guess(model, value), known) for value in inputs}


def _settled(kind: Kind, known: set[str | None]) -> Kind:
    """``kind``, or the lowest of its values where it depends on a size that no input tells."""
    if all(one.dim in known for one in kind.arguments if isinstance(one, Size)):
        return kind
    return Kind("ones" if kind.name == "lengths" else "zeros")


def _guess(model: ir.Model, value: ir.Value) -> Kind:
    found = list(_demands(model, value))
    one = value.shape is not None and all(dim == 1 for dim in value.shape)
    if one and (choices := _choices(found)):
        return choices
    if indices := [kind for kind in found if kind.name == "integers"]:
        return min(indices, key=_width)
    rest = [kind for kind in found if kind.name != "choice"]
    words = [kind for kind in found if kind.name == "choice" and _are_words(kind)]
    return next(iter(rest or words), None) or _by_type(value)


def _choices(kinds: list[Kind]) -> Kind | None:
    values = [one for kind in kinds if kind.name == "choice" for one in kind.arguments]
    if len(set(values)) == 1 and isinstance(values[0], int):
        values.append(int(not values[0]))  # what is compared with one number has another case, too
    return Kind("choice", tuple(dict.fromkeys(values))) if values else None


def _are_words(kind: Kind) -> bool:
    return all(isinstance(one, str) for one in kind.arguments)


def _width(kind: Kind) -> float:
    high = kind.arguments[1]
    return float(high) if isinstance(high, (int, float)) else 0.0


_INTEGER_RANGES = {
    ir.DataType.UINT8: (0, 256),
    ir.DataType.INT8: (-128, 128),
    ir.DataType.UINT4: (0, 16),
    ir.DataType.INT4: (-8, 8),
}
_NAME_HINTS = (
    ("mask", "mask"),
    ("position", "positions"),
    ("len", "ones"),
)


def _by_type(value: ir.Value) -> Kind:
    dtype = value.dtype
    if dtype == ir.DataType.STRING:
        return Kind("words")
    if dtype == ir.DataType.BOOL:
        return Kind("bools")
    if dtype is None or not dtype.is_integer():
        return Kind("floats")
    name = (value.name or "").lower()
    for part, kind in _NAME_HINTS:
        if part in name:
            return Kind(kind)
    return Kind("integers", _INTEGER_RANGES.get(dtype, (0, 10)))


_FIRST_ONLY = frozenset(
    {"Cast", "CastLike", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Transpose"}
    | {"Expand", "Slice", "Gather", "Split", "Tile", "Dropout", "Pad"}
)
_ALL_INPUTS = frozenset({"Concat", "Max", "Min"})
_NEARLY = frozenset({"Add", "Sub", "Mul"})


def _demands(model: ir.Model, start: ir.Value) -> Iterator[Kind]:
    """What is asked of ``start`` and of the values that are it in another form.

    Exporters make negative indices positive by a comparison, a product and a sum. So what comes
    out of these still counts as an index into a table, but not for anything else.
    """
    pending, seen = [(start, True)], {start}
    while pending:
        value, same = pending.pop()
        for use in value.uses():
            kind = demand(use.node, use.idx)
            if kind is not None and (same or kind.name == "integers"):
                yield kind
            nearly = use.node.op_type in _NEARLY
            for carried in _carried(model, use.node, use.idx):
                if carried not in seen:
                    seen.add(carried)
                    pending.append((carried, same and not nearly))


def _carried(model: ir.Model, node: ir.Node, index: int) -> list[ir.Value]:
    """The values that hold the same numbers as input ``index`` of ``node``, or nearly."""
    if (function := model.functions.get(node.op_identifier())) is not None:
        return list(function.inputs[index : index + 1])
    if node.domain not in {"", "ai.onnx"}:
        return []
    if node.op_type in _ALL_INPUTS | _NEARLY or (node.op_type in _FIRST_ONLY and index == 0):
        return list(node.outputs)
    if node.op_type == "Where" and index > 0:
        return list(node.outputs)
    body = node.attributes.get("body")
    if node.op_type in {"Loop", "Scan"} and body is not None:
        return list(body.as_graph().inputs[index : index + 1])
    return []
