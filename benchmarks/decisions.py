"""What real models decide, before and after: text read in rendered lines, speech told from silence.

Numbers that differ by rounding may still tip a decision. So a hundred lines of text, set in the
fonts that are installed, are read by the OCR recognizer, and a minute of synthetic speech and
silence goes through the voice detectors window by window, their state carried on. Decisions of the
compiled model, in a default session, are compared with those of the original without optimizations.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

import onnxpress
from onnxpress.backends.base import OptimizationLevel, Session, SessionConfig
from onnxpress.backends.ort import session_of

from .corpus import CorpusError, load_corpus

Floats: TypeAlias = npt.NDArray[np.float32]

READER = "ppocr-rec"
DETECTORS = (
    "silero-vad",
    "silero-vad-16k-op15",
    "silero-vad-half",
    "silero-vad-op18-ifless",
    "silero-vad-openvino-16k",
    "silero-vad-16k-sequence",
)
LINES = 100
SECONDS = 60
RATE = 16_000

_FONT_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts")
_FONTS = ("DejaVu", "Liberation", "FreeSans", "FreeSerif", "FreeMono")
_HEIGHT, _FONT_SIZE = 48, 30
_WORDS = (
    "account", "address", "amount", "balance", "basket", "blanket", "bridge", "butter", "candle",
    "carbon", "cheese", "circle", "coffee", "copper", "corner", "cotton", "dinner", "doctor",
    "engine", "family", "flower", "forest", "garden", "guitar", "hammer", "harbor", "invoice",
    "island", "jacket", "kitchen", "ladder", "lemon", "letter", "market", "meadow", "mirror",
    "morning", "mountain", "napkin", "number", "orange", "packet", "pencil", "pepper", "planet",
    "pocket", "powder", "river", "saddle", "salmon", "saturday", "season", "silver", "spring",
    "station", "summer", "sunday", "supper", "table", "ticket", "timber", "tomato", "total",
    "tunnel", "turkey", "valley", "velvet", "village", "violin", "walnut", "water", "weather",
)  # fmt: skip
_SPOKEN = (
    "The train to the harbor leaves from platform nine.",
    "Please write your name and address on the form.",
    "It rained all morning, but the afternoon was bright.",
    "Seven boats came back with hardly any fish.",
    "She put the letters into the wrong envelopes.",
    "Turn left after the bridge and follow the river.",
)
_CONTEXT, _WINDOW, _ROWS = 64, 512, 20


@dataclass(frozen=True)
class Decisions:
    """How many decisions a compiled model makes as the original does.

    ``right`` counts those of the original that are right, where that is known: lines read without
    an error.
    """

    model: str
    level: int
    what: str
    count: int
    same: int
    right: int | None = None


# --- text ---------------------------------------------------------------------------------------


def fonts() -> list[Path]:
    """Latin fonts of Debian's packages and those that matplotlib brings, each once, by name."""
    folders = [Path(folder) for folder in _FONT_FOLDERS]
    try:
        import matplotlib as mpl

        folders.append(Path(mpl.get_data_path()) / "fonts" / "ttf")
    except ImportError:
        pass
    found = {
        path.name: path
        for folder in reversed(folders)
        for path in sorted(folder.rglob("*.ttf"))
        if path.name.startswith(_FONTS) and "Display" not in path.name
    }
    return [found[name] for name in sorted(found)]


