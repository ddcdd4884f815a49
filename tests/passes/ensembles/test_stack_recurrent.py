"""Recurrent layers of several branches as one, with the same answers, or a stated reason."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxpress.backends.base import SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.backends.targets import Target
from onnxpress.compiler.manager import PassManager
from onnxpress.compiler.pipeline import parse, preset
from onnxpress.compiler.structure import check_structure
from onnxpress.passes.base import Context, Result
from onnxpress.passes.ensembles.merge import merge
from onnxpress.passes.ensembles.stack_members import StackMembers
from onnxpress.passes.ensembles.stack_recurrent import LARGEST, WIDEST

GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
HIDDEN, WIDTH = 4, 3


def layer(
    op_type: str,
    attributes: str = "",
    *,
    directions: int = 1,
    hidden: int = HIDDEN,
    reads: str = "x",
    more: str = "",
    outputs: str = "y@",
    prefix: str = "",
) -> str:
    """One layer as text; ``@`` stands for the branch."""
    way = "bidirectional" if directions == 2 else "forward"
    return (
        f'{outputs} = {op_type} <hidden_size: int = {hidden}, direction: string = "{way}"'
        f"{attributes}> ({reads}, {prefix}w@, {prefix}r@, {prefix}b@{more}) "
    )


def shapes(
    op_type: str, *, directions: int = 1, hidden: int = HIDDEN, width: int = WIDTH, prefix: str = ""
) -> dict[str, tuple[int, ...]]:
    rows = GATES[op_type] * hidden
    return {
        f"{prefix}w": (directions, rows, width),
        f"{prefix}r": (directions, rows, hidden),
        f"{prefix}b": (directions, 2 * rows),
    }


def branches(
    body: str,
    weights: dict[str, tuple[int, ...]],
    *,
    count: int = 2,
    opset: int = 17,
    outputs: str = "y",
    inputs: str = "float[t,n,3] x",
    seed: int = 0,
) -> ir.Model:
    rng = np.random.default_rng(seed)
    found = ", ".join(f"float {name}_{at}" for at in range(count) for name in outputs.split())
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : {opset}]> m ({inputs}) => ({found}) '
        f"{{ {' '.join(body.replace('@', f'_{at}') for at in range(count))} }}",
        initializers=[
            ir.tensor(rng.normal(0, 0.5, shape).astype(np.float32), name=f"{name}_{at}")
            for at in range(count)
            for name, shape in weights.items()
        ]
        + [
            ir.tensor(array.astype(np.int64), name=name)
            for name, array in CONSTANTS.items()
            if re.search(rf"\b{name}\b", body)
        ],
    )


def stacked(model: ir.Model, steps: int = 5, batch: int = 2) -> Result:
    """Stack ``model`` in place, and check that its answers stay."""
    rng = np.random.default_rng(1)
    feeds = {}
    for value in model.graph.inputs:
        assert value.name is not None
        assert value.shape is not None
        sizes = {"t": steps, "n": batch}
        shape = [d if isinstance(d, int) else sizes[str(d)] for d in value.shape]
        feeds[value.name] = rng.normal(size=shape).astype(np.float32)
        if value.dtype == ir.DataType.INT32:
            feeds[value.name] = rng.integers(1, steps, shape).astype(np.int32)
    plain = SessionConfig(level="disabled", threads=1)
    before = session_of(model, plain).run(feeds)
    result = StackMembers()(model)
    assert isinstance(result, Result)
    check_structure(model, list(feeds), list(before))
    after = session_of(model, plain).run(feeds)
    for name, expected in before.items():
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)
    return result


def test_two_layers_on_one_input_become_one() -> None:
    model = branches(layer("LSTM"), shapes("LSTM"))
    own = {
        name: v.const_value.numpy() for name, v in model.graph.initializers.items() if v.const_value
    }

    result = stacked(model)

    (node,) = (node for node in model.graph if node.op_type == "LSTM")
    assert node.attributes.get_int("hidden_size", 0) == 2 * HIDDEN
    states = node.inputs[2]
    assert states is not None
    assert states.const_value is not None
    whole = states.const_value.numpy().reshape(4, 2, HIDDEN, 2, HIDDEN)
    np.testing.assert_array_equal(whole[:, 1, :, 1], own["r_1"].reshape(4, HIDDEN, HIDDEN))
    assert not whole[:, 0, :, 1].any()
    assert not whole[:, 1, :, 0].any()
    assert [n.op_type for n in model.graph] == ["LSTM", "Split"]
    assert result.details == {"nodes": 2, "layers": 1, "branches": 2}
    assert not StackMembers()(model).modified


def test_zeros_of_one_branch_do_not_reach_another() -> None:
    """What one member answers is the same whatever the others' weights are."""
    answers = []
    for seed in range(2):
        model = branches(layer("GRU"), shapes("GRU"))
        other = model.graph.initializers["r_1"].const_value
        assert other is not None
        changed = np.random.default_rng(seed).normal(size=tuple(other.shape.numpy()))
        model.graph.initializers["r_1"].const_value = ir.tensor(
            changed.astype(np.float32), name="r_1"
        )
        stacked(model)
        x = np.random.default_rng(3).normal(size=(6, 2, WIDTH)).astype(np.float32)
        answers.append(session_of(model).run({"x": x})["y_0"])
    np.testing.assert_array_equal(answers[0], answers[1])


