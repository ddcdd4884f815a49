"""A result that is slower than its input loses the passes that made it so, and no others.

Models take as long as their operators say (:data:`COSTS`), by a timer that the test turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import onnx_ir as ir
import pytest

from onnxpress.compiler import compile as compiling
from onnxpress.compiler import latency as timing
from onnxpress.compiler.compile import compile_model
from onnxpress.compiler.guard import CONFIRMING, SECONDS
from onnxpress.compiler.settings import Settings
from onnxpress.passes.base import Context, Contract, Pass, Result

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
main (float[2] x) => (float[2] y) {
  a = Neg (x)
  b = Ceil (a)
  c = Floor (b)
  y = Abs (c)
}
"""
COSTS = dict.fromkeys(("Neg", "Ceil", "Floor", "Abs", "Sin", "Cos"), 10) | dict.fromkeys(
    ("Erf", "Round"), 40
)
COSTS |= {"Relu": 5, "Sign": 14}


@dataclass(frozen=True)
class Swap(Pass):
    """Puts one operator in the place of another."""

    name: ClassVar[str] = "swap"
    old: str = ""
    new: str = ""

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        for node in model.graph:
            if node.op_type == self.old:
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
    """Says how long models take; ``noise`` is added to the first results, one a measurement."""

    noise: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __call__(
        self, before: ir.Model, after: ir.Model, _feeds: Any, *, seconds: float, **_: Any
    ) -> dict[str, Any]:
        self.seconds.append(seconds)
        noise = self.noise.pop(0) if self.noise else 1.0
        ratio = cost(before) / cost(after) * noise
        verdict = "slower" if ratio < 0.985 else "faster" if ratio > 1.015 else "none"
        return {"status": "measured", "speedup": ratio, "ci95": [ratio, ratio], "verdict": verdict}


def cost(model: ir.Model) -> int:
    return sum(COSTS[node.op_type] for node in model.graph)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "latency_before_and_after", made)
    return made


def compiled(passes: Sequence[Pass], text: str = MODEL, **settings: Any) -> compiling.Outcome:
    wanted = Settings(**({"time": True, "verify": False} | settings))
    return compile_model(ir.from_onnx_text(text), passes, wanted)


def statuses(outcome: compiling.Outcome) -> list[str]:
    return [record.status for record in outcome.report.passes]


def test_a_faster_result_is_measured_once_and_kept(clock: Clock) -> None:
    outcome = compiled([Swap("Neg", "Relu"), Swap("Ceil", "Sign")])
    assert clock.seconds == [SECONDS]
    assert operators(outcome.model) == ["Relu", "Sign", "Floor", "Abs"]
    assert statuses(outcome) == ["ok", "ok"]
    assert outcome.report.latency["speedup"] == pytest.approx(40 / 39)


def test_noise_withdraws_nothing(clock: Clock) -> None:
    clock.noise = [0.8]
    outcome = compiled([Swap("Neg", "Relu")])
    assert clock.seconds == [SECONDS, CONFIRMING]
    assert statuses(outcome) == ["ok"]
    assert outcome.report.latency["verdict"] == "faster"
    assert outcome.report.warnings == []


@pytest.mark.parametrize("at", range(4))
def test_the_guilty_pass_is_withdrawn_wherever_it_stands(clock: Clock, at: int) -> None:
    fine = [Swap("Neg", "Relu"), Swap("Floor", "Relu"), Swap("Abs", "Relu")]
    passes = [*fine[:at], Swap("Ceil", "Erf"), *fine[at:]]

    outcome = compiled(passes)

    assert operators(outcome.model) == ["Relu", "Ceil", "Relu", "Relu"]
    guilty = outcome.report.passes[at]
    assert (guilty.status, guilty.modified, guilty.rewritten) == ("withdrawn", False, 0)
    assert guilty.reason.startswith("the model was slower with it, 0.")
    assert statuses(outcome).count("ok") == 3
    assert outcome.report.latency["verdict"] == "faster"
    assert outcome.report.warnings == [f"swap is withdrawn: {guilty.reason}"]
    assert outcome.report.nodes == [4, 4]


