"""Ranges of activations in a file, so that one calibration serves many runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx_ir as ir

from ...backends.errors import DataError, OutputError
from ..graph import constant
from .arithmetic import Range


def fingerprint(model: ir.Model, how: str) -> str:
    """A digest of the nodes, weights and inputs of ``model`` and of ``how`` it is calibrated."""
    digest = hashlib.sha256(how.encode())
    for value in model.graph.inputs:
        digest.update(f"{value.name} {value.type} {value.shape}".encode())
    for name, value in model.graph.initializers.items():
        digest.update(name.encode())
        if (array := constant(value)) is not None:
            digest.update(array.tobytes())
    for node in model.graph:
        inputs = [value.name if value is not None else "" for value in node.inputs]
        outputs = [value.name for value in node.outputs]
        digest.update(f"{node.op_type} {inputs} {outputs} {node.attributes}".encode())
    return digest.hexdigest()


def read_ranges(path: Path, key: str, names: Iterable[str]) -> tuple[dict[str, Range], int] | None:
    """The ranges of ``names`` and the number of samples, if ``path`` holds those of ``key``.

    Raises:
        DataError: The file is not one of ranges.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        ranges = {name: Range(*map(float, pair)) for name, pair in stored["ranges"].items()}
        if stored["key"] != key or not ranges.keys() >= (wanted := set(names)):
            return None
        return {name: ranges[name] for name in wanted}, int(stored["samples"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} holds no ranges of activations: {error}",
            hint="remove it, and the next run writes it anew",
        ) from error


def write_ranges(path: Path, key: str, ranges: Mapping[str, Range], samples: int) -> None:
    """Keep ``ranges`` in ``path``; a run that is cut short leaves what was there.

    Raises:
        OutputError: It cannot be written.
    """
    body = {
        "key": key,
        "samples": samples,
        "ranges": {name: [seen.low, seen.high] for name, seen in ranges.items()},
    }
    partial = path.with_name(f"{path.name}.part")
    try:
        partial.write_text(json.dumps(body, indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
