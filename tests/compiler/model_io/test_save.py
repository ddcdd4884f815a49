"""A result is written whole or not at all, and what must stay stays."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxpress.backends.errors import ModelError, OutputError
from onnxpress.compiler.model_io import (
    check_writable,
    data_files,
    files_of,
    load,
    save,
    wire,
    write,
)

ROOT = os.geteuid() == 0


def model(seed: int = 0, *, ir_version: int = 8) -> ir.Model:
    """``y = x @ w + b`` with 80 kB of weights."""
    text = f"""
    <ir_version: {ir_version}, opset_import: ["" : 17]>
    main (float[1,100] x) => (float[1,200] y) {{ t = MatMul (x, w) y = Add (t, b) }}
    """
    rng = np.random.default_rng(seed)
    weights = {"w": rng.normal(size=(100, 200)), "b": rng.normal(size=200)}
    tensors = [ir.tensor(array.astype(np.float32), name=name) for name, array in weights.items()]
    proto = onnx.parser.parse_model(text)
    for tensor in tensors:
        proto.graph.initializer.append(ir.to_proto(tensor))
    return ir.from_proto(proto)


def answer(path: Path) -> Any:
    x = np.linspace(-1, 1, 100, dtype=np.float32).reshape(1, 100)
    return ort.InferenceSession(path).run(None, {"x": x})[0]


def listing(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


FORMS: dict[str, dict[str, Any]] = {
    "inline": {},
    "external": {"external_data": True},
    "sharded": {"max_shard_bytes": 1000},
}
forms = pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)


def test_small_models_are_one_file(tmp_path: Path) -> None:
    written = save(model(), tmp_path / "out.onnx")

    assert written == [tmp_path / "out.onnx"]
    assert listing(tmp_path) == ["out.onnx"]


def test_external_data_lies_beside_it(tmp_path: Path) -> None:
    written = save(model(), tmp_path / "out.onnx", external_data=True)

    assert [file.name for file in written] == ["out.onnx", "out.onnx.data"]
    assert written == files_of(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").stat().st_size < 1000
    np.testing.assert_array_equal(
        answer(written[0]), answer(save(model(), tmp_path / "in.onnx")[0])
    )


def test_external_data_is_sharded(tmp_path: Path) -> None:
    written = save(model(), tmp_path / "out.onnx", max_shard_bytes=1000)

    assert [file.name for file in written] == ["out.onnx", "out.onnx.data"]
    b = ir.tensor(np.ones(300, np.float32), name="b")
    three = model()
    three.graph.initializers["b"].const_value = b
    written = save(three, tmp_path / "three.onnx", max_shard_bytes=80_000)
    assert [(file.name, file.stat().st_size) for file in written[1:]] == [
        ("three.onnx-00001-of-00002.data", 80_000),
        ("three.onnx-00002-of-00002.data", 1_200),
    ]


def test_large_tensors_begin_at_pages(tmp_path: Path) -> None:
    one = model()
    one.graph.initializers["w"].const_value = ir.tensor(np.ones(251, np.float64), name="w")
    one.graph.initializers["b"].const_value = ir.tensor(np.ones(1 << 20, np.uint8), name="b")
    save(one, tmp_path / "out.onnx", external_data=True)

    proto = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    offsets = [{e.key: e.value for e in t.external_data}["offset"] for t in proto.graph.initializer]
    assert offsets == ["0", "4096"]


def test_a_shared_tensor_is_written_once(tmp_path: Path) -> None:
    twice = model()
    shared = twice.graph.initializers["w"].const_value
    twice.graph.initializers["b"].const_value = shared
    written = save(twice, tmp_path / "out.onnx", external_data=True)

    assert written[1].stat().st_size == 80_000


def test_what_came_external_goes_external(tmp_path: Path) -> None:
    save(model(), tmp_path / "in.onnx", external_data=True)
    loaded = load(tmp_path / "in.onnx")

    assert len(save(loaded.clone(), tmp_path / "out.onnx")) == 2
    assert len(save(loaded, tmp_path / "one.onnx", external_data=False)) == 1


def test_external_data_is_chosen_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "EXTERNAL_OVER", 80_000)
    assert len(save(model(), tmp_path / "out.onnx")) == 2


def test_what_protobuf_cannot_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_PROTOBUF_LIMIT", 80_000)
    with pytest.raises(OutputError, match="an ONNX file can hold"):
        save(model(), tmp_path / "out.onnx", external_data=False)
    assert listing(tmp_path) == []


def test_the_model_is_not_changed(tmp_path: Path) -> None:
    one = model()
    before = ir.to_proto(one)

    for options in FORMS.values():
        save(one, tmp_path / "out.onnx", **options)

    assert ir.to_proto(one) == before


@forms
@pytest.mark.parametrize("name", ["out.onnx", "out.textproto", "out.json", "out.pb"])
def test_text_and_binary_say_the_same(options: dict[str, Any], name: str, tmp_path: Path) -> None:
    save(model(), tmp_path / name, **options)

    back = load(tmp_path / name)

    save(back, tmp_path / "back.onnx", external_data=False)
    save(model(), tmp_path / "direct.onnx")
    np.testing.assert_array_equal(answer(tmp_path / "back.onnx"), answer(tmp_path / "direct.onnx"))


def test_onnx_text_is_written_where_it_can_say_all(tmp_path: Path) -> None:
    one = model()
    save(one, tmp_path / "out.onnxtxt")
    save(load(tmp_path / "out.onnxtxt"), tmp_path / "back.onnx")
    save(one, tmp_path / "direct.onnx")
    np.testing.assert_array_equal(answer(tmp_path / "back.onnx"), answer(tmp_path / "direct.onnx"))

    one.graph.doc_string = "lost in ONNX text"
    with pytest.raises(OutputError, match="onnxtxt format cannot express all") as caught:
        save(one, tmp_path / "out.onnxtxt")
    assert ".textproto" in caught.value.hint
    with pytest.raises(OutputError, match="cannot refer to external data"):
        save(one, tmp_path / "out.onnxtxt", external_data=True)


# What must stay


@forms
def test_an_earlier_result_is_replaced(options: dict[str, Any], tmp_path: Path) -> None:
    for earlier in FORMS.values():
        save(model(0), tmp_path / "out.onnx", **earlier)
        written = save(model(1), tmp_path / "out.onnx", **options)
        assert listing(tmp_path) == sorted(file.name for file in written)
        save(model(1), tmp_path / "direct.onnx")
        np.testing.assert_array_equal(answer(written[0]), answer(tmp_path / "direct.onnx"))
        (tmp_path / "direct.onnx").unlink()


def test_permissions_of_an_earlier_result_stay(tmp_path: Path) -> None:
    out = save(model(), tmp_path / "out.onnx")[0]
    usual = out.stat().st_mode & 0o777
    out.chmod(0o640)
    save(model(), out)

    assert out.stat().st_mode & 0o777 == 0o640
    umask = os.umask(0)
    os.umask(umask)
    assert usual == 0o666 & ~umask


def test_data_of_another_model_stays(tmp_path: Path) -> None:
    """A copy of a model may use the data file that the original was written with."""
    out, copy = save(model(0), tmp_path / "out.onnx", external_data=True)[0], tmp_path / "copy.onnx"
    copy.write_bytes(out.read_bytes())
    expected = answer(copy)

    save(load(copy), out, protect=[copy], force=True)

    np.testing.assert_array_equal(answer(copy), expected)
    assert listing(tmp_path) == ["copy.onnx", "out.onnx", "out.onnx.1.data", "out.onnx.data"]


def test_data_under_a_name_of_the_users_stays(tmp_path: Path) -> None:
    (tmp_path / "out.onnx.data").write_bytes(b"mine")

    written = save(model(), tmp_path / "out.onnx", external_data=True)

    assert written[1].name == "out.onnx.1.data"
    assert (tmp_path / "out.onnx.data").read_bytes() == b"mine"


@pytest.mark.parametrize("way", ["same", "dotted", "symlink", "hardlink", "data file"])
def test_the_input_is_not_overwritten(way: str, tmp_path: Path) -> None:
    source = save(model(), tmp_path / "in.onnx", external_data=True)[0]
    (tmp_path / "sub").mkdir()
    (tmp_path / "soft.onnx").symlink_to(source)
    os.link(source, tmp_path / "hard.onnx")
    target = {
        "same": source,
        "dotted": tmp_path / "sub" / ".." / "in.onnx",
        "symlink": tmp_path / "soft.onnx",
        "hardlink": tmp_path / "hard.onnx",
        "data file": tmp_path / "in.onnx.data",
    }[way]
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    loaded = load(source)

    for protect in ([source], []):
        with pytest.raises(OutputError, match=r"is (a data file of )?the input") as caught:
            save(loaded, target, protect=protect)
        assert "--force" in caught.value.hint
    with pytest.raises(OutputError, match=r"is (a data file of )?the input"):
        check_writable(target, protect=[source])

    after = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert after == before


@forms
def test_force_writes_over_the_files_that_the_model_is_mapped_from(
    options: dict[str, Any], tmp_path: Path
) -> None:
    path = save(model(), tmp_path / "in.onnx", external_data=True)[0]
    expected = answer(path)
    loaded = load(path)

    for _ in range(3):
        written = save(loaded, path, force=True, **options)
        assert listing(tmp_path) == sorted(file.name for file in written)
        np.testing.assert_array_equal(answer(path), expected)


def test_a_link_leads_to_where_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real" / "out.onnx")

    written = save(model(), tmp_path / "link.onnx")

    assert written == [tmp_path / "real" / "out.onnx"]
    assert (tmp_path / "link.onnx").is_symlink()
    with pytest.raises(OutputError, match="external data would not be found"):
        save(model(), tmp_path / "link.onnx", external_data=True)


# Where nothing can be written


def refusal(path: Path, **options: Any) -> OutputError:
    with pytest.raises(OutputError) as early:
        check_writable(path, **options)
    with pytest.raises(OutputError) as late:
        save(model(), path, **options)
    assert early.value.message == late.value.message
    assert late.value.hint
    return late.value


def test_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(tmp_path / "a" / "b" / "out.onnx").message
    assert message == f"the folder {tmp_path / 'a'} does not exist"
    monkeypatch.chdir(tmp_path)
    assert refusal(Path("a/b/out.onnx")).message == "the folder a does not exist"
    assert listing(tmp_path) == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for below in ("file/out.onnx", "file/sub/out.onnx"):
        assert (
            refusal(tmp_path / below).message == f"the folder {tmp_path / 'file'} is not a folder"
        )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path).message == f"{tmp_path} is a folder"


def test_devices_are_not_replaced() -> None:
    assert refusal(Path("/dev/null")).message == "/dev/null is not a regular file"


def test_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    refusal(tmp_path / "loop")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    assert refusal(tmp_path / ("x" * 300)).message.endswith(
        "cannot be written: the name is too long"
    )


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert refusal(tmp_path / "out.onnx").message == f"the folder {tmp_path} is not writable"
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_that_access_forbids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path)
    assert refusal(tmp_path / "out.onnx").message == f"the folder {tmp_path} is not writable"


def test_a_write_protected_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = save(model(), tmp_path / "out.onnx")[0]
    monkeypatch.setattr(os, "access", lambda path, _mode: path != out)
    assert refusal(out).message == f"{out} is write-protected"
    save(model(), out, force=True)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB, of which the model takes 80."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if not ROOT or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@forms
def test_a_full_disk(options: dict[str, Any], tiny_disk: Path) -> None:
    tiny = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float x) => (float y) { y = Neg (x) }'
    )
    out = save(tiny, tiny_disk / "out.onnx")[0]
    before = out.read_bytes()

    with pytest.raises(OutputError, match=r"out\.onnx.* cannot be written: the disk is full"):
        save(model(), out, **options)

    assert listing(tiny_disk) == ["out.onnx"]
    assert out.read_bytes() == before


@forms
def test_a_limit_on_file_sizes(options: dict[str, Any], tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OutputError, match="would be larger than allowed"):
            save(model(), tmp_path / "out.onnx", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert listing(tmp_path) == []


# Interruptions


def failing_at(call: int, function: Callable[..., Any], failure: BaseException) -> Any:
    """``function``, except that call number ``call`` fails instead; reading is no call."""
    calls = iter(range(1 << 30))

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if "rb" not in args and next(calls) == call:
            raise failure
        return function(*args, **kwargs)

    return wrapped


@forms
@pytest.mark.parametrize(
    "failure",
    [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt(), MemoryError()],
    ids=["io error", "ctrl-c", "no memory"],
)
@pytest.mark.parametrize(
    ("places", "name"),
    [
        ([os], "fsync"),
        ([Path], "replace"),
        ([Path], "chmod"),
        ([Path], "open"),
        ([wire, data_files], "chunks"),
    ],
)
def test_an_earlier_result_stays_whole(
    places: list[Any],
    name: str,
    failure: BaseException,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = save(model(0), tmp_path / "out.onnx", **options)[0]
    before, expected = listing(tmp_path), answer(out)
    other = model(1)
    # The last fsync is that of the folder, after the last rename, when the new result stands.
    calls = len(before) if name == "fsync" else 4
    failed = 0
    for call in range(calls):
        with monkeypatch.context() as patch:
            failing = failing_at(call, getattr(places[0], name), failure)
            for place in places:
                patch.setattr(place, name, failing)
            try:
                save(other, out, **options)
            except (OutputError, KeyboardInterrupt, MemoryError):
                failed += 1
            else:
                break
        assert listing(tmp_path) == before
        np.testing.assert_array_equal(answer(out), expected)
    assert failed
    assert not [file for file in listing(tmp_path) if file.endswith(".tmp")]


def test_an_interrupt_after_the_last_rename_leaves_the_new_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.onnx"
    save(model(1), out)
    expected = answer(out)
    rename = Path.replace

    def then_interrupt(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        if target == out:
            signal.raise_signal(signal.SIGINT)
        return renamed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", then_interrupt)
        with pytest.raises(KeyboardInterrupt):
            save(model(1), out, external_data=True)

    np.testing.assert_array_equal(answer(out), expected)
    assert listing(tmp_path) == ["out.onnx", "out.onnx.data"]


SLOW_SAVE = """
import sys, time
from onnxpress.compiler.model_io import data_files, load, save

