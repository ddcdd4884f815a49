"""Writes layers and tables whose weights are stored in blocks of few bits."""

from __future__ import annotations

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx_ir as ir

from ..base import Array
from ..graph import Names, add_initializer, graph_of, take_over
from .blocks import Grid, packed

CONTRIB = "com.microsoft"

_INTEGERS = 4
"""``accuracy_level`` of ``MatMulNBits``: multiply in 8-bit integers, the one that is fast on CPUs;
what ONNX Runtime asks for by itself where it fuses a ``DequantizeLinear`` with a ``MatMul``."""


@dataclass(frozen=True)
class Coded:
    """A matrix ``[rows, columns]`` in few bits."""

    codes: Array
    grid: Grid
    columns: int

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zeros, as they are stored."""
        zeros = 0 if self.grid.symmetric else self.grid.zeros.size * self.grid.bits // 8
        return int(self.codes.size * self.grid.bits // 8 + self.grid.scales.nbytes + zeros)


@dataclass
class Writer:
    """Puts coded weights in the place of float ones, each stored once for all that read it."""

    model: ir.Model
    contrib: bool
    _names: Names = field(init=False)
    _stored: dict[tuple[ir.Value, str], list[ir.Value | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names = Names(self.model)

    def matmul(
        self, node: ir.Node, weight: ir.Value, coded: Coded, bias: Array | None, axis: int
    ) -> None:
        """Let ``node``, a ``MatMul`` or ``Gemm``, read ``coded`` instead of ``weight``.

        Args:
            node: It multiplies by ``weight`` as it is, or transposed; with no other factors.
            weight: A constant matrix.
            coded: Its transpose if ``axis`` is 0: a row for each output.
            bias: What ``Gemm`` adds, one number per output.
            axis: The axis of ``weight`` that is summed over.
        """
        if not self.contrib:
            self._dequantized(node, weight, coded, axis)
            return
        rows = len(coded.codes)
        grid = coded.grid
        inputs = [node.inputs[0], *self._parameters(weight, coded)]
        if bias is not None:
            name = self._names.fresh(f"{node.outputs[0].name}.bias")
            added = add_initializer(graph_of(node), name, bias)
            inputs = [*inputs, *[None] * (5 - len(inputs)), added]
        new = ir.node(
            "MatMulNBits",
            inputs,
            {
                "K": coded.columns,
                "N": rows,
                "bits": grid.bits,
                "block_size": grid.block,
                "accuracy_level": _INTEGERS,
            },
            domain=CONTRIB,
        )
        self._replace(node, new)

    def gather(self, node: ir.Node, table: ir.Value, coded: Coded) -> None:
        """Let ``node``, a ``Gather`` of rows, read ``coded`` instead of ``table``."""
        grid = coded.grid
        if self.contrib:
            stored = self._table(table, coded)
            new = ir.node(
                "GatherBlockQuantized",
                [stored[0], node.inputs[1], *stored[1:]],
                {
                    "gather_axis": 0,
                    "quantize_axis": 1,
                    "block_size": grid.block,
                    "bits": grid.bits,
                },
                domain=CONTRIB,
            )
            self._replace(node, new)
            return
        stored = self._standard(table, coded, axis=1)
        parts: list[ir.Value | None] = []
        for value in stored:
            if value is None:
                continue
            part = ir.node("Gather", [value, node.inputs[1]], {"axis": 0})
            part.outputs[0].name = self._names.fresh(f"{value.name}.rows")
            graph_of(node).insert_before(node, part)
            parts.append(part.outputs[0])
        new = ir.node("DequantizeLinear", parts, {"axis": -1, "block_size": grid.block})
        self._replace(node, new)

    def _dequantized(self, node: ir.Node, weight: ir.Value, coded: Coded, axis: int) -> None:
        inputs = self._standard(weight, coded, axis)
        new = ir.node("DequantizeLinear", inputs, {"axis": axis, "block_size": coded.grid.block})
        new.outputs[0].name = self._names.fresh(f"{weight.name}.dequantized")
        new.outputs[0].shape, new.outputs[0].type = weight.shape, weight.type
        graph_of(node).insert_before(node, new)
        node.replace_input_with(1, new.outputs[0])

    def _replace(self, node: ir.Node, new: ir.Node) -> None:
        new.name = node.name
        graph_of(node).insert_before(node, new)
        take_over(new.outputs[0], node.outputs[0])
        graph_of(node).remove(node, safe=True)

    def _parameters(self, weight: ir.Value, coded: Coded) -> list[ir.Value | None]:
        """Codes, scales and zeros as ``MatMulNBits`` wants them."""
        if (weight, "matmul") not in self._stored:
            grid = coded.grid
            codes = coded.codes.reshape(*grid.scales.shape, grid.block)
            arrays = [packed(codes, grid.bits), grid.scales]
            if not grid.symmetric:
                arrays.append(packed(grid.zeros, grid.bits))
            self._store(weight, "matmul", [ir.tensor(array) for array in arrays])
        return self._stored[weight, "matmul"]

    def _table(self, table: ir.Value, coded: Coded) -> list[ir.Value | None]:
        """Codes, scales and zeros as ``GatherBlockQuantized`` wants them."""
        if (table, "gather") not in self._stored:
            grid = coded.grid
            codes = coded.codes[:, : coded.columns]
            # Without zeros it takes the codes for signed ones or not, as bits and type have it.
            arrays = [packed(codes, grid.bits), grid.scales, packed(grid.zeros, grid.bits)]
            self._store(table, "gather", [ir.tensor(array) for array in arrays])
        return self._stored[table, "gather"]

    def _standard(self, weight: ir.Value, coded: Coded, axis: int) -> list[ir.Value | None]:
        """Codes, scales and zeros as ``DequantizeLinear`` wants them, blocks along ``axis``."""
        kind = f"standard{axis}"
        if (weight, kind) not in self._stored:
            grid = coded.grid
            codes, signed = coded.codes[:, : coded.columns], grid.symmetric
            if signed:
                codes = (codes.astype(np.int16) - 2 ** (grid.bits - 1)).astype(np.int8)
            arrays = [codes, grid.scales] + ([] if signed else [grid.zeros])
            if axis == 0:
                arrays = [np.ascontiguousarray(array.T) for array in arrays]
            tensors = [
                ir.tensor(array) if at == 1 else _integers(array, grid.bits)
                for at, array in enumerate(arrays)
            ]
            self._store(weight, kind, tensors)
        return self._stored[weight, kind]

    def _store(self, weight: ir.Value, kind: str, tensors: list[ir.TensorProtocol]) -> None:
        producer = weight.producer()
        home = weight.graph if producer is None else graph_of(producer)
        if not isinstance(home, ir.Graph):
            raise TypeError(f"{weight.name} is in no graph")
        names = ("quantized", "scale", "zero_point")
        self._stored[weight, kind] = [
            add_initializer(home, self._names.fresh(f"{weight.name}.{name}"), tensor)
            for name, tensor in zip(names, tensors, strict=False)
        ]


def _integers(array: Array, bits: int) -> ir.TensorProtocol:
    signed = array.dtype == np.int8
    if bits == 8:
        return ir.tensor(array)
    kind = ml_dtypes.int4 if signed else ml_dtypes.uint4
    dtype = ir.DataType.INT4 if signed else ir.DataType.UINT4
    return ir.Tensor(array.astype(kind), dtype=dtype)
