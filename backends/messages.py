"""ONNX Runtime's errors in the user's words: what is wrong, and what to do about it."""

from __future__ import annotations

import re

from .errors import BackendError

_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"(?:/[\w./+-]*|\b\w+)\.(?:cc|h|cu|cuh|cpp):\d+ ")
_SIGNATURE = re.compile(
    r"[\w:<>~*& ,]+\([^()]*(?:\([^()]*\)[^()]*)*\)(?: const)?(?: \[with [^\]]*\])? "
)
_NOISE = (
    (re.compile(r"Load model from .+? failed:\s*"), ""),
    (re.compile(r"^Fatal error: "), ""),
    (re.compile(r"^(?:This is an invalid model|Invalid model)\. "), ""),
    (re.compile(r"^Non-zero status code returned while running (\S+) node\. "), r"\1 failed. "),
    (re.compile(r"Name:'' "), ""),
    (re.compile(r"Name:'([^']+)' Status Message: "), r"Node \1: "),
    (re.compile(r"Status Message: "), ""),
    (re.compile(r"ONNX Runtime only \*guarantees\* .*? opset versions\. "), ""),
    (
        re.compile(
            r" The operator schemas and or other functionality may change .*? backward"
            r" compatibility\."
        ),
        "",
    ),
    (re.compile(r"\s*Please fix either the inputs/outputs or the model\.?"), ""),
)
_LONGEST = 400

_HINTS = (
    (
        r"No Op registered|not a registered function/op",
        "this ONNX Runtime has no such operator: raise the model's opset, register the custom "
        "operator's library, or update onnxruntime",
    ),
    (
        r"Unsupported model IR version|is under development",
        "the model is newer than this ONNX Runtime: update onnxruntime, or lower its version",
    ),
    (
        r"Could not find an implementation|NOT_IMPLEMENTED",
        "ONNX Runtime knows the operator but cannot run it with these types on this provider",
    ),
    (r"External data path", "keep the model's external data files beside the model file"),
    (r"[Pp]rotobuf pars|No graph was found", "is it an ONNX model, and complete?"),
    (
        r"[Ff]ailed to allocate|bad_alloc|out of memory",
        "use a smaller batch, or a machine with more memory",
    ),
    (
        r"Required inputs|Unexpected input data type|Invalid rank for input"
        r"|invalid dimensions for input|Invalid input name",
        "feed what the model's inputs ask for",
    ),
)


def backend_error(error: Exception, doing: str) -> BackendError:
    """``error`` of ONNX Runtime as a :class:`BackendError`: one short sentence, and a hint.

    ``doing`` says what was tried: ``cannot load model.onnx``. Source locations and C++
    signatures (what ``ORT_ENFORCE`` and ``ORT_THROW`` put into a message) are left out.
    """
    raw = str(error)
    hint = next((text for pattern, text in _HINTS if re.search(pattern, raw)), "")
    return BackendError(f"{doing}: {clean(raw)}", hint=hint)


def clean(message: str) -> str:
    """What ONNX Runtime's ``message`` says, without its codes, source paths and signatures."""
    text = _STATUS.sub("", message.strip())
    text = re.sub(r"(/[\w./+-]*\.(?:cc|h|cu|cuh|cpp):\d+ )" + _SIGNATURE.pattern, r"\1", text)
    text = _SOURCE.sub("", text)
    for pattern, replacement in _NOISE:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
