"""Data from the user: streamed in order, checked before any work, refused with how to mend it."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxpress.backends.base import Array, TensorSpec
from onnxpress.backends.data import open_data
from onnxpress.backends.data_files import StoredData
from onnxpress.backends.errors import DataError

X = TensorSpec("x", "float", ("n", 3))
ID = TensorSpec("id", "int64", ("n",))


def rows(count: int, width: int = 3) -> Array:
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


def sizes(data: Any, size: int, name: str = "x") -> list[tuple[int, ...]]:
    return [feeds[name].shape for feeds in data.batches(size)]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_an_archive_is_read_in_order(tmp_path: Path, save: Any, order: Any, size: int) -> None:
    x, ids = rows(10), np.arange(10)
    save(tmp_path / "d.npz", x=np.asarray(x, order=order), id=ids)

    data = open_data(str(tmp_path / "d.npz"), [X, ID])

    for _ in range(2):
        batches = list(data.batches(size))
        assert [len(feeds["x"]) for feeds in batches[:-1]] == [size] * (len(batches) - 1)
        np.testing.assert_array_equal(np.concatenate([f["x"] for f in batches]), x)
        np.testing.assert_array_equal(np.concatenate([f["id"] for f in batches]), ids)


def test_samples_are_streamed_even_from_a_compressed_archive(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((4096, 4096), np.float32))
    data = open_data(str(tmp_path / "d.npz"), [TensorSpec("x", "float", ("n", 4096))])

    tracemalloc.start()
    total = sum(len(feeds["x"]) for feeds in data.batches(16))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert total == 4096
    assert peak < 4e6  # the array has 67 MB, a batch 0.26 MB


def test_what_is_yielded_may_be_written_to(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=rows(2))

    for feeds in open_data(str(tmp_path / "d.npz"), [X]).batches(1):
        feeds["x"][:] = 0


def test_a_folder_of_archives_is_batched_across_files_of_equal_shape(tmp_path: Path) -> None:
    spec = TensorSpec("x", "float", ("n", "width"))
    for index, (count, width) in enumerate([(1, 3), (1, 3), (2, 3), (3, 5), (1, 3)]):
        np.savez(tmp_path / f"{index}.npz", x=rows(count, width) + index)

    data = open_data(str(tmp_path), [spec])

    assert sizes(data, 3) == [(3, 3), (1, 3), (3, 5), (1, 3)]
    assert sizes(data, 1) == [(1, 3)] * 4 + [(1, 5)] * 3 + [(1, 3)]
    first = next(data.batches(3))["x"]
    np.testing.assert_array_equal(first, np.concatenate([rows(1), rows(1) + 1, rows(1) + 2]))


def test_a_folder_of_arrays_named_after_the_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows(5))
    np.save(tmp_path / "id.npy", np.arange(5))
    (tmp_path / "readme.txt").write_text("not data")

    data = open_data(str(tmp_path), [X, ID])

    assert [feeds["id"].tolist() for feeds in data.batches(3)] == [[0, 1, 2], [3, 4]]


def test_one_input_takes_arrays_of_any_name(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", rows(2) + 1)
    np.save(tmp_path / "a.npy", rows(2))

    assert sizes(open_data(str(tmp_path), [X]), 8) == [(4, 3)]
    assert sizes(open_data(str(tmp_path / "a.npy"), [X]), 8) == [(2, 3)]


def test_one_more_axis_holds_whole_inputs_one_run_each(tmp_path: Path) -> None:
    specs = [X, TensorSpec("state", "float", (2, 1, 4)), TensorSpec("rate", "int64", ())]
    state = np.arange(24, dtype=np.float32).reshape(3, 2, 1, 4)
    np.savez(tmp_path / "d.npz", x=rows(3), state=state, rate=np.array([8, 16, 24]))

    batches = list(open_data(str(tmp_path / "d.npz"), specs).batches(32))

    assert [feeds["x"].shape for feeds in batches] == [(1, 3)] * 3
    assert [feeds["rate"].shape for feeds in batches] == [()] * 3
    assert [int(feeds["rate"]) for feeds in batches] == [8, 16, 24]
    np.testing.assert_array_equal(batches[1]["state"], state[1])


def test_a_fixed_batch_is_filled_or_left_out_with_a_note(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=rows(10))

    data = open_data(str(tmp_path / "d.npz"), [TensorSpec("x", "float", (4, 3))])

    assert sizes(data, 1) == sizes(data, 100) == [(4, 3), (4, 3)]
    assert isinstance(data, StoredData)
    assert data.samples == 10
    assert data.note.startswith("2 of 10 samples")
    assert not open_data(str(tmp_path / "d.npz"), [TensorSpec("x", "float", (5, 3))]).note  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn"])
def test_types_that_numpy_files_cannot_name(tmp_path: Path, kind: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, kind))
    np.save(tmp_path / "x.npy", rows(2).astype(dtype))

    data = open_data(str(tmp_path), [TensorSpec("x", kind.replace("8_", "8"), (None, 3))])

    array = next(data.batches(2))["x"]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array.astype(np.float32), rows(2))


def test_other_byte_orders_and_strings(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=rows(2).astype(">f4"), s=np.array(["ä", "bc"]))

    data = open_data(str(tmp_path / "d.npz"), [X, TensorSpec("s", "string", ("n",))])

    feeds = next(data.batches(2))
    assert feeds["x"].dtype == np.float32
    assert feeds["s"].tolist() == ["ä", "bc"]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "no array named 'x'", "inputs are 'x', 'id'"),
    ({"y": rows(2), "id": np.arange(2)}, "no array named 'x', but one named 'y'", "'x', 'id'"),
    ({"x": rows(2), "id": np.arange(2), "z": rows(2)}, "array 'z' that is no input", "'x', 'id'"),
    (
        {"x": rows(2).astype(np.float64), "id": np.arange(2)},
        "is float64, but the model's input 'x' is float32",
        "data['x'] = data['x'].astype(np.float32)",
    ),
    ({"x": rows(2), "id": np.arange(2, dtype=np.int32)}, "is int32", "astype(np.int64)"),
    ({"x": rows(2), "id": np.array(["a", "b"])}, "is str", "astype(np.int64)"),
    ({"x": rows(2, 4), "id": np.arange(2)}, "shape [2, 4]", "along the first axis of [n, 3]"),
    ({"x": np.zeros(3, np.float32), "id": np.arange(3)}, "shape [3]", "first axis"),
    ({"x": rows(2), "id": np.int64(7)}, "shape []", "first axis of [n]"),
    ({"x": rows(0), "id": np.arange(0)}, "holds no samples", ""),
    ({"x": rows(2), "id": np.arange(3)}, "different numbers of samples: 'x' 2, 'id' 3", ""),
    ({"x": np.array([{}, {}]), "id": np.arange(2)}, "holds Python objects", "one type"),
]


@pytest.mark.parametrize(("arrays", "message", "hint"), REFUSED)
def test_archives_that_do_not_fit(
    tmp_path: Path, arrays: dict[str, Any], message: str, hint: str
) -> None:
    np.savez(tmp_path / "d.npz", **arrays)

    with pytest.raises(DataError) as caught:
        open_data(str(tmp_path / "d.npz"), [X, ID])

    assert message in caught.value.message
    assert "d.npz" in caught.value.message
    assert hint in caught.value.hint


def test_the_cast_that_is_suggested_mends_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=rows(2).astype(np.float64))
    np.save(tmp_path / "x.npy", rows(2).astype(np.float16))
    for file in (path, tmp_path / "x.npy"):
        with pytest.raises(DataError) as caught:
            open_data(str(file), [X])

        exec(caught.value.hint, {"np": np})

        assert sizes(open_data(str(file), [X]), 8) == [(2, 3)]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([TensorSpec("x", "seq(tensor(float))", None)], "only tensors can be fed"),
        ([TensorSpec("x", "float", (20, 3))], "10 samples, too few for the model's fixed batch"),
        ([TensorSpec("x", "float", (1, 3)), TensorSpec("y", "float", (2, 3))], "'x' 1, 'y' 2"),
    ],
)
def test_inputs_that_the_samples_cannot_feed(
    tmp_path: Path, inputs: Sequence[TensorSpec], message: str
) -> None:
    arrays: dict[str, Any] = {spec.name: rows(10) for spec in inputs}
    np.savez(tmp_path / "d.npz", **arrays)

    with pytest.raises(DataError, match=message):
        open_data(str(tmp_path / "d.npz"), inputs)


@pytest.mark.parametrize("bytes_", [b"", b"PK\x03\x04 cut", b"\x89PNG\r\n"])
def test_files_that_are_no_data(tmp_path: Path, bytes_: bytes) -> None:
    for name in ("d.npz", "d.npy", "d.png"):
        (tmp_path / name).write_bytes(bytes_)
        with pytest.raises(DataError, match=name):
            open_data(str(tmp_path / name), [X])


def test_versions_of_the_format(tmp_path: Path) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, rows(2), version=(2, 0))
    assert sizes(open_data(str(tmp_path), [X]), 8) == [(2, 3)]

    raw = bytearray((tmp_path / "x.npy").read_bytes())
    raw[6] = 3
    (tmp_path / "x.npy").write_bytes(raw)
    with pytest.raises(DataError, match=r"version \(3, 0\) of the format holds no plain array"):
        open_data(str(tmp_path), [X])


def test_a_folder_has_to_hold_one_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.npz and no \.npy"):
        open_data(str(tmp_path), [X])
    np.save(tmp_path / "x.npy", rows(1))
    np.savez(tmp_path / "x.npz", x=rows(1))
    with pytest.raises(DataError, match="both"):
        open_data(str(tmp_path), [X])


def test_a_truncated_array_and_a_damaged_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", rows(100))
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-40])
    with pytest.raises(DataError, match="incomplete"):
        list(open_data(str(tmp_path), [X]).batches(8))

    (tmp_path / "x.npy").unlink()
    np.savez(tmp_path / "d.npz", x=rows(100))
    with zipfile.ZipFile(tmp_path / "d.npz") as archive:
        offset = archive.infolist()[0].header_offset
    raw = bytearray((tmp_path / "d.npz").read_bytes())
    raw[offset + 600] ^= 0xFF
    (tmp_path / "d.npz").write_bytes(raw)
    with pytest.raises(DataError, match="CRC"):
        list(open_data(str(tmp_path / "d.npz"), [X]).batches(8))


@pytest.mark.parametrize("spec", ["missing.npz", "no/such/folder", "a:b:c", "3:x"])
def test_data_that_is_not_there(spec: str) -> None:
    with pytest.raises(DataError, match="there is no data") as caught:
        open_data(spec, [X])
    assert "module:function" in caught.value.hint


MODULE = """
import numpy as np
def good():
    for n in (1, 2):
        yield {"x": np.ones((n, 3), np.float32)}
