"""StackMembers: one network of several alike, the same answers, or a stated reason."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.errors import UsageError
from onnxpress.backends.ort import session_of
from onnxpress.compiler.structure import check_structure
from onnxpress.passes.base import Result
from onnxpress.passes.ensembles.stack_members import StackMembers

Shapes = dict[str, tuple[int, ...]]

IMAGE = "float[n,3,8,8]"
ROWS = "float[n,6]"
TOKENS = "float[n,5,6]"


def branches(
    body: str, weights: Shapes, source: str, count: int = 3, opset: int = 18, kind: str = "float"
) -> ir.Model:
    """``count`` times ``body``, which reads ``x`` and computes ``y``, with weights of its own.

    In ``body`` every name but ``x`` is the branch's own.
    """
    rng = np.random.default_rng(0)
    lines, initializers = [], []
    for branch in range(count):
        text = body.replace("@", f"_{branch}")
        lines.append(text)
        for name, shape in weights.items():
            array = rng.standard_normal(shape).astype({"float": "f4", "double": "f8"}[kind])
            if name.startswith("positive"):
                array = np.abs(array) + 0.5
            initializers.append(ir.tensor(array, name=f"{name}_{branch}"))
    outputs = ", ".join(f"{kind} y_{branch}" for branch in range(count))
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : {opset}]> m ({source} x) => ({outputs}) '
        f"{{ {' '.join(lines)} }}",
        initializers=initializers,
    )


def inputs_for(source: str, batch: int) -> Array:
    shape = [int(size) for size in source.split("[n,")[1].rstrip("]").split(",")]
    dtype = np.float64 if source.startswith("double") else np.float32
    return np.random.default_rng(1).standard_normal((batch, *shape)).astype(dtype)


def run(model: ir.Model, x: Array) -> dict[str, Array]:
    return session_of(model, SessionConfig(level="disabled", threads=1)).run({"x": x})


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def stacked(model: ir.Model, source: str, options: StackMembers | None = None) -> Result:
    """Stack ``model`` in place, and check that its answers stay."""
    names = [value.name or "" for value in model.graph.outputs]
    before = {batch: run(model, inputs_for(source, batch)) for batch in (1, 3)}
    result = (options or StackMembers())(model)
    assert isinstance(result, Result)
    check_structure(model, ["x"], names)
    for batch, expected in before.items():
        found = run(model, inputs_for(source, batch))
        for name in names:
            np.testing.assert_allclose(found[name], expected[name], rtol=2e-5, atol=2e-5)
            assert found[name].dtype == expected[name].dtype
    return result


def test_a_shared_input_makes_one_wide_conv_and_the_next_a_grouped_one() -> None:
    body = "a@ = Conv (x, w@, b@) r@ = Relu (a@) y@ = Conv (r@, v@)"
    shapes: Shapes = {"w": (4, 3, 3, 3), "b": (4,), "v": (2, 4, 1, 1)}
    model = branches(body, shapes, IMAGE)

    result = stacked(model, IMAGE)

    assert operators(model) == {"Conv": 2, "Relu": 1, "Split": 1}
    wide, grouped = (node for node in model.graph if node.op_type == "Conv")
    assert wide.attributes.get_int("group", 1) == 1
    assert grouped.attributes.get_int("group", 1) == 3
    assert result.details == {"nodes": 9, "layers": 3, "branches": 3}


CNN = """
a@ = Conv <pads: ints = [1, 1, 1, 1]> (x, w@, b@)
c@ = BatchNormalization (a@, scale@, shift@, mean@, positive_variance@)
r@ = LeakyRelu (c@)
p@ = MaxPool <kernel_shape: ints = [2, 2], strides: ints = [2, 2]> (r@)
f@ = Flatten (p@)
g@ = Gemm <transB: int = 1, alpha: float = 0.5, beta: float = 2.0> (f@, v@, d@)
y@ = Softmax <axis: int = -1> (g@)
"""
CNN_WEIGHTS: Shapes = {
    "w": (4, 3, 3, 3),
    **dict.fromkeys(("b", "scale", "shift", "mean", "positive_variance"), (4,)),
    "v": (5, 64),
    "d": (5,),
}

BODIES: list[tuple[str, Shapes, str]] = [
    (CNN, CNN_WEIGHTS, IMAGE),
    (
        "a@ = Gemm (x, w@, b@) r@ = Relu (a@) c@ = Gemm (r@, v@, d@) s@ = Tanh (c@) "
        "e@ = Gemm (s@, u@, d@) y@ = Softmax (e@)",
        {"w": (6, 7), "b": (7,), "v": (7, 4), "d": (4,), "u": (4, 4)},
        ROWS,
    ),
    (
        "a@ = MatMul (x, w@) c@ = Add (b@, a@) r@ = Relu (c@) e@ = MatMul (r@, v@) y@ = Neg (e@)",
        {"w": (6, 7), "b": (7,), "v": (7, 4)},
        TOKENS,
    ),
    (  # attention with one head
        "q@ = MatMul (x, w@) k@ = MatMul (x, u@) v@ = MatMul (x, t@) "
        "z@ = Transpose <perm: ints = [0, 2, 1]> (k@) s@ = MatMul (q@, z@) "
        "h@ = Softmax <axis: int = 2> (s@) o@ = MatMul (h@, v@) "
        "n@ = LayerNormalization (o@, g@, b@) m@ = Add (n@, x) y@ = MatMul (m@, p@)",
        {**dict.fromkeys("wut", (6, 6)), "g": (6,), "b": (6,), "p": (6, 2)},
        TOKENS,
    ),
    (
        "a@ = Conv (x, w@) i@ = InstanceNormalization (a@, g@, b@) s@ = Sigmoid (i@) "
        "m@ = Mul (a@, s@) l@ = GlobalAveragePool (m@) y@ = Add (l@, c@)",
        {"w": (4, 3, 1, 1), "g": (4,), "b": (4,), "c": (4, 1, 1)},
        IMAGE,
    ),
    (
        "a@ = Conv (x, w@) d@ = Conv (x, v@) c@ = Concat <axis: int = 1> (a@, d@) "
        "e@ = Max (a@, d@) t@ = Transpose <perm: ints = [0, 2, 3, 1]> (c@) "
        "f@ = Flatten (t@) g@ = MatMul (f@, u@) h@ = Flatten (e@) j@ = MatMul (h@, s@) "
        "y@ = Sub (g@, j@)",
        {"w": (4, 3, 8, 8), "v": (4, 3, 8, 8), "u": (8, 2), "s": (4, 2)},
        IMAGE,
    ),
    (
        "a@ = Conv (x, w@) n@ = PRelu (a@, s@) l@ = ReduceMean <keepdims: int = 0> (n@, axes@) "
        "y@ = Div (l@, c@)",
        {"w": (4, 3, 3, 3), "s": (4, 1, 1), "c": ()},
        IMAGE,
    ),
]


@pytest.mark.parametrize("options", ["matmul", "conv", "shared"])
@pytest.mark.parametrize("number", range(len(BODIES)))
def test_answers_stay(number: int, options: str) -> None:
    body, weights, source = BODIES[number]
    body = body.replace(
        "l@ = ReduceMean",
        "axes@ = Constant <value: tensor = int64[2] {2, 3}> () l@ = ReduceMean",
    )
    model = branches(body, weights, source)
    nodes = len(model.graph)
    passes = {
        "matmul": StackMembers(),
        "conv": StackMembers(matrices="conv"),
        "shared": StackMembers(layers="shared"),
    }

    result = stacked(model, source, passes[options])

    assert result.modified
    if options != "shared":
        assert operators(model)["Split"] == 1
        assert len(model.graph) < nodes
        # Twins in a branch, such as queries and keys, may be stacked once more.
        assert not StackMembers()(model).modified or number in {3, 5}


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_every_opset(opset: int) -> None:
    body = (
        "a@ = Conv (x, w@) r@ = Relu (a@) f@ = Flatten (r@) g@ = Gemm (f@, v@, d@) "
        "y@ = Softmax <axis: int = 1> (g@)"
    )
    model = branches(body, {"w": (4, 3, 8, 8), "v": (4, 2), "d": (2,)}, IMAGE, opset=opset)

    assert stacked(model, IMAGE).modified


def test_doubles() -> None:
    source = ROWS.replace("float", "double")
    body, weights = (
        "a@ = Gemm (x, w@, b@) r@ = Relu (a@) y@ = Gemm (r@, v@)",
        {
            "w": (6, 7),
            "b": (7,),
            "v": (7, 3),
        },
    )
    assert stacked(branches(body, weights, source, kind="double"), source).modified


def test_names_order_and_the_side_of_a_constant_do_not_matter() -> None:
    first = """a = Conv (x, w) c = Add (a, k) r = Relu (c)
        d = Conv (x, v) s = Sigmoid (d) y = Mul (r, s)"""
    second = """p = Conv (x, vv) q = Sigmoid (p)
        m = Conv (x, ww) n = Add (kk, m) o = Relu (n) z = Mul (o, q)"""
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "v": (4, 3, 3, 3), "k": (4, 1, 1)}
    initializers = [
        ir.tensor(rng.standard_normal(shape).astype(np.float32), name=name * times)
        for name, shape in shapes.items()
        for times in (1, 2)
    ]
    model = ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 18]> m ({IMAGE} x) => (float y, float z) '
        f"{{ {first} {second} }}",
        initializers=initializers,
    )

    stacked(model, IMAGE)

    assert operators(model) == {"Conv": 2, "Add": 1, "Relu": 1, "Sigmoid": 1, "Mul": 1, "Split": 1}


def test_branches_that_part_go_on_apart() -> None:
    body = "a@ = Conv (x, w@) r@ = Relu (a@) y@ = Conv (r@, v@)"
    model = branches(body, {"w": (4, 3, 3, 3), "v": (2, 4, 1, 1)}, IMAGE, count=2)
    other = model.graph.initializers["v_1"]
    other.const_value = ir.tensor(np.ones((5, 4, 1, 1), np.float32), name="v_1")

    stacked(model, IMAGE)

    assert operators(model) == {"Conv": 3, "Relu": 1, "Split": 1}


def test_a_value_may_be_two_outputs() -> None:
    body = "a@ = Conv (x, w@) y@ = Sigmoid (a@)"
    model = branches(body, {"w": (4, 3, 3, 3)}, IMAGE, count=2)
    model.graph.outputs.append(model.graph.outputs[0])
    names = [value.name for value in model.graph.outputs]

    stacked(model, IMAGE)

    assert [value.name for value in model.graph.outputs] == names
    assert operators(model)["Conv"] == 1


def test_a_member_of_another_architecture_stays_aside() -> None:
    body = "a@ = Conv (x, w@) r@ = Relu (a@) y@ = Conv (r@, v@)"
    model = branches(body, {"w": (4, 3, 3, 3), "v": (2, 4, 1, 1)}, IMAGE, count=3)
    third = model.graph.initializers["w_2"]
    third.const_value = ir.tensor(np.ones((4, 3, 5, 5), np.float32), name="w_2")

    stacked(model, IMAGE)

    assert operators(model) == {"Conv": 4, "Relu": 2, "Split": 1}


@pytest.mark.parametrize(("op_type", "becomes"), [("Sum", "ReduceSum"), ("Max", "ReduceMax")])
def test_where_branches_meet_the_axis_of_branches_is_reduced(op_type: str, becomes: str) -> None:
    model = branches("a@ = Gemm (x, w@) y@ = Relu (a@)", {"w": (6, 4)}, ROWS)
    values = list(model.graph.outputs)
    meeting = ir.Node("", op_type, values, outputs=[ir.Value(name="y")])
    meeting.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.append(meeting)
    model.graph.outputs.clear()
    model.graph.outputs.append(meeting.outputs[0])

    stacked(model, ROWS)

    assert operators(model)[becomes] == 1
    assert operators(model)["Split"] == 0


def test_what_a_subgraph_reads_is_split() -> None:
    model = ir.from_onnx_text(
        """<ir_version: 8, opset_import: ["" : 18]>
        m (float[n,3] x) => (float[n,2] y) {
            a = MatMul (x, w)
            b = MatMul (x, v)
            c = Constant <value: tensor = bool {1}> ()
            y = If (c) <
                then_branch = one () => (float[n,2] t) { t = Relu (a) },
                else_branch = two () => (float[n,2] e) { e = Neg (b) }
            >
        }""",
        initializers=[
            ir.tensor(np.ones((3, 2), np.float32), name="w"),
            ir.tensor(np.full((3, 2), 2, np.float32), name="v"),
        ],
    )
    stacked(model, "float[n,3]")
    assert operators(model) == {"MatMul": 1, "Constant": 1, "Split": 1, "If": 1}


REFUSALS: list[tuple[str, Shapes, str, str]] = [
    (
        'a@ = Conv (x, w@) y@ = Resize <mode: string = "nearest"> (a@, , s)',
        {"w": (4, 3, 3, 3)},
        IMAGE,
        "Resize has no form",
    ),
    (
        "a@ = Conv (x, w@) y@ = Clip (a@, l@)",
        {"w": (4, 3, 3, 3), "l": ()},
        IMAGE,
        "a bound or fill value differs",
    ),
    (
        "a@ = MatMul (x, w@) y@ = Gemm (a@, b@, c@)",
        {"w": (6, 4), "b": (4, 2), "c": (1, 2)},
        ROWS,
        "",
    ),
    (
        "a@ = MatMul (x, w@) y@ = Add (a@, b@)",
        {"w": (6, 1), "b": (4,)},
        ROWS,
        "makes the values larger",
    ),
]


@pytest.mark.parametrize("number", range(len(REFUSALS)))
def test_what_stays_apart_says_why(number: int) -> None:
    body, weights, source, reason = REFUSALS[number]
    body = body.replace("(a@, , s)", "(a@, , s@)").replace(
        "y@ = Resize", "s@ = Constant <value: tensor = float[4] {1, 1, 2, 2}> () y@ = Resize"
    )
    result = stacked(branches(body, weights, source), source)

    assert all(reason in text for text in result.declined.values())
    assert bool(result.declined) == bool(reason)


def test_weights_that_can_be_fed_stay_apart() -> None:
    model = branches("y@ = MatMul (x, w@)", {"w": (6, 4)}, ROWS, count=2)
    model.graph.inputs.extend([model.graph.initializers["w_0"], model.graph.initializers["w_1"]])

    assert not StackMembers()(model).modified


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="layers"):
        StackMembers(layers="some")  # type: ignore[arg-type]


def test_constants_of_text_are_compared_as_well() -> None:
    words = [ir.StringTensor([b"a", b"b"], shape=ir.Shape([2]), name=f"s_{i}") for i in range(2)]
    weights = [ir.tensor(np.full((6, 2), i + 1, np.float32), name=f"w_{i}") for i in range(2)]
    lines = [
        f"m_{i} = MatMul (x, w_{i})  e_{i} = Equal (s_{i}, s_{i})  f_{i} = Cast <to = 1> (e_{i})  "
        f"y_{i} = Mul (m_{i}, f_{i})"
        for i in range(2)
    ]
    model = ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : 19]> m ({ROWS} x) => (float y_0, float y_1) '
        f"{{ {' '.join(lines)} }}",
        initializers=[*words, *weights],
    )
    stacked(model, ROWS)
