"""``onnxpress bench`` and ``onnxpress doctor`` as a user sees them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from onnxpress.backends.environment import environment
from onnxpress.backends.errors import ProviderUnavailableError
from onnxpress.compiler.cli import doctor
from tests.compiler.cli.runner import Command


def test_two_models_in_a_table(onnxpress: Command, models: Path) -> None:
    done = onnxpress(
        "bench", models / "mnist_cnn_0.onnx", models / "mnist_cnn_1.onnx",
        "--seconds", 0.3, "--threads", 1, "--dim", "batch=2", "--profile",
    )  # fmt: skip

    assert done.code == 0, done.err
    assert done.err == ""
    lines = done.out.splitlines()
    assert " ".join(lines[0].split()) == "model median, ms p10 p90 p99 runs peak, MB"
    assert [line.split()[0] for line in lines[1:3]] == ["mnist_cnn_0.onnx", "mnist_cnn_1.onnx"]
    assert re.fullmatch(
        r"mnist_cnn_1.onnx against mnist_cnn_0.onnx: (faster|slower|no significant difference), "
        r"\d\.\d\dx \(95% interval \d\.\d\d to \d\.\d\d\)",
        lines[3],
    )
    assert "per run" in done.out
    assert "Conv" in done.out
    assert lines[-1] == "cpu, 1 thread, image [2, 28, 28, 1]"


def test_a_sweep_tells_latency_and_throughput(onnxpress: Command, models: Path) -> None:
    first, second = models / "mnist_cnn_0.onnx", models / "mnist_cnn_1.onnx"
    arguments = ("bench", first, second, "--no-memory", "--seconds", 0.1, "--batch", "1,4")

    done = onnxpress(*arguments, "--threads", "1,2")

    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:4] == ["model", "threads", "batch", "median,"]
    assert [line.split()[1:3] for line in lines[1:9:2]] == [
        ["1", "1"], ["1", "4"], ["2", "1"], ["2", "4"]
    ]  # fmt: skip
    assert re.match(r"mnist_cnn_0.onnx: single-stream p90 [\d.]+ ms \(batch 1, \d", lines[9])
    assert re.search(r"offline [\d,]+ samples/s \(batch \d, \d thread", lines[10])
    found = onnxpress(*arguments, "--json").json
    assert [one["batch"] for one in found["sweep"]] == [1, 4]
    for option in (("--batch", "0"), ("--batch", "x"), ("--threads", "1,,2")):
        refused = onnxpress("bench", first, *option)
        assert refused.code == 2
        assert "expected whole numbers" in refused.err


def test_json_is_all_there_is_on_standard_output(onnxpress: Command, models: Path) -> None:
    done = onnxpress(
        "bench", models / "mnist_resnet.onnx", "--seconds", 0.2, "--no-memory", "--json"
    )

    assert done.code == 0, done.err
    assert done.json["models"][0]["path"] == str(models / "mnist_resnet.onnx")
    assert done.json["models"][0]["peak_rss_mb"] is None
    assert done.json["pairs"] == []
    assert done.json["environment"]["packages"]["onnxruntime"]


def test_quiet_says_nothing_and_equal_names_are_told_apart(
    onnxpress: Command, models: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "mnist_resnet.onnx"
    copy.write_bytes((models / "mnist_resnet.onnx").read_bytes())
    arguments = ("bench", models / "mnist_resnet.onnx", copy, "--seconds", 0.1, "--no-memory")

    assert onnxpress(*arguments, "--quiet").out == ""
    out = onnxpress(*arguments).out
    assert f"{copy} against {models / 'mnist_resnet.onnx'}" in out
    assert "not measured" in out


def test_models_that_do_not_fit_together(onnxpress: Command, models: Path) -> None:
    done = onnxpress("bench", models / "mnist_resnet.onnx", models / "mnist_cnn_0.onnx")

    assert done.code == 2
    assert "cannot be timed against" in done.err
    assert "hint:" in done.err
    assert "Traceback" not in done.err


def test_doctor_says_what_is_here(onnxpress: Command) -> None:
    done = onnxpress("doctor")

    assert done.code == 0, done.err
    lines = done.out.splitlines()
    for start in ("CPU ", "features ", "packages ", "cpu   usable", "cuda ", "MatMul ", "Conv "):
        assert any(line.startswith(start) for line in lines), start
    titles = ["providers", "what that means", "what to do"]
    assert [line for line in lines if line in titles] == titles
    assert "built with" not in done.out
    assert "built with" in onnxpress("doctor", "-v").out
    assert onnxpress("doctor", "-q").out == ""


def test_doctor_in_json(onnxpress: Command) -> None:
    found = onnxpress("doctor", "--json").json

    assert set(found) == {"environment", "providers", "advice", "measured", "actions"}
    assert any(text.startswith("int8") for text in found["actions"])
    assert found["providers"]["cpu"] == {"usable": True}
    assert isinstance(found["measured"]["u8s8_saturates"], bool)
    assert len(found["measured"]["speedups"]) == 4


def test_a_provider_that_is_missing_comes_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(provider: str) -> None:
        if provider == "cuda":
            raise ProviderUnavailableError("libcudnn.so.9 is missing", hint="pip install cudnn")

    monkeypatch.setattr("onnxpress.backends.ort.check_provider", refuse)
    machine = environment() | {"gpus": [{"name": "H", "memory_mb": 8, "driver": "5"}]}
    machine["cpu"]["quota"] = 1.5
    providers = {name: doctor._state(name) for name in ("cpu", "cuda")}
    speeds = measured(int8=2.04, float16=1.0)
    found: dict[str, Any] = {
        "environment": machine,
        "providers": providers,
        "advice": ["advice [1]"],
        "measured": speeds,
        "actions": doctor.actions(machine, providers, speeds),
    }
    console = Console(record=True, width=200)

    doctor.show(console, found)

    text = console.export_text()
    assert found["providers"]["cuda"]["usable"] is False
    for part in ("not usable: libcudnn.so.9 is missing", "pip install cudnn", "limited to 1.5",
                 "H, 8 MB, driver 5", "•  advice [1]", "Conv      2.0x     1.0x",
                 "to use the GPU: pip install cudnn"):  # fmt: skip
        assert part in text


def measured(*, int8: float, float16: float, matmul: float = 2.0) -> dict[str, Any]:
    rows = [("Conv", "int8", int8), ("Conv", "float16", float16), ("MatMul", "int8", matmul)]
    return {
        "u8s8_saturates": True,
        "speedups": [{"operator": o, "dtype": d, "speedup": s} for o, d, s in rows],
    }


@pytest.mark.parametrize(
    ("speeds", "gpus", "usable", "said"),
    [
        (
            measured(int8=3, float16=1), [], False,
            ["int8 pays here: `onnxpress quantize", "float16 does not pay"],
        ),
        (measured(int8=1, float16=2), [], False, ["int8 pays here for some operators only"]),
        (measured(int8=1, float16=2, matmul=1), [], False, ["int8 does not pay here"]),
        (measured(int8=3, float16=2), ["H"], True, ["int8 pays", "add `--target cuda`"]),
        (measured(int8=3, float16=2), ["H"], False, ["int8 pays", "to use the GPU: do this"]),
    ],
)  # fmt: skip
def test_what_to_do_follows_from_what_was_measured(
    speeds: dict[str, Any], gpus: list[str], usable: bool, said: list[str]
) -> None:
    providers = {"cuda": {"usable": usable, "hint": "do this"}}
    actions = doctor.actions({"gpus": gpus}, providers, speeds)
    assert len(actions) == len(said)
    for action, start in zip(actions, said, strict=True):
        assert start in action


def test_inspect_tells_where_nodes_run_on_cuda(onnxpress: Command, models: Path) -> None:
    arguments = ("inspect", models / "mnist_resnet.onnx", "--target", "cuda")

    done = onnxpress(*arguments)

    assert done.code == 0, done.err
    assert "on CUDA: the provider has kernels for 54 of 54 nodes" in done.out
    assert "not tried on a GPU" in done.out
    assert onnxpress(*arguments, "--json").json["placement"]["fallbacks"] == []


def test_cuda_graphs_without_cuda_are_refused(onnxpress: Command, models: Path) -> None:
    done = onnxpress("bench", models / "mnist_resnet.onnx", "--cuda-graphs")

    assert done.code == 2
    assert "CUDA graphs need the CUDA provider" in done.err
    assert "--provider cuda" in done.err
