"""Runs models with ONNX Runtime, on the CPU or on CUDA, and never elsewhere than asked."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from .arrays import FOREIGN, feed, feed_value, fetched, fetched_value
from .base import Array, Feeds, ModelSource, Provider, SessionConfig, TensorSpec
from .errors import BackendError, ProviderUnavailableError
from .messages import backend_error
from .options import options_of, set_options
from .ort_model import loadable, specs_of
from .providers import CUDA, check_provider, prepare_provider
from .serde import from_proto

__all__ = ["BoundRun", "OrtBackend", "OrtSession", "check_provider", "session_of", "specs_of"]

_PROVIDERS: Final[dict[Provider, list[str]]] = {
    "cpu": ["CPUExecutionProvider"],
    # Shape arithmetic belongs on the CPU; that CUDA is in force is checked after creation.
    "cuda": [CUDA, "CPUExecutionProvider"],
}
_FATAL: Final = 4
"""The log severity at which ONNX Runtime prints nothing: errors come as exceptions as well."""

ort.set_default_logger_severity(_FATAL)


class OrtSession:
    """A model loaded by ONNX Runtime; a :class:`~onnxpress.backends.base.Session`."""

    def __init__(self, native: Any, config: SessionConfig, name: str) -> None:
        self.native = native
        """The ``onnxruntime.InferenceSession`` itself."""
        self.config = config
        self.name = name
        self.borrowed: Mapping[str, Any] = {}
        """Weights that ONNX Runtime computes on where they lie, so they must outlive it."""
        self.inputs: Sequence[TensorSpec] = [_spec(arg) for arg in native.get_inputs()]
        self.outputs: Sequence[TensorSpec] = [_spec(arg) for arg in native.get_outputs()]
        self._foreign = any(spec.dtype in FOREIGN for spec in (*self.inputs, *self.outputs))

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Run once, from arrays in host memory to arrays in host memory.

        Strings go in as ``str`` or UTF-8 ``bytes`` and come out as an object array of ``str``.
        ``bfloat16``, ``float8`` and 4-bit integers are arrays of ``ml_dtypes``. An output that is
        no tensor comes out as an object array: a sequence as a 1-D one of its items (arrays, or
        ``dict`` from scikit-learn's ``ZipMap``), a map or an empty optional as a 0-D one.

        Raises:
            BackendError: The feeds do not fit the inputs, or a node failed.
        """
        specs = self._specs_of(feeds)
        names = [spec.name for spec in self.outputs]
        try:
            if self._foreign:
                values = {name: feed_value(feeds[name], spec) for name, spec in specs.items()}
                fetches = self.native.run_with_ort_values(names, values)
                return dict(zip(names, map(fetched_value, fetches), strict=True))
            arrays = {name: feed(feeds[name], spec) for name, spec in specs.items()}
            return dict(zip(names, map(fetched, self.native.run(names, arrays)), strict=True))
        except BackendError:
            raise
        except Exception as error:
            raise backend_error(error, f"{self.name} cannot be run") from error

    def bind(self, feeds: Feeds) -> BoundRun:
        """Put ``feeds`` where the provider computes; the answer runs on them as often as called.

        ONNX Runtime binds no strings, sequences and maps, and adds each run's items to a sequence
        that is bound as an output: a model with any of them is run from host memory in each call.

        Raises:
            BackendError: The feeds do not fit the inputs.
        """
        specs = self._specs_of(feeds)
        if missing := [spec.name for spec in self.inputs if spec.name not in specs]:
            raise BackendError(
                f"{self.name} gets nothing for its input {missing[0]!r}",
                hint="feed what the model's inputs ask for",
            )
        device = self.config.provider
        try:
            if not all(map(_can_be_bound, (*specs.values(), *self.outputs))):
                return BoundRun(self, {n: feed(feeds[n], spec) for n, spec in specs.items()})
            binding = self.native.io_binding()
            values = {n: feed_value(feeds[n], spec, device) for n, spec in specs.items()}
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            held = {}
            for spec in self.outputs:
                if self.config.cuda_graphs:  # what is replayed writes where the first run wrote
                    held[spec.name] = _place_for(spec, device)
                    binding.bind_ortvalue_output(spec.name, held[spec.name])
                else:
                    binding.bind_output(spec.name, device)
            return BoundRun(self, values | held, binding)
        except BackendError:
            raise
        except Exception as error:
            raise backend_error(error, f"{self.name} cannot take its inputs") from error

    def _specs_of(self, feeds: Feeds) -> dict[str, TensorSpec]:
        specs = {spec.name: spec for spec in self.inputs if spec.name in feeds}
        if unknown := [name for name in feeds if name not in specs]:
            raise BackendError(
                f"{self.name} has no input {unknown[0]!r}",
                hint=f"its inputs are {', '.join(repr(spec.name) for spec in self.inputs)}",
            )
        return specs


