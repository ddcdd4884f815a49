"""The sizes that rules tell are those that ONNX infers, whatever the attributes."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxpress.passes.analysis.operator_dims import OPERATOR_DIMS
from onnxpress.passes.analysis.values import Facts

Draw = st.DrawFn
sizes = st.integers(1, 7)
flags = st.sampled_from([0, 1])


def axes_of(draw: Draw, rank: int) -> list[int]:
    axes = draw(st.lists(st.integers(0, rank - 1), unique=True, max_size=rank))
    return [axis - rank * draw(flags) for axis in axes]


def window(draw: Draw, rank: int, *, dilated: bool = True) -> dict[str, Any]:
    def ints(low: int, high: int, count: int = rank) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(count)]

    found: dict[str, Any] = {"kernel_shape": ints(1, 3), "strides": ints(1, 3)}
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if mode == "NOTSET":
        found["pads"] = ints(0, found["kernel_shape"][0] - 1, 2 * rank)
        found["pads"] = [min(pad, found["kernel_shape"][i % rank] - 1) for i, pad in
                         enumerate(found["pads"])]  # fmt: skip
        if dilated and draw(st.booleans()):
            found["dilations"] = ints(1, 2)
    else:
        found["auto_pad"] = mode
    return found


@st.composite
def calls(draw: Draw) -> tuple[str, list[Any], dict[str, Any]]:
    """An operator with its inputs, a list of sizes or of integers ``("ints", …)``, and options."""
    kind = draw(st.sampled_from(sorted(OPERATOR_DIMS)))
    rank = draw(st.integers(1, 4))
    dims = [draw(sizes) for _ in range(rank)]
    if kind in {"Conv", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"}:
        spatial = draw(st.integers(1, 3))
        dims = [draw(sizes), draw(sizes), *(draw(st.integers(6, 9)) for _ in range(spatial))]
        if kind.startswith("Global"):
            return kind, [dims], {}
        options = window(draw, spatial, dilated=kind == "Conv")
        if kind != "Conv":
            return kind, [dims], options | {"ceil_mode": draw(flags)}
        return kind, [dims, [draw(sizes), dims[1], *options["kernel_shape"]]], options
    if kind == "MatMul":
        inner, batch = draw(sizes), dims[:2]
        other = [size if draw(flags) else 1 for size in batch][draw(st.integers(0, len(batch))) :]
        return kind, [[*batch, draw(sizes), inner], [*other, inner, draw(sizes)]], {}
    if kind == "Gemm":
        inner, turned = draw(sizes), (draw(flags), draw(flags))
        left, right = [draw(sizes), inner], [inner, draw(sizes)]
        pair = [one[::-1] if turn else one for one, turn in zip((left, right), turned, strict=True)]
        return kind, pair, {"transA": turned[0], "transB": turned[1]}
    if kind == "Concat":
        axis = draw(st.integers(0, rank - 1))
        others = [[*dims[:axis], draw(sizes), *dims[axis + 1 :]] for _ in range(draw(flags) + 1)]
        return kind, [dims, *others], {"axis": axis - rank * draw(flags)}
    if kind == "Gather":
        picks = [draw(sizes) for _ in range(draw(st.integers(0, 2)))]
        return kind, [dims, picks], {"axis": draw(st.integers(-rank, rank - 1))}
    if kind == "Flatten":
        return kind, [dims], {"axis": draw(st.integers(-rank, rank))}
    if kind == "Transpose":
        perm = draw(st.permutations(range(rank)))
        return kind, [dims], {"perm": perm} if draw(flags) else {}
    if kind == "Pad":
        pads = [draw(st.integers(0, 3)) for _ in range(2 * rank)]
        return kind, [dims, ("ints", pads)], {}
    if kind == "Slice":
        axes = axes_of(draw, rank)
        ends = st.sampled_from([-(2**31), -9, -3, -1, 0, 1, 2, 5, 9, 2**31 - 1, 2**63 - 1])
        steps = [draw(st.sampled_from([1, 1, 2, -1, -2])) for _ in axes]
        columns = [[draw(ends) for _ in axes], [draw(ends) for _ in axes], axes, steps]
        return kind, [dims, *(("ints", column) for column in columns)], {}
    axes = axes_of(draw, rank)
    if kind == "Squeeze":
        dims = [1 if axis in axes or axis - rank in axes else dims[axis] for axis in range(rank)]
        return kind, [dims, ("ints", axes)] if draw(flags) else [dims], {}
    if kind == "Unsqueeze":
        return kind, [dims, ("ints", sorted({axis % rank for axis in axes}))], {}
    options = {"keepdims": draw(flags), "noop_with_empty_axes": draw(flags)}
    return kind, [dims, ("ints", axes)] if draw(flags) else [dims], options


def build(kind: str, inputs: list[Any], options: dict[str, Any], names: bool) -> onnx.ModelProto:
    """The call as a model; with ``names``, every size that an input has is one dynamic dim."""
    given, constants = [], []
    for index, one in enumerate(inputs):
        dtype = onnx.TensorProto.INT64 if kind == "Gather" and index else onnx.TensorProto.FLOAT
        if isinstance(one, tuple):
            numbers = helper.make_tensor(f"i{index}", onnx.TensorProto.INT64, [len(one[1])], one[1])
            constants.append(numbers)
        else:
            dims = [f"d{size}" if names and size > 1 else size for size in one]
            given.append(helper.make_tensor_value_info(f"i{index}", dtype, dims))
    node = helper.make_node(kind, [f"i{n}" for n in range(len(inputs))], ["y"], **options)
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", given, [output], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def told(proto: onnx.ModelProto) -> Any:
    model = ir.from_proto(proto)
    facts = Facts(model)
    facts.follow_all()
    return facts.dims(model.graph[-1].outputs[0])


@settings(max_examples=300, deadline=None)
@given(calls())
def test_fixed_sizes_are_those_that_onnx_infers(
    call: tuple[str, list[Any], dict[str, Any]],
) -> None:
    proto = build(*call, names=False)
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output[0]
    expected = tuple(dim.dim_value for dim in inferred.type.tensor_type.shape.dim)

    assert told(proto) == expected


@settings(max_examples=300, deadline=None)
@given(calls())
def test_named_sizes_hold_for_the_sizes_they_name(
    call: tuple[str, list[Any], dict[str, Any]],
) -> None:
    if call[0] in {"Conv", "Gemm"} and len(call[1][1]) > 2:
        call[1][1] = call[1][1][:1] + [1] * (len(call[1][1]) - 1)  # a kernel of one tap is fixed
        call[2].update(kernel_shape=call[1][1][2:], pads=None, auto_pad="VALID")
        del call[2]["pads"]
    fixed, by_name = told(build(*call, names=False)), told(build(*call, names=True))

    if by_name is not None:
        assert len(by_name) == len(fixed)
        for size, name in zip(fixed, by_name, strict=True):
            assert name == size or (isinstance(name, str) and (":" in name or name == f"d{size}"))


@pytest.mark.parametrize(
    ("call", "dims"),
    [
        ('Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, k)', ("N", 5, "H", 8)),
        ('Conv <kernel_shape = [3, 3], auto_pad = "SAME_UPPER"> (x, k)', ("N", 5, "H", 8)),
        ('Conv <kernel_shape = [3, 3]> (x, k)', ("N", 5, "y:2", 6)),
        ("MaxPool <kernel_shape = [1, 2], strides = [1, 2]> (x)", ("N", 3, "H", 4)),
        ("ReduceMean <axes = [2, 3]> (x)", ("N", 3, 1, 1)),
        ("Concat <axis = 1> (x, x)", ("N", 6, "H", 8)),
        ("Concat <axis = 2> (x, x)", ("N", 3, "y:2", 8)),
        ("MatMul (x, m)", ("N", 3, "H", 2)),
        ("Flatten <axis = 3> (x)", ("y:0", 8)),
    ],
)  # fmt: skip
def test_names_stay_where_sizes_do(call: str, dims: Any) -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
      g (float[N,3,H,8] x, float[5,3,3,3] k, float[8,2] m) => (float y) {{ y = {call} }}"""
    assert told(onnx.parser.parse_model(text)) == dims


