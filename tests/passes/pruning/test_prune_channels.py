"""PruneChannels: the channels are gone, the work is what was asked for, the answers hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx_ir.passes.common import IdentityEliminationPass

from benchmarks.zoo.digits import shipped_for_testing
from onnxpress.backends.base import SessionConfig
from onnxpress.backends.errors import UsageError
from onnxpress.backends.ort import session_of
from onnxpress.backends.targets import Target
from onnxpress.compiler.manager import check_needs
from onnxpress.compiler.pipeline import parse
from onnxpress.passes.analysis.channel_rules import RULES, elementwise
from onnxpress.passes.analysis.channels import OpId, Rule
from onnxpress.passes.analysis.macs import macs
from onnxpress.passes.base import Context
from onnxpress.passes.errors import PassError
from onnxpress.passes.lossless.fold_batch_norm import FoldBatchNorm
from onnxpress.passes.pruning.prune_channels import PruneChannels
from tests.passes.pruning.helpers import Samples, answers, build, networks, normal, run, with_zeros

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
main (float[N,3,4,4] x) => (float[N,2] y) {
  a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
  r = Relu (a)
  d = Conv <group = 8> (r, k)
  t = Transpose <perm = [0, 2, 3, 1]> (d)
  s = Shape (x)
  zero = Constant <value = int64[1] {0}> ()
  one = Constant <value = int64[1] {1}> ()
  n = Slice (s, zero, one)
  c = Constant <value = int64[1] {32}> ()
  p = Concat <axis = 0> (n, c)
  f = Reshape (t, p)
  y = Gemm (f, v, e)
}
"""


def model() -> ir.Model:
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "k": (8, 1, 3, 3), "v": (32, 2), "e": (2,)}
    return build(
        MODEL, {name: normal(*shape, seed=len(name + str(shape))) for name, shape in shapes.items()}
    )


def samples(count: int = 64) -> Samples:
    return Samples({"x": normal(count, 3, 4, 4, seed=9)})


def kept(details: dict[str, Any]) -> dict[str, dict[int, list[int]]]:
    """The report's lists of what stayed of each weight."""
    return {
        name: {int(axis): stays for axis, stays in axes.items()}
        for name, axes in details["kept"].items()
    }


def test_the_graph_that_is_left() -> None:
    one = model()

    result = PruneChannels(macs=0.5).rewrite(one, Context(data=samples()))

    assert ir.to_onnx_text(one, exclude_initializers=True).splitlines()[4:] == [
        "main (float[N,3,4,4] x) => (float[N,2] y) ",
        "   <float[4,3,3,3] w, float[4] b, float[4,1,3,3] k, float[16,2] v, float[2] e, "
        'int64[2] "f.shape", float[4] "d.bias">',
        "{",
        "   a = Conv <pads: ints = [1, 1, 1, 1]> (x, w, b)",
        "   r = Relu (a)",
        '   d = Conv <group: int = 4> (r, k, "d.bias")',
        "   t = Transpose <perm: ints = [0, 2, 3, 1]> (d)",
        '   f = Reshape (t, "f.shape")',
        "   y = Gemm (f, v, e)",
        "}",
    ]
    assert result.rewritten == ["a"]
    assert result.declined == {"y": "they reach the graph output 'y'"}
    assert result.details["groups"] == {"a": [8, 4]}
    assert list(result.details["residuals"]) == ["d", "y"]
    assert result.details["macs"] == [8 * (16 * 27 + 4 * 9 + 8), 4 * (16 * 27 + 4 * 9 + 8)]
    assert json.loads(json.dumps(result.details)) == result.details


@settings(deadline=None, max_examples=25)
@given(networks(), st.sampled_from([0.3, 0.5, 0.8]), st.sampled_from(["global", "uniform"]))
def test_without_reconstruction_the_rest_answers_as_if_the_removed_were_zero(
    one: ir.Model, fraction: float, scope: str
) -> None:
    dense, before = one.clone(), macs(one)
    assert before is not None
    prune = PruneChannels(macs=fraction, scope=scope, reconstruct=False)  # type: ignore[arg-type]
    try:
        result = prune.rewrite(one, Context())
    except PassError as error:
        assume("keeps at least" not in error.message)
        raise

    onnx.checker.check_model(ir.to_proto(one), full_check=True)
    after = macs(one)
    assert after is not None
    assert after <= fraction * before
    masked = answers(with_zeros(dense, kept(result.details)))
    np.testing.assert_allclose(answers(one)["y"], masked["y"], rtol=1e-4, atol=1e-5)
    for name, axes in kept(result.details).items():
        shape = one.graph.initializers[name].const_value
        assert shape is not None
        for axis, stays in axes.items():
            assert shape.shape[axis] == len(stays)


