"""As little work as answers allow: found by bisection on samples held out."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import UsageError
from onnxpress.compiler.pipeline import parse
from onnxpress.compiler.prune_search import prune_as_far
from onnxpress.compiler.quality import Demand
from onnxpress.passes.base import Context
from tests.passes.pruning.helpers import Samples, build, normal

TEXT = """
<ir_version: 9, opset_import: ["" : 17]>
main (float[N,4] x) => (float[N,2] y) { a = MatMul (x, w)  r = Relu (a)  y = MatMul (r, v) }
"""
PASSES = "prune-channels{multiple=1},cleanup"


def model() -> ir.Model:
    w = normal(4, 16, seed=1)
    w[:, 4:] = 0  # three quarters of the channels say nothing
    return build(TEXT, {"w": w, "v": normal(16, 2, seed=2)})


def test_what_says_nothing_goes() -> None:
    context = Context(data=Samples({"x": normal(256, 4)}))

    held = prune_as_far(model(), parse(PASSES), Demand(60, "sqnr"), context)

    assert held.report["status"] == "held"
    assert 0.24 < held.report["fraction"] < 0.3
    assert held.report["value"] >= 60
    assert "macs=0.2" in str(held.pipeline)


def test_where_nothing_may_go_nothing_is_pruned() -> None:
    dense = build(TEXT, {"w": normal(4, 16, seed=1), "v": normal(16, 2, seed=2)})
    context = Context(data=Samples({"x": normal(256, 4)}))

    held = prune_as_far(dense, parse(PASSES), Demand(300, "sqnr"), context)

    assert held.report["status"] == "not-worth-it"
    assert "no channels may go" in held.report["reason"]
    assert not str(held.pipeline)


def test_samples_are_needed() -> None:
    with pytest.raises(UsageError, match="needs --data"):
        prune_as_far(model(), parse(PASSES), Demand(0.01), Context())


def test_fractions_that_cannot_be_had_are_not_good_enough() -> None:
    context = Context(data=Samples({"x": np.ones((256, 4), np.float32)}))

    held = prune_as_far(model(), parse("prune-channels{min_channels=8}"), Demand(1.0), context)

    assert 0.49 < held.report["fraction"] < 0.52
    assert any("reason" in row for row in held.report["tried"])