def texts(count: int = LINES, seed: int = 0) -> list[str]:
    """Lines of two or three words and a number."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        words = [str(word) for word in rng.choice(np.array(_WORDS), rng.integers(2, 4))]
        if rng.integers(2):
            words[0] = words[0].capitalize()
        words.insert(int(rng.integers(1, len(words) + 1)), str(rng.integers(1, 100_000)))
        lines.append(" ".join(words))
    return lines


def rendered(text: str, font: Path, seed: int) -> Floats:
    """``text`` as ``[1, 3, 48, width]`` between -1 and 1, dark on light, with a little noise."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    face = ImageFont.truetype(str(font), _FONT_SIZE)
    left, top, right, bottom = face.getbbox(text)
    width = int(right - left) + 16
    paper, ink = int(rng.integers(200, 256)), int(rng.integers(0, 80))
    image = Image.new("L", (width, _HEIGHT), paper)
    place = (8 - left, (_HEIGHT - (bottom - top)) // 2 - top)
    ImageDraw.Draw(image).text(place, text, fill=ink, font=face)
    grey = np.asarray(image, np.float32) + rng.normal(0, 4, (_HEIGHT, width))
    scaled = np.clip(grey, 0, 255) / 127.5 - 1
    return np.repeat(scaled[None, None], 3, axis=1).astype(np.float32)


def characters(model: ir.Model) -> list[str]:
    """What the classes of the recognizer stand for: blank, its metadata's list, a space."""
    return ["", *model.metadata_props["character"].split("\n"), " "]


def decoded(scores: Floats, alphabet: Sequence[str]) -> str:
    """The text of ``[time, classes]`` by greedy CTC: the best of each step, repeats and blanks out.

    Graves et al., Connectionist temporal classification (2006), best path decoding.
    """
    best = scores.argmax(axis=-1)
    kept = best[(best != 0) & (np.diff(best, prepend=-1) != 0)]
    return "".join(alphabet[index] for index in kept)


@cache
def lines() -> tuple[tuple[str, Floats], ...]:
    """:data:`LINES` texts and their images, over all fonts.

    Raises :class:`~benchmarks.corpus.CorpusError` without Pillow or fonts.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise CorpusError(
            "rendering text needs Pillow", hint="pip install -e '.[bench]'"
        ) from error
    faces = fonts()
    if not faces:
        raise CorpusError("there are no fonts", hint="apt-get install fonts-dejavu-core")
    return tuple(
        (text, rendered(text, faces[at % len(faces)], at)) for at, text in enumerate(texts())
    )


def read(model: ir.Model, level: OptimizationLevel) -> list[str]:
    """What the recognizer reads in every line, in a session at that level of optimization."""
    alphabet = characters(model)
    session = session_of(model, SessionConfig(level=level, threads=1))
    name = model.graph.inputs[0].name or ""
    found = []
    for _, image in lines():
        (scores,) = session.run({name: image}).values()
        found.append(decoded(scores[0], alphabet))
    return found


# --- speech -------------------------------------------------------------------------------------


@cache
def recording() -> Floats:
    """:data:`SECONDS` of speech by espeak-ng and silence in turns, at 16 kHz.

    Raises :class:`~benchmarks.corpus.CorpusError` where espeak-ng is not installed.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise CorpusError("espeak-ng is not installed", hint="apt-get install espeak-ng")
    rng = np.random.default_rng(0)
    parts: list[Floats] = []
    while sum(part.size for part in parts) < SECONDS * RATE:
        sentence = _SPOKEN[len(parts) // 2 % len(_SPOKEN)]
        parts.append(_spoken(program, sentence))
        parts.append(np.zeros(int(rng.uniform(1.0, 3.0) * RATE), np.float32))
    sound = np.concatenate(parts)[: SECONDS * RATE]
    return (sound + rng.normal(0, 1e-4, sound.size)).astype(np.float32)


def _spoken(program: str, sentence: str) -> Floats:
    command = [program, "-v", "en", "--stdout", sentence]
    done = subprocess.run(command, capture_output=True, check=True)
    with wave.open(io.BytesIO(done.stdout)) as file:
        # What espeak-ng streams has no length in its head.
        samples = np.frombuffer(done.stdout[44:], np.int16).astype(np.float32) / 32768
        rate = file.getframerate()
    times = np.arange(int(samples.size * RATE / rate)) / RATE
    return np.interp(times, np.arange(samples.size) / rate, samples).astype(np.float32)


def windows(sound: Floats) -> Floats:
    """``[count, 576]``: windows of 512 samples, each behind the last 64 of the one before."""
    count = sound.size // _WINDOW
    padded = np.concatenate([np.zeros(_CONTEXT, np.float32), sound[: count * _WINDOW]])
    rows = [padded[at * _WINDOW : at * _WINDOW + _CONTEXT + _WINDOW] for at in range(count)]
    return np.stack(rows)


def heard(model: ir.Model, level: OptimizationLevel) -> list[bool]:
    """Whether the detector hears speech in each window, its state carried from one to the next."""
    session = session_of(model, SessionConfig(level=level, threads=1))
    return [bool(one > 0.5) for one in _probabilities(model, session)]


def _probabilities(model: ir.Model, session: Session) -> Iterator[float]:
    names = [value.name or "" for value in model.graph.inputs]
    outputs = [value.name or "" for value in model.graph.outputs]
    state: dict[str, Any] = {}
    for name in names[1:]:
        if name == "sr":
            state[name] = np.array(RATE, np.int64)
        else:
            state[name] = np.zeros((2 if name == "state" else 1, 1, 128), np.float32)
    carried = [name for name in names[1:] if name != "sr"]
    rows = windows(recording())
    step = _ROWS if "h" in names else 1  # an LSTM over the rows, or one window at a time
    for at in range(0, len(rows), step):
        answers = session.run({names[0]: rows[at : at + step], **state})
        yield from np.ravel(answers[outputs[0]]).tolist()
        state |= dict(zip(carried, (answers[name] for name in outputs[1:]), strict=True))


# --- both ---------------------------------------------------------------------------------------


def row(model: str, level: int, cache: Path | None = None) -> dict[str, Any]:
    """What :func:`compare` finds, JSON-ready."""
    return asdict(compare(model, level, cache))


def compare(
    name: str, level: int, folder: Path | None = None, *, budget: float | None = None
) -> Decisions:
    """How the model ``name`` decides after ``-O level``; ``budget`` is for level 3 alone."""
    original = onnxpress.load(load_corpus(folder)[name].path)
    budget = budget if level == 3 else None
    compiled = onnxpress.optimize(original, level=level, budget=budget).model
    before = _decided(name, folder)
    after = _decide(name, compiled, "all")
    same = sum(one == other for one, other in zip(before, after, strict=True))
    if name != READER:
        return Decisions(name, level, "windows", len(before), same)
    right = sum(text == found.strip() for (text, _), found in zip(lines(), before, strict=True))
    return Decisions(name, level, "lines", len(before), same, right)


@cache
def _decided(name: str, folder: Path | None) -> list[Any]:
    return _decide(name, onnxpress.load(load_corpus(folder)[name].path), "disabled")


def _decide(name: str, model: ir.Model, level: OptimizationLevel) -> list[Any]:
    return [*(read if name == READER else heard)(model, level)]