@settings(deadline=None, max_examples=10)
@given(networks())
def test_reconstruction_comes_nearer_to_the_dense_answers(one: ir.Model) -> None:
    context = Context(data=Samples({"x": normal(96, 3, 8, 8, seed=4)}))
    feeds = {"x": normal(32, 3, 8, 8, seed=5)}
    dense = run(one, feeds)["y"]
    plain, fitted = one.clone(), one.clone()
    try:
        result = PruneChannels(macs=0.7, reconstruct=False).rewrite(plain, context)
    except PassError as error:
        assume("keeps at least" not in error.message)
        raise
    assume(result.modified)
    PruneChannels(macs=0.7).rewrite(fitted, context)

    errors = [np.square(run(pruned, feeds)["y"] - dense).mean() for pruned in (plain, fitted)]
    assert errors[1] < errors[0] + 1e-6


def test_weights_of_batch_normalization_need_not_be_folded() -> None:
    text = MODEL.replace("r = Relu (a)", "q = BatchNormalization (a, g, h, i, j)  r = Relu (q)")
    arrays = {name: np.abs(normal(8, seed=n)) + 1 for n, name in enumerate("ghij")}
    weights = {v.name: v.const_value for v in model().graph.initializers.values() if v.const_value}
    one = build(text, {str(name): tensor.numpy() for name, tensor in weights.items()} | arrays)

    result = PruneChannels(macs=0.5).rewrite(one, Context(data=samples()))

    assert result.details["groups"] == {"a": [8, 4]}
    assert answers(one)["y"].shape == (2, 2)


def test_sizes_of_dynamic_dimensions_count() -> None:
    """The deeper the image, the less the dense layer matters."""
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[N,3,S,S] x) => (float[N,2] y) {
      a = Conv (x, w)
      r = Relu (a)
      p = GlobalAveragePool (r)
      f = Flatten (p)
      d = Gemm (f, v)
      y = Gemm (d, u)
    }
    """
    weights = {"w": normal(8, 3, 3, 3), "v": normal(8, 64, seed=1), "u": normal(64, 2, seed=2)}

    small, large = (
        PruneChannels(macs=0.5, reconstruct=False)
        .rewrite(build(text, weights), Context(dims={"S": size}))
        .details["groups"]
        for size in (3, 64)
    )

    assert small["d"][1] < 64
    assert large["a"] == [8, 4]


@pytest.mark.parametrize(
    ("target", "options", "left"),
    [
        (Target(), {}, 16),
        (Target("portable"), {}, 16),
        (Target("cpu", frozenset({"avx2", "avx512f"})), {}, 16),
        (Target("cpu", frozenset({"avx2"})), {}, 24),
        (Target("cuda"), {}, 24),
        (Target(), {"multiple": 1}, 25),
        (Target(), {"multiple": 10}, 20),
    ],
)
def test_what_stays_suits_the_kernels_of_the_target(
    target: Target, options: dict[str, int], left: int
) -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[N,3,4,4] x) => (float[N,2,4,4] y) { a = Conv (x, w)  y = Conv (a, v) }
    """
    one = build(text, {"w": normal(32, 3, 1, 1), "v": normal(2, 32, 1, 1)})

    prune = PruneChannels(macs=0.8, reconstruct=False, **options)  # type: ignore[arg-type]

    assert prune.rewrite(one, Context(target=target)).details["groups"] == {"a": [32, left]}


