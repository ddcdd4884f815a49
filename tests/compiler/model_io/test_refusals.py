"""Files that hold no usable model are refused with the reason, and never crash the process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnxpress.backends.errors import ModelError
from onnxpress.compiler.model_io import load, save

Store = Callable[..., Path]

GOOD = """
<ir_version: 8, opset_import: ["" : 17]>
main (float[N,4] x, bool c) => (float[N,4] y) <float[4] w = {1, 2, 3, 4}> {
  t = Add (x, w)
  u = Neg (t)
  y = If (c) <then_branch = yes () => (float[N,4] a) { a = Abs (u) },
              else_branch = no () => (float[N,4] a) { a = Relu (u) }>
}
"""


def refusal(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(path)
    return caught.value


def proto() -> onnx.ModelProto:
    return onnx.parser.parse_model(GOOD)


def test_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.onnx").message == f"there is no file {tmp_path / 'none.onnx'}"


def test_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path).message == f"{tmp_path} is a folder, not a model"


def test_a_file_below_a_file(store: Store) -> None:
    assert "cannot be read: Not a directory" in refusal(store(b"x") / "model.onnx").message


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in refusal(tmp_path / "pipe").message


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    refusal(tmp_path / "loop")


def test_an_unreadable_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = store(GOOD)
    monkeypatch.setattr(Path, "open", forbidden)
    assert refusal(path).message == f"{path} cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "is a PNG image, not an ONNX model"),
        (b"PK\x03\x04" + bytes(64), "is a ZIP archive"),
        (b"\x1c\0\0\0TFL3" + bytes(64), "is a TensorFlow Lite model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"once upon a time\nthere was a model", "is not ONNX text: .*line: 1 column: 6"),
        (b"<ir_version: 8>\ng (float x) => (float y) {\n y = }", "line: 3 column: 6"),
        (b'<ir_version: 8, opset_import: ["" : 17]>', "is not ONNX text"),
        (b"ir_version: 8\ngraf {}", "not an ONNX model in textproto: 2:1 : .*graf"),
        (b'{"irVersion": "8", "graf": {}}', "not an ONNX model in json: .*graf"),
        (b'{"irVersion": ', "not an ONNX model in json: .*line 1 column"),
        ("caf\xe9 ".encode("latin-1") * 9, "not an ONNX model, or a damaged one"),
        (b"\x08\x08\x3a\x7f\0", "a field needs 131 bytes and there are 5"),
        (b"\xff" * 100, "not an ONNX model, or a damaged one"),
        (bytes(100), "not an ONNX model, or a damaged one"),
        (b"\x08\x08", "holds no graph"),
    ],
)
def test_what_is_no_model(content: bytes, reason: str, store: Store) -> None:
    with pytest.raises(ModelError, match=reason):
        load(store(content))


@pytest.mark.parametrize("length", [1, 10, 100, 200])
def test_a_model_that_is_cut_short(length: int, store: Store) -> None:
    content = proto().SerializeToString()
    error = refusal(store(content[:-length]))
    assert "damaged" in error.message
    assert "complete" in error.hint


def test_text_that_is_not_utf8(store: Store) -> None:
    error = refusal(store(b"# " + b"a" * 5000 + b"\xff"))
    assert error.message.endswith("is text, but not UTF-8 (byte 5002)")


@pytest.mark.parametrize(
    "start",
    [
        '<ir_version: 8, opset_import: ["" : 17]> g (float x) => (float y) { y = If (c) <',
        "graph { node { attribute { g { ",
        '{"graph": {"node": [{"attribute": [{"g": ',
    ],
    ids=["onnx text", "textproto", "json"],
)
def test_text_that_nests_without_end(start: str, store: Store) -> None:
    """onnx's own parser overflows the stack here and takes the process with it."""
    inner = start[start.index("y = If") if "y = If" in start else start.index("node") - 2 :]
    inner = "b = g () => (float z) { y = If (c) <" if "y = If" in start else inner
    refusal(store((start + inner * 100_000).encode()))