def listed():
    return list(good())
def empty():
    return []
def none():
    pass
def not_dicts():
    yield [1]
def wrong_name():
    yield {"y": np.ones((1, 3), np.float32)}
def wrong_type():
    yield {"x": np.ones((1, 3))}
def wrong_shape():
    yield {"x": np.ones((1, 4), np.float32)}
def late():
    yield {"x": np.ones((1, 3), np.float32)}
    raise KeyError("oops")
number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"samples_{tmp_path.name}".replace("-", "_").replace("[", "_").replace("]", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("function", ["good", "listed"])
def test_a_function_yields_feeds_as_they_are(module: str, function: str) -> None:
    data = open_data(f"{module}:{function}", [X])

    assert sizes(data, 1) == sizes(data, 64) == [(1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("gone", "cannot be imported: AttributeError"),
        ("number", "is int, not a function"),
        ("empty", "yields no samples"),
        ("none", "returns NoneType, which cannot be iterated"),
        ("not_dicts", "item 0 of .*:not_dicts is list, not a dict"),
        ("wrong_name", "no array named 'x', but one named 'y'"),
        ("wrong_type", "is float64, but the model's input 'x' is float32"),
        ("wrong_shape", r"shape \[1, 4\]"),
    ],
)
def test_functions_that_do_not_fit(module: str, function: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data(f"{module}:{function}", [X])


def test_a_function_that_fails_later_and_a_module_that_is_missing(module: str) -> None:
    data = open_data(f"{module}:late", [X])
    with pytest.raises(DataError, match="late failed at item 1: KeyError: 'oops'"):
        list(data.batches(1))
    with pytest.raises(DataError, match="cannot be imported: ModuleNotFoundError"):
        open_data("nosuchmodule:feeds", [X])