def test_channels_of_groups_count_together() -> None:
    """Eight of each of two groups are sixteen."""
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[N,4,4,4] x) => (float[N,2,4,4] y) {
      a = Conv <group = 2> (x, w)
      y = Conv (a, v)
    }
    """
    one = build(text, {"w": normal(48, 2, 1, 1), "v": normal(2, 48, 1, 1)})

    result = PruneChannels(macs=0.7, reconstruct=False).rewrite(one, Context())

    assert result.details["groups"] == {"a": [24, 16]}


def test_all_of_the_work_leaves_the_model_as_it_is() -> None:
    one = model()
    before = ir.to_onnx_text(one)

    result = PruneChannels(macs=1.0).rewrite(one, Context(data=samples()))

    assert not result.modified
    assert ir.to_onnx_text(one) == before


def test_the_same_seed_gives_the_same_model() -> None:
    texts = []
    for seed in (1, 1, 2):
        one = model()
        context = Context(data=samples(), seed=seed)
        PruneChannels(criterion="random").rewrite(one, context)
        texts.append(ir.to_onnx_text(one))

    assert texts[0] == texts[1] != texts[2]


def test_progress_is_told() -> None:
    told: list[tuple[str, int, int | None]] = []
    context = Context(data=samples(), progress=lambda *what: told.append(what))

    PruneChannels().rewrite(model(), context)

    assert told == [
        ("measure groups", 0, 1),
        ("measure groups", 1, 1),
        ("reconstruct", 0, 2),
        ("reconstruct", 1, 2),
        ("reconstruct", 2, 2),
    ]


def test_what_the_answers_lose_is_reported() -> None:
    result = PruneChannels(macs=0.5, multiple=1).rewrite(model(), Context(data=samples(256)))

    (curve,) = result.details["losses"].values()
    assert curve[0] == [8, 0.0]
    assert [left for left, _ in curve] == sorted((left for left, _ in curve), reverse=True)
    assert [loss for _, loss in curve] == sorted(loss for _, loss in curve)


def test_the_same_part_of_each_group_by_reconstruction() -> None:
    prune = PruneChannels(macs=0.5, scope="uniform", criterion="reconstruction")

    result = prune.rewrite(model(), Context(data=samples()))

    assert result.details["groups"] == {"a": [8, 4]}
    assert "losses" not in result.details


def test_without_data_it_says_so_before_any_work() -> None:
    one = model()
    before = ir.to_onnx_text(one)

    with pytest.raises(PassError, match="needs samples"):
        PruneChannels().rewrite(one, Context())
    with pytest.raises(PassError, match="needs data"):
        check_needs(parse("prune-channels"), Context())
    with pytest.raises(PassError, match="needs data"):
        check_needs(parse("prune-channels{reconstruct=false,criterion=reconstruction}"), Context())
    check_needs(parse("prune-channels{reconstruct=false}"), Context())

    assert ir.to_onnx_text(one) == before


def test_less_than_can_be_reached_is_refused() -> None:
    with pytest.raises(PassError, match=r"at least 0\.25 .* 0\.1 was asked for") as caught:
        PruneChannels(macs=0.1).rewrite(model(), Context(data=samples()))
    assert "they reach the graph output 'y'" in caught.value.message


def test_work_is_counted_at_the_sizes_of_the_samples() -> None:
    """A tracer keeps a size that the model declares as dynamic; only samples know it."""
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (float[N,T,4] x) => (float[N,2] y) {
      flat = Reshape (x, shape)  h = MatMul (flat, w)  r = Relu (h)  y = MatMul (r, v)
    }
    """
    weights = {"shape": np.array([-1, 28]), "w": normal(28, 32), "v": normal(32, 2)}
    one = build(text, weights)

    result = PruneChannels(multiple=1).rewrite(one, Context(data=Samples({"x": normal(64, 7, 4)})))

    before, after = result.details["macs"]
    assert before == 28 * 32 + 32 * 2
    assert after <= before / 2


