"""What was done to a model, written into the model's own metadata by ``--provenance``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from .report import Report

PREFIX = "onnxpress."


def stamp(model: ir.Model, report: Report, inputs: Iterable[Path]) -> None:
    """Write into the metadata of ``model`` how it came to be.

    Keys: ``onnxpress.version``, ``.inputs`` (SHA-256 of each file by its name, as JSON),
    ``.target``, ``.pipeline``, ``.passes`` (those that changed it), and ``.verified``. No date and
    no path, so that the same work gives the same file.
    """
    digests = {file.name: digest(file) for file in inputs}
    changed = [record.name for record in report.passes if record.status == "ok"]
    entries = {
        "version": str(report.environment["packages"]["onnxpress"]),
        "inputs": json.dumps(digests, sort_keys=True),
        "target": report.target,
        "pipeline": report.pipeline,
        "passes": ",".join(changed),
        "verified": str(report.verified.get("status", "not-run")),
    }
    for key, text in entries.items():
        model.metadata_props[PREFIX + key] = text


def provenance_of(model: ir.Model) -> dict[str, str]:
    """What an earlier run wrote into the metadata, without the prefix."""
    return {
        key.removeprefix(PREFIX): text
        for key, text in model.metadata_props.items()
        if key.startswith(PREFIX)
    }


def digest(file: Path) -> str:
    """The SHA-256 of ``file``, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
