"""Level 3 leaves out what does not pay, down to single rewrites, as far as time allows.

Models take as long as their operators say (:data:`COSTS`), by a timer that the test turns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import onnx_ir as ir
import pytest

from onnxpress.backends.errors import PassError
from onnxpress.compiler.manager import PassManager
from onnxpress.compiler.pipeline import as_pipeline
from onnxpress.compiler.records import LEFT_OUT, Run
from onnxpress.compiler.search import GLANCE, SECONDS, Choices, Search, search
from onnxpress.passes.base import Context, Contract, Pass, Result
from onnxpress.passes.graph import is_op

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
main (float[2] x) => (float[2] y) {
  [n1] a = Neg (x)
  [n2] b = Neg (a)
  [n3] c = Neg (b)
  [n4] d = Neg (c)
  y = Abs (d)
}
"""
COSTS = {"Neg": 10.0, "Abs": 10.0, "Relu": 5.0, "Erf": 30.0, "Ceil": 9.0}


@dataclass(frozen=True)
class Swap(Pass):
    """Puts one operator in the place of another, wherever it is or in one place."""

    name: ClassVar[str] = "swap"
    old: str = "Neg"
    new: str = "Relu"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        for node in model.graph:
            if is_op(node, self.old):
                node.op_type = self.new
                result.rewrote(node)
        return result


@dataclass(frozen=True)
class Approximate(Swap):
    """As Swap, and changes answers on purpose."""

    name: ClassVar[str] = "approximate"
    contract: ClassVar[Contract] = Contract(exact=False, changes="all", min_sqnr_db=10)


@dataclass
class Clock:
    """Says how long models take; the nodes of ``bad`` are slow once they are no longer Neg."""

    bad: tuple[str, ...] = ()
    noise: dict[float, float] = field(default_factory=dict)
    asked: list[float] = field(default_factory=list)

    def cost(self, model: ir.Model) -> float:
        slow = sum(40.0 for node in model.graph if node.name in self.bad and node.op_type != "Neg")
        return slow + sum(COSTS[node.op_type] for node in model.graph)

    def __call__(self, before: ir.Model, after: ir.Model, seconds: float) -> dict[str, Any]:
        self.asked.append(seconds)
        ratio = self.cost(before) / self.cost(after) * self.noise.get(seconds, 1.0)
        verdict = "faster" if ratio > 1.015 else "slower" if ratio < 0.985 else "none"
        return {"status": "measured", "speedup": ratio, "ci95": [ratio, ratio], "verdict": verdict}


def run_of(passes: list[Pass], choices: Choices = Choices()) -> Run:  # noqa: B008
    manager = PassManager(as_pipeline(passes), withdrawn=choices.withdrawn)
    return manager.run(ir.from_onnx_text(MODEL), Context(held=choices.held))


def searched(clock: Clock, passes: list[Pass], **options: Any) -> tuple[Run, dict[str, Any]]:
    start = run_of(passes)
    searching = Search(clock, lambda choices: run_of(passes, choices).model, **options)
    choices, report = searching.run(start)
    return run_of(passes, choices), report


def operators(run: Run) -> list[str]:
    return [node.op_type for node in run.model.graph]


def test_a_pass_that_does_not_pay_is_left_out() -> None:
    run, report = searched(Clock(), [Swap(), Swap("Abs", "Erf")])
    assert operators(run) == ["Relu"] * 4 + ["Abs"]
    kept, left_out = run.records
    assert (kept.status, left_out.status) == ("ok", "withdrawn")
    assert left_out.reason == LEFT_OUT
    assert report["verdict"] == "faster"
    assert report["speedup"] == pytest.approx(50 / 30)
    assert [one["left_out"] for one in report["tried"][:2]] == [False, True]


def test_what_pays_costs_a_glance() -> None:
    clock = Clock()
    run, report = searched(clock, [Swap("Abs", "Ceil"), Swap()])
    assert operators(run) == ["Relu"] * 4 + ["Ceil"]
    assert set(clock.asked) == {GLANCE}
    assert report["verdict"] == "nothing is better left out"


