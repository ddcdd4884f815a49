"""Convert single nodes to a newer version of the standard operator set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir

from ..errors import PassError
from ..graph import Names, constant, graph_of, take_over


def convert(nodes: Sequence[ir.Node], version: int, target: int, names: Names) -> None:
    """Replace each of ``nodes``, written for opset ``version``, by what it is in ``target``.

    The nodes go through onnx's version converter all at once, as a model in which none reads
    another, and never with what surrounds them: the converter drops local functions and
    metadata, copies every weight and cannot follow captured values.

    Args:
        nodes: Nodes without subgraphs, in any graphs or functions.
        version: The version of the standard domain that they are written for.
        target: A higher one.
        names: The names of the model's values.

    Raises:
        PassError: One of them cannot be converted; those before it may have been.
    """
    batch = ir.Graph([], [], nodes=[], opset_imports={"": version}, name="batch")
    for index, node in enumerate(nodes):
        _enter(batch, node, index)
    proto = ir.to_proto(ir.Model(batch, ir_version=8))
    try:
        converted = onnx.version_converter.convert_version(proto, target)
    except (RuntimeError, onnx.version_converter.ConvertError) as error:
        reason = re.sub(r"(?s).*\bfailed: ", "", str(error)).strip().replace("$", "")
        raise refusal(version, target, f"onnx's version converter says {reason!r}") from error
    graph = ir.from_proto(converted).graph
    made = {value.name: value for value in graph.outputs}
    graph.outputs.clear()
    for index, node in enumerate(nodes):
        new = [made.get(f"{index}>{place}") for place in range(len(node.outputs))]
        fragment = _Fragment.ending_in([value for value in new if value is not None])
        fragment.connect({f"{index}<{k}": source for k, source in enumerate(node.inputs)})
        _mend(fragment.nodes, node, version, target)
        fragment.replace(node, new, names)


def refusal(version: int, target: int, reason: str) -> PassError:
    """The error for a node that cannot be raised."""
    return PassError(
        f"opset {version} cannot be raised to {target}: {reason}",
        hint=f"export the model again with opset {target}",
    )


def _enter(batch: ir.Graph, node: ir.Node, index: int) -> None:
    inputs = [
        None if value is None else _stand_in(value, f"{index}<{place}")
        for place, value in enumerate(node.inputs)
    ]
    outputs = [
        _stand_in(value, f"{index}>{place}" if value.name else "")
        for place, value in enumerate(node.outputs)
    ]
    attributes = list(node.attributes.values())
    batch.append(ir.Node("", node.op_type, inputs, attributes, outputs=outputs, name=str(index)))
    batch.inputs.extend(value for value in inputs if value is not None)
    batch.outputs.extend(value for value in outputs if value.name)


def _stand_in(value: ir.Value, name: str) -> ir.Value:
    return ir.Value(name=name, type=value.type, shape=value.shape)


@dataclass(frozen=True)
class _Fragment:
    """What one node became, in order, still in the converter's graph."""

    nodes: list[ir.Node]

    @classmethod
    def ending_in(cls, values: Sequence[ir.Value]) -> _Fragment:
        nodes: dict[ir.Node, None] = {}

        def visit(value: ir.Value | None) -> None:
            node = None if value is None else value.producer()
            if node is not None and node not in nodes:
                for source in node.inputs:
                    visit(source)
                nodes[node] = None

        for value in values:
            visit(value)
        return cls(list(nodes))

    def connect(self, sources: Mapping[str, ir.Value | None]) -> None:
        """Read ``sources`` in place of their stand-ins, and constants in place of initializers."""
        for node in list(self.nodes):
            for place, value in enumerate(node.inputs):
                if value is None or value.producer() is not None:
                    continue
                if value.const_value is not None:
                    holder = ir.node("Constant", [], {"value": value.const_value})
                    holder.outputs[0].name = value.name
                    self.nodes.insert(0, holder)
                    node.replace_input_with(place, holder.outputs[0])
                else:
                    node.replace_input_with(place, sources[str(value.name)])

    def replace(self, node: ir.Node, outputs: list[ir.Value | None], names: Names) -> None:
        """Put the fragment where ``node`` stands; ``outputs`` take the place of its outputs."""
        label = node.name or node.op_type
        for part in self.nodes:
            if part.graph is not None:
                part.graph.remove(part)
            for value in part.outputs:
                if value.name and value not in outputs:
                    value.name = names.fresh(f"{label}/{part.op_type}")
            part.name = f"{label}/{part.op_type}"
        last = self.nodes[-1]
        last.name, last.doc_string = node.name, node.doc_string
        last.metadata_props.update(node.metadata_props)
        graph = graph_of(node)
        graph.insert_before(node, self.nodes)
        for old, new in zip(node.outputs, outputs, strict=True):
            if new is not None:
                new.type = new.shape = None
                take_over(new, old)
        graph.remove(node, safe=True)


def _mend(fragment: Sequence[ir.Node], node: ir.Node, version: int, target: int) -> None:
    """Correct what the converter gets wrong on the way across opsets 11 and 13."""
    if node.op_type == "Resize" and 11 <= version < 13 <= target:
        for part in fragment:
            _only_one(part)
    if not version < 11 <= target:
        return
    for part in fragment:
        if part.op_type == "Pad":
            part.attributes.pop("value", None)  # it does not matter unless the mode is constant
        elif part.op_type == "Resize":
            part.attributes.add(ir.AttrString("coordinate_transformation_mode", "asymmetric"))
            part.attributes.add(ir.AttrString("nearest_mode", _rounding(node, version, target)))
        elif part.op_type == "Constant" and node.op_type in {"Clip", "Pad"}:
            _retype(part, node.inputs[0])


def _only_one(resize: ir.Node) -> None:
    """Take the scales from a ``Resize`` with sizes: empty, as they had to be before opset 13."""
    if len(resize.inputs) > 3 and resize.inputs[3] is not None:
        resize.replace_input_with(2, None)


def _rounding(node: ir.Node, version: int, target: int) -> str:
    """How ``Upsample`` and ``Resize`` choose the nearest pixel before opset 11.

    The standard did not say. ONNX Runtime rounds down when it enlarges and up when it shrinks
    (``core/providers/cpu/tensor/upsamplebase.h``, ``NearestMode::SIMPLE``).

    Raises:
        PassError: It is not known to do only one of the two; since 11 one attribute is for all
            axes.
    """
    if node.op_type == "Upsample" or node.attributes.get_string("mode", "nearest") != "nearest":
        return "floor"
    scales = constant(node.inputs[1])
    if scales is None or (scales.min() < 1 < scales.max()):
        reason = (
            f"Resize {node.name!r} rounds up where it shrinks and down where it enlarges, and it "
            "is not known to do only one of them"
        )
        raise refusal(version, target, reason)
    return "ceil" if scales.min() < 1 else "floor"


def _retype(bound: ir.Node, source: ir.Value | None) -> None:
    """Give a bound, which the converter writes as float32, the type of what it bounds."""
    wanted = None if source is None else source.dtype
    array = constant(bound.outputs[0])
    if array is not None and array.dtype == np.float32 and wanted not in {None, ir.DataType.FLOAT}:
        with np.errstate(over="ignore"):
            retyped = ir.tensor(array.astype(wanted.numpy()), dtype=wanted)
        bound.attributes.add(ir.AttrTensor("value", retyped))
