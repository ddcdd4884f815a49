"""The layout of an ensemble: every alternative is tried, and the fastest kept."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import onnxpress
from onnxpress.backends.base import SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.compiler import layouts, session_search
from onnxpress.compiler.compile import compile_model
from onnxpress.compiler.layouts import (
    Layout,
    choose_layout,
    choose_waiting,
    layout_text,
    settled,
)
from onnxpress.compiler.pipeline import parse
from onnxpress.compiler.records import PassRecord
from onnxpress.compiler.session_search import SPINNING, waiting_changes
from onnxpress.compiler.settings import Settings

BASE = parse("fold-constants,cleanup")


def perceptron(seed: int, hidden: int = 8) -> ir.Model:
    rng = np.random.default_rng(seed)
    weights = {"w": (4, hidden), "b": (hidden,), "v": (hidden, 3), "c": (3,)}
    return ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> m (float[batch,4] x) => (float[batch,3] y) '
        "{ a = Gemm (x, w, b) r = Relu (a) y = Gemm (r, v, c) }",
        initializers=[
            ir.tensor(rng.standard_normal(shape).astype(np.float32), name=name)
            for name, shape in weights.items()
        ],
    )


def ensemble(*hidden: int) -> ir.Model:
    models = [perceptron(seed, size) for seed, size in enumerate(hidden)]
    return onnxpress.merge(models, names=[f"m{at}" for at in range(len(hidden))]).model


def test_auto_tries_all_layouts_at_all_batch_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_SECONDS", 0.01)
    model = ensemble(8, 8, 8)

    pipeline, found = choose_layout(model, BASE, "auto", Settings(time=True, threads=1), (1, 3))

    assert found["status"] == "measured"
    assert [one["layout"] for one in found["tried"]] == [
        *("side-by-side", "mixed", "stacked", "stacked")
    ]
    assert all([*one["median_ms"]] == ["1", "3"] for one in found["tried"])
    assert found["chosen"] in layout_text(found)
    assert str(pipeline).startswith(str(BASE))
    compiled = compile_model(model, pipeline).model
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    expected = session_of(model).run({"x": x})["y"]
    np.testing.assert_allclose(session_of(compiled).run({"x": x})["y"], expected, atol=1e-5)


def test_the_fastest_is_kept_and_the_plainest_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    def times(rows: list[list[float]]) -> None:
        monkeypatch.setattr(layouts, "_times", lambda *_: (dict(enumerate(rows)), ""))

    model, settings = ensemble(8, 8), Settings(time=True)
    for rows, passes in (
        ([[1.0, 2.0, 0.8, 0.9]], "stack-members"),
        ([[1.0, 2.0, 1.0, 0.995]], ""),
        ([[1.0, 2.0, 0.5, 0.9], [1.0, 2.0, 3.0, 0.9]], "stack-members{matrices=conv}"),
        ([[1.0, 0.5, 0.9, 0.9]], "stack-members{layers=shared}"),
    ):
        times(rows)
        pipeline, found = choose_layout(model, BASE, "auto", settings)
        assert found["passes"] == passes
        assert ("stack-members" in str(pipeline)) == bool(passes)


def test_members_that_differ_are_side_by_side() -> None:
    pipeline, found = choose_layout(ensemble(8, 9), BASE, "auto", Settings(time=True))

    assert found["chosen"] == "side-by-side"
    assert found["status"] == "not-measured"
    assert "stack-members" not in str(pipeline)
    assert "no alternative" in layout_text(found)


@pytest.mark.parametrize(("hidden", "chosen"), [(8, "stacked"), (64, "side-by-side")])
def test_recurrent_members_are_stacked_or_the_report_says_why_not(
    hidden: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "_SECONDS", 0.01)
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> m (float[t,n,4] x) => (float[1,n,h] y) '
        f"{{ , y = LSTM <hidden_size: int = {hidden}> (x, w, r) }}"
    )
    rng = np.random.default_rng(0)
    models = [
        ir.from_onnx_text(
            text,
            initializers=[
                ir.tensor(rng.normal(0, 0.3, (1, 4 * hidden, width)).astype(np.float32), name=name)
                for name, width in (("w", 4), ("r", hidden))
            ],
        )
        for _ in range(2)
    ]
    model = onnxpress.merge(models, names=["a", "b"]).model

    pipeline, found = choose_layout(
        model, BASE, "stacked", Settings(time=True, threads=1, dims={"t": 3})
    )

    assert found["chosen"] == chosen
    assert ("not stacked" in layout_text(found)) == (chosen == "side-by-side")
    assert ("above" in str(found.get("declined", ""))) == (chosen == "side-by-side")
    x = rng.standard_normal((3, 2, 4)).astype(np.float32)
    after = session_of(compile_model(model, pipeline).model).run({"x": x})["y"]
    np.testing.assert_allclose(after, session_of(model).run({"x": x})["y"], atol=1e-6)


def test_a_layout_in_which_nothing_is_stacked_is_side_by_side() -> None:
    asked = {"status": "not-measured", "reason": "timing was turned off", "chosen": "stacked"}
    record = PassRecord("stack-members", {})
    record.declined.update(["its states are above what pays"])

    found = settled(asked, [record])

    assert found["chosen"] == "side-by-side"
    assert layout_text(found).endswith("; not stacked: its states are above what pays")
    record.status = "ok"
    assert settled(asked, [record])["chosen"] == "stacked"
    assert settled(asked, []) == asked


@pytest.mark.parametrize(
    ("layout", "passes"),
    [
        ("auto", ""),
        ("side-by-side", ""),
        ("mixed", "stack-members{layers=shared}"),
        ("stacked", "stack-members"),
    ],
)
def test_without_timing(layout: Layout, passes: str) -> None:
    _, found = choose_layout(ensemble(8, 8), BASE, layout, Settings())

    assert found["passes"] == passes
    assert found["status"] == "not-measured"


def test_threads_may_sleep_or_not_be_there() -> None:
    changed = [change(SessionConfig(threads=2)) for change in waiting_changes()]

    assert [(one.threads, one.entries.get(SPINNING)) for one in changed] == [(2, "0"), (1, None)]


def test_on_two_threads_each_has_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "_SECONDS", 0.01)
    for name in ("SECONDS", "CLOSING"):
        monkeypatch.setattr(session_search, name, 0.01)
    model, settings = ensemble(8, 8), Settings(time=True, threads=2)

    _, found = choose_layout(model, BASE, "stacked", settings)
    config, report = choose_waiting(model, settings, (1, 2))

    assert found["status"] == report["status"] == "measured"
    assert len(report["tried"]) == 2
    assert config is None or config.threads in {1, 2}


def test_one_thread_has_nothing_to_wait_for() -> None:
    for settings in (Settings(time=True, threads=1), Settings(threads=2)):
        assert choose_waiting(ensemble(8, 8), settings)[1]["status"] == "not-measured"