@pytest.mark.parametrize("bad", [("n1",), ("n3",), ("n2", "n4")])
def test_single_rewrites_are_left_out(bad: tuple[str, ...]) -> None:
    run, report = searched(Clock(bad), [Swap()])
    left = [node.name for node in run.model.graph if node.op_type == "Neg"]
    assert set(bad) <= set(left)
    (record,) = run.records
    # Halves are left out as such where that is faster.
    assert record.status == "withdrawn" or record.declined[LEFT_OUT] == len(left)
    assert report["verdict"] == "faster"


def test_one_bad_rewrite_among_good_ones_is_found() -> None:
    good = {"Relu": 1.0, "Neg": 20.0}
    clock = Clock(("n3",))
    clock.cost = lambda model: sum(  # type: ignore[method-assign]
        25.0 if node.name == "n3" and node.op_type == "Relu" else good.get(node.op_type, 10.0)
        for node in model.graph
    )
    run, report = searched(clock, [Swap()])
    assert operators(run) == ["Relu", "Relu", "Neg", "Relu", "Abs"]
    assert run.records[0].declined == {LEFT_OUT: 1}
    assert [one["rewrites"] for one in report["tried"]] == [None, 2, 2, 1, 1, 1]


def test_noise_leaves_out_nothing() -> None:
    run, report = searched(Clock(noise={GLANCE: 3.0}), [Swap()])
    assert operators(run) == ["Relu"] * 4 + ["Abs"]
    assert not any(one["left_out"] for one in report["tried"])


def test_level_two_s_result_stays_where_the_last_measurement_is_against_the_search() -> None:
    class Turning(Clock):
        def __call__(self, before: ir.Model, after: ir.Model, seconds: float) -> dict[str, Any]:
            found = super().__call__(before, after, seconds)
            return found | ({"verdict": "slower"} if len(self.asked) > 2 else {})

    run, report = searched(Turning(), [Swap("Abs", "Erf")])
    assert report["verdict"] == "slower"
    assert operators(run) == ["Neg"] * 4 + ["Erf"]


def test_time_runs_out() -> None:
    times = iter([0.0, 9.0])
    passes: list[Pass] = [Swap(), Swap("Abs", "Erf")]
    searching = Search(
        Clock(),
        lambda choices: run_of(passes, choices).model,
        deadline=5.0,
        clock=lambda: next(times),
    )
    _, report = searching.run(run_of(passes))
    assert len(report["tried"]) == 1
    assert report["not_tried"] == 3


def test_what_cannot_be_built_is_passed_over() -> None:
    def build(choices: Choices) -> ir.Model:
        raise PassError("it needs the other")

    choices, report = search(run_of([Swap()]), Clock(), build, budget=1e9)
    assert (choices, report["tried"]) == (None, [])


@pytest.mark.parametrize(
    ("passes", "reason"),
    [
        ([Swap("Sin", "Cos")], "no pass changed the model"),
        ([Swap(), Approximate("Abs")], "not done with passes that change answers"),
    ],
)
def test_what_is_not_searched(passes: list[Pass], reason: str) -> None:
    clock = Clock()
    choices, report = search(run_of(passes), clock, lambda _: run_of(passes).model, budget=9)
    assert choices is None
    assert report["status"] == "not-measured"
    assert reason in report["reason"]
    assert clock.asked == []


def test_what_was_left_out_before_stays_out() -> None:
    passes: list[Pass] = [Swap("Abs", "Erf"), Swap()]
    step = next(iter(as_pipeline(passes).steps()))
    start = run_of(passes, Choices({step: "it was slower"}))
    choices, _ = Search(Clock(("n1",)), lambda one: run_of(passes, one).model).run(start)
    assert choices.withdrawn[step] == "it was slower"
    assert SECONDS > GLANCE