@settings(max_examples=25)
@given(
    op_type=st.sampled_from(sorted(GATES)),
    directions=st.sampled_from((1, 2)),
    hidden=st.integers(1, 6),
    count=st.integers(2, 4),
    opset=st.sampled_from((9, 13, 14, 18, 22)),
    outputs=st.sampled_from(("y@", "y@, h@", ", y@")),
    lengths=st.booleans(),
    first=st.sampled_from(("", "shared", "constant")),
    clip=st.booleans(),
)
def test_every_layer(
    op_type: str,
    directions: int,
    hidden: int,
    count: int,
    opset: int,
    outputs: str,
    *,
    lengths: bool,
    first: str,
    clip: bool,
) -> None:
    inputs = "float[t,n,3] x"
    more, weights = (
        ", lengths" if lengths else ", ",
        shapes(op_type, directions=directions, hidden=hidden),
    )
    inputs += ", int32[n] lengths" if lengths else ""
    if first == "shared":
        more, inputs = more + ", first", f"{inputs}, float[{directions},n,{hidden}] first"
    elif first == "constant":
        more, weights = more + ", i@", weights | {"i": (directions, 2, hidden)}
    if op_type == "LSTM" and first:
        more += more[more.rindex(",") :] + ", p@"
        weights["p"] = (directions, 3 * hidden)
    attributes = ", clip: float = 0.4" if clip else ""
    if op_type == "GRU" and clip:
        attributes += ", linear_before_reset: int = 1"
    body = layer(
        op_type, attributes, directions=directions, hidden=hidden,
        more=more if more != ", " else "", outputs=outputs,
    )  # fmt: skip
    names = "y h" if "h@" in outputs else "y"
    model = branches(body, weights, count=count, opset=opset, outputs=names, inputs=inputs)

    assert stacked(model).modified

    assert sum(node.op_type == op_type for node in model.graph) == 1


TORCH = (
    layer("LSTM", directions=2, prefix="a", outputs="a@")
    + "t@ = Transpose <perm: ints = [0, 2, 1, 3]> (a@) f@ = Reshape (t@, shape) "
    + layer("LSTM", directions=2, prefix="c", outputs="c@", reads="f@")
    + "u@ = Transpose <perm: ints = [0, 2, 1, 3]> (c@) g@ = Reshape (u@, shape) "
    "l@ = Gather <axis: int = 0> (g@, last) y@ = Gemm (l@, v@, d@)"
)
KERAS = (
    layer("GRU", prefix="a", outputs="a@")
    + "s@ = Squeeze (a@, one) "
    + layer("GRU", prefix="c", outputs=", h@", reads="s@")
    + "z@ = Squeeze (h@, zero) e@ = MatMul (z@, v@) y@ = Add (e@, d@)"
)
CUT = (
    layer("GRU", prefix="a", outputs="a@")
    + "s@ = Squeeze (a@, one) k@ = Slice (s@, one, far, zero) "
    "m@ = Unsqueeze (k@, zero) n@ = Squeeze (m@, zero) y@ = MatMul (n@, v@)"
)
CONSTANTS = {
    "shape": np.array([0, 0, -1]),
    "last": np.array(-1),
    "one": np.array([1]),
    "zero": np.array([0]),
    "far": np.array([2**40]),
}


