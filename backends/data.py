"""Samples that the user brings, streamed: never all of them in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from .base import Feeds, TensorSpec
from .errors import DataError


class Data(Protocol):
    """Feeds that can be read more than once, always in the same order.

    Samples are counted along the first axis of every array. ``batches(n)`` yields feeds of at
    most ``n`` samples each; a source whose samples differ in shape yields them one at a time, and
    never stacks different shapes. Two things come as they are, whatever ``n`` is: feeds of a
    model whose inputs fix the batch, and feeds that the user's own function made.
    """

    def batches(self, size: int) -> Iterator[Feeds]:
        """Yield all samples, at most ``size`` at a time."""
        ...


def open_data(spec: str, inputs: Sequence[TensorSpec]) -> Data:
    """The samples that ``spec`` names, checked against the model's ``inputs``.

    ``spec`` is one of

    - an ``.npz`` file: one array per input, under the input's name, samples along the first axis;
    - a folder of ``.npz`` files, each as above, read in the order of their names. Samples of
      different shape may lie in different files; those of equal shape are batched across files;
    - a folder of ``.npy`` files named after the inputs (``x.npy``), samples along the first axis;
    - for a model with one input, an ``.npy`` file, or a folder of ``.npy`` files of any names;
    - ``module:function``, which is called without arguments for every reading and yields feeds,
      one ``dict`` of arrays by input name for each run. Modules of the working folder are found.

    An array has either the rank of its input, and then its first axis is the input's own, or one
    more, and then each entry along the first axis is the whole input of one run. The latter is
    for inputs whose first axis counts no samples (a state, a scalar rate); where one array is like
    that, every sample is a run of its own. Types have to be exactly the model's: a cast would hide
    a missing normalization.

    Where the model fixes the first dimension, every batch has exactly that many samples, and the
    samples that do not fill the last one are left out: ``StoredData.note`` says how many.

    Headers are read now, samples when they are asked for; compressed archives are decompressed
    as a stream.

    Raises:
        DataError: Something is missing, unreadable or does not fit; the hint says how to mend it.
    """
    path = Path(spec)
    if path.exists():
        from .data_files import open_files

        return open_files(path, inputs)
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", spec):
        from .data_function import FunctionData

        return FunctionData.open(spec, inputs)
    raise DataError(
        f"there is no data {spec!r}",
        hint="give an .npz file, a folder of .npy or .npz files, or module:function",
    )