def test_several_guilty_passes_are_withdrawn_one_after_the_other(clock: Clock) -> None:
    passes = [Swap("Neg", "Erf"), Swap("Ceil", "Relu"), Swap("Floor", "Erf")]
    outcome = compiled(passes)
    assert operators(outcome.model) == ["Neg", "Relu", "Floor", "Abs"]
    assert statuses(outcome) == ["withdrawn", "ok", "withdrawn"]


def test_a_pass_that_stands_twice_is_withdrawn_twice_and_told_once(clock: Clock) -> None:
    outcome = compiled([Swap("Neg", "Erf"), Swap("Ceil", "Relu"), Swap("Neg", "Erf")])
    assert statuses(outcome) == ["withdrawn", "ok", "withdrawn"]
    assert len(outcome.report.warnings) == 1


def test_what_stays_slow_goes_back_to_the_input(clock: Clock) -> None:
    text = MODEL.replace("y = Abs (c)", "d = Abs (c)\n e = Sin (d)\n y = Cos (e)")
    # One more than there are rounds, and each of them slows the model down.
    passes = [Swap(old, "Sign") for old in ("Neg", "Ceil", "Floor", "Abs", "Sin")]
    outcome = compiled(passes, text)
    assert operators(outcome.model) == ["Neg", "Ceil", "Floor", "Abs", "Sin", "Cos"]
    assert statuses(outcome) == ["withdrawn"] * 5
    reasons = [record.reason for record in outcome.report.passes]
    assert "the result is slower with any of the passes" in reasons
    assert outcome.report.latency == {
        "status": "not-measured",
        "reason": "no pass changed the model",
    }


def test_passes_that_change_answers_stay_and_are_named(clock: Clock) -> None:
    outcome = compiled([Swap("Neg", "Relu"), Approximate("Ceil", "Erf"), Swap("Floor", "Relu")])
    assert operators(outcome.model) == ["Relu", "Erf", "Relu", "Abs"]
    assert statuses(outcome) == ["ok", "ok", "ok"]
    (warning,) = outcome.report.warnings
    assert "changes answers on purpose" in warning


def test_a_slow_pass_before_one_that_changes_answers_is_withdrawn(clock: Clock) -> None:
    outcome = compiled([Swap("Neg", "Erf"), Approximate("Ceil", "Relu"), Swap("Floor", "Relu")])
    assert operators(outcome.model) == ["Neg", "Relu", "Relu", "Abs"]
    assert statuses(outcome) == ["withdrawn", "ok", "ok"]
    assert outcome.report.latency["verdict"] == "faster"


def test_nothing_is_withdrawn_where_nothing_is_measured(clock: Clock) -> None:
    outcome = compiled([Swap("Neg", "Erf")], time=False)
    assert clock.seconds == []
    assert operators(outcome.model) == ["Erf", "Ceil", "Floor", "Abs"]
    assert outcome.report.latency == compiling.NOT_TIMED


def test_what_cannot_be_timed_is_kept_and_said(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    unable = {"status": "not-measured", "reason": "it does not load"}
    monkeypatch.setattr(timing, "latency_before_and_after", lambda *_, **__: unable)
    outcome = compiled([Swap("Neg", "Erf")])
    assert statuses(outcome) == ["ok"]
    assert outcome.report.latency == unable


def test_what_is_left_is_checked_again(clock: Clock) -> None:
    outcome = compiled([Swap("Floor", "Round"), Swap("Abs", "Relu")], verify=True)
    slow, wrong = outcome.report.passes
    assert (slow.status, wrong.status) == ("withdrawn", "quarantined")
    assert outcome.report.verified["status"] == "ok"
    assert operators(outcome.model) == ["Neg", "Ceil", "Floor", "Abs"]
