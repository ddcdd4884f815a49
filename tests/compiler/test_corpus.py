"""Every real model at every level: it compiles, answers as before, and decides as before."""

from __future__ import annotations

import pytest

import onnxpress
from benchmarks import agreement, decisions
from benchmarks.corpus import CorpusError, CorpusModel, load_corpus

pytestmark = pytest.mark.corpus

CORPUS = load_corpus()
LEVELS = (1, 2, 3)
BUDGET = 4.0
"""Seconds that level 3 has for measuring: what it then leaves out is another model to check."""


def there(model: CorpusModel) -> CorpusModel:
    if not model.is_fetched:
        pytest.skip(f"not there: {model.get_it}")
    return model


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("model", CORPUS.values(), ids=list(CORPUS))
def test_a_real_model_is_optimized_and_answers_as_before(model: CorpusModel, level: int) -> None:
    original = onnxpress.load(there(model).path)

    outcome = onnxpress.optimize(original, level=level, budget=BUDGET if level == 3 else None)

    report = outcome.report
    undone = {one.name: one.reason for one in report.passes if one.status == "quarantined"}
    assert undone == {}
    assert report.verified["status"] == "ok", report.verified["reason"]
    assert report.verified["not_run"] == []
    assert report.verified["cases"] >= 3
    if level == 1:  # the others are about speed, which may take a node more
        assert report.nodes[1] <= report.nodes[0]
    found = agreement.verifier(model, original).check(outcome.model)
    assert agreement.verdict(found) == ("ok", "")
    assert found.cases >= agreement.INPUTS
    assert found.sessions == ["disabled", "all"]
    assert {name for name, one in found.outputs.items() if one.status != "ok"} == set()


@pytest.mark.parametrize("level", LEVELS)
def test_the_recognizer_reads_the_same_lines(level: int) -> None:
    there(CORPUS[decisions.READER])
    try:
        decisions.lines()
    except CorpusError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    found = decisions.compare(decisions.READER, level, budget=BUDGET)
    assert found.count == decisions.LINES
    assert found.same == found.count
    assert (found.right or 0) > 0.75 * found.count


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", decisions.DETECTORS)
def test_a_voice_detector_hears_the_same_speech(name: str, level: int) -> None:
    there(CORPUS[name])
    try:
        decisions.recording()
    except CorpusError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    found = decisions.compare(name, level, budget=BUDGET)
    assert found.count == decisions.SECONDS * decisions.RATE // 512
    assert found.same == found.count
