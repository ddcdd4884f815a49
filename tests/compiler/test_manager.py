"""The manager keeps what is right, undoes what is wrong, and says which was which."""

from __future__ import annotations

import gc
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir
import onnx_ir.passes.common as common_passes
import pytest

from onnxpress.backends.errors import PassError, VerificationError
from onnxpress.backends.targets import Target
from onnxpress.compiler.manager import Hook, PassManager, PassRecord
from onnxpress.compiler.pipeline import Fixpoint, Pipeline, Step, as_pipeline
from onnxpress.passes.base import Context, Contract, Pass, Result

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
main (float[2] x) => (float[2] y) {
  a = Neg (x)
  b = Neg (a)
  y = Abs (b)
}
"""


def model() -> ir.Model:
    return ir.from_onnx_text(MODEL)


def operators(one: ir.Model) -> list[str]:
    return [node.op_type for node in one.graph]


@dataclass(frozen=True)
class DropNegPair(Pass):
    """Neg(Neg(x)) is x."""

    name: ClassVar[str] = "drop-neg-pair"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        for node in model.graph:
            source = node.inputs[0].producer() if node.inputs[0] else None
            if node.op_type != "Neg" or source is None or source.op_type != "Neg":
                continue
            assert source.inputs[0] is not None
            node.outputs[0].replace_all_uses_with(source.inputs[0])
            model.graph.remove([node, source], safe=True)
            result.rewrote(node)
            return result
        for node in model.graph:
            if node.op_type == "Abs":
                result.decline(node, because="it is no Neg")
        return result


@dataclass(frozen=True)
class Breaks(Pass):
    """Does something wrong of the given kind."""

    name: ClassVar[str] = "breaks"
    how: str = "raise"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model, modified=True)
        last = model.graph[-1]
        if self.how == "raise":
            model.graph.remove(last)
            raise ZeroDivisionError("half way")
        if self.how == "rename-output":
            model.graph.outputs[0].name = "z"
        if self.how == "drop-output":
            model.graph.outputs.pop()
        if self.how == "rename-input":
            model.graph.inputs[0].name = "z"
        if self.how == "unsorted":
            first = model.graph[0]
            model.graph.remove(first)
            model.graph.append(first)
        if self.how == "same-name":
            model.graph[0].outputs[0].name = "b"
        if self.how == "dangling":
            last.replace_input_with(0, ir.Value(name="nowhere"))
        return result


@dataclass(frozen=True)
class NeedsData(Pass):
    """Cannot work without samples."""

    name: ClassVar[str] = "needs-data"
    needs_data: ClassVar[bool] = True

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        raise AssertionError("must not run")


@dataclass(frozen=True)
class Approximates(Pass):
    """Changes answers and says so."""

    name: ClassVar[str] = "approximates"
    contract: ClassVar[Contract] = Contract(exact=False, changes="all", min_sqnr_db=10)

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        result.rewrote("everything")
        return result


@dataclass
class Answer:
    status: str
    reason: str = ""

    def to_json(self) -> dict[str, str]:
        return {"status": self.status, "reason": self.reason}


@dataclass
class ScriptedChecker:
    """A checker that gives the answers it was told to give, and keeps what it was asked."""

    answers: list[str]
    asked: list[tuple[list[str], bool]] = field(default_factory=list)
    rebased: list[list[str]] = field(default_factory=list)

    def check(self, candidate: ir.Model, contract: Contract) -> Answer:
        self.asked.append((operators(candidate), contract.exact))
        return Answer(self.answers.pop(0), "the answers differ")

    def rebase(self, model: ir.Model) -> None:
        self.rebased.append(operators(model))


def test_a_right_pass_is_kept_and_the_input_stays_as_it_was() -> None:
    original = model()
    before = ir.to_onnx_text(original)

    run = PassManager([DropNegPair(), DropNegPair()]).run(original)

    assert operators(run.model) == ["Abs"]
    assert ir.to_onnx_text(original) == before
    first, second = run.records
    assert (first.status, first.rewritten, first.nodes) == ("ok", 1, (3, 1))
    assert (second.status, second.rewritten, second.modified) == ("no-change", 0, False)
    assert dict(second.declined) == {"it is no Neg": 1}


def test_the_result_of_an_empty_pipeline_is_a_copy() -> None:
    original = model()
    run = PassManager("").run(original)
    assert run.model is not original
    assert ir.to_onnx_text(run.model) == ir.to_onnx_text(original)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "ZeroDivisionError: half way"),
        ("rename-output", r"outputs became \['z'\], they have to stay \['y'\]"),
        ("drop-output", r"outputs became \[\]"),
        ("rename-input", r"inputs became \['z'\]"),
        ("unsorted", "reads 'a', which nothing before it computes"),
        ("same-name", "two values are named 'b'"),
        ("dangling", "reads 'nowhere'"),
    ],
)
def test_a_broken_pass_is_undone_and_the_rest_goes_on(how: str, reason: str) -> None:
    run = PassManager([Breaks(how), DropNegPair()]).run(model())

    broken, fine = run.records
    assert broken.status == "quarantined"
    assert fine.status == "ok"
    assert run.quarantined == [broken]
    assert operators(run.model) == ["Abs"]
    with pytest.raises(PassError, match=reason):
        PassManager([Breaks(how)], strict=True).run(model())


@pytest.mark.parametrize("how", ["raise", "rename-output", "dangling"])
@pytest.mark.parametrize("answers", [None, ["ok", "ok"]], ids=["unchecked", "checked"])
def test_what_was_kept_before_a_broken_pass_stays(
    how: str, answers: list[str] | None, tmp_path: Path
) -> None:
    original = model()
    before = ir.to_onnx_text(original)
    checker = ScriptedChecker(list(answers)) if answers else None

    run = PassManager(
        [DropNegPair(), Breaks(how), Approximates()], checker=checker, reproduce=tmp_path
    ).run(original)

    assert [record.status for record in run.records] == ["ok", "quarantined", "ok"]
    assert operators(run.model) == ["Abs"]
    assert [value.name for value in run.model.graph.outputs] == ["y"]
    assert operators(ir.load(run.records[1].reproduction)) == ["Abs"]
    assert ir.to_onnx_text(original) == before


def test_a_wrong_answer_is_undone() -> None:
    checker = ScriptedChecker(["failed", "ok"])

    run = PassManager([DropNegPair(), Approximates()], checker=checker).run(model())

    assert operators(run.model) == ["Neg", "Neg", "Abs"]
    wrong, fine = run.records
    assert (wrong.status, wrong.reason, wrong.verified) == (
        "quarantined",
        "the answers differ",
        "failed",
    )
    assert (fine.status, fine.verified) == ("ok", "ok")
    assert checker.asked == [(["Abs"], True), (["Neg", "Neg", "Abs"], False)]
    with pytest.raises(VerificationError, match="differ"):
        PassManager([DropNegPair()], checker=ScriptedChecker(["failed"]), strict=True).run(model())


def test_an_approximate_pass_moves_the_reference() -> None:
    checker = ScriptedChecker(["ok", "ok"])
    run = PassManager([Approximates(), DropNegPair()], checker=checker).run(model())
    assert checker.rebased == [["Neg", "Neg", "Abs"]]
    assert run.verdict is None
    exact = PassManager([DropNegPair()], checker=ScriptedChecker(["ok"])).run(model())
    assert exact.verdict == Answer("ok", "the answers differ")


def test_a_check_that_could_not_run_is_not_a_pass() -> None:
    run = PassManager([DropNegPair()], checker=ScriptedChecker(["not-run"])).run(model())
    assert run.records[0].verified == "not-run"


def test_a_fixpoint_repeats_and_has_one_record_a_pass() -> None:
    text = MODEL.replace("a = Neg (x)", "k = Neg (x)\n m = Neg (k)\n a = Neg (m)")
    group = Fixpoint(as_pipeline([DropNegPair()]))

    run = PassManager(Pipeline((group,))).run(ir.from_onnx_text(text))

    assert operators(run.model) == ["Abs"]
    (record,) = run.records
    assert (record.status, record.rewritten, record.nodes) == ("ok", 2, (5, 1))


def test_a_fixpoint_is_bounded_and_drops_what_is_quarantined() -> None:
    group = Fixpoint(as_pipeline([Approximates(), Breaks()]))
    run = PassManager(Pipeline((group,))).run(model())
    endless, broken = run.records
    assert endless.rewritten == 10
    assert broken.status == "quarantined"
    twice = PassManager([Breaks(), Breaks()]).run(model())
    assert [record.status for record in twice.records] == ["quarantined", "skipped"]


def test_missing_data_is_said_before_anything_runs() -> None:
    with pytest.raises(PassError, match="needs-data needs data") as caught:
        PassManager([Breaks(), NeedsData()], strict=True).run(model())
    assert "--data" in caught.value.hint


class Watcher(Hook):
    """Writes down what it sees, and refuses one pass."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def should_run(self, step: Step, model: ir.Model) -> bool:
        return step.name != "breaks"

    def run_before_pass(self, step: Step, model: ir.Model) -> None:
        self.seen.append(f"before {step.name} {len(model.graph)}")

    def run_after_pass(self, step: Step, model: ir.Model, record: PassRecord) -> None:
        self.seen.append(f"after {step.name} {len(model.graph)} {record.status}")


