"""Bisection: the pass that changes answers is named, and a small model shows that it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Feeds
from onnxpress.backends.errors import PassError
from onnxpress.compiler.bisect import bisect
from onnxpress.compiler.model_io import load
from onnxpress.compiler.pipeline import Fixpoint, Pipeline, Step
from onnxpress.compiler.verify import Verifier
from onnxpress.passes.base import Context, Contract, Pass, Result
from onnxpress.passes.graph import constant

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"


@dataclass(frozen=True)
class Touch(Pass):
    """Says that it changed something, and did not."""

    name: ClassVar[str] = "touch"
    label: str = ""

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        result.rewrote("nothing")
        return result


@dataclass(frozen=True)
class Rest(Pass):
    """Changes nothing."""

    name: ClassVar[str] = "rest"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        return Result(model)


@dataclass(frozen=True)
class DropRelu(Pass):
    """Takes a Relu between an Add and a Conv for nothing."""

    name: ClassVar[str] = "drop-relu"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        for node in model.graph:
            source = node.inputs[0]
            if node.op_type == "Relu" and source is not None:
                producer = source.producer()
                readers = {use.node.op_type for use in node.outputs[0].uses()}
                if producer is not None and producer.op_type == "Add" and "Conv" in readers:
                    node.outputs[0].replace_all_uses_with(source)
                    result.rewrote(node)
                    return result
        return result


@dataclass(frozen=True)
class Scale(Pass):
    """Multiplies the first matrix by a factor."""

    name: ClassVar[str] = "scale"
    contract: ClassVar[Contract] = Contract(exact=False, changes="the size", min_sqnr_db=30)
    by: float = 1.01

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        for value in model.graph.initializers.values():
            array = constant(value)
            if array is not None and array.ndim == 2 and array.dtype == np.float32:
                value.const_value = ir.tensor(array * np.float32(self.by), name=value.name)
                result.rewrote(value.name or "")
                return result
        return result


@dataclass(frozen=True)
class Crash(Pass):
    """Fails on any Conv after a Relu."""

    name: ClassVar[str] = "crash"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        for node in model.graph:
            source = node.inputs[0]
            producer = source.producer() if source is not None else None
            if node.op_type == "Conv" and producer is not None and producer.op_type == "Relu":
                raise RuntimeError("a Conv after a Relu")
        return Result(model)


@dataclass(frozen=True)
class NeedsData(Touch):
    """Asks for samples."""

    name: ClassVar[str] = "needs-data"
    needs_data: ClassVar[bool] = True


@pytest.fixture(scope="module")
def resnet() -> ir.Model:
    return load(MODELS / "mnist_resnet.onnx")


@pytest.fixture(scope="module")
def matrix() -> ir.Model:
    rng = np.random.default_rng(0)
    return ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 17, "nowhere" : 1]> '
        "main (float[n,3] x) => (float[n,2] y) { y = MatMul(x, w) }",
        initializers=[ir.tensor(rng.normal(size=(3, 2)).astype(np.float32), name="w")],
    )


@pytest.mark.parametrize("position", [1, 3, 6])
def test_the_guilty_pass_is_named_wherever_it_stands(resnet: ir.Model, position: int) -> None:
    passes: list[ir.passes.PassBase] = [Touch(str(at)) for at in range(5)]
    passes.insert(position - 1, DropRelu())
    found = bisect(resnet, passes)
    assert (found.status, found.guilty, found.position) == ("found", "drop-relu", position)
    assert "output 'logits'" in found.reason
    assert len(found.steps) == 6
    assert found.checks <= 4
    json.dumps(found.to_json(), allow_nan=False)


def test_steps_that_change_nothing_do_not_count(resnet: ir.Model) -> None:
    found = bisect(resnet, [Rest(), Touch(), Rest(), DropRelu()])
    assert found.steps == ["touch", "drop-relu"]
    assert found.position == 2


def test_a_right_pipeline_has_no_guilty_pass(resnet: ir.Model) -> None:
    before = ir.to_onnx_text(resnet, exclude_initializers=True)
    found = bisect(resnet, "fixpoint{fold-batch-norm}")
    assert (found.status, found.guilty, found.reason) == ("no-fault", "", "")
    assert "fold-batch-norm" in found.steps
    assert ir.to_onnx_text(resnet, exclude_initializers=True) == before


def test_a_pipeline_that_changes_nothing_has_nothing_to_compare(resnet: ir.Model) -> None:
    found = bisect(resnet, [Rest()])
    assert (found.status, found.steps, found.checks) == ("no-fault", [], 0)


def test_an_approximate_pass_moves_what_is_right(matrix: ir.Model) -> None:
    assert bisect(matrix, [Touch(), Scale(1.01), Touch()]).status == "no-fault"
    found = bisect(matrix, [Touch(), Scale(1.01), Touch(), Scale(1.5), Touch()])
    assert (found.guilty, found.position) == ("scale{by=1.5}", 4)
    assert "the contract asks for 30.0 dB" in found.reason


def test_a_pass_that_fails_is_guilty_unless_an_earlier_one_is(resnet: ir.Model) -> None:
    found = bisect(resnet, [Touch(), Crash(), Touch()])
    assert (found.guilty, found.position) == ("crash", 2)
    assert found.reason == "RuntimeError: a Conv after a Relu"
    assert bisect(resnet, [DropRelu(), Crash()]).guilty == "drop-relu"


def test_rounds_of_a_fixpoint_are_steps(matrix: ir.Model) -> None:
    rounds = Fixpoint(Pipeline((Step("scale", Scale(1.0000001)),)))
    found = bisect(matrix, Pipeline((rounds,)))
    assert len(found.steps) == 10
    assert found.status == "no-fault"


def test_a_model_that_cannot_run_is_not_bisected() -> None:
    strange = ir.from_onnx_text(
        '<ir_version: 9, opset_import: ["" : 17, "nowhere" : 1]> '
        "main (float[n,3] x) => (float[n,2] y) { y = nowhere.Odd (x) }"
    )
    found = bisect(strange, [Touch()])
    assert found.status == "not-run"
    assert "the original cannot be loaded" in found.reason


def test_a_pass_that_needs_data_says_so_first(resnet: ir.Model) -> None:
    with pytest.raises(PassError, match="needs-data needs data"):
        bisect(resnet, [NeedsData()])


class Recorded:
    """The inputs that came with a reduced model."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.feeds: Feeds = dict(arrays)

    def batches(self, size: int) -> Iterator[Feeds]:
        yield self.feeds


def test_a_reduced_model_shows_the_fault_by_itself(resnet: ir.Model, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    found = bisect(resnet, [Touch(), DropRelu(), Touch()], reduce_to=small)
    assert found.files == [str(small), str(small.with_suffix(".npz"))]
    reduced = load(small)
    assert [node.op_type for node in reduced.graph] == ["Add", "Relu", "Conv", "Conv"]
    changed = reduced.clone()
    assert DropRelu()(changed).modified
    watched = Verifier(reduced, data=Recorded(small.with_suffix(".npz")), cases=0)
    assert watched.check(reduced).status == "ok"
    assert watched.check(changed).status == "failed"
    assert found.reduced is not None
    assert found.reduced.nodes == (54, 4)
    assert found.to_json()["reduced"]["files"] == found.files


def test_a_reduced_model_shows_a_failure_by_itself(resnet: ir.Model, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    found = bisect(resnet, [Crash()], reduce_to=small)
    reduced = load(small)
    assert [node.op_type for node in reduced.graph] == ["Relu", "Conv"]
    assert found.reduced is not None
    assert found.reduced.reason == "RuntimeError: a Conv after a Relu"
    with pytest.raises(RuntimeError, match="a Conv after a Relu"):
        Crash().rewrite(reduced, Context())
