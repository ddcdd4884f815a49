"""Intermediate values of a model over all samples, each computed from the nearest ones at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from ...backends.base import Feeds, Session, SessionConfig
from ...backends.data import Data
from ...backends.errors import DataError
from ..base import Array, Context
from ..graph import Names, subgraphs_of

BATCH = 32
"""Samples in one run, where the data leaves the choice."""

ROOM = 32 << 20
"""Bytes of values that are kept, whatever the number of samples."""

_ENTRIES = {"session.intra_op.allow_spinning": "0"}
"""ONNX Runtime's threads would wait busily while NumPy's work."""


class Replay:
    """Runs one model on the same samples again and again, for one value after the other.

    The latest values are kept, up to ``room`` bytes, and a later one is computed from them by the
    part of the model that lies between. Asking for the values of a deep model in order then takes
    as long as running it a few times. The model may change behind all values asked for so far.
    """

    def __init__(
        self, model: ir.Model, data: Data, samples: int, context: Context, room: int = ROOM
    ) -> None:
        self._model = model
        self._data = data
        self._samples = samples
        self._context = context
        self._room = room
        self._kept: dict[ir.Value, list[Array]] = {}

    def batches(self, value: ir.Value) -> Iterator[Array]:
        """Yield ``value``, computed in the main graph, for each batch of samples.

        Raises:
            BackendError: The model does not run on the samples.
        """
        if value in self._kept:
            yield from self._kept[value]
            return
        sources = self._sources(value)
        session: Session | None = None
        answers: list[Array] = []
        size = 0
        for feeds in self._feeds(sources):
            session = session or self._session(value, sources, feeds)
            answer = session.run(feeds)[value.name or ""]
            yield answer
            size += answer.nbytes
            answers.append(answer)
            if size > self._room:
                answers.clear()
        if size <= self._room:
            self._keep(value, answers)

    def _keep(self, value: ir.Value, answers: list[Array]) -> None:
        self._kept[value] = answers
        sizes = {one: sum(a.nbytes for a in arrays) for one, arrays in self._kept.items()}
        for oldest in list(sizes):
            if sum(sizes.values()) > self._room:
                del self._kept[oldest], sizes[oldest]

    def _sources(self, value: ir.Value) -> list[ir.Value]:
        """The values at hand, inputs of the graph or kept, that ``value`` is computed from."""
        found: dict[ir.Value, None] = {}
        seen = {value}
        waiting = [value]
        while waiting:
            one = waiting.pop()
            node = one.producer()
            if one in self._kept or (node is None and not one.is_initializer()):
                found[one] = None
            elif node is not None:
                for read in (*node.inputs, *_captured(node)):
                    if read is not None and read not in seen:
                        seen.add(read)
                        waiting.append(read)
        return list(found)

    def _feeds(self, sources: Sequence[ir.Value]) -> Iterator[dict[str, Array]]:
        kept = {value.name or "": self._kept[value] for value in sources if value in self._kept}
        inputs = [value.name or "" for value in sources if value not in self._kept]
        if kept and not inputs:
            for arrays in zip(*kept.values(), strict=True):
                yield dict(zip(kept, arrays, strict=True))
            return
        read = 0
        for number, feeds in enumerate(self._data.batches(min(BATCH, self._samples) or BATCH)):
            if missing := [name for name in inputs if name not in feeds]:
                raise DataError(
                    f"the samples hold nothing for the model's input {missing[0]!r}",
                    hint=f"they hold {', '.join(repr(name) for name in feeds)}",
                )
            yield {name: feeds[name] for name in inputs} | {
                name: arrays[number] for name, arrays in kept.items()
            }
            read += max((len(array) for array in feeds.values() if array.ndim), default=1)
            if self._samples and read >= self._samples:
                return

    def _session(self, value: ir.Value, sources: Sequence[ir.Value], feeds: Feeds) -> Session:
        """A session of the part of the model between ``sources`` and ``value``."""
        model = self._model
        graph = ir.convenience.extract(model.graph, sources, [value])
        for source, own in zip(sources, graph.inputs, strict=True):
            if source in self._kept:
                array = feeds[source.name or ""]
                own.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
                own.shape = ir.Shape([None] * array.ndim)
        functions = list(model.functions.values())
        part = ir.Model(graph, ir_version=model.ir_version, functions=functions)
        _rename_unread(part)
        config = SessionConfig(provider=self._context.target.provider, entries=_ENTRIES)
        return self._context.sessions(part, config)


def _rename_unread(part: ir.Model) -> None:
    """Free the names of inputs that a node of ``part``, there for its other outputs, makes too."""
    given, names = {value.name for value in part.graph.inputs}, Names(part)
    for node in part.graph:
        for output in node.outputs:
            if output.name in given:
                output.name = names.fresh(f"{output.name}.unread")


def _captured(node: ir.Node) -> Iterator[ir.Value | None]:
    """What the subgraphs of ``node`` read from around it."""
    for graph in subgraphs_of(node):
        for inner in ir.traversal.RecursiveGraphIterator(graph):
            yield from (value for value in inner.inputs if value and value.graph is node.graph)