class BoundRun:
    """A run whose inputs lie in the provider's memory and whose outputs stay there.

    Call it to run: nothing is converted or transferred meanwhile, so it is what to time.
    """

    def __init__(self, session: OrtSession, inputs: dict[str, Any], binding: Any = None) -> None:
        self._session = session
        self._inputs = inputs  # a binding keeps nothing alive of what it is given
        self._binding = binding
        self._names = [spec.name for spec in session.outputs]
        self._fetched: list[Any] = []

    def __call__(self) -> None:
        """Run once and wait for the end. Raises ``BackendError``."""
        native = self._session.native
        try:
            if self._binding is None:
                self._fetched = native.run(self._names, self._inputs)
            else:
                native.run_with_iobinding(self._binding)
        except Exception as error:
            raise backend_error(error, f"{self._session.name} cannot be run") from error

    def transfer_ms(self, feeds: Feeds, times: int = 7) -> float:
        """Milliseconds for bringing ``feeds`` to the provider and the answers back (median).

        The first run is this one's, so that there are answers. Raises ``BackendError``.
        """
        self()
        found = []
        for _ in range(times):
            started = time.perf_counter()
            self._session.bind(feeds)
            self.outputs()
            found.append(1000 * (time.perf_counter() - started))
        return statistics.median(found)

    def outputs(self) -> dict[str, Array]:
        """The answers of the last call, transferred to host memory."""
        if self._binding is None:
            return dict(zip(self._names, map(fetched, self._fetched), strict=True))
        values = self._binding.get_outputs()
        return dict(zip(self._names, map(fetched_value, values), strict=True))


class OrtBackend:
    """ONNX Runtime as a :class:`~onnxpress.backends.base.Backend`."""

    def session(self, model: ModelSource, config: SessionConfig) -> OrtSession:
        """Load ``model``. Raises :class:`~onnxpress.backends.errors.BackendError`."""
        return session_of(model, config)


def session_of(
    model: ir.Model | ModelSource,
    config: SessionConfig = SessionConfig(),  # noqa: B008
    outputs: Sequence[str] | None = None,
    *,
    profile: Path | None = None,
    optimized: Path | None = None,
) -> OrtSession:
    """Load ``model``: a file, a serialized model, or one that is still being rewritten.

    An ``onnx_ir`` model is not changed by it and may be over 2 GB: external data that lies in one
    folder is mapped from there by ONNX Runtime, other large weights are handed over in memory,
    shared where ``config.level`` is ``disabled`` and copied once where it is not. So external
    data files must stay as they are until the session is there.

    ``outputs`` names the values of the main graph that a run answers with, in that order: any
    intermediate ones, an initializer or an input as well. By default the graph's own outputs.
    ``profile`` turns ONNX Runtime's profiler on: how the name of the file that it writes begins.
    ``optimized`` is where it writes the graph that it will run.

    Raises:
        BackendError: ONNX Runtime cannot load the model; the message says why.
        ProviderUnavailableError: ``config.provider`` cannot be used on this machine.
    """
    name = str(model) if isinstance(model, (str, Path)) else "the model"
    options = _options(config)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if isinstance(model, ir.Model) or outputs is not None:
        ready = loadable(_opened(model, name), outputs)
        ready.add_to(options, shared=config.level == "disabled")
        session = _session(ready.proto, options, config, name)
        session.borrowed = ready.weights
        return session
    return _session(model if isinstance(model, bytes) else name, options, config, name)


def _options(config: SessionConfig) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    set_options(options, options_of(config))
    return options


def _session(source: str | bytes, options: Any, config: SessionConfig, name: str) -> OrtSession:
    if config.provider == "cuda":
        if CUDA not in ort.get_available_providers():
            check_provider(config.provider)
        prepare_provider(config.provider)
    try:
        native = ort.InferenceSession(
            source, options, providers=providers_of(config), enable_fallback=0
        )
    except Exception as error:
        raise backend_error(error, f"{name} cannot be loaded") from error
    if config.provider == "cuda" and CUDA not in native.get_providers():
        check_provider(config.provider)
        raise ProviderUnavailableError(
            "ONNX Runtime could not start its CUDA provider, for a reason it does not tell",
            hint="does the CUDA and cuDNN version fit onnxruntime-gpu, and the driver CUDA?",
        )
    return OrtSession(native, config, name)


def providers_of(config: SessionConfig) -> list[Any]:
    """The execution providers of a session, with their options where they have any."""
    first, *others = _PROVIDERS[config.provider]
    return (
        [(first, {"enable_cuda_graph": "1"}), *others] if config.cuda_graphs else [first, *others]
    )


def _place_for(spec: TensorSpec, device: Provider) -> Any:
    """Memory of ``device`` for the output ``spec``, whose shape is fixed."""
    if spec.shape is not None and not all(isinstance(size, int) for size in spec.shape):
        raise BackendError(
            f"the output {spec.name!r} has no fixed shape, which CUDA graphs need",
            hint="run it without CUDA graphs, or export the model with fixed shapes",
        )
    dtype = np.dtype({"float": "float32", "double": "float64"}.get(spec.dtype, spec.dtype))
    return ort.OrtValue.ortvalue_from_shape_and_type(list(spec.shape or ()), dtype, device)


def _opened(model: ir.Model | ModelSource, name: str) -> ir.Model:
    if isinstance(model, ir.Model):
        return model
    try:
        if not isinstance(model, bytes):
            return ir.load(model)
        return from_proto(onnx.ModelProto.FromString(model))
    except Exception as error:  # a damaged file fails in protobuf, onnx or onnx_ir
        raise BackendError(f"{name} cannot be read: {error}") from error


def _can_be_bound(spec: TensorSpec) -> bool:
    return spec.dtype != "string" and "(" not in spec.dtype


def _spec(arg: Any) -> TensorSpec:
    if not arg.type.startswith("tensor("):
        return TensorSpec(arg.name, arg.type, None)
    # ONNX Runtime reports a scalar and an unknown rank alike.
    shape = tuple(arg.shape) or None
    return TensorSpec(arg.name, arg.type.removeprefix("tensor(")[:-1], shape)
