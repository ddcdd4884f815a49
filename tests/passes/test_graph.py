"""Questions about graphs."""

from __future__ import annotations

import onnx

from onnxpress.passes.graph import _WITH_GRAPHS

GRAPHS = {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}


def test_the_operators_that_hold_graphs_are_known() -> None:
    hold = {
        schema.name
        for schema in onnx.defs.get_all_schemas_with_history()
        if not schema.domain and any(one.type in GRAPHS for one in schema.attributes.values())
    }
    assert hold == _WITH_GRAPHS
