"""The format of a file is told by what is in it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxpress.backends.errors import OutputError
from onnxpress.backends.serde import from_proto, to_proto
from onnxpress.compiler.model_io import finished
from onnxpress.compiler.model_io.formats import Format, detect, parse, render

FORMATS: list[Format] = ["onnxtxt", "textproto", "json"]
TEXT = """<ir_version: 8, opset_import: ["" : 17]>
main (float[N,4] x, bool c) => (float[N,4] y) <float[4] w = {0.1, 1e-30, -3.4028235e38, 4}> {
  t = Add (x, w)
  y = If (c) <then_branch = g () => (float[N,4] p) { p = Neg (t) },
              else_branch = h () => (float[N,4] p) { p = Neg (x) }>
}
"""


def model() -> onnx.ModelProto:
    return normal(onnx.parser.parse_model(TEXT))


def normal(proto: onnx.ModelProto) -> onnx.ModelProto:
    return finished(to_proto(from_proto(proto)))


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_is_recognized_and_read(kind: Format) -> None:
    text = render(model(), kind)

    assert detect(text, "it") == kind
    assert detect(b"\xef\xbb\xbf\n " + text, "it") == kind
    assert render(normal(parse(text, kind, "it")), kind) == text


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (model().SerializeToString(), "binary"),
        (b"\x08\x08\x12\x04main", "binary"),
        (b"# a comment\nir_version: 8", "textproto"),
        (b"graph {", "textproto"),
        (b"opset_import: [ {", "textproto"),
        (b"<\n  ir_version: 8", "onnxtxt"),
        (b"agraph (float x)", "onnxtxt"),
        (b'\n {"graph"', "json"),
        ("# ä".encode() * 1023 + b"\xc3", "textproto"),
    ],
)
def test_formats_are_told_apart(start: bytes, kind: Format) -> None:
    assert detect(start, "it") == kind


@pytest.mark.parametrize("value", [3.4028234663852886e38, -3.4028234663852886e38, 1e-45])
def test_the_largest_floats_survive_or_are_refused(value: float) -> None:
    """As masks of attention hold them; protobuf 6 writes them in JSON but does not read them."""
    extreme = model()
    extreme.graph.node.add(op_type="Constant", output=["k"]).attribute.append(
        onnx.helper.make_attribute("value_float", value)
    )
    for kind in FORMATS:
        try:
            text = render(extreme, kind)
        except OutputError:
            assert kind == "json"
        else:
            node = parse(text, kind, "it").graph.node[2]
            assert node.attribute[0].f == np.float32(value)
