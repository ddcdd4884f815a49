"""Put the graphs of several models into one, on shared inputs."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from .align import Alignment, Layout
from .dims import renamed
from .members import Member


def side_by_side(
    members: Sequence[Member], alignment: Alignment, opsets: dict[str, int], scope: str
) -> ir.Graph:
    """One graph of all members' nodes, without outputs; the members are left empty.

    Args:
        members: Under names that no two share.
        alignment: How their inputs go together.
        opsets: The operator sets of the graph.
        scope: Goes before the names of what belongs to no member.
    """
    inputs = [
        ir.Value(
            name=name,
            type=own.type,
            shape=shape,
            doc_string=own.doc_string,
            metadata_props=dict(own.metadata_props),
        )
        for (name, own), shape in zip(alignment.inputs, alignment.shapes, strict=True)
    ]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports=opsets, name="ensemble")
    layouts: dict[tuple[int, Layout], ir.Value] = {
        (place, ()): value for place, value in enumerate(inputs)
    }
    for member, links, dims in zip(members, alignment.links, alignment.dims, strict=True):
        for value in member.values():
            value.shape = renamed(value.shape, dims)
        own = member.model.graph
        own.outputs.clear()
        own.inputs.clear()
        taken_from = member.details["inputs"] = {}
        for link in links:
            shared = inputs[link.shared].name
            layout = {"shared": shared, "transposed": list(link.layout)}
            taken_from[link.own.name] = layout if link.layout else shared
            key = link.shared, link.layout
            if key not in layouts:
                layouts[key] = _transposed(graph, inputs[link.shared], link.layout, scope)
            link.own.replace_all_uses_with(layouts[key])
        initializers = list(own.initializers.values())
        own.initializers.clear()
        for value in initializers:
            graph.register_initializer(value)
        nodes = list(own)
        own.remove(nodes)
        graph.extend(nodes)
    return graph


def _transposed(graph: ir.Graph, value: ir.Value, layout: Sequence[int], scope: str) -> ir.Value:
    name = f"{scope}/{value.name}/{'_'.join(map(str, layout))}"
    shape = None if value.shape is None else ir.Shape(value.shape[axis] for axis in layout)
    output = ir.Value(name=name, type=value.type, shape=shape)
    return ir.tape.Tape(graph).op(
        "Transpose", [value], {"perm": list(layout)}, name=name, output=output
    )


def model_of(graph: ir.Graph, models: Sequence[ir.Model], members: Sequence[Member]) -> ir.Model:
    """``graph`` as a model that says of itself what ``models`` said of themselves."""
    names = [member.name for member in members]
    graph.metadata_props.update(_gathered(names, [model.graph.metadata_props for model in models]))
    graph.doc_string = _joined(names, [model.graph.doc_string for model in models])
    return ir.Model(
        graph,
        # Before 4, every initializer has to be an input as well.
        ir_version=max(4, *(model.ir_version for model in models)),
        producer_name="onnxpress",
        domain=models[0].domain,
        model_version=models[0].model_version,
        doc_string=_joined(names, [model.doc_string for model in models]),
        functions=[f for member in members for f in member.model.functions.values()],
        metadata_props=_gathered(names, [model.metadata_props for model in models]),
    )


def _joined(names: Sequence[str], texts: Sequence[str | None]) -> str | None:
    """The members' texts, each under its name."""
    lines = [f"{name}: {text}" for name, text in zip(names, texts, strict=True) if text]
    return "\n".join(lines) or None


def _gathered(names: Sequence[str], each: Sequence[dict[str, str]]) -> dict[str, str]:
    """The members' metadata: a key that means something else in an earlier one gets the name."""
    gathered: dict[str, str] = {}
    for name, properties in zip(names, each, strict=True):
        for key, value in properties.items():
            if gathered.get(key, value) != value:
                gathered[f"{name}/{key}"] = value
            else:
                gathered[key] = value
    return gathered
