"""What is missing for CUDA is named: the package, the driver, the device or the library."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from onnxpress.backends import providers
from onnxpress.backends.errors import ProviderUnavailableError
from onnxpress.backends.providers import check_provider, prepare_provider

DRIVER = "libcuda.so.1"


class Machine:
    """A machine that has these libraries, a driver with this many devices, and ONNX Runtime."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.libraries = {DRIVER, "libcublas.so.12", "libcudnn.so.9"}
        self.devices, self.status = 1, 0
        self.runtimes = ["onnxruntime-gpu"]
        self.available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        self.linked = [b"libcublas.so.12", b"libcudnn.so.9", b"libc.so.6"]
        (folder / "capi").mkdir()
        self.provider = folder / "capi" / "libonnxruntime_providers_cuda.so"
        monkeypatch.setattr(onnxruntime, "__file__", str(folder / "__init__.py"))
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: self.available)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("noise"))
        monkeypatch.setattr(providers, "_installed_runtimes", lambda: self.runtimes)
        monkeypatch.setattr(ctypes, "CDLL", self.load)

    def load(self, name: str) -> Any:
        if name not in self.libraries:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return SimpleNamespace(cuInit=lambda _: self.status, cuDeviceGetCount=self.count)

    def count(self, pointer: Any) -> int:
        pointer._obj.value = self.devices
        return 0

    def check(self) -> None:
        self.provider.write_bytes(b"\x7fELF\0" + b"\0".join(self.linked) + b"\0rest")
        check_provider("cuda")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    prepare_provider.cache_clear()
    return Machine(tmp_path, monkeypatch)


def test_a_machine_with_everything(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.check()

    assert capsys.readouterr() == ("", "")


def test_the_cpu_needs_nothing(machine: Machine) -> None:
    machine.libraries, machine.available = set(), []

    check_provider("cpu")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"available": ["CPUExecutionProvider"], "runtimes": ["onnxruntime"]},
         "the installed ONNX Runtime (onnxruntime) has no CUDA", "onnxpress[gpu]"),
        ({"available": [], "runtimes": ["onnxruntime", "onnxruntime-gpu"]},
         "the CPU package onnxruntime lies over its files", "--no-deps onnxruntime-gpu"),
        ({"libraries": set()}, "libcuda.so.1 cannot be loaded", "install the driver"),
        ({"status": 100}, "sees no device (CUDA error 100)", "CUDA_VISIBLE_DEVICES"),
        ({"devices": 0}, "driver sees no device", "nvidia-smi"),
        ({"libraries": {DRIVER, "libcublas.so.12"}},
         "libcudnn.so.9, which ONNX Runtime's CUDA provider needs, cannot be loaded", "cudnn"),
        ({"libraries": {DRIVER}}, "libcublas.so.12", "LD_LIBRARY_PATH"),
    ],
)  # fmt: skip
def test_the_first_thing_that_is_missing_is_named(
    machine: Machine, change: dict[str, Any], message: str, hint: str
) -> None:
    vars(machine).update(change)

    with pytest.raises(ProviderUnavailableError) as caught:
        machine.check()

    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_package_whose_provider_library_is_missing_is_left_to_onnx_runtime(
    machine: Machine,
) -> None:
    check_provider("cuda")


def test_the_runtimes_that_are_installed_here() -> None:
    assert set(providers._installed_runtimes()) & {"onnxruntime", "onnxruntime-gpu"}
