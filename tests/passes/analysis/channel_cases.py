"""What each channel rule does: graphs, and the groups or the refusal that come of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class Case:
    """A graph whose weights are given as names and sizes (``w 4 3 1 1, b 4``), and its groups.

    In a listing, ``a.1`` is axis 1 of the tensor ``a``. Where a group lies on an axis in another
    arrangement than one index per channel, the channel of each index follows, ``-`` for none.
    Groups that are frozen because they are the result ``y`` are left out.
    """

    body: str
    weights: str
    groups: tuple[str, ...]
    inputs: str = "float[N,3,4,4] x"
    outputs: str = "y"
    opset: int = 17

    def build(self) -> ir.Model:
        """The model, with random weights that are not near zero."""
        results = ", ".join(f"float {name}" for name in self.outputs.split())
        text = (
            f'<ir_version: 9, opset_import: ["" : {self.opset}, "my" : 1]>\n'
            f"main ({self.inputs}) => ({results}) {{{self.body}}}"
        )
        rng = np.random.default_rng(7)
        tensors = []
        for entry in filter(None, self.weights.split(",")):
            name, *sizes = entry.split()
            array = rng.uniform(0.5, 1, [int(size) for size in sizes])
            signed = array * rng.choice([-1, 1], array.shape)
            tensors.append(ir.tensor(np.asarray(signed, dtype=np.float32), name=name))
        model = ir.from_onnx_text(text, initializers=tensors)
        for value in model.graph.outputs:
            value.shape = None  # the text has to give one
        return model


CASES: dict[str, Case] = {
    "conv": Case(
        """
        a = Conv (x, w, b)
        y = Conv (a, v)
        """,
        "w 4 3 3 3, b 4, v 2 4 1 1",
        ("4: w.0 b.0 a.1 v.1",),
    ),
    "conv without bias, of one dimension": Case(
        """
        a = Conv (x, w)
        y = Conv (a, v)
        """,
        "w 4 3 3, v 2 4 1",
        ("4: w.0 a.1 v.1",),
        inputs="float[N,3,8] x",
    ),
    "depthwise": Case(
        """
        a = Conv (x, w)
        d = Conv <group = 2> (a, k, b)
        y = Conv (d, v)
        """,
        "w 2 3 1 1, k 4 1 3 3, b 4, v 1 4 1 1",
        ("2: w.0 a.1 k.0[0011] b.0[0011] d.1[0011] v.1[0011]",),
    ),
    "depthwise on an input": Case(
        """
        d = Conv <group = 3> (x, k)
        y = Conv (d, v)
        """,
        "k 3 1 3 3, v 1 3 1 1",
        ("3: k.0 d.1 v.1 | Conv reads channels that are fixed",),
    ),
    "wider groups": Case(
        """
        a = Conv (x, w)
        g = Conv <group = 2> (a, k)
        y = Conv (g, v)
        """,
        "w 6 3 1 1, k 4 3 1 1, v 1 4 1 1",
        (
            "3: w.0[012012] a.1[012012] k.1",
            "2: k.0[0101] g.1[0101] v.1[0101]",
        ),
    ),
    "residual": Case(
        """
        a = Conv (x, w)
        b = Conv (a, v)
        r = Relu (b)
        s = Add (a, r)
        y = Conv (s, u)
        """,
        "w 4 3 1 1, v 4 4 1 1, u 1 4 1 1",
        ("4: w.0 a.1 v.0 v.1 b.1 r.1 s.1 u.1",),
    ),
    "batch normalization": Case(
        """
        a = Conv (x, w)
        n = BatchNormalization (a, g, b, m, s)
        y = Conv (n, v)
        """,
        "w 4 3 1 1, g 4, b 4, m 4, s 4, v 1 4 1 1",
        ("4: w.0 a.1 g.0 b.0 m.0 s.0 n.1 v.1",),
    ),
    "instance normalization": Case(
        """
        a = Conv (x, w)
        n = InstanceNormalization (a, g, b)
        y = Conv (n, v)
        """,
        "w 4 3 1 1, g 4, b 4, v 1 4 1 1",
        ("4: w.0 a.1 g.0 b.0 n.1 v.1",),
    ),
    "constants per channel": Case(
        """
        a = Conv (x, w)
        b = Sub (k, a)
        c = Mul (b, t)
        d = PRelu (c, p)
        y = Conv (d, v)
        """,
        "w 4 3 1 1, k 4 1 1, t 1, p 1 4 1 1, v 1 4 1 1",
        ("4: w.0 a.1 k.0 b.1 c.1 p.1 d.1 v.1",),
    ),
    "broadcast gate": Case(
        """
        a = Conv (x, w)
        p = GlobalAveragePool (a)
        e = Conv (p, f)
        g = Sigmoid (e)
        m = Mul (a, g)
        y = Conv (m, v)
        """,
        "w 4 3 1 1, f 4 4 1 1, v 1 4 1 1",
        ("4: w.0 a.1 p.1 f.0 f.1 e.1 g.1 m.1 v.1",),
    ),
    "one channel over all": Case(
        """
        a = Conv (x, w)
        e = Conv (x, f)
        m = Mul (a, e)
        y = Conv (m, v)
        """,
        "w 4 3 1 1, f 1 3 1 1, v 1 4 1 1",
        (
            "4: w.0 a.1 m.1 v.1",
            "1: f.0 e.1",
        ),
    ),
    "activations": Case(
        """
        a = Conv (x, w)
        b = Clip (a, l, h)
        c = Cast <to = 11> (b)
        d = Cast <to = 1> (c)
        e = Identity (d)
        f, m = Dropout (e)
        g = Where (m, f, l)
        y = Conv (g, v)
        """,
        "w 4 3 1 1, l, h, v 1 4 1 1",
        ("4: w.0 a.1 b.1 c.1 d.1 e.1 f.1 m.1 g.1 v.1",),
    ),
    "pooling": Case(
        """
        a = Conv (x, w)
        b = MaxPool <kernel_shape = [2, 2]> (a)
        c = AveragePool <kernel_shape = [2, 2]> (b)
        d = GlobalMaxPool (c)
        y = Conv (d, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 b.1 c.1 d.1 v.1",),
    ),
    "flatten": Case(
        """
        a = Conv (x, w)
        p = MaxPool <kernel_shape = [3, 3]> (a)
        f = Flatten (p)
        y = Gemm <transB = 1> (f, v, b)
        """,
        "w 2 3 1 1, v 1 8, b 1",
        ("2: w.0 a.1 p.1 f.1[00001111] v.1[00001111]",),
    ),
    "flatten of channels last": Case(
        """
        a = Conv (x, w)
        t = Transpose <perm = [0, 2, 3, 1]> (a)
        p = Constant <value = int64[2] {0, -1}> ()
        f = Reshape (t, p)
        m = MatMul (f, v)
        y = Add (m, b)
        """,
        "w 2 3 3 3, v 8 1, b 1",
        ("2: w.0 a.1 t.3 f.1[01010101] v.0[01010101]",),
    ),
    "the shape as Keras computes it": Case(
        """
        a = Conv (x, w)
        t = Transpose <perm = [0, 2, 3, 1]> (a)
        s = Shape (a)
        i = Constant <value = int64[4] {0, 2, 3, 1}> ()
        g = Gather (s, i)
        zero = Constant <value = int64[1] {0}> ()
        one = Constant <value = int64[1] {1}> ()
        n = Slice (g, zero, one, zero, one)
        k = Constant <value = int64[1] {8}> ()
        p = Concat <axis = 0> (n, k)
        q = Cast <to = 7> (p)
        f = Reshape (t, q)
        y = MatMul (f, v)
        """,
        "w 2 3 3 3, v 8 1",
        ("2: w.0 a.1 t.3 f.1[01010101] v.0[01010101]",),
    ),
    "the shape as PyTorch computes it": Case(
        """
        a = Conv (x, w)
        s = Shape <end = 1> (a)
        zero = Constant <value = int64 {0}> ()
        n = Gather (s, zero)
        first = Constant <value = int64[1] {0}> ()
        u = Unsqueeze (n, first)
        rest = Constant <value = int64[1] {-1}> ()
        p = Concat <axis = 0> (u, rest)
        f = Reshape (a, p)
        y = Gemm (f, v)
        """,
        "w 2 3 3 3, v 8 1",
        ("2: w.0 a.1 f.1[00001111] v.0[00001111]",),
    ),
    "a shape with the number of channels": Case(
        """
        a = Conv (x, w)
        s = Shape (a)
        rest = Constant <value = int64[1] {-1}> ()
        two = Constant <value = int64[1] {2}> ()
        zero = Constant <value = int64[1] {0}> ()
        p = Slice (s, zero, two)
        q = Concat <axis = 0> (p, rest)
        f = Reshape (a, q)
        m = ReduceMean <axes = [2], keepdims = 0> (f)
        y = Gemm (m, v)
        """,
        "w 2 3 3 3, v 2 1",
        ("2: w.0 a.1 f.1 m.1 v.0",),
    ),
    "flatten and back": Case(
        """
        a = Conv (x, w)
        f = Flatten (a)
        p = Constant <value = int64[4] {0, 2, 2, 2}> ()
        b = Reshape (f, p)
        y = Conv (b, v)
        """,
        "w 2 3 3 3, v 1 2 1 1",
        ("2: w.0 a.1 f.1[00001111] b.1 v.1",),
    ),
    "squeeze and unsqueeze": Case(
        """
        a = Conv (x, w)
        p = GlobalAveragePool (a)
        k = Constant <value = int64[2] {2, 3}> ()
        s = Squeeze (p, k)
        u = Unsqueeze (s, k)
        y = Conv (u, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 p.1 s.1 u.1 v.1",),
    ),
    "reductions": Case(
        """
        a = Conv (x, w)
        k = Constant <value = int64[1] {-1}> ()
        s = ReduceSum <keepdims = 0> (a, k)
        m = ReduceMean <axes = [2]> (s)
        f = Flatten (m)
        y = Gemm (f, v)
        """,
        "w 4 3 1 1, v 4 1",
        ("4: w.0 a.1 s.1 m.1 f.1 v.0",),
    ),
    "concat": Case(
        """
        a = Conv (x, w)
        b = Conv (x, v)
        c = Concat <axis = 1> (a, b)
        y = Conv (c, u)
        """,
        "w 2 3 1 1, v 3 3 1 1, u 1 5 1 1",
        (
            "2: w.0 a.1 c.1[01---] u.1[01---]",
            "3: v.0 b.1 c.1[--012] u.1[--012]",
        ),
    ),
    "concat with an input": Case(
        """
        a = Conv (x, w)
        c = Concat <axis = -3> (x, a)
        y = Conv (c, u)
        """,
        "w 2 3 1 1, u 1 5 1 1",
        (
            "2: w.0 a.1 c.1[---01] u.1[---01]",
            "3: c.1[012--] u.1[012--] | they come from a tensor that is fixed",
        ),
    ),
    "concat of heights": Case(
        """
        a = Conv (x, w)
        b = Conv (x, v)
        c = Concat <axis = 2> (a, b)
        y = Conv (c, u)
        """,
        "w 2 3 1 1, v 2 3 1 1, u 1 2 1 1",
        ("2: w.0 a.1 v.0 b.1 c.1 u.1",),
    ),
    "pad of heights": Case(
        """
        a = Conv (x, w)
        k = Constant <value = int64[8] {0, 0, 1, 1, 0, 0, 1, 1}> ()
        p = Pad (a, k)
        y = Conv (p, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 p.1 v.1",),
    ),
    "dense layers": Case(
        """
        a = Gemm <transA = 1, alpha = 0.5> (x, w, b)
        r = Relu (a)
        y = Gemm <transB = 1> (r, v)
        """,
        "w 3 4, b 1 4, v 1 4",
        ("4: w.1 a.1 b.1 r.1 v.1",),
        inputs="float[3,N] x",
    ),
    "product of two layers": Case(
        """
        q = MatMul (x, w)
        k = MatMul (x, v)
        t = Transpose <perm = [0, 2, 1]> (k)
        s = MatMul (q, t)
        y = ReduceMean <axes = [1, 2]> (s)
        """,
        "w 3 4, v 3 4",
        ("4: w.1 q.2 v.1 k.2 t.1",),
        inputs="float[N,5,3] x",
    ),
    "batched matrices": Case(
        """
        a = MatMul (x, w)
        p = MatMul (a, k)
        y = ReduceMean <axes = [1, 2, 3]> (p)
        """,
        "w 1 3 4, k 1 4 2",
        (
            "4: w.2 a.3 k.1",
            "2: k.2 p.3 | they reach ReduceMean: it reduces their axis",
        ),
        inputs="float[N,2,5,3] x",
    ),
    "a constant on the left": Case(
        """
        a = Conv (x, w)
        f = Flatten (a)
        t = Transpose (f)
        m = MatMul (k, t)
        y = ReduceSum <keepdims = 0> (m)
        """,
        "w 2 3 4 4, k 1 2",
        (
            "2: w.0 a.1 f.1 t.0 k.1",
            "1: k.0 m.0 | they reach ReduceSum: it reduces every axis, or unknown ones",
        ),
    ),
    "a weight read twice": Case(
        """
        a = Conv (x, w)
        b = Conv (a, k)
        c = Conv (b, k)
        y = Conv (c, v)
        """,
        "w 3 3 1 1, k 3 3 1 1, v 1 3 1 1",
        ("3: w.0 a.1 k.0 k.1 b.1 c.1 v.1",),
    ),
    "equal biases stored once": Case(
        """
        j = Identity (b)
        a = Conv (x, w, b)
        c = Conv (a, v, j)
        y = Conv (c, u)
        """,
        "w 4 3 1 1, b 4, v 4 4 1 1, u 1 4 1 1",
        ("4: w.0 b.0 a.1 v.0 v.1 j.0 c.1 u.1",),
    ),
    "a Constant node as weight": Case(
        """
        k = Constant <value = float[2,2] {1, 2, 3, 4}> ()
        a = MatMul (x, k)
        y = MatMul (a, v)
        """,
        "v 2 1",
        ("2: k.1 a.1 v.0",),
        inputs="float[N,2] x",
    ),
}