POSITIONS = """<ir_version: 8, opset_import: ["" : 17]>
  g (float[N,M,8] x, float[512,8] table, int64 fed) => (float y)
  <int64[1] zero = {0}, int64 first = {0}, int64 step = {1}, int64 one = {1}>
{
  shape = Shape (x)
  length = Gather (shape, one)
  end = Unsqueeze (length, zero)
  y = CALL
}"""


@pytest.mark.parametrize(
    ("call", "dims"),
    [
        ("Slice (table, zero, end)", ("min(M,512)", 8)),
        ("Slice (x, zero, end)", ("y:0", "M", 8)),
        ("Add (x, positions)\npositions = Slice (table, zero, end)", ("N", "M", 8)),
        ("Add (other, positions)\npositions = Slice (table, zero, end)\n"
         "other = Transpose <perm = [1, 0, 2]> (x)", ("M", "y:1", 8)),
        ("Range (first, length, step)", ("M",)),
        ("Range (step, length, step)", ("y:0",)),
        ("Range (first, fed, step)", ("y:0",)),
        ("Range (first, one, step)", (1,)),
    ],
)  # fmt: skip
def test_positions_are_as_many_as_the_sequence_is_long(call: str, dims: Any) -> None:
    lines = "\n".join(f"y = {call}".splitlines()[::-1])
    text = POSITIONS.replace("y = CALL", lines)
    assert told(onnx.parser.parse_model(text)) == dims


def test_a_sequence_is_not_as_short_as_a_table_of_one_position() -> None:
    text = POSITIONS.replace("512", "1").replace("CALL", "Add (x, p)")
    text = text.replace("  y =", "  p = Slice (table, zero, end)\n  y =")
    assert told(onnx.parser.parse_model(text)) == ("N", "y:1", 8)