def test_subgraphs_that_nest_without_end(store: Store) -> None:
    inner = b""
    for _ in range(5000):
        for tag in (0x32, 0x2A, 0x0A):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            inner = bytes([tag]) + _varint(len(inner)) + inner
    refusal(store(b"\x08\x08\x3a" + _varint(len(inner)) + inner))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize(
    ("ir_version", "opset", "reason"),
    [
        (onnx.IR_VERSION + 1, 17, f"IR version {onnx.IR_VERSION + 1}"),
        (2, 17, "IR version 2"),
        (0, 17, "IR version none"),
        (8, onnx.defs.onnx_opset_version() + 1, "knows up to"),
        (8, 6, "uses opset 6; the oldest supported is 7"),
        (8, -1, "uses opset -1"),
    ],
)
def test_versions_that_are_unknown(ir_version: int, opset: int, reason: str, store: Store) -> None:
    model = proto()
    model.ir_version, model.opset_import[0].version = ir_version, opset
    error = refusal(store(model))
    assert reason in error.message
    assert error.hint


def test_no_opset_at_all(store: Store) -> None:
    model = proto()
    del model.opset_import[:]
    assert "does not say which operator sets" in refusal(store(model)).message


def tensor(**fields: Any) -> TensorProto:
    all_fields: dict[str, Any] = {"name": "w", "data_type": 1, "dims": [4]} | fields
    return TensorProto(**all_fields)


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (tensor(), "'w' has 0 values, but shape [4] of type FLOAT takes 4"),
        (tensor(float_data=[1, 2, 3]), "has 3 values"),
        (tensor(raw_data=bytes(15)), "has 15 bytes, but shape [4] of type FLOAT takes 16"),
        (tensor(raw_data=bytes(17)), "has 17 bytes"),
        (tensor(dims=[1 << 60, 1 << 60], raw_data=bytes(16)), "takes 5316911983139663491615228241"),
        (tensor(dims=[-4], raw_data=bytes(16)), "shape [-4], which is no tensor"),
        (tensor(data_type=0, raw_data=bytes(16)), "type UNDEFINED"),
        (tensor(data_type=99, raw_data=bytes(16)), "unknown element type 99"),
        (tensor(data_type=8, raw_data=bytes(16)), "holds strings as raw data"),
        (tensor(data_type=8, string_data=[b"a"]), "has 1 values"),
        (tensor(data_type=22, dims=[3], raw_data=bytes(1)), "of type INT4 takes 2"),
        (tensor(data_type=14, float_data=[1, 2]), "has 2 values, but"),
        (tensor(segment=TensorProto.Segment(begin=0, end=1)), "stored in segments"),
        (tensor(name=""), "an initializer of the graph 'main' has no name"),
        (tensor(name="t", raw_data=bytes(16)), "two values of the graph 'main' are named 't'"),
    ],
)
def test_weights_that_lie(weight: TensorProto, reason: str, store: Store) -> None:
    model = proto()
    model.graph.initializer.append(weight)
    if weight.name == "w":
        del model.graph.initializer[0]
    assert reason in refusal(store(model)).message


def test_a_large_weight_that_lies(store: Store) -> None:
    model = proto()
    model.graph.initializer[0].ClearField("float_data")
    model.graph.initializer[0].raw_data = bytes(100_000)
    assert "'w' has 100000 bytes" in refusal(store(model)).message


