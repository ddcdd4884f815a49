"""The search for inputs that a model accepts, against models that are hard to please."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, Feeds, SessionConfig
from onnxpress.backends.errors import BackendError
from onnxpress.backends.ort import session_of
from onnxpress.backends.search import Cases, find_cases

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"


def model(inputs: str, body: str = "y = Identity(x)", constants: str = "") -> ir.Model:
    declared = f"<{constants}>" if constants else ""
    return ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["" : 17]> main ({inputs}) => (y) {declared} {{ {body} }}'
    )


def search(built: ir.Model, **more: object) -> Cases:
    run = session_of(built, SessionConfig(level="disabled")).run
    return find_cases(built, run, **more)  # type: ignore[arg-type]


def picky(
    accepts: Callable[[Feeds], bool], runs: list[Feeds] | None = None
) -> Callable[[Feeds], dict[str, Array]]:
    def run(feeds: Feeds) -> dict[str, Array]:
        if runs is not None:
            runs.append(feeds)
        if not accepts(feeds):
            raise BackendError("not these")
        return {"y": np.zeros(1)}

    return run


def test_three_cases_at_three_sizes_in_three_runs() -> None:
    built = model("float[batch,4,time] x")
    runs: list[Feeds] = []
    found = find_cases(built, picky(lambda _: True, runs))
    assert len(runs) == 3
    assert [case.sizes for case in found.accepted] == [
        {"batch": 1, "time": 16},
        {"batch": 2, "time": 21},
        {"batch": 3, "time": 11},
    ]
    assert found.rejected == []


def test_sizes_grow_until_they_are_accepted() -> None:
    built = model("float[N,1,h,w] x")
    found = find_cases(built, picky(lambda feeds: feeds["x"].shape[2] >= 200))
    assert all(case.sizes["h"] >= 200 for case in found.accepted)
    assert len({case.sizes["w"] for case in found.accepted}) == 3
    assert {sizes["h"] for sizes, _ in found.rejected} == {1, 64, 128}
    assert all(reason == "not these" for _, reason in found.rejected)


@pytest.mark.parametrize(
    "constant",
    [
        "t = Constant <value = int64[3] {-1, 7, 3}> ()",
        "t = Constant <value_ints = [-1, 7, 3]> ()",
        "t = Identity (kept)",
    ],
)
def test_a_size_that_the_exporter_kept_is_found(constant: str) -> None:
    built = model(
        "int64[batch,time] x",
        f"e = Gather (table, x)\n{constant}\ny = Reshape (e, t)",
        "float[4,3] table = {1,2,3,1,2,3,1,2,3,1,2,3}, int64[3] kept = {-1, 7, 3}",
    )
    sizes = search(built).accepted[0].sizes
    assert sizes == {"batch": 1, "time": 7}


def test_a_length_that_the_exporter_kept_leaves_the_batch_free() -> None:
    built = model(
        "float[batch,time,3] x",
        "n = Shape <end = 1> (x)\nt = Concat <axis = 0> (n, kept)\ny = Reshape (x, t)",
        "int64[2] kept = {7, 3}",
    )
    sizes = [case.sizes for case in search(built).accepted]
    assert [one["time"] for one in sizes] == [7, 7, 7]
    assert len({one["batch"] for one in sizes}) > 1


def test_a_batch_that_the_exporter_kept_is_found() -> None:
    built = model(
        "float[batch,time] x",
        "y = Concat <axis = 1> (x, rows)\nn = Neg (kept)",
        "float[5,1] rows = {1,2,3,4,5}, int64 kept = {5}",
    )
    assert {case.sizes["batch"] for case in search(built).accepted} == {5}


def test_a_state_shares_the_batch_of_the_input() -> None:
    built = model(
        "float[a,b] x, float[2,c,3] s",
        "g = Shape <start=0, end=1> (x)\nt = Concat <axis=0> (two, g, three)\ny = Reshape(s, t)",
        "int64[1] two = {2}, int64[1] three = {3}",
    )
    for value in built.graph.inputs:
        value.shape = ir.Shape([dim if isinstance(dim, int) else None for dim in value.shape or ()])
    found = search(built)
    sizes = [case.sizes for case in found.accepted]
    assert [(one["x[0]"], one["s[1]"]) for one in sizes] == [(1, 1), (2, 2), (3, 3)]
    assert len({one["x[1]"] for one in sizes}) == 3


def test_dimensions_that_have_to_agree_move_together_and_a_fixed_one_stays() -> None:
    built = model("float[a,b,h,w] x, float[c,b,k,w] z")
    found = find_cases(
        built,
        picky(lambda feeds: feeds["x"].shape == feeds["z"].shape and feeds["x"].shape[0] == 1),
    )
    sizes = [case.sizes for case in found.accepted]
    assert len(sizes) == 3
    assert len({one["h"] for one in sizes}) == 3
    assert all(one["h"] == one["k"] and one["a"] == one["c"] == 1 for one in sizes)


def test_values_become_simpler_where_the_model_does_not_take_them() -> None:
    built = model("int64[6] x")
    found = find_cases(built, picky(lambda feeds: not feeds["x"].any()))
    assert str(found.kinds["x"]) == "zeros"
    assert len(found.accepted) == 3


def test_answers_that_are_not_finite_are_a_second_choice() -> None:
    logarithm = search(model("float[6] x", "a = Neg(x)\nb = Neg(a)\ny = Log(b)"))
    assert str(logarithm.kinds["x"]) == "uniform"
    hopeless = search(model("float[6] x", "z = Sub(x, x)\ny = Log(z)"))
    assert str(hopeless.kinds["x"]) == "floats"
    assert len(hopeless.accepted) == 3


def test_every_branch_gets_a_case() -> None:
    built = model(
        "float[16] x, int64 rate",
        "e = Equal(rate, r)\ny = If (e) <then_branch = a () => (p) { p = Neg (x) }, "
        "else_branch = b () => (q) { q = Exp (x) }>",
        "int64 r = {16000}",
    )
    found = search(built)
    assert [int(case.feeds["rate"]) for case in found.accepted] == [16000, 16000, 16000, 0]
    last = found.accepted[-1]
    assert last.feeds["x"].min() < 0 < last.feeds["x"].max()
    np.testing.assert_allclose(last.answers["y"], np.exp(last.feeds["x"]), rtol=1e-6)


def test_settled_sizes_and_given_kinds_are_kept() -> None:
    found = search(model("float[N,n] x"), dims={"N": 7}, kinds={"x": "ones"})
    assert {case.sizes["N"] for case in found.accepted} == {7}
    assert all(np.all(case.feeds["x"] == 1) for case in found.accepted)


def test_a_given_kind_is_not_made_simpler() -> None:
    built = model("int64[6] x")
    found = find_cases(built, picky(lambda feeds: not feeds["x"].any()), kinds={"x": "ones"})
    assert found.accepted == []


def test_a_model_that_accepts_nothing_is_given_up() -> None:
    runs: list[Feeds] = []
    found = find_cases(model("float[a,b,c] x, int64[d,e] z"), picky(lambda _: False, runs))
    assert found.accepted == []
    assert found.rejected[0][1] == "not these"
    assert len(runs) <= 4 * 96


def test_inputs_that_would_fill_the_memory_are_not_made() -> None:
    found = find_cases(model("float[N,2000,time] x"), picky(lambda _: False), dims={"N": 9})
    reasons = {sizes["time"]: reason for sizes, reason in found.rejected}
    assert reasons[512] == "not these"
    assert reasons[16000] == "the inputs would take 288000000 elements"


@pytest.mark.parametrize("name", ["mnist_cnn_0", "mnist_resnet", "mnist_mobilenet"])
def test_shipped_models_are_fed(name: str) -> None:
    built = ir.load(MODELS / f"{name}.onnx")
    found = search(built)
    assert [case.sizes for case in found.accepted] == [{"batch": n} for n in (1, 2, 3)]
    assert found.rejected == []


CORPUS_KINDS = {
    "attacut-c": {"input": "integers(0,139)"},
    "deepcut": {"input_1": "integers(0,178)", "input_2": "integers(0,12)"},
    "magika": {"bytes": "integers(0,257)"},
    "oskut-deepcut": {"inputs": "integers(0,178)", "inputs_1": "integers(0,12)"},
    "silero-vad": {"input": "floats", "state": "floats", "sr": "choice(16000,0)"},
    "ppocr-det": {"x": "floats"},
    "ppocr-rec": {"x": "floats"},
    "nudenet-320n": {"images": "floats"},
}


@pytest.mark.corpus
@pytest.mark.parametrize("name", CORPUS_KINDS)
def test_real_models_are_fed_with_what_they_are_made_for(name: str) -> None:
    from benchmarks.corpus import load_corpus

    path = load_corpus()[name].path
    if not path.exists():
        pytest.skip("not fetched")
    found = search(ir.load(path))
    assert {key: str(kind) for key, kind in found.kinds.items()} == CORPUS_KINDS[name]
    assert len(found.accepted) >= 3
    varied = {
        dim
        for case in found.accepted
        for dim, size in case.sizes.items()
        if size != found.accepted[0].sizes[dim]
    }
    stuck = set(found.accepted[0].sizes) - varied
    assert stuck <= {"x[2]"}  # the height of ppocr-rec is a constant in its reshapes


@pytest.mark.parametrize(
    ("inputs", "most"),
    [("int64[batch,s] x", 1 << 16), ("float[batch,s] x", 1 << 22), ("float[1,s,t] x", 1 << 22)],
)
def test_what_no_size_pleases_does_not_fill_the_memory(inputs: str, most: int) -> None:
    runs: list[Feeds] = []
    found = find_cases(model(inputs), picky(lambda _: False, runs))
    assert not found.accepted
    assert len(runs) > 10
    assert max(feeds["x"].size for feeds in runs) <= most


@pytest.mark.parametrize("inputs", ["int64[500,500] x", "float[1,s,3,700,200] x"])
def test_what_is_large_by_itself_is_run(inputs: str) -> None:
    assert find_cases(model(inputs), picky(lambda _: True)).accepted
