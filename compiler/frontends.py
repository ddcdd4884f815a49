"""Models of PyTorch and Keras as ONNX, through the frameworks' own exporters.

The exporters belong to the extra ``frameworks`` and are imported on first use.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from ..backends.errors import ModelError, UsageError
from .model_io import load_proto

BATCH = "batch"
"""What the first axis of inputs is called where it is dynamic."""
SUFFIXES = (".pt2", ".keras")
"""Files of frameworks, by the end of their names; a folder with ``saved_model.pb`` is one, too."""


def from_torch(
    module: Any,
    example: Any,
    *,
    dynamic_shapes: Any = None,
    batch: bool = True,
    opset: int | None = None,
) -> ir.Model:
    """A PyTorch module as ONNX, by ``torch.onnx.export(…, dynamo=True)``.

    Args:
        module: A ``torch.nn.Module``, exported in evaluation mode and then put back into the mode
            it was in.
        example: What it is called with: a tensor, a sequence of arguments, or a mapping of
            keyword arguments.
        dynamic_shapes: As PyTorch's exporter takes it.
        batch: Where no ``dynamic_shapes`` are given, whether the first axis of every tensor is
            dynamic. One sample is repeated then, since the exporter takes an axis of 1 for fixed.
        opset: The opset to export to; PyTorch's default otherwise.

    Returns:
        The model, for :func:`onnxpress.optimize`.

    Raises:
        UsageError: PyTorch or onnxscript is not installed.
        ModelError: The exporter failed; its message is in the error.
    """
    torch = _framework("torch", "onnxscript")
    repeat = dynamic_shapes is None and batch
    args, kwargs = (_copied(torch, one, repeat) for one in _arguments(torch, example))
    if repeat:
        dynamic_shapes = _first_axes(torch, args) or _first_axes(torch, kwargs)
    training = bool(getattr(module, "training", False))
    try:
        return _exported(
            torch,
            module.eval() if training else module,
            args,
            kwargs=kwargs,
            dynamic_shapes=dynamic_shapes,
            opset_version=opset,
        )
    finally:
        if training:
            module.train()


def from_keras(model: Any, *, opset: int | None = None) -> ir.Model:
    """A Keras model as ONNX, by tf2onnx; its first axis is dynamic where the model's is.

    Raises:
        UsageError: TensorFlow or tf2onnx is not installed.
        ModelError: The exporter failed, or the model has not been built yet.
    """
    tensorflow = _framework("tensorflow", "tf2onnx")
    if not getattr(model, "inputs", None):
        raise ModelError("the Keras model has no inputs yet", hint="build it, or call it once")
    specs = [
        tensorflow.TensorSpec(value.shape, value.dtype, name=value.name) for value in model.inputs
    ]
    single = len(specs) == 1

    def call(*values: Any) -> Any:
        return model(values[0] if single else list(values), training=False)

    return _converted(tensorflow, call, specs, opset)


def from_file(path: Path) -> ir.Model:
    """A model in a file of a framework: ``.pt2``, ``.keras``, or a SavedModel's folder.

    Raises:
        UsageError: The framework is not installed.
        ModelError: The file cannot be read, or the exporter failed.
    """
    if path.suffix == ".pt2":
        torch = _framework("torch", "onnxscript")
        with _told(f"{path} cannot be read by torch.export.load"):
            program = torch.export.load(path)
        return _exported(torch, program)
    tensorflow = _framework("tensorflow", "tf2onnx")
    if path.suffix == ".keras":
        with _told(f"{path} cannot be read by Keras"):
            model = tensorflow.keras.models.load_model(path, compile=False)
        return from_keras(model)
    with _told(f"{path} cannot be read as a SavedModel"):
        loaded = tensorflow.saved_model.load(str(path))
        signature = loaded.signatures["serving_default"]
    _, keywords = signature.structured_input_signature
    names = sorted(keywords)

    def call(*values: Any) -> Any:
        return signature(**dict(zip(names, values, strict=True)))

    return _converted(tensorflow, call, [keywords[name] for name in names], None)


def is_foreign(path: Path) -> bool:
    """Whether ``path`` holds a model of a framework and not ONNX, by its name."""
    return path.suffix in SUFFIXES or (path / "saved_model.pb").is_file()


@contextlib.contextmanager
def as_onnx(paths: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """``paths`` with a temporary ONNX file in the place of each that is of a framework."""
    from .model_io import save

    with tempfile.TemporaryDirectory() as folder:
        found = []
        for index, path in enumerate(paths):
            if is_foreign(path):
                place = Path(folder) / str(index) / f"{path.stem}.onnx"
                place.parent.mkdir()
                save(from_file(path), place)
                path = place  # noqa: PLW2901
            found.append(path)
        yield tuple(found)


def _framework(name: str, exporter: str) -> Any:
    try:
        importlib.import_module(exporter)
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"this needs {name} and {exporter}: {error}",
            hint="pip install 'onnxpress[frameworks]'",
        ) from error


def _arguments(torch: Any, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, torch.Tensor):
        return (example,), {}
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, Sequence):
        return tuple(example), {}
    raise UsageError(
        f"an example is a tensor, a sequence or a mapping of them, not {type(example).__name__}"
    )


def _copied(torch: Any, values: Any, repeat: bool) -> Any:
    """``values`` with tensors of their own: one tensor given twice would become one input.

    With ``repeat`` the first axis of a tensor is repeated where it has one entry.
    """
    if isinstance(values, dict):
        return {name: _copied(torch, value, repeat) for name, value in values.items()}
    if isinstance(values, tuple | list):
        return type(values)(_copied(torch, value, repeat) for value in values)
    if not isinstance(values, torch.Tensor):
        return values
    once = not repeat or values.ndim == 0 or values.shape[0] != 1
    return values.clone() if once else values.repeat(2, *[1] * (values.ndim - 1))


def _first_axes(torch: Any, values: Any) -> Any:
    """``dynamic_shapes`` that make the first axis of every tensor the same dynamic one."""
    if isinstance(values, dict):
        return {name: _first_axes(torch, value) for name, value in values.items()}
    if isinstance(values, tuple | list):
        return type(values)(_first_axes(torch, value) for value in values)
    if isinstance(values, torch.Tensor) and values.ndim:
        return {0: torch.export.Dim(BATCH)}
    return None


def _exported(torch: Any, *positional: Any, **options: Any) -> ir.Model:
    given = {key: value for key, value in options.items() if value}
    with _told("PyTorch cannot export the model", "batch=False fixes all sizes"):
        program = torch.onnx.export(*positional, dynamo=True, verbose=False, **given)
        proto: onnx.ModelProto = program.model_proto
    return load_proto(proto)


def _converted(tensorflow: Any, call: Any, specs: Sequence[Any], opset: int | None) -> ir.Model:
    convert = importlib.import_module("tf2onnx.convert")
    with _told("tf2onnx cannot export the model"):
        proto, _ = convert.from_function(
            tensorflow.function(call, input_signature=specs), input_signature=specs, opset=opset
        )
    return load_proto(proto)


@contextlib.contextmanager
def _told(message: str, hint: str = "") -> Iterator[None]:
    """Turn whatever an exporter raises into a :class:`ModelError`, and keep it quiet otherwise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"{message}: {first}", hint=hint) from error
    finally:
        logging.disable(before)
