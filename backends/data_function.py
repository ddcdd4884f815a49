"""Samples that a function of the user's yields."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .base import Feeds, TensorSpec
from .data_fit import check_dtype, check_names, check_shape
from .errors import DataError


@dataclass(frozen=True)
class FunctionData:
    """Feeds from ``function``, called anew for each reading: it has to repeat itself."""

    name: str
    function: Callable[[], Any]
    inputs: Sequence[TensorSpec]

    @classmethod
    def open(cls, spec: str, inputs: Sequence[TensorSpec]) -> FunctionData:
        """The function ``module:function``; its first feeds are checked at once.

        Raises:
            DataError: It cannot be imported or called, yields nothing or what does not fit.
        """
        function = load_function(spec)
        data = cls(spec, function, inputs)
        if next(data.batches(1), None) is None:
            raise DataError(f"{spec} yields no samples")
        return data

    def batches(self, size: int) -> Iterator[Feeds]:
        """Yield the function's feeds as they are; ``size`` changes nothing.

        Raises:
            DataError: The function fails, or yields what does not fit the model.
        """
        del size
        items = self._items()
        for index in range(sys.maxsize):
            try:
                item = next(items)
            except StopIteration:
                return
            except DataError:
                raise
            except Exception as error:
                raise DataError(
                    f"{self.name} failed at item {index}: {type(error).__name__}: {error}"
                ) from error
            yield self._checked(item, index)

    def _items(self) -> Iterator[Any]:
        yielded = self.function()
        try:
            items = iter(yielded)
        except TypeError:
            raise DataError(
                f"{self.name} returns {type(yielded).__name__}, which cannot be iterated",
                hint="it should yield one dict of arrays by input name for each run",
            ) from None
        yield from items

    def _checked(self, item: Any, index: int) -> Feeds:
        where = f"item {index} of {self.name}"
        if not isinstance(item, Mapping):
            raise DataError(
                f"{where} is {type(item).__name__}, not a dict",
                hint="yield one dict of arrays by input name for each run",
            )
        check_names(item, self.inputs, where)
        feeds = {}
        for spec in self.inputs:
            array, label = np.asarray(item[spec.name]), f"{spec.name!r} in {where}"
            check_dtype(array.dtype, spec, label, f"yield {spec.name!r} as .astype(DTYPE)")
            check_shape(array.shape, spec, label, samples=False)
            feeds[spec.name] = array
        return feeds


def load_function(spec: str) -> Callable[..., Any]:
    """The function that ``module:function`` names.

    Raises:
        DataError: It cannot be imported, or is no function.
    """
    module, _, attribute = spec.partition(":")
    try:
        function = getattr(_import(module), attribute)
    except Exception as error:  # the module's own code may raise anything
        raise DataError(
            f"{spec} cannot be imported: {type(error).__name__}: {error}",
            hint="the module has to be installed or lie in the working folder",
        ) from error
    if not callable(function):
        raise DataError(f"{spec} is {type(function).__name__}, not a function")
    found: Callable[..., Any] = function
    return found


def _import(module: str) -> Any:
    """Import ``module``, from the working folder as well, which a command's path does not hold."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(here)
