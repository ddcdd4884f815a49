"""Mixed precision: answers stay as good as asked for, with as little float as that takes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, Feeds
from onnxpress.backends.errors import DataError, UsageError
from onnxpress.backends.targets import Target
from onnxpress.compiler.compile import Outcome, compile_model
from onnxpress.compiler.html_report import as_html
from onnxpress.compiler.quality import Demand, Part
from onnxpress.compiler.settings import Settings

TEXT = """
<ir_version: 8, opset_import: ["" : 13]>
main (float[n,16] x) => (float[n,9] y) {
  h = MatMul (x, m)
  k = Relu (h)
  l = MatMul (k, p)
  s = Relu (l)
  y = MatMul (s, q)
}
"""
SHAPES = {"m": (16, 12), "p": (12, 12), "q": (12, 9)}


class Samples:
    def __init__(self, count: int) -> None:
        self.x = np.random.default_rng(1).normal(size=(count, 16)).astype(np.float32)

    def batches(self, size: int) -> Iterator[Feeds]:
        for start in range(0, len(self.x), size):
            yield {"x": self.x[start : start + size]}


@pytest.fixture
def model() -> ir.Model:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    arrays["p"] *= np.exp(1.5 * rng.normal(size=(12, 1))).astype(np.float32)
    return ir.from_onnx_text(TEXT, [ir.tensor(array, name=name) for name, array in arrays.items()])


def compiled(
    model: ir.Model, demand: Demand, count: int = 64, passes: str = "insert-qdq"
) -> Outcome:
    settings = Settings(target=Target("portable"), data=Samples(count), demand=demand, verify=False)
    return compile_model(model, passes, settings)


def own(run: Callable[[Feeds], dict[str, Array]]) -> float:
    """A measure that no quantization changes."""
    return float(run({"x": np.zeros((1, 16), np.float32)})["y"].sum())


def test_what_is_good_enough_stays_int8(model: ir.Model) -> None:
    accuracy = compiled(model, Demand(10, "sqnr")).report.accuracy

    assert (accuracy["status"], accuracy["in_float"], accuracy["tried"]) == ("held", [], 1)
    assert accuracy["value"] > 10
    assert {one["layer"] for one in accuracy["layers"]} == {"h", "l", "y"}


def test_the_layers_that_cost_most_stay_in_float(model: ir.Model) -> None:
    plain = compiled(model, Demand(0, "sqnr")).report.accuracy

    outcome = compiled(model, Demand(plain["value"] + 1, "sqnr"), passes="insert-qdq,refit")

    accuracy = outcome.report.accuracy
    assert accuracy["value"] >= plain["value"] + 1
    assert len(accuracy["in_float"]) < 3
    operators = [node.op_type for node in outcome.model.graph]
    assert operators.count("QuantizeLinear") >= 1
    page = as_html(outcome.report)
    assert "Sensitivity" in page
    assert "held out" in page


def test_nothing_may_be_worth_quantizing(model: ir.Model) -> None:
    outcome = compiled(model, Demand(150, "sqnr"))

    assert outcome.report.accuracy["status"] == "not-worth-it"
    assert outcome.report.warnings[-1] == (
        "nothing is worth quantizing here: all 3 layers would have to stay in float"
    )
    assert {node.op_type for node in outcome.model.graph} == {"MatMul", "Relu"}


@pytest.mark.parametrize(("least", "in_float"), [(10, []), (150, ["h"])])
def test_layers_in_branches_count_as_well(least: float, in_float: list[str]) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 13]>
    main (float[n,16] x) => (float[n,12] y) <bool go = {1}> {
      on = Identity (go)
      y = If (on) <
        then_branch = yes () => (float[n,12] k) { h = MatMul (x, m)  k = Sin (h) },
        else_branch = no () => (float[n,12] l) { l = MatMul (x, m) }>
    }"""
    array = np.random.default_rng(0).normal(size=(16, 12)).astype(np.float32)
    model = ir.from_onnx_text(text, [ir.tensor(array, name="m")])
    model = ir.from_proto(ir.to_proto(model))  # so that branches find the outer weights

    accuracy = compiled(model, Demand(least, "sqnr")).report.accuracy

    # The other branch is never taken, so that its layer costs nothing in int8.
    assert (accuracy["status"], accuracy["in_float"]) == ("held", in_float)


@pytest.mark.parametrize("metric", ["cosine", "top1-agreement", f"{__name__}:own"])
def test_other_measures(model: ir.Model, metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))

    accuracy = compiled(model, Demand(0.2, metric)).report.accuracy

    assert accuracy["reference"] == (0 if ":" in metric else 1)
    assert accuracy["value"] >= accuracy["reference"] - 0.2


def test_labels(model: ir.Model) -> None:
    accuracy = compiled(model, Demand(0.5, "accuracy", np.arange(64) % 9)).report.accuracy

    assert 0 <= accuracy["reference"] <= 1
    with pytest.raises(DataError, match="labels for more samples"):
        compiled(model, Demand(0.5, "accuracy", np.arange(40)))
    with pytest.raises(DataError, match="whole number for each sample"):
        Demand(0.5, "accuracy", np.ones((2, 2)))


@pytest.mark.parametrize("size", [1, 3, 8, 500])
def test_the_same_samples_are_held_out_whatever_the_batch(size: int) -> None:
    data = Samples(70)

    held, rest = (
        np.concatenate([feeds["x"] for feeds in Part(data, held=held).batches(size)])
        for held in (True, False)
    )

    expected = [index for index in range(70) if index // 8 % 4 == 3]
    np.testing.assert_array_equal(held, data.x[expected])
    assert len(held) + len(rest) == 70
    np.testing.assert_array_equal(Part(data, held=True).pick(np.arange(70)), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": 1, "metric": "beauty"}, "no metric 'beauty'"),
        ({"max_drop": 1, "metric": "accuracy"}, "needs labels"),
        ({"max_drop": -1}, "not zero or more"),
        ({"max_drop": float("nan")}, "not zero or more"),
    ],
)
def test_demands_that_make_no_sense(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Demand(**options)


def test_what_is_missing_is_said(model: ir.Model) -> None:
    with pytest.raises(UsageError, match="nothing quantizes any"):
        compiled(model, Demand(0.1), passes="cleanup")
    with pytest.raises(DataError, match="too few samples"):
        compiled(model, Demand(0.1), count=8)
