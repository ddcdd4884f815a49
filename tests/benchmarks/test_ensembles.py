"""The suite of ensembles: what is compared answers the same, and a row says what it has to."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ensembles, ensembles_suite
from benchmarks.ensembles import Case, apart, compiled, perceptron, together
from onnxpress.backends.base import SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.backends.targets import Target
from onnxpress.compiler.layouts import FORMS
from onnxpress.compiler.pipeline import parse

SMALL = Case("small", tuple(perceptron(seed, (6, 5, 4)) for seed in range(3)))


def test_apart_and_every_layout_answer_the_same() -> None:
    merged = SMALL.merged()
    x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    one_thread = SessionConfig(threads=1)
    members = [session_of(model, one_thread) for model in SMALL.models]
    expected = apart(SMALL, members, {"x": x})()
    layouts = dict(compiled(merged, parse("fold-constants,cleanup"), Target("cpu")))

    assert layouts.keys() == FORMS.keys()
    for model in layouts.values():
        (answer,) = together(session_of(model, one_thread), {"x": x})()
        np.testing.assert_allclose(answer, np.asarray(expected), rtol=1e-5, atol=1e-6)


def test_heads_share_their_backbone() -> None:
    models = ensembles.shared_backbone()
    case = Case("heads", models, "none")
    nodes = sum(len(model.graph) for model in models)

    assert len(case.merged().graph) < nodes * 0.6


@pytest.mark.slow
def test_a_row_has_a_speedup_for_each_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensembles, "THREADS", (1,))
    monkeypatch.setattr(ensembles, "BATCHES", (2,))
    monkeypatch.setattr("onnxpress.compiler.layouts._SECONDS", 0.01)

    (row,) = ensembles.measure(SMALL, seconds=0.01)

    assert (row["members"], row["threads"], row["batch"]) == (3, 1, 2)
    assert 0 < row["of_best"] <= 1
    assert len(ensembles_suite.cells(row)) == 12
