"""Every real model at every lossless level: it compiles, and the answers are proven the same."""

from __future__ import annotations

import pytest

import onnxpress
from benchmarks.corpus import CorpusModel, load_corpus

pytestmark = pytest.mark.corpus

CORPUS = load_corpus()


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("model", CORPUS.values(), ids=list(CORPUS))
def test_a_real_model_is_optimized_and_answers_as_before(model: CorpusModel, level: int) -> None:
    if not model.is_fetched:
        pytest.skip(f"not there: {model.get_it}")
    report = onnxpress.optimize(model.path, level=level).report
    undone = {one.name: one.reason for one in report.passes if one.status == "quarantined"}
    assert undone == {}
    assert report.verified["status"] == "ok", report.verified["reason"]
    assert report.verified["not_run"] == []
    assert report.verified["cases"] >= 3
    assert report.nodes[1] <= report.nodes[0]