@pytest.mark.parametrize(
    ("body", "op_type", "inner", "outer"),
    [(TORCH, "LSTM", 2 * HIDDEN, 2), (KERAS, "GRU", HIDDEN, 1), (CUT, "GRU", HIDDEN, 1)],
    ids=["torch", "keras", "cut"],
)
def test_whole_networks(body: str, op_type: str, inner: int, outer: int) -> None:
    weights = shapes(op_type, directions=outer, prefix="a")
    weights |= shapes(op_type, directions=outer, width=inner, prefix="c")
    weights |= {"v": (inner, 5), "d": (5,)}
    model = branches(body, {name: at for name, at in weights.items() if f"{name}@" in body})
    recurrent = sum(node.op_type == op_type for node in model.graph)

    result = stacked(model)

    assert not result.declined
    assert sum(node.op_type == op_type for node in model.graph) == recurrent // 2
    assert [n.op_type for n in model.graph if n.op_type == "Split"] == ["Split"]


def merged(op_type: str, hidden: int) -> ir.Model:
    body, weights = layer(op_type, hidden=hidden), shapes(op_type, hidden=hidden)
    members = [branches(body, weights, count=1, seed=seed) for seed in range(2)]
    return merge(members, names=["a", "b"]).model


@pytest.mark.parametrize("op_type", sorted(GATES))
@pytest.mark.parametrize("hidden", [8, WIDEST])
def test_merged_models_answer_the_mean(op_type: str, hidden: int) -> None:
    model, target = merged(op_type, hidden), Target("cpu")
    x = np.random.default_rng(0).normal(size=(7, 3, WIDTH)).astype(np.float32)
    expected = session_of(model).run({"x": x})
    pipeline = preset(2, target) + parse("stack-members")

    run = PassManager(pipeline).run(model, Context(target=target))

    record = run.records[-1]
    assert record.modified == (hidden == 8)
    assert bool(record.declined) == (hidden > 8)
    for name, array in session_of(run.model).run({"x": x}).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-6)


REFUSALS = [
    (', activations: strings = ["Relu"]', "RNN", HIDDEN, "Relu has no bound"),
    ("", "LSTM", WIDEST, "above"),
    ("", "GRU", LARGEST + 1, "above"),
]


@pytest.mark.parametrize(("attributes", "op_type", "hidden", "reason"), REFUSALS)
def test_what_stays_apart_says_why(attributes: str, op_type: str, hidden: int, reason: str) -> None:
    model = branches(layer(op_type, attributes, hidden=hidden), shapes(op_type, hidden=hidden))

    result = stacked(model)

    assert not result.modified
    assert reason in " ".join(result.declined.values())


def test_wide_layers_on_inputs_of_their_own_stay_apart() -> None:
    body = layer("GRU", prefix="a", outputs="a@", hidden=12) + "s@ = Squeeze (a@, one) "
    body += layer("GRU", prefix="c", reads="s@", hidden=12)
    weights = shapes("GRU", prefix="a", hidden=12)
    weights |= shapes("GRU", prefix="c", hidden=12, width=12)

    result = stacked(branches(body, weights, count=3))

    assert result.details["layers"] == 2
    assert "on inputs of their own, 3 states of 12" in " ".join(result.declined.values())


def test_what_is_not_finite_stays_apart() -> None:
    model = branches(layer("LSTM"), shapes("LSTM"))
    bias = model.graph.initializers["b_0"]
    bias.const_value = ir.tensor(np.full((1, 8 * HIDDEN), np.inf, np.float32), name="b_0")

    result = StackMembers()(model)

    assert isinstance(result, Result)
    assert not result.modified
    assert "not finite" in " ".join(result.declined.values())


def test_what_may_not_be_finite_is_not_read_together() -> None:
    body = "a@ = MatMul (x, v@) l@ = Log (a@) " + layer("GRU", reads="l@")
    model = branches(body, shapes("GRU", width=5) | {"v": (WIDTH, 5)})

    result = StackMembers()(model)

    assert isinstance(result, Result)
    assert sum(node.op_type == "GRU" for node in model.graph) == 2
    assert "would reach the others" in " ".join(result.declined.values())