REFUSED: dict[str, Case] = {
    "softmax over the channels": Case(
        """
        a = Conv (x, w)
        s = Softmax <axis = 1> (a)
        y = Conv (s, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 | they reach Softmax: it works along their axis",),
    ),
    "an operator of one's own": Case(
        """
        a = Conv (x, w)
        s = my.Scale (a)
        y = Conv (s, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 | they reach Scale: the operator has no channel rule",),
    ),
    "graph output": Case(
        """
        a = Conv (x, w)
        y = Conv (a, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 v.1 | they reach the graph output 'a'",),
        outputs="a y",
    ),
    "sum with an input": Case(
        """
        a = Conv (x, w)
        s = Add (a, x)
        y = Conv (s, v)
        """,
        "w 3 3 1 1, v 1 3 1 1",
        ("3: w.0 a.1 s.1 v.1 | Add combines them with 'x', which is fixed",),
    ),
    "subgraph": Case(
        """
        a = Conv (x, w)
        c = Constant <value = bool {1}> ()
        y = If (c) <
          then_branch = one () => (float p) {p = Relu (a)},
          else_branch = two () => (float q) {q = Neg (a)}
        >
        """,
        "w 4 3 1 1",
        ("4: w.0 a.1 p.1 q.1 | they reach the graph output 'p'",),
    ),
    "statistics in training mode": Case(
        """
        a = Conv (x, w)
        n, t, o = BatchNormalization <training_mode = 1> (a, g, b, m, s)
        y = Conv (n, v)
        """,
        "w 4 3 1 1, g 4, b 4, m 4, s 4, v 1 4 1 1",
        ("4: w.0 a.1 | they reach BatchNormalization: it runs in training mode",),
    ),
    "indices of a pool": Case(
        """
        a = Conv (x, w)
        p, i = MaxPool <kernel_shape = [2, 2]> (a)
        y = Conv (p, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 | they reach MaxPool: it also gives indices into the whole tensor",),
    ),
    "computed weight": Case(
        """
        a = Conv (x, w)
        t = Relu (v)
        y = Conv (a, t)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 | they reach Conv: its weight is not constant",),
    ),
    "a weight read in another way": Case(
        """
        a = Conv (x, w)
        b = Conv (a, v)
        u = ReduceSum <keepdims = 0> (w)
        y = Mul (b, u)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 v.1 | they reach ReduceSum: it reduces every axis, or unknown ones",),
    ),
    "product with an input": Case(
        """
        a = MatMul (x, w)
        y = MatMul (a, k)
        """,
        "w 3 4",
        ("4: w.1 a.1 | MatMul combines them with 'k', which is fixed",),
        inputs="float[N,3] x, float[4,2] k",
    ),
    "product with a vector": Case(
        """
        a = MatMul (x, w)
        y = MatMul (a, k)
        """,
        "w 3 4, k 4",
        ("4: w.1 a.1 | they reach MatMul: an operand is a vector",),
        inputs="float[N,3] x",
    ),
    "channels of unknown height": Case(
        """
        a = Conv (x, w)
        f = Flatten (a)
        y = ReduceMax <keepdims = 0> (f)
        """,
        "w 4 3 1 1",
        ("4: w.0 a.1 | they reach Flatten: it splits them or mixes them with another axis",),
        inputs="float[N,3,H,4] x",
    ),
    "two unknown sizes": Case(
        """
        a = Conv (x, w)
        b = Reshape (a, s)
        y = Conv (b, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 | they reach Reshape: it splits them or mixes them with another axis",),
        inputs="float[N,3,H,W] x, int64[4] s",
    ),
    "unknown padding": Case(
        """
        a = Conv (x, w)
        b = Pad (a, s)
        y = Conv (b, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 | they reach Pad: its padding is not constant",),
        inputs="float[N,3,4,4] x, int64[8] s",
    ),
    "unknown padded axes": Case(
        """
        a = Conv (x, w)
        k = Constant <value = int64[2] {0, 0}> ()
        b = Pad (a, k, , s)
        y = Conv (b, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 | they reach Pad: the axes that it pads are not constant",),
        inputs="float[N,3,4,4] x, int64[1] s",
        opset=18,
    ),
    "unknown reduction": Case(
        """
        a = Conv (x, w)
        b = ReduceSum (a, s)
        y = Conv (b, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 | they reach ReduceSum: it reduces every axis, or unknown ones",),
        inputs="float[N,3,4,4] x, int64[1] s",
    ),
    "number of channels in arithmetic": Case(
        """
        a = Conv (x, w)
        s = Shape <start = 1, end = 2> (a)
        c = Cast <to = 1> (s)
        b = Conv (a, v)
        y = Div (b, c)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 v.1 | Div computes with their number",),
    ),
    "number of channels shapes something else": Case(
        """
        a = Conv (x, w)
        s = Shape <start = 1, end = 2> (a)
        k = Reshape (t, s)
        b = GlobalAveragePool (a)
        f = Flatten (b)
        y = MatMul (f, k)
        """,
        "w 4 3 1 1, t 2 2",
        ("4: w.0 a.1 b.1 f.1 | their number is a size that Reshape asks for",),
    ),
    "number of channels from an unknown place": Case(
        """
        a = Conv (x, w)
        s = Shape (a)
        n = Gather (s, i)
        f = Flatten (a)
        g = Gemm (f, v)
        c = Cast <to = 1> (n)
        y = Div (g, c)
        """,
        "w 2 3 4 4, v 2 1",
        ("2: w.0 a.1 f.1 v.0 | Gather computes with their number",),
        inputs="float[N,3,4,4] x, int64 i",
    ),
    "concat with an unknown number": Case(
        """
        a = Conv (x, w)
        c = Concat <axis = 1> (a, z)
        y = ReduceMax <axes = [1]> (c)
        """,
        "w 4 3 1 1",
        ("4: w.0 a.1 | they reach Concat: it appends a tensor of unknown size",),
        inputs="float[N,3,4,4] x, float[N,C,4,4] z",
    ),
    "behind an unknown operator": Case(
        """
        s = my.Scale (x)
        y = Conv (s, w)
        """,
        "w 4 3 1 1",
        ("4: w.0 | the shape of what Conv computes is not known",),
    ),
}