def slowly(tensor, chunks=data_files.chunks):
    for chunk in chunks(tensor):
        yield chunk
        print("writing", flush=True)
        time.sleep(60)

data_files.chunks = slowly
save(load(sys.argv[1]), sys.argv[2], external_data=True)
"""


def test_ctrl_c_in_a_process_leaves_nothing(tmp_path: Path) -> None:
    source = save(model(), tmp_path / "in.onnx")[0]
    command = [sys.executable, "-c", SLOW_SAVE, str(source), str(tmp_path / "out.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(listing(tmp_path)) == 2
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert b"KeyboardInterrupt" in errors
    assert listing(tmp_path) == ["in.onnx"]


def test_files_of_tells_what_a_model_consists_of(tmp_path: Path) -> None:
    written = save(model(), tmp_path / "out.onnx", external_data=True)
    assert files_of(tmp_path / "out.onnx") == written
    written[1].unlink()
    assert files_of(tmp_path / "out.onnx") == written[:1]
    with pytest.raises(ModelError):
        files_of(tmp_path / "none.onnx")


def test_a_model_that_cannot_be_serialized(tmp_path: Path) -> None:
    bad = model()
    bad.graph[0].attributes["a"] = ir.Attr("a", ir.AttributeType.SPARSE_TENSOR, None)
    with pytest.raises(ModelError, match="cannot be serialized"):
        save(bad, tmp_path / "out.onnx")
    assert listing(tmp_path) == []
