"""Models timed against each other, with what each takes in memory and where its time goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ..backends.base import Feeds, Provider, SessionConfig, TensorSpec
from ..backends.data import Data, open_data
from ..backends.environment import environment
from ..backends.errors import UsageError
from ..backends.memory import peak_rss_mb
from ..backends.ort import check_provider, session_of, specs_of
from ..backends.profile import OperatorTime, profile
from ..backends.timing import Latency, Speedup, compare_latency
from .latency import timing_feeds
from .model_io import load
from .model_io.formats import detect


@dataclass(frozen=True)
class ModelBench:
    """One model's measurements; ``peak_rss_mb`` is ``None`` where it was not measured.

    ``operators`` is the per-operator profile, empty where none was asked for.
    """

    path: str
    latency: Latency
    peak_rss_mb: float | None
    operators: Sequence[OperatorTime] = ()


@dataclass(frozen=True)
class BenchReport:
    """What :func:`bench` measured, and under which conditions.

    ``pairs`` holds the first model against each other one. ``feeds`` are the shapes of the inputs
    by name; ``threads`` 0 is ONNX Runtime's own choice.
    """

    models: Sequence[ModelBench]
    pairs: Sequence[Speedup]
    provider: Provider
    threads: int
    feeds: Mapping[str, list[int]]
    environment: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The report in JSON-ready form."""
        return {
            "models": [_model_json(model) for model in self.models],
            "pairs": [{**asdict(pair), "ci95": list(pair.ci95)} for pair in self.pairs],
            "provider": self.provider,
            "threads": self.threads,
            "feeds": dict(self.feeds),
            "environment": self.environment,
        }


def _model_json(model: ModelBench) -> dict[str, Any]:
    found = {"path": model.path, **asdict(model.latency), "peak_rss_mb": model.peak_rss_mb}
    if model.operators:
        found["operators"] = [asdict(row) for row in model.operators]
    return found


def bench(
    paths: Sequence[str | Path],
    *,
    provider: Provider = "cpu",
    threads: int = 0,
    dims: Mapping[str, int] | None = None,
    data: str | Data | None = None,
    seconds: float = 5.0,
    operators: bool = False,
    memory: bool = True,
    seed: int = 0,
    progress: Callable[[str, int, int | None], None] = lambda _stage, _done, _total: None,
) -> BenchReport:
    """Time the models in ``paths`` on the same inputs, interleaved in this process.

    Sessions are ONNX Runtime's default ones. Inputs are the first sample of ``data`` (as many as
    the dimension ``batch`` in ``dims`` says), or made up so that the first model accepts them.

    Args:
        paths: The models; all have to take the same inputs.
        provider: Where to run them.
        threads: Intra-op threads; 0 leaves the choice to ONNX Runtime.
        dims: Sizes of named dynamic dimensions.
        data: Samples, or what :func:`~onnxpress.backends.data.open_data` opens.
        seconds: The time for all timed runs together.
        operators: Profile each model operator by operator as well.
        memory: Measure each model's peak memory, in a process of its own.
        seed: The root of every random choice.
        progress: Called as ``progress(stage, done, total)``.

    Raises:
        ModelError: A file holds no model.
        UsageError: The models do not take the same inputs, or no model is given.
        DataError: The data does not fit, or no inputs were found that the first model accepts.
        BackendError: ONNX Runtime cannot load or run a model.
    """
    if not paths:
        raise UsageError("there is no model to time")
    check_provider(provider)
    files = [Path(path) for path in paths]
    progress("reading", 0, None)
    models = [load(file) for file in files]
    _check_inputs(files, models)
    samples = open_data(data, specs_of(models[0])) if isinstance(data, str) else data
    feeds = timing_feeds(models[0], data=samples, dims=dims, seed=seed)
    config = SessionConfig(provider=provider, threads=threads)
    sources = [
        file if _is_binary(file) else model for file, model in zip(files, models, strict=True)
    ]
    del models

    progress("timing", 0, None)
    sessions = [session_of(source, config) for source in sources]
    timings = compare_latency(
        [session.bind(feeds) for session in sessions],
        [str(path) for path in paths],
        seconds=seconds,
        seed=seed,
    )
    del sessions
    measured = []
    for index, (source, latency) in enumerate(zip(sources, timings.latencies, strict=True)):
        progress("memory and profile", index, len(sources))
        measured.append(
            ModelBench(
                path=str(paths[index]),
                latency=latency,
                peak_rss_mb=_peak(source, feeds, config) if memory else None,
                operators=profile(source, feeds, config) if operators else (),
            )
        )
    shapes = {name: list(array.shape) for name, array in feeds.items()}
    return BenchReport(measured, timings.pairs, provider, threads, shapes, environment())


def _is_binary(file: Path) -> bool:
    with file.open("rb") as opened:
        return detect(opened.read(4096), str(file)) == "binary"


def _peak(source: Path | ir.Model, feeds: Feeds, config: SessionConfig) -> float | None:
    if isinstance(source, ir.Model):
        return None  # a text, which ONNX Runtime does not load in a process of its own
    return peak_rss_mb(source, feeds, provider=config.provider, threads=config.threads)


def _check_inputs(files: Sequence[Path], models: Sequence[ir.Model]) -> None:
    first = {spec.name: spec for spec in specs_of(models[0])}
    for file, model in zip(files[1:], models[1:], strict=True):
        other = {spec.name: spec for spec in specs_of(model)}
        if set(other) != set(first):
            difference = f"its inputs are {_listed(other)}, not {_listed(first)}"
        elif clash := next((n for n in first if not _alike(first[n], other[n])), None):
            difference = f"its input {clash!r} is {_text(other[clash])}, not {_text(first[clash])}"
        else:
            continue
        raise UsageError(
            f"{file} cannot be timed against {files[0]}: {difference}",
            hint="models that are timed against each other have to take the same inputs",
        )


def _alike(first: TensorSpec, other: TensorSpec) -> bool:
    """Whether some array fits both."""
    if first.dtype != other.dtype:
        return False
    if first.shape is None or other.shape is None:
        return True
    return len(first.shape) == len(other.shape) and all(
        a == b or not isinstance(a, int) or not isinstance(b, int)
        for a, b in zip(first.shape, other.shape, strict=True)
    )


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(map(repr, specs)) or "none"


def _text(spec: TensorSpec) -> str:
    if spec.shape is None:
        return f"{spec.dtype}[...]"
    return f"{spec.dtype}[{','.join('?' if dim is None else str(dim) for dim in spec.shape)}]"
