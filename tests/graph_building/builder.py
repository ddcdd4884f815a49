"""What is built up while a random graph is drawn: nodes, constants, and the tensors so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from onnxpress.backends.base import Array

Dim: TypeAlias = int | str
T = TypeVar("T")

BOOL, INT64, UINT8 = int(TensorProto.BOOL), int(TensorProto.INT64), int(TensorProto.UINT8)
INT32 = int(TensorProto.INT32)
FLOAT, DOUBLE, FLOAT16 = (
    int(TensorProto.FLOAT),
    int(TensorProto.DOUBLE),
    int(TensorProto.FLOAT16),
)
BATCH = "N"
"""The name of the one dynamic dimension; a graph is run at several sizes of it."""

ROUNDING = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "BatchNormalization"}
    | {"InstanceNormalization", "LayerNormalization", "LRN", "AveragePool", "GlobalAveragePool"}
    | {"Add", "Sub", "Mul", "Div", "Sum", "Mean", "Pow", "Resize", "Upsample", "CumSum"}
    | {"ReduceMean", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"}
    | {"ReduceLogSumExp", "Softmax", "LogSoftmax", "Exp", "Log", "Sqrt", "Reciprocal", "Tanh"}
    | {"Sigmoid", "HardSigmoid", "HardSwish", "Softplus", "Erf", "Mish", "Gelu"}
)
"""Operators that a rewrite may compute in another way, so that their answers move a little."""


@dataclass(frozen=True)
class Tensor:
    """A value of the graph that is being built.

    Attributes:
        name: Its name.
        dtype: Its element type, by ONNX's number.
        shape: Its sizes; :data:`BATCH` stands for the dynamic one.
        exact: Whether no rewrite moves it by rounding errors, so that what jumps (``ArgMax``,
            ``Floor``, a comparison) may be computed from it.
        bound: About the largest magnitude of its elements.
    """

    name: str
    dtype: int
    shape: tuple[Dim, ...]
    exact: bool = True
    bound: float = 4.0

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def fixed(self, *axes: int) -> tuple[int, ...] | None:
        """The sizes of ``axes``, of all by default, if they are fixed and not zero."""
        sizes = [self.shape[axis] for axis in axes or range(self.rank)]
        found = tuple(size for size in sizes if isinstance(size, int) and size > 0)
        return found if len(found) == len(sizes) else None

    @property
    def is_empty(self) -> bool:
        """Whether it has no elements."""
        return 0 in self.shape


class Choices:
    """Numbers that decide, one after the other; 0, the plainest choice, once they are used up."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = iter(numbers)

    def below(self, count: int) -> int:
        """A number from 0 to ``count - 1``."""
        return next(self._numbers, 0) % max(count, 1)

    def flag(self) -> bool:
        """True or false."""
        return self.below(2) == 1

    def of(self, options: Sequence[T]) -> T:
        """One of ``options``."""
        return options[self.below(len(options))]


@dataclass
class Style:
    """What holds for a whole model.

    Attributes:
        opset: The version of ONNX's operators.
        dtype: The type of its floats, by ONNX's number.
        dynamic: Whether the first axis of what is fed is dynamic.
        odd_names: Whether names look like those that passes make up.
        defaults: Whether some initializers are inputs as well.
        rng: Makes the values of constants.
    """

    opset: int
    dtype: int
    dynamic: bool
    odd_names: bool
    defaults: bool
    rng: np.random.Generator


