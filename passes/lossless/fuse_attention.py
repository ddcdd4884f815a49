"""Write decomposed attention as the Attention operator."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from ..analysis.partial import Item
from ..analysis.values import Facts
from ..base import Array, Context, Pass, Result
from ..errors import PassError
from ..graph import graph_of, is_op, nodes_of, take_over
from ..opsets import raise_opset, standard_version
from .attention_heads import Heads
from .attention_masks import ABSORBING
from .attention_match import Core, GroupedCore, Mask, match_attention
from .constants import ConstantWriter, drop_unused, resolved_constant

_OPSET: Final = 23
"""The first version of the standard operators that has Attention."""


@dataclass(frozen=True)
class FuseAttention(Pass):
    """Rewrite the operators of an attention as one ``Attention`` of opset 23.

    With queries, keys and values in heads, ``[batch, heads, length, size]``::

        Softmax(scale * MatMul(q, Transpose(k)) + mask) @ v

    The operator (https://onnx.ai/onnx/operators/onnx__Attention.html) also takes its inputs with
    the heads side by side, ``[batch, length, heads * size]``, as projections answer them, so the
    transposes around it go as well. The scale may be split over queries and keys, may come before
    or after their transposes; projections may be one, cut into queries, keys and values.

    ONNX Runtime answers zero for a query whose whole row of the mask is the lowest number or
    negative infinity. Softmax gives such a row equal weights or NaN; where a mask can hold the
    lowest number, half of it is written instead, which gives itself when a score is added, just as
    well. A mask of negative infinity is taken where a row of NaN becomes zeros by
    ``Where(IsNaN(p), 0, p)``, as PyTorch exports it, or where no row can be infinite as a whole.

    Where heads of keys and values are repeated for groups of queries, as
    ``Reshape(Expand(Unsqueeze(k)))``, the operator takes them as they were before; it is 1.1 to 2
    times faster than the repetition and two products. Such heads may be rotated, and keys and
    values may begin with what was computed before. With as many heads of keys as of queries, what
    is rotated or joined to the past stays as it is: with heads before lengths the operator runs at
    0.81 to 1.34 of the speed of its parts, mostly no faster.

    The operator refuses a batch of none and a row of no queries, for which its parts answer with
    nothing. A model of an older opset is raised first. float32 on ONNX Runtime's CPU provider only:
    that is where it was measured.
    """

    name: ClassVar[str] = "fuse-attention"
    trades: ClassVar[bool] = True
    summary: ClassVar[str] = "write decomposed attention as the Attention operator"

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Fuse every attention whose sizes and mask are known well enough."""
        result = Result(model)
        if context.target.name != "cpu" or not any(is_op(n, "Softmax") for n in nodes_of(model)):
            return result
        if not (cores := _find(model, result)):
            return result
        bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        if any(0 < standard_version(body) < _OPSET for body in bodies):
            try:
                raise_opset(model.clone(), _OPSET)
            except PassError as error:
                for core in cores:
                    result.decline(core.softmax, because=error.message)
                return result
            raise_opset(model, _OPSET)
            result = Result(model)
            cores = _find(model, result)
        writer = _Writer(model)
        for core in cores:
            result.rewrote(core.softmax)
            if isinstance(core, Core):
                writer.write(core)
            else:
                writer.write_grouped(core)
        writer.finish()
        return result


def _find(model: ir.Model, result: Result) -> list[Core | GroupedCore]:
    """Every attention, in the order of the places where it will be written."""
    facts = Facts(model)
    facts.follow_all()
    cores: list[Core | GroupedCore] = []
    places: dict[ir.Node, int] = {}
    for place, node in enumerate(nodes_of(model)):
        places[node] = place
        if is_op(node, "Softmax"):
            core = match_attention(node, facts)
            if not isinstance(core, str):
                cores.append(core)
            elif core:
                result.decline(node, because=core)
    return sorted(cores, key=lambda core: places[core.product])


class _Writer:
    """Writes the attentions of one model."""

    def __init__(self, model: ir.Model) -> None:
        self.constants = ConstantWriter(model)
        self.made: dict[Hashable, Sequence[ir.Value]] = {}
        self.replaced: list[ir.Value] = []

    def write(self, core: Core) -> None:
        """Put one ``Attention`` in the place of ``core``."""
        place = core.product
        inputs = [self.flat(heads, place) for heads in (core.q, core.k, core.v)]
        if core.mask is not None:
            inputs.append(self.mask(core.mask, (inputs[0], 1), core.q.length, place))
        counts = {"q_num_heads": core.q.heads, "kv_num_heads": core.k.heads}
        (answer,) = self.node("Attention", inputs, place, **counts, scale=core.scale)
        for join in core.joins:
            old = join.outputs[0]
            if not old.is_graph_output():
                old.replace_all_uses_with(answer)
            elif not answer.is_graph_output():
                take_over(answer, old)
            self.replaced.append(old)
        split = self.reshape(answer, [0, 0, core.q.heads, core.v.size], place)
        for shape in core.shapes:
            shape.replace_input_with(0, self.turned(split, place))
        take_over(split, core.answer)
        self.replaced += (split, core.answer)

    def write_grouped(self, core: GroupedCore) -> None:
        """Put one ``Attention`` of four axes in the place of ``core``."""
        place, groups = core.product, core.groups
        inputs = [groups.q, groups.k, groups.v]
        if core.mask is not None:
            inputs.append(self.mask(core.mask, (groups.q, 2), groups.sizes[2], place))
        (answer,) = self.node("Attention", inputs, place, scale=core.scale)
        take_over(answer, place.outputs[0])
        self.replaced.append(place.outputs[0])

    def finish(self) -> None:
        """Drop what nothing reads any more."""
        drop_unused(*self.replaced)

    def flat(self, heads: Heads, place: ir.Node) -> ir.Value:
        """``heads`` with three axes, for a node at ``place``."""
        parts = 1 if heads.part is None else heads.part[1]
        width, graph = heads.heads * heads.size, graph_of(place)
        whole = (
            heads.whole
            or self.once(
                ("whole", graph, heads.value),
                lambda: [self.reshape(heads.value, [0, 0, parts * width], place)],
            )[0]
        )
        if heads.part is None:
            return whole
        return self.once(
            ("parts", graph, whole, parts), lambda: self.split(whole, [width] * parts, place)
        )[heads.part[0]]

    def mask(
        self, mask: Mask, rows: tuple[ir.Value, int], length: Item, place: ir.Node
    ) -> ir.Value:
        """``mask`` as the operator takes it, with a row for each query.

        Queries lie along an axis of a value, ``rows``, and are ``length`` many.
        """
        graph, value = graph_of(place), mask.value
        if mask.clamped:
            value = self.once(("raised", graph, value), lambda: [self.raised(mask.value, place)])[0]
        if mask.has_rows:
            return value
        return self.once(
            ("rows", graph, value, length), lambda: [self.with_rows(value, rows, length, place)]
        )[0]

    def once(self, key: Hashable, make: Callable[[], Sequence[ir.Value]]) -> Sequence[ir.Value]:
        """What ``make`` answered for ``key`` the first time."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def raised(self, mask: ir.Value, place: ir.Node) -> ir.Value:
        """``mask`` without numbers below the one that absorbs any score."""
        node = mask.producer()
        low = np.full((), ABSORBING, np.float32)
        if is_op(node, "Where"):
            arms = [resolved_constant(arm) for arm in node.inputs[1:]]
            if all(arm is not None and arm.size == 1 for arm in arms):
                raised = [
                    self.constant("mask", np.asarray(np.maximum(arm, low)), place)
                    for arm in arms
                    if arm is not None
                ]
                return self.node("Where", [node.inputs[0], *raised], place)[0]
        return self.node("Max", [mask, self.constant("low", low, place)], place)[0]

    def with_rows(
        self, mask: ir.Value, rows: tuple[ir.Value, int], length: Item, place: ir.Node
    ) -> ir.Value:
        """``mask`` repeated for each of the ``length`` queries."""
        if isinstance(length, int):
            shape = self.constant("rows", np.array([1, 1, length, 1]), place)
        else:
            one = self.constant("one", np.array([1]), place)
            value, axis = rows
            (size,) = self.node("Shape", [value], place, start=axis, end=axis + 1)
            (shape,) = self.node("Concat", [one, one, size, one], place, axis=0)
        return self.node("Expand", [mask, shape], place)[0]

    def turned(self, value: ir.Value, place: ir.Node) -> ir.Value:
        """``value`` with heads before lengths."""
        return self.once(
            ("turned", value),
            lambda: self.node("Transpose", [value], place, perm=(0, 2, 1, 3)),
        )[0]

    def reshape(self, value: ir.Value, shape: Sequence[int], place: ir.Node) -> ir.Value:
        target = self.constant("shape", np.array(shape), place)
        return self.node("Reshape", [value, target], place)[0]

    def split(self, value: ir.Value, sizes: Sequence[int], place: ir.Node) -> Sequence[ir.Value]:
        sizes_ = self.constant("sizes", np.array(sizes), place)
        return self.node("Split", [value, sizes_], place, count=len(sizes), axis=2)

    def constant(self, role: str, array: Array, place: ir.Node) -> ir.Value:
        base = place.outputs[0].name or place.op_type
        key = ("constant", graph_of(place), role, array.tobytes())
        return self.once(
            key, lambda: [self.constants.add(graph_of(place), f"{base}.{role}", array, place)]
        )[0]

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        place: ir.Node,
        count: int = 1,
        **attributes: float | Sequence[int],
    ) -> Sequence[ir.Value]:
        """The outputs of a new node before ``place``."""
        node = ir.node(op_type, inputs, attributes, num_outputs=count)
        base = place.outputs[0].name or place.op_type
        for output in node.outputs:
            output.name = self.constants.names.fresh(f"{base}.{op_type.lower()}")
        graph_of(place).insert_before(place, node)
        return node.outputs
