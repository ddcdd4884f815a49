"""int8 of the nets that ship, by onnxpress and by other tools: noise, accuracy, on the same digits.

Every tool calibrates on the same 256 unlabelled digits, several times on others, and is tested on
the 2,000 test digits, which no calibration sees. The noise is that of all outputs against the float
net, in decibels: ``real`` with the kernels of this CPU, ``simulated`` with optimizations off, in
float arithmetic, ``gap`` what is lost between both, ``saturating`` with the kernels of a CPU
without VNNI, emulated on the first 50 digits. One calibration moves it by more than a decibel, so
means over several count. Speed is that of one file against the one that ONNX Runtime's tool makes
with 8 bits per channel (U8S8), at batch 1 and 32, one thread.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import typer
from rich.console import Console

import onnxpress
from onnxpress.backends.base import Array, Feeds
from onnxpress.backends.targets import Target
from onnxpress.compiler.latency import latency_before_and_after
from onnxpress.passes.analysis.fidelity import Fidelity
from onnxpress.passes.quantization.emulate import answers_on

from . import store
from .apart import CallError, apart
from .corpus import SHIPPED
from .journal import Journal
from .printing import Limit, Results, Resume, Update, latency_cells, say, table, wrote
from .zoo.digits import DATA, Digits, load, shipped_for_testing, split

NETS = ("mnist_cnn_0", "mnist_resnet", "mnist_mobilenet")
SAMPLES = 256
EMULATED = 50
BATCHES = (1, 32)
BASELINE = "ORT per channel"
CHUNK = 100
KEYS = ("real", "simulated", "gap", "saturating", "spread")
LEVELS = {
    "real": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "simulated": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


@dataclass(frozen=True)
class Images:
    """Calibration images in memory, as every tool wants them in its own way."""

    array: Array

    def batches(self, size: int) -> Iterator[Feeds]:
        """As onnxpress reads them."""
        for start in range(0, len(self.array), size):
            yield {"image": self.array[start : start + size]}


Tool = Callable[[Path, Path, Array], None]
"""Quantizes the net in one file into another, with these calibration images."""


def _ours(passes: str) -> Tool:
    def quantize(source: Path, result: Path, images: Array) -> None:
        text = f"fold-batch-norm,insert-qdq{{saturation=avoid,samples=0}}{passes}"
        outcome = onnxpress.optimize(source, text, data=Images(images), verify=False)
        outcome.save(result, force=True)

    return quantize


def _ort(*, reduce_range: bool) -> Tool:
    def quantize(source: Path, result: Path, images: Array) -> None:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantType,
            quantize_static,
        )
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.feeds = Images(images).batches(32)

            def get_next(self) -> Feeds | None:
                return next(self.feeds, None)

        prepared = result.with_suffix(".prepared.onnx")
        quant_pre_process(source, prepared)
        quantize_static(
            prepared,
            result,
            Reader(),
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )

    return quantize


def _nncf(source: Path, result: Path, images: Array) -> None:
    import nncf

    data = nncf.Dataset([{"image": image[np.newaxis]} for image in images])
    onnx.save(nncf.quantize(onnx.load(source), data, subset_size=len(images)), result)


def _neural_compressor(source: Path, result: Path, images: Array) -> None:
    from onnx_neural_compressor import data_reader
    from onnx_neural_compressor.quantization import config, quantize

    class Reader(data_reader.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> Feeds | None:
            return next(self.feeds, None)

        def rewind(self) -> None:
            self.feeds = Images(images).batches(32)

    how = config.StaticQuantConfig(calibration_data_reader=Reader(), per_channel=True)
    quantize(source, result, how)


TOOLS: Mapping[str, tuple[str, Tool]] = {
    "onnxpress --no-refit": ("onnxpress", _ours("")),
    "onnxpress": ("onnxpress", _ours(",refit")),
    "onnxpress, nearest": ("onnxpress", _ours(",refit{round=nearest}")),
    "onnxpress, learned rounding": ("onnxpress", _ours(",refit{weights=false}")),
    "ORT per channel": ("onnxruntime", _ort(reduce_range=False)),
    "ORT reduce_range": ("onnxruntime", _ort(reduce_range=True)),
    "NNCF": ("nncf", _nncf),
    "Neural Compressor": ("onnx_neural_compressor", _neural_compressor),
}
"""Every tool by name: the module that it needs, and how it is called."""


def layout(net: str) -> str:
    """The layout of the images that ``net`` takes."""
    return "nhwc" if "cnn" in net else "nchw"


def measure(net: str, tool: str, digits: Digits, subsets: int) -> list[dict[str, Any]]:
    """For each calibration: noise in decibels, accuracy in percent, seconds; JSON-ready."""
    test, source = shipped_for_testing(), SHIPPED / f"{net}.onnx"
    pixels = test.pixels(layout(net))
    reference = run(source, pixels, "real")
    rows = []
    for subset in range(subsets):
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result.onnx"
            started = time.perf_counter()
            TOOLS[tool][1](source, result, _images(net, digits, subset))
            found: dict[str, Any] = {"seconds": time.perf_counter() - started}
            real = run(result, pixels, "real")
            simulated = run(result, pixels, "simulated")
            found["real"] = noise(reference, real)
            found["simulated"] = noise(reference, simulated)
            found["gap"] = found["real"] - found["simulated"]
            found["saturating"] = _saturating(result, reference[:EMULATED], pixels[:EMULATED])
            for name, answers in (("float", reference), ("real", real)):
                found[f"top1_{name}"] = 100 * float((answers.argmax(1) == test.labels).mean())
            found["bytes"] = result.stat().st_size
        rows.append(found)
    return rows


def noise(reference: Array, answers: Array) -> float:
    """The noise of ``answers``, in decibels below ``reference``."""
    fidelity = Fidelity()
    fidelity.update(reference, answers)
    return fidelity.sqnr_db


def speeds(net: str, tool: str, digits: Digits, seconds: float) -> dict[str, Any]:
    """The latency of :data:`BASELINE`'s file over that of the tool's, by batch; JSON-ready."""
    images = _images(net, digits, 0)
    pixels = shipped_for_testing().pixels(layout(net))
    with tempfile.TemporaryDirectory() as folder:
        models = []
        for at, one in enumerate((BASELINE, tool)):
            result = Path(folder) / f"{at}.onnx"
            TOOLS[one][1](SHIPPED / f"{net}.onnx", result, images)
            models.append(onnxpress.load(result))
        before, after = models
        return {
            str(size): latency_before_and_after(
                before, after, {"image": pixels[:size]}, threads=1, seconds=seconds
            )
            for size in BATCHES
        }


def _images(net: str, digits: Digits, subset: int) -> Array:
    chosen = np.random.default_rng(subset).choice(len(digits.images), SAMPLES, replace=False)
    return Digits(digits.images[chosen], digits.labels[chosen]).pixels(layout(net))


def run(model: Path, pixels: Array, arithmetic: str) -> Array:
    """The answers of ``model``; ``arithmetic`` is a key of :data:`LEVELS`."""
    options = ort.SessionOptions()
    options.graph_optimization_level = LEVELS[arithmetic]
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    chunks = (pixels[at : at + CHUNK] for at in range(0, len(pixels), CHUNK))
    return np.concatenate([session.run(None, {"image": chunk})[0] for chunk in chunks])


def _saturating(model: Path, reference: Array, pixels: Array) -> float:
    """The noise of ``model`` on a CPU whose kernels saturate."""
    answers = answers_on(ir.load(model), {"image": pixels}, Target("cpu", frozenset({"avx2"})))
    return noise(reference, next(iter(answers.values())))


def mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The means of all numbers, and the spread of the noise."""
    found = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return found | {"spread": float(np.std([row["real"] for row in rows]))}


