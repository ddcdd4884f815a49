"""The kernels of ONNX Runtime's CUDA provider, by operator.

The table was read from the registry of onnxruntime-gpu itself (``get_all_opkernel_def``), which
names for each kernel the opsets and the element types; it is not asked at run time, because the
registry is only there where CUDA's libraries are.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Final

SOURCE: Final = "the kernels that onnxruntime-gpu 1.31.1 registers for its CUDA provider"


@functools.cache
def kernels() -> dict[str, list[Any]]:
    """First opset, last opset and types by constraint, for each kernel of each operator.

    Operators of other domains than ONNX's own are called ``domain:operator``.
    """
    text = Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
    found: dict[str, list[Any]] = json.loads(text)
    return found
