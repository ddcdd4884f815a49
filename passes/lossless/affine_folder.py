"""Folding rows of affine maps into the layers around them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx_ir as ir

from ..base import Result
from ..graph import graph_of, take_over
from .affine import Affine
from .affine_emit import MapWriter
from .affine_plan import Plan, Search
from .affine_steps import Chain, chains
from .layers import LayerWriter


class Folder:
    """Folds affine maps of one model.

    ``kinds`` are the operators to take for such maps, ``search`` knows the ways to layers.
    """

    def __init__(self, model: ir.Model, kinds: Container[str], search: Search) -> None:
        self.model = model
        self.kinds = kinds
        self.search = search
        self.result = Result(model)

    @cached_property
    def writer(self) -> LayerWriter:
        """Writes new constants; made when the first one is."""
        return LayerWriter(self.model)

    @cached_property
    def maps(self) -> MapWriter:
        """Writes what cannot be folded."""
        return MapWriter(self.writer, self.search.sizes)

    def run(self) -> Result:
        """Fold what can be; ``details`` tells of bytes that doubled."""
        self.fold_all()
        return self.finish()

    def fold_all(self) -> None:
        """Fold what can be."""
        for chain in chains(self.model, self.kinds, self.search.sizes, self.result):
            if not self.is_left_alone(chain):
                self.fold(chain)

    def finish(self) -> Result:
        """Drop the constants that nothing reads any more."""
        if self.result.modified and (duplicated := self.writer.finish()):
            self.result.details["duplicated_bytes"] = duplicated
        return self.result

    def is_left_alone(self, chain: Chain) -> bool:
        """Whether ``chain`` is not to be touched at all."""
        del chain
        return False

    def fold(self, chain: Chain) -> None:
        """Fold ``chain`` before or behind, or say why it has to stay."""
        if not (chain.affine.scales or chain.affine.shifts):
            self.take_out(chain)
            return
        before = self.try_before(chain, chain.affine)
        after = self.try_after(chain, chain.affine) if before else ""
        if before and after and not self.fold_partly(chain):
            self.stay(chain, f"{before}, and {after}")

    def take_out(self, chain: Chain) -> None:
        """Take ``chain`` away, which does nothing."""
        source = chain.source
        if not chain.output.is_graph_output():
            self.put(chain, source, None, forward=True)
        elif source.producer() is None or source.is_graph_output():
            self.result.decline(chain.nodes[-1], because="an output needs a node of its own")
        elif source.graph is not chain.output.graph:
            self.result.decline(chain.nodes[-1], because="its input is computed in an outer graph")
        else:
            self.put(chain, source, None)

    def fold_partly(self, chain: Chain) -> bool:
        """Fold the factors or the summands of ``chain`` alone, if that leaves fewer nodes."""
        if len(chain.nodes) < 2 or not (chain.affine.scales and chain.affine.shifts):
            return False
        return any(
            self.maps.can_write(chain, rest) and not attempt(chain, piece, rest)
            for attempt, piece, rest in [
                *((self.try_before, *halves) for halves in _first_halves(chain.affine)),
                *((self.try_after, *halves) for halves in _last_halves(chain.affine)),
            ]
        )

    def stay(self, chain: Chain, because: str) -> None:
        """Make as little as possible of ``chain`` where it stands."""
        self.result.decline(chain.nodes[-1], because=because)

    def try_before(self, chain: Chain, piece: Affine, rest: Affine | None = None) -> str:
        """Fold ``piece`` into what comes before and leave ``rest``, or say why not."""
        plan = Plan()
        why = self.search.before(chain.source, piece, chain.nodes[0], plan)
        return why or self.carry_out(chain, plan, rest, forward=False)

    def try_after(self, chain: Chain, piece: Affine, rest: Affine | None = None) -> str:
        """Fold ``piece`` into what comes behind and leave ``rest``, or say why not."""
        plan = Plan()
        why = self.search.after(chain.output, piece, chain.source, plan)
        return why or self.carry_out(chain, plan, rest, forward=True)

    def carry_out(self, chain: Chain, plan: Plan, rest: Affine | None, *, forward: bool) -> str:
        """Do as planned, unless it does not pay, and leave ``rest`` in the place of ``chain``."""
        left = 0 if rest is None else 1
        if not chain.affine.scales and plan.added + left >= len(chain.nodes):
            return "it is what the layer adds"
        index = chain.nodes[0].inputs.index(chain.source)
        for layer, weight, bias in plan.writes:
            ends = [layer.node.outputs[0], layer.add.outputs[0] if layer.add else None]
            base = chain.output if not forward and chain.source in ends else ends[0]
            new = self.writer.write(layer, weight, bias, str(base and base.name))
            if layer.add is not None and layer.add.outputs[0] is not new:
                layer.add.outputs[0].replace_all_uses_with(new)
                self.remove([layer.add])
        source = chain.nodes[0].inputs[index] or chain.source
        self.put(chain, source, rest, forward=forward)
        return ""

    def put(
        self, chain: Chain, source: ir.Value, rest: Affine | None, *, forward: bool = False
    ) -> None:
        """Let ``rest`` of ``source`` be what ``chain`` answered, and take its nodes away."""
        if rest is not None:
            source = self.maps.write(chain, source, rest)
        if forward and rest is None:
            chain.output.replace_all_uses_with(source)
            self.drop(chain)
        else:
            source.shape = None  # a stale one might contradict that of the chain
            self.replace(chain, source)

    def replace(self, chain: Chain, new: ir.Value) -> None:
        """Let ``new`` be what ``chain`` answered."""
        take_over(new, chain.output)
        self.drop(chain)

    def drop(self, chain: Chain) -> None:
        """Take the nodes of ``chain``, which nothing reads, out of their graph."""
        self.remove(chain.nodes)
        for node in chain.nodes:
            self.result.rewrote(node)

    def remove(self, nodes: Sequence[ir.Node]) -> None:
        """Take ``nodes``, each read by the next one only, out of their graph."""
        for node in reversed(nodes):
            for value in node.inputs:
                if value is not None:
                    self.writer.retire(value)
            graph_of(node).remove(node, safe=True)


def _first_halves(affine: Affine) -> Iterator[tuple[Affine, Affine]]:
    """The ways to do a part of ``affine`` first and the rest after it."""
    yield affine.scaling(), affine.shifting()
    if (moved := _shift_before(affine)) is not None:
        yield moved, affine.scaling()


def _last_halves(affine: Affine) -> Iterator[tuple[Affine, Affine]]:
    """The ways to do a part of ``affine`` last and the rest before it."""
    if (moved := _shift_before(affine)) is not None:
        yield affine.scaling(), moved
    yield affine.shifting(), affine.scaling()


def _shift_before(affine: Affine) -> Affine | None:
    """What has to be added before the factors of ``affine`` instead of after them."""
    if not affine.scale.all():
        return None
    with np.errstate(over="ignore"):
        moved = replace(affine.shifting(), shift=affine.shift / affine.scale)
    return moved if moved.finite else None
