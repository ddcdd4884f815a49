"""Bad input gets a clear message, its exit code, no traceback, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.compiler.cli.runner import ROOT, Command, Done

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(64)


def small(**changes: object) -> ir.Model:
    model = ir.from_onnx_text(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        main (float[N,2] x) => (float[N,2] y) { y = Relu (x) }
        """
    )
    for name, value in changes.items():
        setattr(model, name, value)
    return model


def write(path: Path, model: ir.Model) -> Path:
    ir.save(model, path)
    return path


def check(done: Done, code: int, *texts: str) -> None:
    assert done.code == code, done
    assert done.out == ""
    assert "Traceback" not in done.err
    assert "error:" in done.err
    for text in texts:
        assert text in " ".join(done.err.split()), done.err


def test_a_missing_file(onnxpress: Command, tmp_path: Path) -> None:
    check(onnxpress("optimize", "none.onnx", "-o", "out.onnx"), 3, "none.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder(onnxpress: Command, tmp_path: Path) -> None:
    check(onnxpress("optimize", tmp_path, "-o", "out.onnx"), 3, "folder")


@pytest.mark.parametrize(
    "content",
    [b"", b"just some words\n", PNG, bytes(range(256)) * 20],
    ids=["empty", "text", "png", "noise"],
)
def test_a_file_that_is_no_model(onnxpress: Command, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    check(onnxpress("optimize", path, "-o", "out.onnx"), 3, "bad.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["bad.onnx"]


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_model(onnxpress: Command, tmp_path: Path, models: Path, kept: float) -> None:
    whole = (models / "mnist_cnn_0.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: int(len(whole) * kept)])
    check(onnxpress("optimize", path, "-o", "out.onnx"), 3, "cut.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_an_unknown_opset(onnxpress: Command, tmp_path: Path) -> None:
    model = small()
    model.graph.opset_imports[""] = 999
    path = write(tmp_path / "m.onnx", model)
    check(onnxpress("optimize", path, "-o", "out.onnx"), 3, "999")


def test_an_unknown_operator_domain_passes_through(onnxpress: Command, tmp_path: Path) -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 9, opset_import: ["" : 17, "com.example" : 1]>
        main (float[2] x) => (float[2] y) {
          a = Identity (x)
          y = com.example.Secret (a)
        }
        """
    )
    path = write(tmp_path / "m.onnx", model)
    done = onnxpress("optimize", path, "-o", "out.onnx", "--json")
    assert done.code == 0, done
    assert done.json["verified"]["status"] == "not-run"
    assert any("the answers were not checked" in text for text in done.json["warnings"])
    assert done.json["latency"]["status"] == "not-measured"
    out = ir.load(tmp_path / "out.onnx")
    assert [node.domain for node in out.graph if node.op_type == "Secret"] == ["com.example"]


def external(folder: Path, location: str = "m.data") -> Path:
    model = small()
    weight = np.ones((2, 2), np.float32)
    value = ir.Value(name="w", const_value=ir.tensor(weight, name="w"))
    model.graph.register_initializer(value)
    node = ir.node("MatMul", [model.graph.inputs[0], value], name="mm")
    model.graph.insert_before(model.graph[0], node)
    model.graph[-1].replace_input_with(0, node.outputs[0])
    ir.save(model, folder / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    proto = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


def test_missing_external_data(onnxpress: Command, tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "m.data").unlink()
    check(onnxpress("optimize", path, "-o", "out.onnx"), 3, "m.data")


def test_short_external_data(onnxpress: Command, tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "m.data").write_bytes(b"\0\0")
    check(onnxpress("optimize", path, "-o", "out.onnx"), 3, "m.data")


@pytest.mark.parametrize("how", ["absolute", "parent", "link"])
def test_external_data_outside_the_folder(onnxpress: Command, tmp_path: Path, how: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    outside = tmp_path / "outside.data"
    outside.write_bytes(np.ones((2, 2), np.float32).tobytes())
    location = {"absolute": str(outside), "parent": "../outside.data", "link": "link.data"}[how]
    (inside / "link.data").symlink_to(outside)
    path = external(inside, location)
    check(onnxpress("optimize", path, "-o", "out.onnx"), 3, "not in the model's own folder")


def test_an_output_in_a_missing_folder(onnxpress: Command, models: Path) -> None:
    done = onnxpress("optimize", models / "mnist_cnn_0.onnx", "-o", "no/such/out.onnx")
    check(done, 4, "the folder no does not exist")


def test_an_output_in_a_read_only_folder(tmp_path: Path, models: Path) -> None:
    """Root may write anywhere, so it gives that right up first."""
    right = "--bounding-set=-dac_override,-dac_read_search"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root without setpriv may write anywhere")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    done = subprocess.run(
        [
            *(("setpriv", right) if os.geteuid() == 0 else ()),
            *(sys.executable, "-m", "onnxpress", "optimize", str(models / "mnist_cnn_0.onnx")),
            *("-o", str(folder / "out.onnx")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done
    assert "locked" in "".join(done.stderr.split())  # lines are wrapped within long paths
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


def test_a_full_disk(tmp_path: Path, models: Path) -> None:
    """A limit on the size of files stands in for a full disk: the write fails half way."""
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "before = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))\n"
        "from onnxpress.compiler.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        # Whatever measures coverage writes its file at the very end.
        "resource.setrlimit(resource.RLIMIT_FSIZE, before)\n"
        "sys.exit(code)\n"
    )
    (tmp_path / "out.onnx").write_bytes(b"precious")
    done = subprocess.run(
        [
            *(sys.executable, "-c", script, "optimize", str(models / "mnist_cnn_0.onnx")),
            *("-o", "out.onnx", "--force", "--no-time", "--no-verify", "-O", "1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done
    assert "Traceback" not in done.stderr
    assert "out.onnx" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]
    assert (tmp_path / "out.onnx").read_bytes() == b"precious"


def test_the_input_is_not_overwritten(onnxpress: Command, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    shutil.copy(models / "mnist_cnn_0.onnx", path)
    before = path.read_bytes()
    check(onnxpress("optimize", path, "-o", path), 4, "--force")
    (tmp_path / "link.onnx").symlink_to(path)
    check(onnxpress("optimize", path, "-o", tmp_path / "link.onnx"), 4, "--force")
    assert path.read_bytes() == before
    done = onnxpress("optimize", path, "-o", path, "--force", "--no-time", "-q")
    assert done.code == 0, done
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--macs", "2"], "a fraction above 0 and at most 1"),
        (["--macs", "0"], "a fraction above 0 and at most 1"),
        (["--passes", "no-such-pass"], "no pass 'no-such-pass', at column 1"),
        (["--passes", "cleanup{wrong=1}"], "no option 'wrong'"),
        (["--passes", "prune-channels{macs=lots}"], "a number, not 'lots'"),
        (["--passes", "cleanup,fixpoint{cleanup"], "expected '}', found the end, at column 25"),
        (["--passes", "cleanup", "-O", "1"], "exclude each other"),
        (["--dim", "batch"], "NAME=N"),
        (["--dim", "batch=0"], "NAME=N"),
        (["--dim", "nobody=3"], "nobody"),
        (["--quiet", "--verbose"], "exclude each other"),
        (["--report", "report.pdf"], ".html"),
        (["--target", "toaster"], "no target 'toaster'"),
        (["--recipe", "none.toml"], "none.toml"),
    ],
)
def test_bad_options(onnxpress: Command, models: Path, arguments: list[str], text: str) -> None:
    done = onnxpress("optimize", models / "mnist_cnn_0.onnx", "-o", "out.onnx", *arguments)
    check(done, 2, text)
    assert not Path("out.onnx").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--no-such-option"],
        ["-O", "7"],
        ["--quantize", "int2"],
        ["--seed", "-1"],
    ],
)
def test_usage_errors_are_told_by_the_parser(
    onnxpress: Command, models: Path, arguments: list[str]
) -> None:
    done = onnxpress("optimize", models / "mnist_cnn_0.onnx", "-o", "out.onnx", *arguments)
    check(done, 2, arguments[0].lstrip("-"), "hint: `onnxpress optimize --help`")
    assert "Value error" not in done.err
    as_json = onnxpress(
        "optimize", models / "mnist_cnn_0.onnx", "-o", "out.onnx", "--json", *arguments
    )
    assert as_json.err == ""
    assert as_json.json["error"]["exit_code"] == 2
    assert as_json.json["error"]["type"] == "UsageError"


def test_a_command_that_does_not_exist(onnxpress: Command) -> None:
    check(onnxpress("optimise", "m.onnx"), 2, "Did you mean 'optimize'?", "`onnxpress --help`")


def test_bisect_does_not_write_over_the_model(onnxpress: Command, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", small())
    before = path.read_bytes()
    check(onnxpress("bisect", path, "--reduce", path), 4, "is the input")
    assert path.read_bytes() == before


def data_file(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"picture": np.zeros((4, 28, 28, 1), np.float32)}, "picture"),
        ({"image": np.zeros((4, 1, 28, 28), np.float32)}, "image"),
        ({"image": np.zeros((4, 28, 28), np.float32)}, "image"),
        ({"image": np.zeros((0, 28, 28, 1), np.float32)}, "no samples"),
        ({"image": np.zeros((4, 28, 28, 1), "U3")}, "image"),
    ],
    ids=["name", "layout", "rank", "empty", "type"],
)
def test_data_that_does_not_fit(
    onnxpress: Command,
    models: Path,
    tmp_path: Path,
    arrays: dict[str, Any],
    text: str,
) -> None:
    path = data_file(tmp_path, **arrays)
    done = onnxpress("quantize", models / "mnist_cnn_0.onnx", "-o", "out.onnx", "--data", path)
    check(done, 5, text)
    assert not Path("out.onnx").exists()


def test_no_data_where_a_pass_needs_it(onnxpress: Command, models: Path) -> None:
    for command in (["quantize"], ["prune", "--macs", "0.5"]):
        done = onnxpress(*command, models / "mnist_cnn_0.onnx", "-o", "out.onnx")
        check(done, 6, "needs data", "--data")


def test_an_error_as_json(onnxpress: Command) -> None:
    done = onnxpress("optimize", "none.onnx", "-o", "out.onnx", "--json")
    assert done.code == 3
    assert done.json["error"]["exit_code"] == 3
    assert "none.onnx" in done.json["error"]["message"]
    assert done.err == ""


def test_debug_shows_the_traceback(onnxpress: Command) -> None:
    assert "Traceback" in onnxpress("inspect", "none.onnx", "--debug").err


SLOW_PASS = """
import time
from dataclasses import dataclass
from typing import ClassVar
import onnx_ir as ir
from onnxpress import Context, Pass, Result

@dataclass(frozen=True)
class Slow(Pass):
    name: ClassVar[str] = "slow"
    def rewrite(self, model: ir.Model, context: Context) -> Result:
        print("started", flush=True)
        time.sleep(60)
        return Result(model)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "slow_pass.py").write_text(SLOW_PASS, encoding="utf-8")
    model = ROOT / "benchmarks" / "models" / "mnist_cnn_0.onnx"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "onnxpress", "optimize", str(model), "-o", "out.onnx"),
            *("--passes", "slow_pass:Slow", "--no-verify"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "error: interrupted\n"
    assert "Traceback" not in err
    left = {file.name for file in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"slow_pass.py"}
