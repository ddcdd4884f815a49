"""What must hold of every exact pass, and of the verifier, on every model: tried on random ones."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxpress.backends.serde import to_proto
from onnxpress.backends.targets import Target
from onnxpress.compiler.compile import compile_model
from onnxpress.compiler.manager import PassManager
from onnxpress.compiler.pipeline import parse, preset
from onnxpress.compiler.verify import Verifier
from onnxpress.passes.base import Context
from tests.compiler.answers import Expected, with_inner
from tests.compiler.kept import ONNXSIM, exact_passes, faults, loaded, rewritten
from tests.compiler.mutation import Mutate
from tests.graph_building.registry import ENTRIES
from tests.graphs import STEPS, Case, cases, plain

OURS = (*exact_passes(), "recognize-activations{for_target=true}")
LEVEL_2 = str(preset(2, Target("cpu")))

always = settings(derandomize=True, suppress_health_check=list(HealthCheck))
often = settings(max_examples=2500, suppress_health_check=list(HealthCheck))


def written(model: ir.Model) -> bytes:
    """All of ``model``, but for the names of tensors in attributes, which mean nothing."""
    proto = to_proto(model)
    nodes = (*proto.graph.node, *(node for body in proto.functions for node in body.node))
    for node in with_inner(nodes):
        for attribute in node.attribute:
            attribute.t.name = ""
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def pipelines(names: tuple[str, ...]) -> st.SearchStrategy[str]:
    """The text of pipelines of ``names``, some of them in a group."""
    rows = st.lists(st.sampled_from(names), min_size=1, max_size=4).map(",".join)
    groups = st.permutations(names).map(lambda one: f"fixpoint{{{','.join(one)}}}")
    return st.lists(rows | groups, min_size=1, max_size=2).map(",".join)


def check_kept(case: Case, pipeline: str) -> None:
    model = loaded(case)
    before = written(model)

    finished = rewritten(model, pipeline)

    assert faults(Expected(case), finished.model) == []
    assert written(model) == before
    changed = any(record.modified for record in finished.records)
    assert changed == (written(finished.model) != before)


def check_settled(case: Case, pipeline: str) -> None:
    once = rewritten(loaded(case), pipeline).model
    twice = rewritten(once, pipeline)
    assert [record.name for record in twice.records if record.modified] == []
    assert written(twice.model) == written(once)


def check_no_alarm(case: Case, pipeline: str) -> None:
    """The verifier approves of what is right. onnxsim is not always: what it breaks is undone."""
    outcome = compile_model(loaded(case), pipeline)
    undone = {one.name: one.reason for one in outcome.report.passes if one.status == "quarantined"}
    assert undone.keys() <= {ONNXSIM}, undone
    verified = outcome.report.verified
    assert (verified["status"], verified["not_run"]) == ("ok", []), verified["reason"]
    assert Expected(case).problems(to_proto(outcome.model)) == []


def check_caught(case: Case, wrong: Mutate) -> None:
    verifier = Verifier(loaded(case))
    mutated = loaded(case)
    wrong.rewrite(mutated, Context())

    run = PassManager([wrong], checker=verifier).run(loaded(case))

    (record,) = run.records
    if Expected(case, verifier.feeds).differs(to_proto(mutated)):
        assert (record.status, record.verified) == ("quarantined", "failed")
    if record.status == "quarantined":
        assert written(run.model) == written(loaded(case))


EXACT = [step for step in STEPS if step != "quantize"]
"""Steps whose answers are not quantized, so that the verifier does not allow for whole steps."""


@settings(always, max_examples=300)
@given(cases(), pipelines(OURS))
def test_exact_passes_keep_the_answers(case: Case, pipeline: str) -> None:
    check_kept(case, pipeline)


@settings(always, max_examples=120)
@given(cases(), st.permutations(OURS))
def test_a_settled_model_stays_as_it_is(case: Case, names: list[str]) -> None:
    check_settled(case, f"fixpoint{{{','.join(names)}}}")


@settings(always, max_examples=50)
@given(cases())
def test_the_verifier_gives_no_false_alarm(case: Case) -> None:
    check_no_alarm(case, LEVEL_2)


@settings(always, max_examples=70)
@given(cases(EXACT, most=6), st.builds(Mutate, st.integers(0, 200)))
def test_the_verifier_catches_a_wrong_pass(case: Case, wrong: Mutate) -> None:
    check_caught(case, wrong)


@settings(always, max_examples=50)
@given(pipelines((*OURS, ONNXSIM, "fold-constants{max_growth=0}")))
def test_the_text_of_a_pipeline_survives(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


def test_random_models_have_many_operators() -> None:
    models = [plain(name, opset=17).model for name in ENTRIES]
    found = {node.op_type for model in models for node in with_inner(model.graph.node)}
    assert len(found) > 60


@pytest.mark.slow
@settings(often)
@given(cases(most=20), pipelines(OURS))
def test_many_exact_passes_keep_the_answers(case: Case, pipeline: str) -> None:
    check_kept(case, pipeline)


@pytest.mark.slow
@settings(often, max_examples=1500)
@given(cases(most=20), st.permutations(OURS))
def test_many_settled_models_stay_as_they_are(case: Case, names: list[str]) -> None:
    check_settled(case, f"fixpoint{{{','.join(names)}}}")


@pytest.mark.slow
@settings(often, max_examples=800)
@given(cases())
def test_the_verifier_often_gives_no_false_alarm(case: Case) -> None:
    check_no_alarm(case, LEVEL_2)


@pytest.mark.slow
@settings(often, max_examples=1500)
@given(cases(EXACT, most=6), st.builds(Mutate, st.integers(0, 200)))
def test_the_verifier_catches_many_wrong_passes(case: Case, wrong: Mutate) -> None:
    check_caught(case, wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ENTRIES))
def test_every_step_works_in_every_version(name: str) -> None:
    for opset in range(9, 26):
        Expected(plain(name, opset=opset))
