"""The machine described, targets from it, and advice that follows from the description."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from onnxpress.backends import environment as module
from onnxpress.backends.environment import FEATURES, advice, detect_target, environment
from onnxpress.backends.errors import UsageError
from onnxpress.backends.probe import KernelSpeed, kernel_speeds, u8s8_saturates
from onnxpress.backends.targets import Target


def test_this_machine_in_json() -> None:
    found = environment()

    assert json.loads(json.dumps(found)) == found
    assert set(found) == {"cpu", "memory_mb", "os", "python", "packages", "providers", "gpus"}
    assert found["cpu"]["threads"] >= 1
    assert found["cpu"]["model"]
    assert set(found["cpu"]["features"]) <= set(FEATURES)
    assert found["memory_mb"] > 100
    assert {"onnxpress", "onnx", "onnx-ir", "numpy"} <= set(found["packages"])
    assert "CPUExecutionProvider" in found["providers"]


def test_features_are_what_the_cpu_has_and_not_what_its_family_should_have() -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        pytest.skip("no /proc/cpuinfo")
    words = set(cpuinfo.read_text().split())

    assert set(environment()["cpu"]["features"]) == {name for name in FEATURES if name in words}


def test_the_governor_is_told_where_the_system_has_one(tmp_path: Path) -> None:
    (tmp_path / "scaling_governor").write_text("schedutil\n")

    assert module._governor(tmp_path / "scaling_governor") == "schedutil"
    assert module._governor(tmp_path / "none") is None


def test_targets_know_the_cpu_unless_they_are_portable() -> None:
    features = frozenset(environment()["cpu"]["features"])

    assert detect_target("cpu") == Target("cpu", features)
    assert detect_target("cuda") == Target("cuda", features)
    assert detect_target("portable") == Target("portable", frozenset())


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        ("cpu:haswell", "avx2", "avx512_vnni"),
        ("cpu:zen4", "avx512_vnni", "amx_int8"),
        ("cpu:sapphirerapids", "amx_int8", "asimd"),
        ("cpu:neoverse_n1", "asimddp", "avx2"),
        ("cpu:aarch64", "asimd", "avx2"),
    ],
)
def test_targets_may_be_other_cpus(name: str, has: str, lacks: str) -> None:
    target = detect_target(name)

    assert target.name == "cpu"
    assert has in target.features
    assert lacks not in target.features


def test_a_target_may_be_any_cpu() -> None:
    assert detect_target("cpu:portable") == Target("cpu", frozenset())


@pytest.mark.parametrize("name", ["gpu", "cuda:haswell", "cpu:", "cpu:haswel", ""])
def test_targets_that_are_not_known(name: str) -> None:
    with pytest.raises(UsageError, match=r"there is no target|archspec knows no CPU"):
        detect_target(name)


def machine(*features: str, **changes: Any) -> dict[str, Any]:
    cpu = {"features": list(features), "threads": 8, "quota": None}
    return {"cpu": cpu | changes.pop("cpu", {}), "gpus": [], "providers": [], **changes}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (machine("avx2"), ["int8: without VNNI", "7 bits", "float16 on the CPU"]),
        (machine("avx2", "avx512f", "avx512_vnni"), ["int8: VNNI", "exact"]),
        (machine("avx2", "avx_vnni"), ["int8: VNNI"]),
        (machine("avx2", "avx512_vnni", "amx_int8"), ["int8: AMX"]),
        (machine("asimddp"), ["Arm's dot product add"]),
        (machine("asimddp", "i8mm", "asimdhp"), ["i8mm add", "the CPU computes in it"]),
        (machine(), ["no integer dot product"]),
        (machine("avx2", gpus=[{"name": "H"}]), ["int8 on CUDA"]),
        (machine("avx2", providers=["CUDAExecutionProvider"]), ["int8 on CUDA"]),
        (machine("avx2", cpu={"quota": 2.5}), ["2.5 CPUs of the 8", "--threads 2"]),
    ],
)
def test_what_a_machine_means(found: dict[str, Any], said: list[str]) -> None:
    text = "\n".join(advice(found))

    assert all(part in text for part in said), text
    assert ("CUDA provider" in text) == bool(found["gpus"] or found["providers"])
    assert ("--threads" in text) == (found["cpu"]["quota"] is not None)


@pytest.mark.parametrize(
    ("text", "quota"), [("250000 100000\n", 2.5), ("max 100000\n", None), ("odd", None)]
)
def test_the_limit_of_a_container(tmp_path: Path, text: str, quota: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)

    assert module._quota(tmp_path / "cpu.max") == quota
    assert module._quota(tmp_path / "none") is None


def test_threads_where_the_system_tells_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)

    assert module._threads() == os.cpu_count()


def test_devices_as_nvidia_smi_lists_them(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "NVIDIA H100 80GB HBM3, 550.54.15, 81559\nOdd, 1.0, [N/A]\nnot a row\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=text))

    assert module._gpus() == [
        {"name": "NVIDIA H100 80GB HBM3", "driver": "550.54.15", "memory_mb": 81559},
        {"name": "Odd", "driver": "1.0", "memory_mb": None},
    ]


@pytest.mark.parametrize(
    "error", [FileNotFoundError("nvidia-smi"), subprocess.CalledProcessError(9, "nvidia-smi")]
)
def test_no_devices_without_a_working_nvidia_smi(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)

    assert module._gpus() == []


def test_saturation_is_what_the_features_say() -> None:
    features = set(environment()["cpu"]["features"])
    if "avx2" not in features:
        pytest.skip("the rule is about x86")

    vnni = bool(features & {"avx512_vnni", "avx_vnni", "amx_int8"})
    assert u8s8_saturates() == (not vnni)


def test_kernel_speeds_are_ratios_to_float32() -> None:
    found = kernel_speeds(seconds=0.01)

    assert [(speed.operator, speed.dtype) for speed in found] == [
        ("MatMul", "int8"), ("MatMul", "float16"), ("Conv", "int8"), ("Conv", "float16")
    ]  # fmt: skip
    assert all(isinstance(speed, KernelSpeed) and 0.01 < speed.speedup < 100 for speed in found)


@pytest.mark.parametrize(
    ("target", "block"),
    [
        (Target(), 16),
        (Target("cpu", frozenset({"avx2"})), 8),
        (Target("cpu", frozenset({"avx2", "avx512f"})), 16),
        (Target("cuda", frozenset({"avx2"})), 0),
        (Target("portable"), 0),
    ],
)
def test_blocks_of_channels(target: Target, block: int) -> None:
    assert target.channel_block == block
