"""What is stored once: equal weights, and alike ones where that is asked for."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import UsageError
from onnxpress.passes.ensembles.merge import merge


def scaled(weight: list[float]) -> ir.Model:
    text = """<ir_version: 8, opset_import: ["" : 17]> m (float[n,2] x) => (float[n,2] y) {
      y = Mul (x, w)
    }"""
    return ir.from_onnx_text(text, [ir.tensor(np.array(weight, np.float32), name="w")])


def test_only_equal_weights_are_shared_by_default() -> None:
    result = merge([scaled([1, 2]), scaled([1, 2.000001]), scaled([1, 2])], names="abc")

    assert result.details["shared_initializers"] == {"count": 1, "bytes": 8}


@pytest.mark.parametrize(("second", "count"), [(2.0019, 1), (2.0021, 0), (np.nan, 0)])
def test_alike_weights_are_shared_within_the_tolerance(second: float, count: int) -> None:
    result = merge([scaled([1, 2]), scaled([1, second])], names="ab", tolerance=1e-3)

    assert result.details["shared_initializers"]["count"] == count
    assert result.details["shared_nodes"] == count


def test_the_first_stays() -> None:
    result = merge(
        [scaled([1, 2]), scaled([1, 2.001]), scaled([1, 2.003])], names="abc", tolerance=1e-3
    )

    kept = {name for name in result.model.graph.initializers if name.endswith("/w")}
    assert kept == {"a/w", "c/w"}


@pytest.mark.parametrize("tolerance", [-1.0, 1.0, np.nan])
def test_a_tolerance_without_meaning_is_refused(tolerance: float) -> None:
    with pytest.raises(UsageError, match="at least 0 and below 1"):
        merge([scaled([1, 2])] * 2, names="ab", tolerance=tolerance)
