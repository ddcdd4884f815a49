"""What this machine is, in JSON-ready form, and what it means for int8 and float16 here."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Final, cast, get_args

from .errors import UsageError
from .targets import Target, TargetName

FEATURES: Final = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "asimdhp", "bf16", "sve"),
)
"""CPU features that choose between ONNX Runtime's kernels, by Linux' names and archspec's."""

_PACKAGES: Final = (
    "onnxpress",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxsim",
    "numpy",
)
_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
_GOVERNOR: Final = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def environment() -> dict[str, Any]:
    """This machine and what is installed, to stand beside every measurement.

    ``cpu.threads`` are the hardware threads that this process may run on, ``cpu.quota`` how many
    of them a container's limit leaves (``null`` without one), ``cpu.governor`` how the clock rate
    is chosen (``null`` where the system does not tell); memory is in MiB.
    """
    import onnxruntime as ort

    return {
        "cpu": _cpu(),
        "memory_mb": _memory_mb(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": _versions(),
        "providers": list(ort.get_available_providers()),
        "gpus": _gpus(),
    }


def detect_target(name: str) -> Target:
    """The target ``name``: ``portable``, ``cpu`` or ``cuda``, with this machine's CPU features.

    ``cpu:NAME`` is the CPU that archspec calls so (``cpu:haswell``, ``cpu:zen4``); ``cpu:portable``
    is any CPU, so that nothing is taken for granted.

    Raises:
        UsageError: There is no such target, or archspec knows no such CPU.
    """
    kind, colon, model = name.partition(":")
    if kind not in get_args(TargetName) or (colon and kind != "cpu"):
        raise UsageError(
            f"there is no target {name!r}",
            hint="it is portable, cpu, cuda, cpu:portable or cpu:NAME",
        )
    if kind == "portable" or model == "portable":
        return Target(cast("TargetName", kind))
    return Target(cast("TargetName", kind), _features_of(model) if colon else _features())


def advice(environment: dict[str, Any]) -> list[str]:
    """What the machine that ``environment`` describes means for int8, float16 and threads."""
    cpu = environment["cpu"]
    lines = [*_int8(frozenset(cpu["features"])), *_float16(frozenset(cpu["features"]))]
    if environment["gpus"] or "CUDAExecutionProvider" in environment["providers"]:
        lines.append(
            "int8 on CUDA: ONNX Runtime's CUDA provider has no kernels for quantized "
            "convolutions and products; float16 and weight-only int4 are what it runs faster"
        )
    if cpu["quota"] is not None and cpu["quota"] < cpu["threads"]:
        lines.append(
            f"threads: this process may use {cpu['quota']:g} CPUs of the {cpu['threads']} it sees; "
            f"ONNX Runtime does not know, so set --threads {max(1, int(cpu['quota']))}"
        )
    return lines


def _int8(features: frozenset[str]) -> list[str]:
    if features & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        unit = "AMX" if "amx_int8" in features else "VNNI"
        return [
            f"int8: {unit} adds products in 32 bits, so that signed 8-bit weights with unsigned "
            "8-bit activations (U8S8) are exact and the fastest choice"
        ]
    if "avx2" in features:
        return [
            "int8: without VNNI, ONNX Runtime's U8S8 kernels add pairs of products in 16 bits and "
            "saturate; weights need 7 bits or scales that keep pairs in range"
        ]
    if "asimddp" in features:
        fast = " and the matrix instructions of i8mm" if "i8mm" in features else ""
        return [f"int8: Arm's dot product{fast} add in 32 bits: signed activations are exact"]
    return ["int8: no integer dot product found; expect little or no gain over float32"]


def _float16(features: frozenset[str]) -> list[str]:
    if "asimdhp" in features:
        return ["float16: the CPU computes in it; gains depend on the operators, so measure"]
    return [
        "float16 on the CPU: ONNX Runtime computes in float32 with casts around it, which is never "
        "faster; use it for CUDA, or to halve the file"
    ]


def _features() -> frozenset[str]:
    from archspec.cpu import detect

    return frozenset(FEATURES) & frozenset(detect.detected_info().features)


def _features_of(model: str) -> frozenset[str]:
    """The features of the CPU ``model`` by archspec's name."""
    from archspec.cpu import TARGETS

    if model not in TARGETS:
        close = difflib.get_close_matches(model, TARGETS, n=3) or ["haswell", "zen4", "neoverse_n1"]
        raise UsageError(
            f"archspec knows no CPU {model!r}", hint=f"what it knows: {', '.join(close)}, …"
        )
    arm = {"asimd"} if "aarch64" in {model, TARGETS[model].family.name} else set()
    return frozenset(FEATURES) & (frozenset(TARGETS[model].features) | arm)


def _cpu() -> dict[str, Any]:
    import archspec.cpu
    import psutil
    from archspec.cpu import detect

    found = _features()
    return {
        "model": detect.brand_string() or platform.processor() or "unknown",
        "architecture": platform.machine(),
        "microarchitecture": archspec.cpu.host().name,
        "features": [name for name in FEATURES if name in found],
        "cores": psutil.cpu_count(logical=False),
        "threads": _threads(),
        "quota": _quota(),
        "governor": _governor(),
    }


def usable_cores() -> int:
    """How many threads of this process can run at once, a container's limit considered."""
    quota = _quota()
    return _threads() if quota is None else max(1, min(_threads(), round(quota)))


def _threads() -> int:
    allowed = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def _quota(file: Path = _QUOTA) -> float | None:
    """The CPUs that the control group may use (cgroup v2, ``cpu.max``: quota and period)."""
    try:
        quota, period = file.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _governor(file: Path = _GOVERNOR) -> str | None:
    """How Linux chooses the clock rate of the CPU, if it tells: ``performance``, ``schedutil``…"""
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _memory_mb() -> int:
    import psutil

    return int(psutil.virtual_memory().total // 2**20)


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _gpus() -> list[dict[str, Any]]:
    """NVIDIA's devices as its own tool lists them; none where the tool or its driver is missing."""
    fields = "name,driver_version,memory.total"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command
            command, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in answer.stdout.splitlines() if line.count(", ") == 2]
    return [
        {"name": name, "driver": driver, "memory_mb": int(memory) if memory.isdecimal() else None}
        for name, driver, memory in rows
    ]
