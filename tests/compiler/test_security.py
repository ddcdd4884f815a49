"""What is dangerous in a model is found, and what is usual is not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.compiler.model_io import load
from onnxpress.compiler.security import screen

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>'
ONE = '<ir_version: 8, opset_import: ["" : 17]> main (float[2] x) => (float[2] y) '


def screened(folder: Path, text: str, **weights: Any) -> dict[str, Any]:
    proto = onnx.parser.parse_model(text)
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    path = folder / "model.onnx"
    onnx.save(proto, path)
    return screen(load(path), path)


def found(folder: Path, text: str, **weights: Any) -> list[tuple[str, str]]:
    findings = screened(folder, text, **weights)["findings"]
    assert all(one["advice"] for one in findings)
    return [(one["severity"], f"{one['what']}: {one['where']}") for one in findings]


def test_an_ordinary_model_has_no_findings_and_a_hash(tmp_path: Path) -> None:
    told = screened(tmp_path, ONE + "{ y = Add (x, w) }", w=np.ones(2, np.float32))
    digest = hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    assert told == {"sha256": {"model.onnx": digest}, "findings": [], "provenance": {}}


def test_operators_that_need_a_library(tmp_path: Path) -> None:
    text = HEAD + " main (float[2] x) => (float[2] y) { a = com.acme.Run (x) y = com.acme.Hide (a)}"
    assert found(tmp_path, text) == [
        ("medium", "operators that need a library of their own: com.acme: Hide, Run")
    ]


def test_functions_of_the_model_need_none(tmp_path: Path) -> None:
    text = f"""{HEAD} main (float[2] x) => (float[2] y) {{ y = com.acme.Twice (x) }}
    <domain: "com.acme", opset_import: ["" : 17]> Twice (a) => (b) {{ b = Add (a, a) }}"""
    assert found(tmp_path, text) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    weights = np.array([1.5, bad], np.float32)
    assert found(tmp_path, ONE + "{ y = Add (x, w) }", w=weights) == [
        ("high", "weights that are no finite numbers: w: 1 of 2")
    ]


def test_bounds_and_masks_may_be_infinite(tmp_path: Path) -> None:
    mask = np.array([0, -np.inf], np.float32)
    text = ONE + "{ a = Add (x, w)  y = Clip (a, low) }"
    assert found(tmp_path, text, w=mask, low=np.float32(-np.inf)) == []


LOOP = """{ y = Loop (, start, x) <body = again (int64 i, bool c, float[2] a)
  => (bool d, float[2] b) { %s  b = Neg (a) }> }"""


@pytest.mark.parametrize("goes_on", ["d = Identity (c)", "d = Constant <value = bool[1] {1}> ()"])
def test_a_loop_without_an_end(tmp_path: Path, goes_on: str) -> None:
    (finding,) = found(tmp_path, ONE + LOOP % goes_on, start=np.array(True))
    assert finding == ("high", "a loop without an end: Loop")


def test_a_loop_that_asks_its_tensors_may_end(tmp_path: Path) -> None:
    text = ONE + LOOP % "s = ReduceSum <keepdims = 0> (a)  t = Neg (s)  d = Greater (t, s)"
    assert found(tmp_path, text, start=np.array(True)) == []


def test_a_small_file_that_fills_memory(tmp_path: Path) -> None:
    text = ONE + "{ b = ConstantOfShape (s)  t = ReduceSum <keepdims = 0> (b)  y = Add (x, t) }"
    (finding,) = found(tmp_path, text, s=np.array([1 << 20, 1 << 12]))
    assert finding[0] == "high"
    assert "ConstantOfShape" in finding[1]
    assert "4,294,967,296 elements" in finding[1]


def test_a_newer_format_and_newer_operators(tmp_path: Path) -> None:
    newest = onnx.defs.onnx_opset_version()
    model = ir.from_onnx_text(ONE + "{ y = Neg (x) }")
    model.ir_version = onnx.IR_VERSION + 1
    model.graph.opset_imports[""] = newest + 1
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(ONE + "{ y = Neg (x) }"), path)
    what = [one["what"] for one in screen(model, path)["findings"]]
    assert what == ["a newer format", "newer operators"]


def test_much_text(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(ONE + "{ y = Neg (x) }")
    entry = proto.metadata_props.add()
    entry.key, entry.value = "payload", "A" * (1 << 21)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    (finding,) = screen(load(path), path)["findings"]
    assert finding["severity"] == "low"
    assert finding["where"] == "metadata payload: 2,097,152 characters"


def test_a_link_is_told(tmp_path: Path) -> None:
    away = tmp_path / "away"
    away.mkdir()
    onnx.save(onnx.parser.parse_model(ONE + "{ y = Neg (x) }"), away / "model.onnx")
    link = tmp_path / "model.onnx"
    link.symlink_to(away / "model.onnx")
    (finding,) = screen(load(link), link)["findings"]
    assert finding["what"] == "a file that lies elsewhere"


def test_the_worst_comes_first(tmp_path: Path) -> None:
    text = HEAD + " main (float[2] x) => (float[2] y) { a = com.acme.Run (x)  y = Add (a, w) }"
    severities = [one for one, _ in found(tmp_path, text, w=np.array([np.nan, 1], np.float32))]
    assert severities == ["high", "medium"]
