"""Cutting weights out of a serialized model and splicing them in, against protobuf itself."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxpress.compiler.model_io.wire import WireError, chunks, cut, spliced


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Models with weights of many sizes, some raw and some not."""
    model = onnx.ModelProto(ir_version=8, producer_name="x" * draw(st.integers(0, 200)))
    for index, size in enumerate(draw(st.lists(st.integers(0, 300), max_size=6))):
        tensor = model.graph.initializer.add(name=f"w{index}", dims=[size], data_type=2)
        if draw(st.booleans()):
            tensor.raw_data = bytes(index + 1 for _ in range(size))
        else:
            tensor.int32_data.extend([index] * size)
        tensor.doc_string = "d" * draw(st.sampled_from([0, 3]))
    model.graph.name = "g" * draw(st.integers(0, 20))
    model.opset_import.add(version=17)
    return model


@given(models(), st.integers(1, 200))
def test_what_is_cut_out_and_spliced_in_is_what_was(model: onnx.ModelProto, minimum: int) -> None:
    content = model.SerializeToString()

    rest, spans = cut(memoryview(content), minimum)

    proto = onnx.ModelProto.FromString(rest)
    for index, tensor in enumerate(model.graph.initializer):
        data = [s for s in spans if s.index == index]
        assert bool(data) == (len(tensor.raw_data) >= minimum)
        assert proto.graph.initializer[index].HasField("raw_data") == (
            tensor.HasField("raw_data") and not data
        )
        for span in data:
            assert content[span.offset : span.offset + span.length] == tensor.raw_data
    weights = {s.index: ir.from_proto(model.graph.initializer[s.index]) for s in spans}
    back = onnx.ModelProto.FromString(b"".join(spliced(proto, weights)))
    assert back == model


@given(models(), st.data())
def test_a_part_of_a_model_is_an_error_or_less_of_it(
    model: onnx.ModelProto, data: st.DataObject
) -> None:
    content = model.SerializeToString()
    length = data.draw(st.integers(0, len(content) - 1))
    try:
        rest, spans = cut(memoryview(content)[:length], 10)
    except WireError:
        return
    assert len(rest) <= length
    assert all(span.offset + span.length <= length for span in spans)


def test_a_model_of_two_graphs_is_not_cut() -> None:
    part = onnx.ModelProto(graph=onnx.GraphProto(name="g")).SerializeToString()
    with pytest.raises(WireError, match="more than one graph"):
        cut(memoryview(part + part), 10)


def test_a_weight_with_two_data_fields_is_not_cut() -> None:
    """Protobuf takes the last one."""
    tensor = onnx.TensorProto(raw_data=bytes(20)).SerializeToString()
    graph = bytes([0x2A, 2 * len(tensor)]) + 2 * tensor
    with pytest.raises(WireError, match="two data fields"):
        cut(memoryview(bytes([0x3A, len(graph)]) + graph), 10)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x08", "without an end"),
        (b"\x08" + b"\x80" * 12, "without an end"),
        (b"\x0b", "wire type 3"),
        (b"\x09\0", "needs 9 bytes"),
        (b"\x0d\0", "needs 5 bytes"),
        (b"\x0a\x05\0", "needs 7 bytes"),
    ],
)
def test_damage_is_told(content: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        cut(memoryview(content), 10)


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "bfloat16", "int4", "float8_e5m2"])
@pytest.mark.parametrize("shape", [(), (3, 5), (0, 2), (1 << 13, 1 << 9)])
def test_chunks_are_the_bytes_of_onnx(dtype: str, shape: tuple[int, ...]) -> None:
    import ml_dtypes

    kind = getattr(ml_dtypes, dtype, None) or np.dtype(dtype)
    array = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape) % 2
    tensor = ir.tensor(array.astype(kind))

    pieces = list(chunks(tensor))

    assert b"".join(pieces) == tensor.tobytes()
    assert max(map(len, pieces), default=0) <= 1 << 24


def test_chunks_of_a_transposed_array_are_in_order() -> None:
    tensor = ir.tensor(np.arange(6, dtype=np.float32).reshape(2, 3).T)
    assert b"".join(chunks(tensor)) == tensor.tobytes()
