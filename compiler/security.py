"""What to know of a model file before it is trusted: ``onnxpress inspect --security``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from ..backends.errors import ModelError
from ..passes.analysis.macs import with_fixed_shapes
from ..passes.graph import constant, is_constant, is_op, nodes_in, nodes_of
from .model_io import files_of
from .provenance import digest, provenance_of

Severity: TypeAlias = Literal["high", "medium", "low"]

HUGE: Final = 1 << 30
"""Bytes of one tensor that is computed, from which a run may exhaust memory."""
_SWOLLEN: Final = 1000
"""How many times the size of its files such a tensor must have to be reported."""
_LONG: Final = 1 << 20
"""Bytes of text or of an attribute beyond what a model has use for."""
_KNOWN: Final = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft"))
"""Domains whose operators come with ONNX Runtime."""
_NEWEST_IR: Final = onnx.IR_VERSION


@dataclass(frozen=True)
class Finding:
    """Something that a model has and most do not.

    ``high`` can make a process crash, hang or answer nonsense, ``medium`` needs code or files that
    do not come with the model, ``low`` is unusual.
    """

    severity: Severity
    what: str
    where: str
    advice: str


def screen(model: ir.Model, path: str | Path) -> dict[str, Any]:
    """What is to be known of ``model``, loaded from ``path``, before it runs anywhere.

    Loading has refused paths of weights that lead out of the model's folder already, files that
    are too short, and graphs nested deeper than any model is.

    Returns:
        JSON-ready: ``sha256`` (of each file, by name), ``findings`` (worst first: ``severity``,
        ``what``, ``where``, ``advice``) and ``provenance`` (what an earlier run of onnxpress wrote
        into the metadata).

    Raises:
        ModelError: A file of the model has gone.
    """
    files = files_of(path)
    order = {"high": 0, "medium": 1, "low": 2}
    findings = sorted(_findings(model, files), key=lambda finding: order[finding.severity])
    return {
        "sha256": {file.name: digest(file) for file in files},
        "findings": [asdict(finding) for finding in findings],
        "provenance": provenance_of(model),
    }


def _findings(model: ir.Model, files: list[Path]) -> Iterator[Finding]:
    yield from _foreign(model)
    yield from _not_finite(model)
    yield from _endless(model)
    yield from _swollen(model, sum(file.stat().st_size for file in files))
    yield from _versions(model)
    yield from _texts(model)
    for file in files:
        if file.is_symlink():
            target = f"{file.name} is a link to {file.resolve()}"
            yield Finding("low", "a file that lies elsewhere", target, "copy it beside the model")


def _foreign(model: ir.Model) -> Iterator[Finding]:
    own = {(domain, name) for domain, name, _ in model.functions}
    foreign: dict[str, set[str]] = {}
    for node in nodes_of(model):
        if node.domain not in _KNOWN and (node.domain, node.op_type) not in own:
            foreign.setdefault(node.domain, set()).add(node.op_type)
    for domain, names in foreign.items():
        yield Finding(
            "medium",
            "operators that need a library of their own",
            f"{domain}: {', '.join(sorted(names))}",
            "a custom library runs as code of yours: load only one that you trust",
        )


def _not_finite(model: ir.Model) -> Iterator[Finding]:
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None or not tensor.dtype.is_floating_point():
                continue
            array = tensor.numpy().astype(np.float32, copy=False)
            bad = array.size - int(np.count_nonzero(np.isfinite(array)))
            if bad and not _is_mask(array):
                yield Finding(
                    "high",
                    "weights that are no finite numbers",
                    f"{name}: {bad:,} of {array.size:,}",
                    "answers become NaN or infinite; get the model again from where it was trained",
                )


def _is_mask(array: np.ndarray[Any, Any]) -> bool:
    """Whether ``array`` is a bound or a mask of attention: infinity for what does not count."""
    return not np.isnan(array).any() and bool(np.all((array == 0) | np.isinf(array)))


def _endless(model: ir.Model) -> Iterator[Finding]:
    for node in nodes_of(model):
        if not is_op(node, "Loop"):
            continue
        count = node.inputs[0]
        body = node.attributes["body"].as_graph()
        goes_on = body.outputs[0]
        passed_on = goes_on.producer()
        if passed_on is not None and is_op(passed_on, "Identity"):
            goes_on = passed_on.inputs[0] or goes_on
        forever = goes_on in body.inputs or (is_constant(goes_on) and _is_true(goes_on))
        if count is None and forever:
            yield Finding(
                "high",
                "a loop without an end",
                node.name or "Loop",
                "it never ends once it is entered: do not run the model without a time limit",
            )


def _is_true(value: ir.Value) -> bool:
    held = constant(value)
    return held is not None and bool(held.all())


def _swollen(model: ir.Model, size: int) -> Iterator[Finding]:
    """Tensors that a small file makes a run allocate."""
    try:
        clone = with_fixed_shapes(model)
    except ModelError:
        return
    for node in nodes_in(clone.graph):
        for output in node.outputs:
            if output.shape is None or not output.shape.is_static():
                continue
            count = math.prod(int(str(dim)) for dim in output.shape)
            if count > HUGE // 4 and count * 4 > _SWOLLEN * size:
                yield Finding(
                    "high",
                    "a tensor that is far larger than the file",
                    f"{node.op_type} {node.name or output.name}: {count:,} elements",
                    "running or optimizing the model may take all memory; set a limit first",
                )


def _versions(model: ir.Model) -> Iterator[Finding]:
    newest = onnx.defs.onnx_opset_version()
    opset = model.opset_imports.get("", 0)
    if model.ir_version is not None and model.ir_version > _NEWEST_IR:
        yield Finding(
            "low",
            "a newer format",
            f"IR version {model.ir_version}, onnx knows {_NEWEST_IR}",
            "what it holds besides is not seen here; update onnx",
        )
    if opset > newest:
        yield Finding(
            "low",
            "newer operators",
            f"opset {opset}, onnx knows {newest}",
            "update onnx and ONNX Runtime",
        )
    used = {node.domain for node in nodes_of(model)} - {""}
    for domain in sorted(used - model.opset_imports.keys()):
        yield Finding(
            "low",
            "operators of a domain that is not imported",
            domain,
            "the model does not load everywhere; export it again",
        )


def _texts(model: ir.Model) -> Iterator[Finding]:
    """Room that has no use for running a model, in which anything may be carried."""
    texts = [("the documentation of the model", model.doc_string or "")]
    texts += [(f"metadata {key}", text) for key, text in model.metadata_props.items()]
    texts += [
        (f"{node.op_type} {node.name}: {attribute.name}", attribute.as_string())
        for node in nodes_of(model)
        for attribute in _string_attributes(node.attributes.values())
    ]
    for where, text in texts:
        if len(text) > _LONG:
            yield Finding(
                "low",
                "text of unusual length",
                f"{where}: {len(text):,} characters",
                "look at what it is, and drop it where nothing needs it",
            )


def _string_attributes(attributes: Iterable[ir.Attr]) -> Iterator[ir.Attr]:
    for attribute in attributes:
        if attribute.type == ir.AttributeType.STRING and not attribute.is_ref():
            yield attribute
