"""Random models whose graphs compute on the sizes of their input, for tests of invariants."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx
import onnx_ir as ir
from hypothesis import strategies as st

HEAD = '<ir_version: 9, opset_import: ["" : 18]>\n'


@dataclass
class Body:
    """The lines of a graph so far, and the names of its vectors by length."""

    draw: st.DrawFn
    lines: list[str] = field(default_factory=list)
    vectors: dict[int, list[str]] = field(default_factory=dict)
    tensors: list[str] = field(default_factory=lambda: ["x"])

    def add(self, call: str, length: int | None = None) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {call}")
        if length is not None:
            self.vectors.setdefault(length, []).append(name)
        return name

    def constant(self, values: list[int]) -> str:
        return self.add(f"Constant <value_ints = {values}> ()")

    def vector(self, length: int | None = None) -> tuple[str, int]:
        if length is None:
            length = self.draw(st.sampled_from(sorted(self.vectors)))
        return self.draw(st.sampled_from(self.vectors[length])), length


def _step(body: Body) -> None:
    """Add one node that computes on vectors of integers."""
    draw = body.draw
    kind = draw(st.sampled_from(["shape", "gather", "slice", "concat", "math", "compare", "where",
                                 "reshape", "cast", "reduce", "range", "constant"]))  # fmt: skip
    a, length = body.vector()
    if kind == "shape":
        rank_part = draw(st.sampled_from([("", 3), ("<start = 1>", 2), ("<start = -1>", 1)]))
        body.add(f"Shape {rank_part[0]} ({draw(st.sampled_from(body.tensors))})", rank_part[1])
    elif kind == "gather":
        picks = draw(st.lists(st.integers(-length, length - 1), min_size=1, max_size=3))
        body.add(f"Gather <axis = 0> ({a}, {body.constant(picks)})", len(picks))
    elif kind == "slice":
        start, step = draw(st.integers(0, length - 1)), draw(st.sampled_from([1, 2]))
        parts = ", ".join(body.constant([part]) for part in (start, 99, 0, step))
        body.add(f"Slice ({a}, {parts})", -(-(length - start) // step))
    elif kind == "concat":
        b, more = body.vector()
        if length + more <= 6:
            body.add(f"Concat <axis = 0> ({a}, {b})", length + more)
    elif kind == "math":
        b, _ = body.vector(length)
        body.add(f"{draw(st.sampled_from(['Add', 'Sub', 'Mul', 'Min', 'Max']))} ({a}, {b})", length)
        divisor = body.constant(draw(st.lists(st.sampled_from([1, 2, -3]), min_size=1, max_size=1)))
        body.add(f"{draw(st.sampled_from(['Div', 'Mod']))} ({a}, {divisor})", length)
    elif kind == "compare":
        b, _ = body.vector(length)
        operator = draw(st.sampled_from(["Equal", "Less", "Greater", "LessOrEqual"]))
        body.add(f"Cast <to = 7> ({body.add(f'{operator} ({a}, {b})')})", length)
    elif kind == "where":
        b, _ = body.vector(length)
        minus = body.constant([-1])
        body.add(f"Where ({body.add(f'Equal ({a}, {minus})')}, {b}, {a})", length)
    elif kind == "reshape":
        square = body.add(f"Unsqueeze ({a}, {body.constant([draw(st.sampled_from([0, 1]))])})")
        body.add(
            f"Squeeze ({square})" if length > 1 else f"Reshape ({square}, {body.constant([-1])})",
            length,
        )
    elif kind == "cast":
        body.add(f"Cast <to = 7> ({body.add(f'Cast <to = 6> ({a})')})", length)
    elif kind == "reduce":
        body.add(f"ReduceProd ({a})", 1)
    elif kind == "range":
        limit = draw(st.integers(1, 4))
        ends = [body.add(f"Constant <value_int = {value}> ()") for value in (0, limit, 1)]
        body.add(f"Range ({', '.join(ends)})", limit)
    else:
        values = draw(st.lists(st.integers(-2, 5), min_size=1, max_size=3))
        body.vectors.setdefault(len(values), []).append(body.constant(values))


@st.composite
def shape_graphs(draw: st.DrawFn) -> ir.Model:
    """A model of a float input ``x[N,3,M]`` that answers vectors computed from its sizes.

    ``y`` is ``x`` reshaped by a target computed from them, ``z`` is all vectors in a row.
    """
    body = Body(draw)
    body.add("Shape (x)", 3)
    for _ in range(draw(st.integers(2, 12))):
        _step(body)
    sizes = [body.add(f"Shape <start = {axis}, end = {axis + 1}> (x)", 1) for axis in range(3)]
    minus = body.constant([-1])
    target = draw(st.permutations([sizes[0], sizes[1], minus]))
    body.add(f"Concat <axis = 0> ({', '.join(target)})")
    reshaped = body.add(f"Reshape (x, v{len(body.lines) - 1})")
    body.lines.append(f"y = Relu ({reshaped})")
    row = ", ".join(name for names in body.vectors.values() for name in names)
    body.lines.append(f"z = Concat <axis = 0> ({row})")
    lines = "\n".join(body.lines)
    text = f"{HEAD}main (float[N,3,M] x) => (float[a,b,c] y, int64[d] z) {{\n{lines}\n}}"
    return ir.from_proto(onnx.parser.parse_model(text))