def test_hooks_look_on_and_decide() -> None:
    watcher = Watcher()
    run = PassManager([Breaks(), DropNegPair()], hooks=[watcher, Hook()]).run(model())
    assert watcher.seen == ["before drop-neg-pair 3", "after drop-neg-pair 1 ok"]
    assert [record.status for record in run.records] == ["skipped", "ok"]


def test_plain_onnx_ir_passes_run_unchanged() -> None:
    text = MODEL.replace("y = Abs", "unused = Neg (x)\n y = Abs")
    unused = common_passes.RemoveUnusedNodesPass()
    functional = ir.passes.functionalize(common_passes.ClearMetadataAndDocStringPass())

    run = PassManager([unused, functional]).run(ir.from_onnx_text(text))

    assert operators(run.model) == ["Neg", "Neg", "Abs"]
    assert run.records[0].status == "ok"


def test_a_quarantined_pass_leaves_the_model_that_it_was_wrong_on(tmp_path: Path) -> None:
    folder = tmp_path / "repro"
    run = PassManager([DropNegPair(), Breaks()], reproduce=folder).run(model())
    saved = Path(run.records[1].reproduction)
    assert saved.parent == folder
    assert operators(ir.load(saved)) == ["Abs"]


def test_subgraphs_are_checked_too() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 17]>
    main (bool c, float[2] x) => (float[2] y) {
      y = If (c) <
        then_branch = t () => (float[2] p) { p = Neg (x) },
        else_branch = e () => (float[2] q) { q = Abs (x) }
      >
    }
    """

    @dataclass(frozen=True)
    class BreaksBranch(Pass):
        name: ClassVar[str] = "breaks-branch"

        def rewrite(self, model: ir.Model, context: Context) -> Result:
            branch = model.graph[0].attributes["then_branch"].as_graph()
            branch[0].replace_input_with(0, ir.Value(name="nowhere"))
            return Result(model, modified=True)

    run = PassManager([BreaksBranch()]).run(ir.from_onnx_text(text))
    assert run.records[0].reason == "Neg reads 'nowhere', which nothing before it computes"


@dataclass(frozen=True)
class SeesCollector(Pass):
    """Fails, and tells whether garbage was being collected."""

    name: ClassVar[str] = "sees-collector"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        raise PassError(f"collecting: {gc.isenabled()}")


def test_garbage_is_not_collected_while_unchecked_passes_run_and_is_again_afterwards() -> None:
    unchecked = PassManager([SeesCollector()]).run(model())
    checked = PassManager([SeesCollector()], checker=ScriptedChecker([])).run(model())
    with pytest.raises(PassError):
        PassManager([SeesCollector()], strict=True).run(model())
    assert [run.records[0].reason for run in (unchecked, checked)] == [
        "collecting: False",
        "collecting: True",
    ]
    assert gc.isenabled()
    gc.disable()
    try:
        PassManager("").run(model())
        assert not gc.isenabled()
    finally:
        gc.enable()


@dataclass(frozen=True)
class Trade(Pass):
    """Does more than before, or less."""

    name: ClassVar[str] = "trade"
    trades: ClassVar[bool] = True
    more: bool = False

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        last = next(node for node in model.graph if node.op_type == "Abs")
        if self.more:
            again = ir.node("Abs", [last.inputs[0]])
            model.graph.insert_before(last, again)
            last.replace_input_with(0, again.outputs[0])
        else:
            first = next(node for node in model.graph if node.op_type == "Neg")
            last.replace_input_with(0, first.inputs[0])
        result.rewrote(last)
        return result


def test_a_trade_that_is_predicted_to_lose_is_withdrawn() -> None:
    run = PassManager([Trade(more=True)]).run(model())
    (record,) = run.records
    assert record.status == "withdrawn"
    assert re.fullmatch(
        r"it is predicted to run 1\.\d\d times as long on the target", record.reason
    )
    assert operators(run.model) == ["Neg", "Neg", "Abs"]
    assert not run.applied


def test_a_trade_that_wins_stays() -> None:
    run = PassManager([Trade(), Trade(more=True)]).run(model())
    assert [record.status for record in run.records] == ["ok", "withdrawn"]
    assert [str(step) for step in run.applied] == ["trade"]


def test_trades_are_not_weighed_for_other_targets() -> None:
    run = PassManager([Trade(more=True)]).run(model(), Context(target=Target("portable")))
    assert [record.status for record in run.records] == ["ok"]
