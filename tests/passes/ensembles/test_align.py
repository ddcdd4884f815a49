"""Shared inputs: which go together, in which layout, with which dimensions."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.errors import UsageError
from onnxpress.backends.ort import session_of
from onnxpress.passes.ensembles.align import paired
from onnxpress.passes.ensembles.merge import MergeResult, merge


def model(inputs: str, body: str = "o = Identity (x)", output: str = "float[] o") -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 17]> main ({inputs}) => ({output}) {{ {body} }}'
    )


def apart(*inputs: str) -> MergeResult:
    """Models that return their input ``x``, kept apart, as ``a``, ``b``, ``c``."""
    return merge([model(text) for text in inputs], names="abc"[: len(inputs)], combine="none")


def answers(merged: ir.Model, **feeds: Array) -> dict[str, Array]:
    return session_of(merged, SessionConfig(level="disabled")).run(feeds)


def shapes(result: MergeResult) -> dict[str, str]:
    graph = result.model.graph
    return {str(v.name): str(v.shape) for v in (*graph.inputs, *graph.outputs)}


def test_inputs_go_together_by_name_and_the_rest_in_order() -> None:
    first = model(
        "float[2] x, float[2] y, float[2] z", "o = Sub (x, y) p = Mul (o, z)", "float[2] p"
    )
    second = model(
        "float[2] z, float[2] y, float[2] u", "o = Sub (u, y) p = Mul (o, z)", "float[2] p"
    )

    result = merge([first, second], names=["a", "b"], combine="none")

    assert [value.name for value in result.model.graph.inputs] == ["x", "y", "z"]
    assert result.details["members"][1]["inputs"] == {"z": "z", "y": "y", "u": "x"}
    feeds = {name: np.array([k, 2], np.float32) for k, name in enumerate("xyz", 3)}
    after = answers(result.model, **feeds)
    np.testing.assert_array_equal(after["b/p"], after["a/p"])
    np.testing.assert_array_equal(after["a/p"], [-5, 0])


@given(st.permutations("abcde"), st.permutations("abxyz"))
def test_pairing_is_a_permutation_that_honours_names(first: list[str], own: list[str]) -> None:
    places = paired(first, own)

    assert sorted(places) == list(range(5))
    assert all(own[place] == name for name, place in zip(first, places, strict=True) if name in own)
    rest = [place for name, place in zip(first, places, strict=True) if name not in own]
    assert rest == sorted(rest)


@pytest.mark.parametrize(
    ("first", "second", "layout"),
    [
        ("[n,1,28,28]", "[n,28,28,1]", [0, 2, 3, 1]),
        ("[n,28,28,1]", "[m,1,28,28]", [0, 3, 1, 2]),
        ("[1,3,20,30]", "[m,20,30,3]", [0, 2, 3, 1]),
        ("[n,3,h,w]", "[n,h,w,3]", [0, 2, 3, 1]),
        ("[n,3,?,?]", "[n,?,?,3]", [0, 2, 3, 1]),
        ("[n,12,80]", "[n,80,12]", [0, 2, 1]),
        ("[n,8,9,10,2]", "[n,2,8,9,10]", [0, 4, 1, 2, 3]),
    ],
)
def test_a_member_that_lays_data_out_differently_gets_it_so(
    first: str, second: str, layout: list[int]
) -> None:
    result = apart(*(f"float{text} x" for text in (first, second)))

    (transpose,) = (node for node in result.model.graph if node.op_type == "Transpose")
    assert transpose.attributes["perm"].as_ints() == tuple(layout)
    assert result.details["members"][1]["inputs"] == {"x": {"shared": "x", "transposed": layout}}
    shape = result.model.graph.inputs[0].shape
    assert shape is not None
    sizes = [dim if isinstance(dim, int) else 1 + axis for axis, dim in enumerate(shape)]
    x = np.random.default_rng(0).normal(size=sizes).astype(np.float32)
    after = answers(result.model, x=x)
    np.testing.assert_array_equal(after["a/o"], x)
    np.testing.assert_array_equal(after["b/o"], x.transpose(layout))


def test_members_share_one_transpose() -> None:
    result = apart("float[n,1,8,9] x", "float[n,8,9,1] x", "float[n,8,9,1] x")

    assert [node.op_type for node in result.model.graph].count("Transpose") == 1


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("float[n,1,28,28] x", "float[n,28,1,28] x", "their shapes differ"),
        ("float[n,784] x", "float[n,1,28,28] x", "their shapes differ"),
        ("float[n,4] x", "double[n,4] x", "they hold different types"),
        ("float[2,3] x", "float[n,n] x", "3 is not 2"),
        ("float[2,8,k,8] x", "float[2,8,8,4] x", "their shapes differ"),
        ("float[n,3,h,w] x", "float[n,5,3,3] x", "more than one way"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(first: str, second: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        merge([model(first), model(second)], names="ab")

    own, wanted = (text.removesuffix(" x") for text in (second, first))
    misfit = f"the input 'x' {own} of member 'b' does not fit 'x' {wanted} of 'a': "
    assert caught.value.message.startswith(misfit)
    assert caught.value.message.endswith(reason)
    assert "in front of 'b'" in caught.value.hint


@pytest.mark.parametrize(
    ("first", "second", "own"),
    [
        ("float[n,4] x", "float[n,4,5] x", ["x", "b/x"]),
        ("float[2,3] x", "float[n,n] x", ["x", "b/x"]),
        ("float[n,4] x", "float[n,4] x, float[k] y", ["x", "b/y"]),
        ("float[n,4] y, float[n,5] x", "float[n,5] x", ["y", "x"]),
    ],
)
def test_inputs_that_do_not_fit_stay_apart_where_answers_do(
    first: str, second: str, own: list[str]
) -> None:
    result = apart(first, second)

    assert result.details["inputs"] == own
    feeds = {}
    for spec in session_of(result.model).inputs:
        shape = [size if isinstance(size, int) else 3 for size in spec.shape or ()]
        feeds[spec.name] = np.ones(shape, np.float32)
    assert len(answers(result.model, **feeds)) == 2


def test_another_number_of_inputs_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'b' takes the inputs \['x', 'y'\], 'a' takes \['x'\]"):
        merge([model("float[n,4] x"), model("float[n,4] x, float[2] y")], names="ab")


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["[batch,4]", "[n,4]"], {"x": "[batch,4]", "a/o": "[batch,4]", "b/o": "[batch,4]"}),
        (["[?,4]", "[n,4]"], {"x": "[b.n,4]", "a/o": "[None,4]", "b/o": "[b.n,4]"}),
        (["[n,4]", "[1,4]"], {"x": "[1,4]", "a/o": "[1,4]", "b/o": "[1,4]"}),
        (["[1,4]", "[n,4]"], {"x": "[1,4]", "a/o": "[1,4]", "b/o": "[1,4]"}),
        (["[h,w]", "[n,n]"], {"x": "[h,h]", "a/o": "[h,h]", "b/o": "[h,h]"}),
        (
            ["[h,w]", "[n,n]", "[k,7]"],
            {"x": "[7,7]", "a/o": "[7,7]", "b/o": "[7,7]", "c/o": "[7,7]"},
        ),
    ],
)
def test_dimensions_are_unified(texts: list[str], wanted: dict[str, str]) -> None:
    models = [model(f"float{text} x", output=f"float{text} o") for text in texts]

    result = merge(models, names="abc"[: len(texts)], combine="none")

    assert shapes(result) == wanted
    fixed = [size for size in wanted["x"].strip("[]").split(",") if size == "1"]
    assert bool(result.details["notes"]) == (bool(fixed) or "7" in wanted["x"])


def test_a_fixed_dimension_is_reported() -> None:
    assert apart("float[n,4] x", "float[1,4] x").details["notes"] == [
        "the dimension 'n' of 'a' is fixed to 1, as another member needs it"
    ]


def test_equal_names_of_different_dimensions_are_told_apart() -> None:
    texts = {
        "a": ("float[batch] x", "float[found] o"),
        "b": ("float[n] x", "float[found] o, float[n] p, float[batch] q"),
        "b.": ("float[n] x", "float[k] o"),
    }
    models = [
        model(i, "o = Identity (x) p = Identity (x) q = Identity (x)", o) for i, o in texts.values()
    ]
    models[1].graph.outputs[1].shape = ir.Shape(["2*n + found"])
    models[2].graph.outputs[0].shape = ir.Shape(["floor(found/2)"])

    result = merge(models, names=list(texts), combine="none")

    assert shapes(result) == {
        "x": "[batch]",
        "a/o": "[found]",
        "b/o": "[b.found]",
        "b/p": "[2*batch + b.found]",
        "b/q": "[b.batch]",
        "b./o": "[floor(b_.found/2)]",
    }


def test_an_expression_of_a_fixed_dimension_is_no_longer_symbolic() -> None:
    second = model("float[n] x")
    second.graph.outputs[0].shape = ir.Shape(["2*n"])

    result = merge([model("float[3] x"), second], names=["a", "b"], combine="none")

    assert shapes(result)["b/o"] == "[None]"


def test_an_unknown_rank_fits_everything() -> None:
    assert shapes(apart("float[] x", "float[n,4] x"))["x"] == "[b.n,4]"
    assert shapes(apart("float[] x", "float[] x"))["x"] == "None"


def test_an_input_with_a_default_becomes_a_constant() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    main (float[2] x, float[2] w = {1, 2}) => (float[2] o) { o = Mul (x, w) }"""

    result = merge([ir.from_onnx_text(text)] * 2, names=["a", "b"])

    assert [value.name for value in result.model.graph.inputs] == ["x"]
    np.testing.assert_array_equal(answers(result.model, x=np.ones(2, np.float32))["o"], [1, 2])