def quantization_suite(
    subsets: Annotated[int, typer.Option(help="How many calibrations to average.")] = 8,
    digits: Annotated[
        Path | None,
        typer.Option(help="The .npz of benchmarks.zoo.digits; else the 512 digits that ship."),
    ] = None,
    nets: Annotated[str, typer.Option(help="Nets, comma separated.")] = ",".join(NETS),
    tools: Annotated[str, typer.Option(help="Tools, separated by semicolons.")] = ";".join(TOOLS),
    seconds: Annotated[float, typer.Option(help="How long to time each pair of files.")] = 4,
    resume: Resume = False,
    update: Update = False,
    limit: Limit = 900,
    results: Results = store.RESULTS,
) -> None:
    """Quantize the shipped nets by onnxpress and by other tools: noise, accuracy and speed."""
    source = split(load(digits))[0] if digits is not None else _shipped()
    shown = table("net", "tool", "real dB", "simulated dB", "gap dB", "AVX2 dB", "spread",
                  "top-1", "s", "x ORT, batch 1", "", "batch 32", "")  # fmt: skip
    known = [name for name, (module, _) in TOOLS.items() if importlib.util.find_spec(module)]
    keys = {"rows": ("net", "tool")}
    journal = Journal("quantization", keys, results, resume=resume, update=update, installed=known)
    for net in nets.split(","):
        for tool in tools.split(";"):
            key = {"net": net, "tool": tool}
            row = journal.measure("rows", key, _row, net, tool, source, subsets, seconds, limit)
            if row is not None:
                say(f"{net}, {tool}: {row.get('failed') or ', '.join(_cells(row))}")
    for row in journal.rows():
        shown.add_row(row["net"], row["tool"], *_cells(row))
    Console(width=160).print(shown)
    wrote(journal.finish())


def _row(
    net: str, tool: str, digits: Digits, subsets: int, seconds: float, limit: float
) -> dict[str, Any]:
    row: dict[str, Any] = {}
    try:
        row["runs"] = apart(measure, net, tool, digits, subsets, limit=limit)
        row["latency"] = apart(speeds, net, tool, digits, seconds, limit=limit)
    except CallError as error:
        return row | {"failed": str(error)}
    return row | mean(row["runs"])


def _cells(row: Mapping[str, Any]) -> list[str]:
    if "failed" in row:
        return ["fails", *[""] * 10]
    cells = [f"{row[key]:.2f}" for key in (*KEYS, "top1_real")] + [f"{row['seconds']:.1f}"]
    for size in BATCHES:
        cells += latency_cells(row["latency"][str(size)])
    return cells


def _shipped() -> Digits:
    """The calibration digits that ship, whose labels nobody needs."""
    with np.load(DATA / "mnist_calibration_nchw.npz") as file:
        images = np.rint(file["image"][:, 0] * 255).astype(np.uint8)
    return Digits(images, np.zeros(len(images), np.uint8))