def test_work_that_cannot_be_counted_is_refused() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17, "my" : 1]>
    main (float[N,4] x) => (float[N,2] y) { s = my.Scale (x)  y = MatMul (s, w) }
    """

    with pytest.raises(PassError, match="cannot be counted"):
        PruneChannels(reconstruct=False).rewrite(build(text, {"w": normal(4, 2)}), Context())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"macs": 0}, "macs is a fraction above 0"),
        ({"macs": 1.1}, "macs is a fraction above 0"),
        ({"macs": float("nan")}, "macs is a fraction above 0"),
        ({"criterion": "l3"}, "criterion is one of auto, reconstruction"),
        ({"scope": "local"}, "scope is global or uniform"),
        ({"ridge": -1.0}, "ridge is a number of at least 0"),
        ({"ridge": float("inf")}, "ridge is a number of at least 0"),
        ({"samples": -1}, "samples is a number of at least 0"),
        ({"multiple": -1}, "multiple is a number of at least 0"),
        ({"min_channels": 0}, "min_channels is a number of at least 1"),
    ],
)
def test_options_are_checked(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        PruneChannels(**options)
    assert reason in caught.value.hint


def test_pipeline_text() -> None:
    text = "prune-channels{macs=0.25,criterion=l1,scope=uniform,reconstruct=false,min_channels=4}"

    assert str(parse(text)) == text
    assert str(parse("prune-channels{macs=0.5}")) == "prune-channels"


def test_the_contract_holds_answers_only_where_they_are_fitted() -> None:
    assert not PruneChannels().contract.exact
    assert PruneChannels().contract.min_sqnr_db == 0
    assert PruneChannels(reconstruct=False).contract.min_sqnr_db == -np.inf


@dataclass(frozen=True)
class PruneMine(PruneChannels):
    """Knows one operator more."""

    name: ClassVar[str] = "prune-mine"
    rules: ClassVar[Mapping[OpId, Rule]] = {**RULES, ("my", "Scale"): elementwise}


def test_a_pass_with_more_rules() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17, "my" : 1]>
    main (float[N,4] x) => (float[N,2] y) <float[N,8] s> {
      a = Gemm (x, w)
      s = my.Scale (a)
      y = Gemm (s, v)
    }
    """
    weights = {"w": normal(4, 8), "v": normal(8, 2)}

    with pytest.raises(PassError, match="at least 1 of"):
        PruneChannels(reconstruct=False).rewrite(build(text, weights), Context())
    one = build(text, weights)
    PruneMine(reconstruct=False).rewrite(one, Context())

    assert one.graph.initializers["w"].shape == (4, 4)


def top1(one: ir.Model, layout: str, count: int) -> float:
    """The share of the first ``count`` test digits that are named rightly, in percent."""
    digits = shipped_for_testing()[:count]
    session = session_of(one, SessionConfig(threads=1))
    (scores,) = session.run({"image": digits.pixels(layout)}).values()
    return 100 * float(np.mean(scores.argmax(axis=1) == digits.labels))


def shipped(name: str) -> tuple[ir.Model, str, Samples]:
    layout = "nhwc" if "cnn" in name else "nchw"
    one = ir.load(BENCHMARKS / "models" / f"{name}.onnx")
    with np.load(BENCHMARKS / "data" / f"mnist_calibration_{layout}.npz") as file:
        return one, layout, Samples(dict(file))


def check_shipped(
    name: str, fraction: float, points: float, count: int = 2000, **options: Any
) -> None:
    """Prune a shipped model to ``fraction`` and lose at most ``points`` of its top-1."""
    one, layout, data = shipped(name)
    before, work = top1(one, layout, count), macs(one)
    IdentityEliminationPass()(one)
    FoldBatchNorm().rewrite(one, Context())

    PruneChannels(macs=fraction, **options).rewrite(one, Context(data=data))

    after = macs(one)
    assert work is not None
    assert after is not None
    assert after <= fraction * work
    assert top1(one, layout, count) >= before - points
    onnx.checker.check_model(ir.to_proto(one), full_check=True)


def test_the_shipped_cnn_at_half_the_work() -> None:
    check_shipped("mnist_cnn_0", 0.5, 0.5)


@pytest.mark.parametrize(("name", "fraction"), [("mnist_resnet", 0.57), ("mnist_mobilenet", 0.6)])
def test_shipped_networks_of_blocks_with_few_samples(name: str, fraction: float) -> None:
    check_shipped(name, fraction, 1.5, count=500, samples=64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fraction", "points"),
    [
        ("mnist_cnn_0", 0.25, 1.0),
        ("mnist_cnn_1", 0.5, 0.5),
        ("mnist_cnn_2", 0.5, 0.5),
        ("mnist_cnn_3", 0.5, 0.5),
        ("mnist_resnet", 0.57, 0.5),
        ("mnist_resnet", 0.26, 2.0),
        ("mnist_mobilenet", 0.6, 1.0),
    ],
)
def test_shipped_networks(name: str, fraction: float, points: float) -> None:
    check_shipped(name, fraction, points)
