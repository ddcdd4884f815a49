"""Store the weights of matrix products and tables in 4 or 8 bits, the rest stays in float."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from ...backends.errors import UsageError
from ..base import Array, Context, Contract, Pass, Result
from ..errors import PassError
from ..graph import graph_of
from ..opsets import raise_opset, standard_version
from .activation_scales import scale_by_activations
from .blocks import fit
from .few_bits import CONTRIB, Coded, Writer
from .gptq import compensated
from .grams import with_grams
from .half_quadratic import fit_robust
from .placement import check_patterns, matches
from .weight_layers import Layer, Layers, find_layers

OPSET = 21
"""The first opset whose ``DequantizeLinear`` takes blocks, and 4-bit integers."""

IR_VERSION = 10
"""The first version of the file format that has 4-bit integers."""

WITH_DATA = ("gptq", "awq")
"""The methods that need calibration samples."""


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Store the matrices of ``MatMul`` and ``Gemm`` and the tables of ``Gather`` in few bits.

    Each row of a matrix, which holds the weights of one output, is cut into blocks, and a block has
    a scale and a zero of its own: ``weight = scale * (code - zero)``. Activations stay in float.
    For ONNX Runtime layers become ``MatMulNBits`` and ``GatherBlockQuantized``. For ``portable`` a
    ``DequantizeLinear`` with blocks stands in front of the layer, which ONNX Runtime turns into the
    same kernel, and the model is raised to opset 21.

    Declined are convolutions, which have no kernel for it; small matrices, which would be slower;
    and matrices that something else reads in float.

    Options:

    - ``bits``: 4 or 8, of matrices.
    - ``table_bits``: 4 or 8, of tables; 0 leaves them in float. ``portable`` has none of 4 bits.
    - ``block``: weights in a block, a power of two of at least 16. Smaller blocks are more
      accurate, larger ones smaller and faster.
    - ``symmetric``: whether all zeros are the middle code, so that none is stored.
    - ``method``: ``rtn`` rounds to the nearest code of a grid that covers the block; ``mse`` looks
      for the grid with the smallest squared error; ``hqq`` for one that outliers do not decide
      (:mod:`.half_quadratic`). On calibration samples ``gptq`` also lets later weights make up for
      the rounding of earlier ones, ``awq`` scales weights up that large activations meet, and
      divides what computes these (:mod:`.activation_scales`). ``auto`` is ``gptq`` with data,
      ``mse`` without.
    - ``samples``: how many samples to read at most; 0 for all.
    - ``include``, ``exclude``: names of nodes or of their outputs, or operators, ``*`` for
      anything.
    """

    name: ClassVar[str] = "quantize-weights"
    contract: ClassVar[Contract] = Contract(
        exact=False, changes="rounds weights to 4 or 8 bits", min_sqnr_db=3.0
    )
    summary: ClassVar[str] = "store the weights of MatMul, Gemm and Gather in 4 or 8 bits"

    bits: int = 4
    table_bits: int = 8
    block: int = 32
    symmetric: bool = False
    method: str = "auto"
    samples: int = 128
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        methods = ("auto", "rtn", "mse", "hqq", *WITH_DATA)
        if self.method not in methods:
            raise UsageError(
                f"quantize-weights has no method {self.method!r}",
                hint=f"method is one of {', '.join(methods)}",
            )
        if self.bits not in {4, 8} or self.table_bits not in {0, 4, 8}:
            raise UsageError("weights are stored in 4 or 8 bits; table_bits may also be 0")
        if self.block < 16 or self.block & (self.block - 1):
            raise UsageError(
                f"a block of {self.block} weights is none that a kernel reads",
                hint="block is a power of two of at least 16",
            )
        if self.samples < 0:
            raise UsageError(f"quantize-weights cannot read {self.samples} samples")

    def requires_data(self) -> bool:
        """Only ``gptq`` and ``awq`` cannot do without."""
        return self.method in WITH_DATA

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Rewrite the layers of ``model``, those in subgraphs as well.

        Raises:
            PassError: The method is asked for without the data that it needs, the opset cannot
                be raised, or an option names a node that is not there.
            DataError: The samples do not fit the model.
            BackendError: The model does not run.
        """
        result = Result(model)
        method = self.method
        if method == "auto":
            method = "mse" if context.data is None else "gptq"
        if method in WITH_DATA and context.data is None:
            raise PassError(f"{method} needs calibration samples", hint="give some with --data")
        check_patterns(model, (*self.include, *self.exclude))
        contrib = context.target.contrib_operators
        layers = find_layers(model, self._unwanted, contrib=contrib)
        if layers.found and not contrib:
            before = standard_version(model.graph)
            if before < OPSET:
                raise_opset(model, OPSET)
                result.modified = True
                result.details["opset"] = [before, OPSET]
                layers = find_layers(model, self._unwanted, contrib=contrib)
        chosen = self._chosen(layers, result, contrib=contrib)
        if chosen and method == "awq":
            scaled = scale_by_activations(model, chosen, self._rounded, context, self.samples)
            result.details["activations"] = asdict(scaled)
            layers = find_layers(model, self._unwanted, contrib=contrib)
            chosen = self._chosen(layers, Result(model), contrib=contrib)
        if chosen:
            self._write(model, chosen, method, context, result)
        return result

    def _chosen(self, layers: Layers, result: Result, *, contrib: bool) -> list[Layer]:
        """What the options take of ``layers``; the rest is declined."""
        chosen = []
        for layer in layers.found:
            bits = self.table_bits if layer.is_table else self.bits
            if bits == 0:
                result.decline(layer.node, because="tables are to stay in float")
            elif layer.is_table and bits == 4 and not contrib:
                result.decline(layer.node, because="ONNX has no Gather of 4-bit integers")
            elif layer.is_table and bits == 4 and layer.rows().shape[1] % 2:
                result.decline(layer.node, because="its rows do not end with a whole byte")
            else:
                chosen.append(layer)
        for node, reason in layers.declined.items():
            result.decline(node, because=reason)
        return chosen

    def _write(
        self, model: ir.Model, layers: list[Layer], method: str, context: Context, result: Result
    ) -> None:
        contrib = context.target.contrib_operators
        coded: dict[tuple[ir.Value, bool], Coded] = {}
        grams = with_grams(model, layers, context, self.samples if method in WITH_DATA else None)
        for layer, gram in grams:
            if (key := (layer.weight, layer.is_table)) not in coded:
                coded[key] = self._coded(layer, method, gram)
        writer = Writer(model, contrib)
        weights = list(dict.fromkeys(layer.weight for layer in layers))
        before = sum(
            4 * layer.rows().size for layer in {one.weight: one for one in layers}.values()
        )
        for layer in layers:
            new = coded[layer.weight, layer.is_table]
            result.rewrote(layer.node)
            if layer.is_table:
                writer.gather(layer.node, layer.weight, new)
            else:
                writer.matmul(layer.node, layer.weight, new, layer.bias, layer.axis)
        for weight in weights:
            _drop(weight)
        if contrib:
            model.opset_imports.setdefault(CONTRIB, 1)
        elif self.bits == 4:
            model.ir_version = max(model.ir_version, IR_VERSION)
        result.details["method"] = method
        result.details["layers"] = dict(Counter(layer.node.op_type for layer in layers))
        result.details["bytes"] = [before, sum(one.nbytes for one in coded.values())]

    def _coded(self, layer: Layer, method: str, gram: Array | None) -> Coded:
        rows = layer.rows()
        bits = self.table_bits if layer.is_table else self.bits
        if method == "hqq":
            grid = fit_robust(rows, bits, self.block, symmetric=self.symmetric)
        else:
            grid = fit(
                rows,
                bits,
                self.block,
                symmetric=self.symmetric,
                search=method != "rtn",
                importance=None if gram is None else np.diag(gram),
            )
        if gram is None or method == "awq":
            return Coded(grid.encode(rows), grid, rows.shape[1])
        return Coded(compensated(rows, gram, grid), grid, rows.shape[1])

    def _rounded(self, rows: Array) -> Array:
        grid = fit(rows, self.bits, self.block, symmetric=self.symmetric, search=False)
        return grid.decode(grid.encode(rows), rows.shape[1])

    def _unwanted(self, node: ir.Node) -> str:
        if any(matches(node, self.exclude)):
            return "it is excluded"
        if self.include and not any(matches(node, self.include)):
            return "it is not included"
        return ""


def _drop(weight: ir.Value) -> None:
    """Remove a constant that nothing reads any more."""
    if weight.uses():
        return
    producer = weight.producer()
    if producer is not None:
        graph_of(producer).remove(producer, safe=True)
    elif isinstance(weight.graph, ir.Graph) and weight.name is not None:
        weight.graph.initializers.pop(weight.name, None)
