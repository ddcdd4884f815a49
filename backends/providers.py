"""Whether an execution provider can be used on this machine, and if not, what is missing."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import io
import mmap
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from .base import Provider
from .errors import ProviderUnavailableError

CUDA: Final = "CUDAExecutionProvider"
_DRIVER: Final = "libcuda.so.1"
_LIBRARY: Final = re.compile(
    rb"\0(lib(?:cudart|cublasLt|cublas|curand|cufft|cudnn|nvrtc|nvJitLink)\.so\.\d+)\0"
)


def check_provider(provider: Provider) -> None:
    """Make sure that ``provider`` can run models here.

    For CUDA: that the installed ONNX Runtime is built for it, that NVIDIA's driver loads and sees
    a device, and that every CUDA and cuDNN library that ONNX Runtime's provider links to loads.

    Raises:
        ProviderUnavailableError: Says which of these is missing; the hint says what to install.
    """
    if provider == "cpu":
        return
    import onnxruntime as ort

    if CUDA not in ort.get_available_providers():
        raise _no_package()
    _check_driver(ctypes.CDLL)
    prepare_provider(provider)
    root = Path(ort.__file__).parent / "capi"
    _check_libraries(_linked(root / "libonnxruntime_providers_cuda.so"), ctypes.CDLL)


@functools.cache
def prepare_provider(provider: Provider) -> None:
    """Load the CUDA libraries of the ``nvidia-*`` wheels, which are on no search path, once."""
    if provider == "cuda":
        import onnxruntime as ort

        # It prints what it cannot load; `check_provider` says it better.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def _no_package() -> ProviderUnavailableError:
    # Both packages own the folder onnxruntime: whichever was installed last is the one in force.
    last = "pip install --force-reinstall --no-deps onnxruntime-gpu"
    installed = _installed_runtimes()
    if "onnxruntime-gpu" in installed:
        return ProviderUnavailableError(
            "onnxruntime-gpu is installed, but the CPU package onnxruntime lies over its files",
            hint=last,
        )
    return ProviderUnavailableError(
        f"the installed ONNX Runtime ({', '.join(installed) or 'unknown package'}) has no CUDA",
        hint=f"pip install 'onnxpress[gpu]' && {last}",
    )


def _installed_runtimes() -> list[str]:
    found = importlib.metadata.packages_distributions().get("onnxruntime", [])
    return sorted(set(found))


def _check_driver(load: Callable[[str], ctypes.CDLL]) -> None:
    """See that the driver loads and has a device (CUDA Driver API: cuInit, cuDeviceGetCount)."""
    try:
        driver = load(_DRIVER)
    except OSError as error:
        raise ProviderUnavailableError(
            f"NVIDIA's driver is not installed: {_DRIVER} cannot be loaded",
            hint="install the driver, or in a container start it with `--gpus all`",
        ) from error
    count = ctypes.c_int(0)
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        raise ProviderUnavailableError(
            f"NVIDIA's driver sees no device (CUDA error {status})"
            if status
            else "NVIDIA's driver sees no device",
            hint="`nvidia-smi` lists the devices; CUDA_VISIBLE_DEVICES may hide them",
        )


def _linked(library: Path) -> list[str]:
    """The CUDA libraries that the shared object ``library`` names in its string table."""
    if not library.is_file():
        return []
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found, start = [], 0
        while (match := _LIBRARY.search(data, start)) is not None:
            found.append(match[1].decode())
            start = match.end() - 1  # the closing zero opens the next name
    return list(dict.fromkeys(found))


def _check_libraries(names: Iterable[str], load: Callable[[str], object]) -> None:
    for name in names:
        try:
            load(name)
        except OSError as error:
            raise ProviderUnavailableError(
                f"{name}, which ONNX Runtime's CUDA provider needs, cannot be loaded: {error}",
                hint="pip install 'onnxruntime-gpu[cuda,cudnn]', or install CUDA and cuDNN and "
                "put their libraries on LD_LIBRARY_PATH",
            ) from error