def change(model: onnx.ModelProto, what: str) -> None:
    graph, (add, neg, branch) = model.graph, model.graph.node
    inner = branch.attribute[0].g
    match what:
        case "missing input":
            add.input[0] = "nobody"
        case "missing in subgraph":
            inner.node[0].input[0] = "nobody"
        case "missing output":
            graph.output[0].name = "nobody"
        case "missing output of subgraph":
            inner.output[0].name = "nobody"
        case "no output":
            del graph.output[:]
        case "two outputs of one name":
            neg.output[0] = "t"
        case "output named as input":
            neg.output[0] = "x"
        case "two inputs of one name":
            graph.input.append(graph.input[0])
        case "two weights of one name":
            graph.initializer.append(graph.initializer[0])
        case "cycle":
            add.input[0] = "u"
        case "cycle through a subgraph":
            add.input[0] = "y"
        case "two outputs of a branch":
            inner.output.append(inner.output[0])
        case "no operator":
            neg.op_type = ""
        case "untyped attribute":
            neg.attribute.add(name="a", i=1)
        case "bad tensor in attribute":
            neg.attribute.append(helper.make_attribute("a", tensor()))
        case "sparse attribute":
            kind = onnx.AttributeProto.SPARSE_TENSORS
            neg.attribute.add(name="a", type=kind).sparse_tensors.add()


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("missing input", "Add 't' reads 'nobody', which nothing in the graph 'main' provides"),
        (
            "missing in subgraph",
            "Abs 'a' reads 'nobody', which nothing in the graph 'yes' provides",
        ),
        ("missing output", "nothing in the graph 'main' computes its output 'nobody'"),
        ("missing output of subgraph", "nothing in the graph 'yes' computes its output 'nobody'"),
        ("no output", "the graph has no output, so there is nothing to compute"),
        ("two outputs of one name", "two values of the graph 'main' are named 't'"),
        ("output named as input", "two values of the graph 'main' are named 'x'"),
        ("two inputs of one name", "two inputs of the graph 'main' are named 'x'"),
        ("two weights of one name", "two initializers of the graph 'main' are named 'w'"),
        ("cycle", "the nodes form a cycle: each waits for what another computes"),
        (
            "cycle through a subgraph",
            "the nodes form a cycle: each waits for what another computes",
        ),
        ("two outputs of a branch", "If 'y' has 1 outputs and its then_branch 2"),
        ("no operator", "a node of the graph 'main' has no operator: \" 'u'\""),
        ("untyped attribute", "the attribute 'a' of Neg 'u' has no type"),
        (
            "bad tensor in attribute",
            "the tensor in the attribute 'a' of Neg 'u' has 0 values, but shape [4] of type FLOAT "
            "takes 4",
        ),
        (
            "sparse attribute",
            "there are sparse tensors in the attribute 'a' of Neg 'u', which no standard operator "
            "has",
        ),
    ],
)
def test_graphs_that_cannot_be(what: str, reason: str, store: Store) -> None:
    model = proto()
    change(model, what)
    assert refusal(store(model)).message == reason


def test_a_name_that_is_not_utf8(store: Store) -> None:
    content = proto().SerializeToString().replace(b"\x12\x01t\x22", b"\x12\x01\xff\x22")
    assert b"\xff" in content
    assert "not UTF-8" in refusal(store(content)).message


FUNCTIONS = """
<ir_version: 8, opset_import: ["" : 17, "f" : 1]>
main (float[2] x) => (float[2] y) { y = f.a (x) }
<domain: "f", opset_import: ["" : 17, "f" : 1]> a (x) => (y) { y = f.b (x) }
<domain: "f", opset_import: ["" : 17, "f" : 1]> b (x) => (y) { y = CALL (x) }
"""


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("f.a", "the local function 'a' calls itself"),
        ("f.b", "the local function 'b' calls itself"),
    ],
)
def test_functions_that_call_themselves(call: str, reason: str, store: Store) -> None:
    assert refusal(store(FUNCTIONS.replace("CALL", call))).message == reason


def test_functions_with_faults(store: Store) -> None:
    load(store(FUNCTIONS.replace("CALL", "Neg")))
    model = onnx.parser.parse_model(FUNCTIONS.replace("CALL", "Neg"))
    model.functions[0].node[0].input[0] = "z"
    assert "reads 'z', which nothing in the function 'a'" in refusal(store(model)).message
    model.functions[0].CopyFrom(model.functions[1])
    assert refusal(store(model)).message == "two local functions are named 'b'"


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_damage_never_does_worse_than_a_refusal(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(proto().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    try:
        save(load(path), tmp_path / "out.onnx")
    except ModelError:
        return
    load(tmp_path / "out.onnx")