@dataclass
class Scope:
    """A graph, a subgraph or the body of a function.

    Attributes:
        style: What holds for the whole model.
        outer: The scope around it, whose tensors it can read.
        is_function: Whether it is a function's body, which has no initializers.
        leaves: Tensors that are answered and that nothing may read.
    """

    style: Style
    outer: Scope | None = None
    is_function: bool = False
    choices: Choices = field(default_factory=lambda: Choices(()))
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    constants: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)
    functions: list[onnx.FunctionProto] = field(default_factory=list)
    named: int = 0
    last: str = "v"

    @property
    def root(self) -> Scope:
        """The main graph, or the body of the function."""
        return self if self.outer is None else self.outer.root

    def name(self) -> str:
        """A name that no other value in reach has."""
        root = self.root
        root.named += 1
        number = root.named
        if not self.style.odd_names or number % 2:
            root.last = f"v{number}"
            return root.last
        # Numbered, so that it stays free; passes make up these endings themselves.
        ending = ("weight", "bias", "target", "product", "1")[number // 2 % 5]
        return f"{root.last}.{ending}"

    def inner(self) -> Scope:
        """A scope inside this one."""
        return Scope(self.style, outer=self, is_function=self.is_function, choices=self.choices)

    def visible(self) -> list[Tensor]:
        """All tensors that a node here can read, the latest first."""
        mine = self.tensors[::-1]
        return mine if self.outer is None else mine + self.outer.visible()

    def emit(
        self,
        kind: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[tuple[int, Sequence[Dim]]],
        *,
        bound: float | None = None,
        domain: str = "",
        exact: bool | None = None,
        **attributes: Any,
    ) -> list[Tensor]:
        """Add a node; ``outputs`` holds the type and shape of each of its outputs."""
        given = [tensor for tensor in inputs if tensor is not None]
        floats = any(dtype in {FLOAT, DOUBLE, FLOAT16} for dtype, _ in outputs)
        if exact is None:
            exact = all(one.exact for one in given) and not (floats and kind in ROUNDING)
        if bound is None:
            bound = max((tensor.bound for tensor in given), default=4.0)
        made = [Tensor(self.name(), dtype, tuple(shape), exact, bound) for dtype, shape in outputs]
        names = ["" if tensor is None else tensor.name for tensor in inputs]
        node = helper.make_node(
            kind, names, [one.name for one in made], domain=domain, **attributes
        )
        self.nodes.append(node)
        self.tensors += made
        return made

    def add(self, kind: str, inputs: Sequence[Tensor | None], like: Tensor, **more: Any) -> Tensor:
        """Add a node with one output of the type and shape of ``like``."""
        return self.emit(kind, inputs, [(like.dtype, like.shape)], **more)[0]

    def constant(
        self, array: npt.ArrayLike, dtype: int | None = None, *, plain: bool = False
    ) -> Tensor:
        """A constant in one of the forms that a graph can hold it in, or in a ``plain`` one."""
        values = np.asarray(array)
        if dtype is not None:
            values = values.astype(helper.tensor_dtype_to_np_dtype(dtype))
        kind = int(helper.np_dtype_to_tensor_dtype(values.dtype))
        largest = float(np.abs(values.astype(np.float64)).max(initial=0.0))
        form = self.choices.below(2 if plain else 4)
        if self.is_function or form == 1:
            return self._constant_node(values, kind, largest)
        tensor = Tensor(self.name(), kind, values.shape, bound=largest)
        self.initializers.append(onnx.numpy_helper.from_array(values, tensor.name))
        self.constants.append(tensor)
        if form == 2 and self.outer is None and self.style.defaults and kind == self.style.dtype:
            self.inputs.append(tensor)
        if form == 3:
            return self.add("Identity", [tensor], tensor)
        return tensor

    def _constant_node(self, values: Array, kind: int, largest: float) -> Tensor:
        if self.style.opset >= 12 and kind == INT64 and values.ndim < 2 and self.choices.flag():
            key = "value_ints" if values.ndim else "value_int"
            if values.size or not values.ndim:
                node = {key: values.tolist()}
                return self.emit("Constant", [], [(kind, values.shape)], bound=largest, **node)[0]
        proto = onnx.numpy_helper.from_array(values)
        return self.emit("Constant", [], [(kind, values.shape)], bound=largest, value=proto)[0]

    def ints(self, *numbers: int, plain: bool = False) -> Tensor:
        """A constant vector of ``int64``."""
        return self.constant(np.array(numbers, np.int64), plain=plain)

    def scalar(self, number: float, dtype: int) -> Tensor:
        """A constant without axes."""
        return self.constant(np.array(number), dtype)

    def weights(self, *shape: int, spread: float = 1.0, dtype: int | None = None) -> Tensor:
        """A constant of random numbers, or one of that shape that is there already."""
        dtype = self.style.dtype if dtype is None else dtype
        same = [
            one
            for one in self.root.constants
            if (one.dtype, one.shape) == (dtype, shape) and one.bound < 100
        ]
        if same and not self.is_function and self.choices.below(4) == 1:
            return same[-1]
        values = self.style.rng.normal(0.0, spread, shape)
        return self.constant(np.round(values, 3), dtype)

    def positive(self, *shape: int) -> Tensor:
        """A constant of random numbers between 0.5 and 2."""
        values = np.round(self.style.rng.uniform(0.5, 2.0, shape), 3)
        return self.constant(values, self.style.dtype)

    def pick(
        self, fits: Callable[[Tensor], bool], otherwise: Sequence[Dim], dtype: int | None = None
    ) -> Tensor:
        """A tensor that fits, one of the latest, or a new one of the shape ``otherwise``."""
        dtype = self.style.dtype if dtype is None else dtype
        found = [one for one in self.visible() if one.dtype == dtype and fits(one)]
        if found:
            return self.choices.of(found[:4])
        return self.fresh(otherwise, dtype)

    def fresh(self, shape: Sequence[Dim], dtype: int) -> Tensor:
        """A new input of the model, or a constant where there can be none."""
        if self.outer is None and not self.is_function:
            sizes = list(shape)
            if self.style.dynamic and sizes:
                sizes[0] = BATCH
            tensor = Tensor(self.name(), dtype, tuple(sizes))
            self.inputs.append(tensor)
            self.tensors.append(tensor)
            return tensor
        fixed = [2 if isinstance(size, str) else size for size in shape]
        return self.constant(np.round(self.style.rng.normal(0.0, 1.0, fixed), 3), dtype)

    def floats(
        self, rank: int = 0, *, most: float = 1e3, exact: bool = False, otherwise: int = 2
    ) -> Tensor:
        """A float tensor with at least ``rank`` axes and no more than ``most`` in magnitude."""

        def fits(one: Tensor) -> bool:
            return one.rank >= rank and one.bound <= most and (one.exact or not exact)

        return self.pick(fits, (2, 4, 5, 5)[: max(rank, otherwise)])
