"""A package of somebody else's brings a pass, which is found, listed and run by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

PASS = '''
"""Somebody's pass."""
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxpress import Context, Pass, Result


@dataclass(frozen=True)
class StampProducer(Pass):
    """Write a name into the model's metadata."""

    name: ClassVar[str] = "stamp-producer"
    stamp: str = "somebody"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        result = Result(model)
        model.metadata_props["stamp"] = self.stamp
        result.rewrote("metadata")
        return result
'''

METADATA = "Metadata-Version: 2.1\nName: somebodys-passes\nVersion: 1.0\n"
ENTRY_POINTS = "[onnxpress.passes]\nstamp-producer = somebodys_passes:StampProducer\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the package installed in it, as pip would lay it out."""
    folder = tmp_path / "site"
    info = folder / "somebodys_passes-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "somebodys_passes.py").write_text(PASS, encoding="utf-8")
    (info / "METADATA").write_text(METADATA, encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    return folder


def python(site: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_and_run_by_name(site: Path, tmp_path: Path) -> None:
    listed = json.loads(python(site, tmp_path, "-m", "onnxpress", "passes", "--json"))["passes"]
    (mine,) = [one for one in listed if one["name"] == "stamp-producer"]
    assert mine["origin"] == "somebodys-passes"
    assert mine["summary"] == "Write a name into the model's metadata."
    assert mine["options"] == [
        {"name": "stamp", "type": "str", "default": "somebody", "meaning": ""}
    ]

    model = str(ROOT / "benchmarks" / "models" / "mnist_cnn_0.onnx")
    arguments = ["optimize", model, "-o", "out.onnx", "--json", "--no-time"]
    text = python(
        site, tmp_path, "-m", "onnxpress", *arguments, "--passes", "stamp-producer{stamp=me}"
    )
    (record,) = json.loads(text)["passes"]
    assert (record["name"], record["status"]) == ("stamp-producer", "ok")
    assert record["options"] == {"stamp": "me"}


def test_it_runs_from_python_in_five_lines(site: Path, tmp_path: Path) -> None:
    model = str(ROOT / "benchmarks" / "models" / "mnist_cnn_0.onnx")
    script = (
        "import onnxpress\n"
        "from somebodys_passes import StampProducer\n"
        f"outcome = onnxpress.optimize({model!r}, [StampProducer()])\n"
        "onnxpress.save(outcome.model, 'out.onnx')\n"
        "print(onnxpress.load('out.onnx').metadata_props['stamp'])\n"
    )
    assert python(site, tmp_path, "-c", script) == "somebody\n"
