"""Channel rules that move, cut, merge, repeat or normalize axes: graphs, and the groups in them."""

from __future__ import annotations

from tests.passes.analysis.channel_cases import Case

HEADS = """
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    v = MatMul (x, wv)
    s = Constant <value = int64[4] {0, 0, 2, 3}> ()
    qs = Reshape (q, s)
    ks = Reshape (k, s)
    vs = Reshape (v, s)
    qh = Transpose <perm = [0, 2, 1, 3]> (qs)
    kh = Transpose <perm = [0, 2, 3, 1]> (ks)
    vh = Transpose <perm = [0, 2, 1, 3]> (vs)
    m = MatMul (qh, kh)
    p = Softmax <axis = -1> (m)
    c = MatMul (p, vh)
    t = Transpose <perm = [0, 2, 1, 3]> (c)
    f = Constant <value = int64[3] {0, 0, -1}> ()
    o = Reshape (t, f)
    y = MatMul (o, wo)
"""

CASES: dict[str, Case] = {
    "attention heads": Case(
        HEADS,
        "wq 5 6, wk 5 6, wv 5 6, wo 6 4",
        (
            "2: wq.1[000111] q.2[000111] wk.1[000111] k.2[000111] wv.1[000111] v.2[000111] "
            "qs.2 ks.2 vs.2 qh.1 kh.1 vh.1 m.1 p.1 c.1 t.2 o.2[000111] wo.0[000111]",
        ),
        inputs="float[N,T,5] x",
    ),
    "attention with grouped queries": Case(
        """
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
        a = Attention <q_num_heads = 4, kv_num_heads = 2> (q, k, v)
        y = MatMul (a, wo)
        """,
        "wq 5 8, wk 5 4, wv 5 6, wo 12 3",
        (
            "2: wq.1[00001111] q.2[00001111] wk.1[0011] k.2[0011] wv.1[000111] v.2[000111] "
            "a.2[000000111111] wo.0[000000111111]",
        ),
        inputs="float[N,T,5] x",
        opset=23,
    ),
    "heads packed with query, key and value": Case(
        """
        a = MatMul (x, w)
        s = Constant <value = int64[5] {0, 0, 3, 4, 2}> ()
        b = Reshape (a, s)
        t = Transpose <perm = [2, 0, 3, 1, 4]> (b)
        i = Constant <value = int64 {0}> ()
        j = Constant <value = int64 {2}> ()
        q = Gather (t, i)
        v = Gather (t, j)
        m = Mul (q, v)
        u = Transpose <perm = [0, 2, 1, 3]> (m)
        f = Constant <value = int64[3] {0, 0, 8}> ()
        o = Reshape (u, f)
        y = MatMul (o, k)
        """,
        "w 5 24, k 8 3",
        (
            f"4: w.1[{'00112233' * 3}] a.2[{'00112233' * 3}] b.3 t.2 q.1 v.1 m.1 u.2 "
            "o.2[00112233] k.0[00112233]",
        ),
        inputs="float[N,T,5] x",
    ),
    "heads merged with the batch": Case(
        """
        a = MatMul (x, w)
        s = Constant <value = int64[4] {0, 0, 2, 2}> ()
        b = Reshape (a, s)
        t = Transpose <perm = [0, 2, 1, 3]> (b)
        z = Shape (t)
        bounds = Constant <value = int64[1] {0}> ()
        two = Constant <value = int64[1] {2}> ()
        front = Slice (z, bounds, two)
        back = Constant <value = int64[2] {2, -1}> ()
        r = Constant <value = int64[3] {-1, 4, 2}> ()
        c = Reshape (t, r)
        d = Transpose <perm = [0, 2, 1]> (c)
        g = Concat <axis = 0> (front, back)
        e = Reshape (d, g)
        h = Transpose <perm = [0, 3, 1, 2]> (e)
        f = Constant <value = int64[3] {0, 0, -1}> ()
        o = Reshape (h, f)
        y = MatMul (o, k)
        """,
        "w 5 4, k 4 3",
        ("2: w.1[0011] a.2[0011] b.2 t.1 c.0 d.0 e.1 h.2 o.2[0011] k.0[0011]",),
        inputs="float[N,4,5] x",
    ),
    "gated perceptron": Case(
        """
        a = MatMul (x, w)
        g = MatMul (x, v)
        s = Sigmoid (g)
        h = Mul (g, s)
        m = Mul (a, h)
        y = MatMul (m, u)
        """,
        "w 5 4, v 5 4, u 4 5",
        ("4: w.1 a.2 v.1 g.2 s.2 h.2 m.2 u.0",),
        inputs="float[N,T,5] x",
    ),
    "transposed convolution": Case(
        """
        a = Conv (x, w)
        t = ConvTranspose <strides = [2, 2]> (a, k, b)
        y = Conv (t, v)
        """,
        "w 4 3 1 1, k 4 2 2 2, b 2, v 1 2 1 1",
        ("4: w.0 a.1 k.0", "2: k.1 b.0 t.1 v.1"),
    ),
    "depthwise transposed convolution": Case(
        """
        a = Conv (x, w)
        t = ConvTranspose <group = 2> (a, k, b)
        y = Conv (t, v)
        """,
        "w 2 3 1 1, k 2 2 2 2, b 4, v 1 4 1 1",
        ("2: w.0 a.1 k.0 b.0[0011] t.1[0011] v.1[0011]",),
    ),
    "grouped transposed convolution": Case(
        """
        a = Conv (x, w)
        t = ConvTranspose <group = 2> (a, k)
        y = Conv (t, v)
        """,
        "w 6 3 1 1, k 6 2 1 1, v 1 4 1 1",
        ("3: w.0[012012] a.1[012012] k.0[012012]", "2: k.1 t.1[0101] v.1[0101]"),
    ),
    "split": Case(
        """
        a = Conv (x, w)
        k = Constant <value = int64[2] {1, 3}> ()
        b, c = Split <axis = 1> (a, k)
        d = Conv (c, v)
        e = Concat <axis = 1> (b, d)
        y = Conv (e, u)
        """,
        "w 4 3 1 1, v 2 3 1 1, u 1 3 1 1",
        (
            "1: w.0[0---] a.1[0---] b.1 e.1[0--] u.1[0--]",
            "3: w.0[-012] a.1[-012] c.1 v.1",
            "2: v.0 d.1 e.1[-01] u.1[-01]",
        ),
    ),
    "split into equal parts, as older versions have it": Case(
        """
        a = Conv (x, w)
        b, c = Split <axis = 1> (a)
        d = Add (b, c)
        y = Conv (d, v)
        """,
        "w 4 3 1 1, v 1 2 1 1",
        ("2: w.0[0101] a.1[0101] b.1 c.1 d.1 v.1",),
        opset=11,
    ),
    "split into a number of parts": Case(
        """
        a = Conv (x, w)
        b, c = Split <axis = 1, num_outputs = 2> (a)
        p = Conv (b, v)
        q = Conv (c, u)
        y = Add (p, q)
        """,
        "w 5 3 1 1, v 1 3 1 1, u 1 2 1 1",
        ("3: w.0[012--] a.1[012--] b.1 v.1", "2: w.0[---01] a.1[---01] c.1 u.1"),
        opset=18,
    ),
    "slice": Case(
        """
        a = Conv (x, w)
        s = Constant <value = int64[1] {1}> ()
        e = Constant <value = int64[1] {9}> ()
        i = Constant <value = int64[1] {-3}> ()
        b = Slice (a, s, e, i)
        y = Conv (b, v)
        """,
        "w 4 3 1 1, v 1 3 1 1",
        ("1: w.0[0---] a.1[0---]", "3: w.0[-012] a.1[-012] b.1 v.1"),
    ),
    "gather": Case(
        """
        a = Conv (x, w)
        i = Constant <value = int64[3] {2, 0, -1}> ()
        b = Gather <axis = 1> (a, i)
        y = Conv (b, v)
        """,
        "w 4 3 1 1, v 1 3 1 1",
        ("3: w.0[0-12] a.1[0-12] b.1[102] v.1[102]", "1: w.0[-0--] a.1[-0--]"),
    ),
    "embedding": Case(
        """
        i = Cast <to = 7> (x)
        e = Gather (t, i)
        y = MatMul (e, v)
        """,
        "t 9 4, v 4 2",
        ("4: t.1 e.2 v.0",),
        inputs="float[N,3] x",
    ),
    "channel shuffle": Case(
        """
        a = Conv (x, w)
        s = Constant <value = int64[5] {0, 2, 2, 4, 4}> ()
        b = Reshape (a, s)
        t = Transpose <perm = [0, 2, 1, 3, 4]> (b)
        q = Constant <value = int64[4] {0, 4, 4, 4}> ()
        c = Reshape (t, q)
        y = Conv (c, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("2: w.0[0101] a.1[0101] b.2 t.1 c.1[0011] v.1[0011]",),
    ),
    "depth to space": Case(
        """
        a = Conv (x, w)
        d = DepthToSpace <blocksize = 2> (a)
        y = Conv (d, v)
        """,
        "w 8 3 1 1, v 1 2 1 1",
        ("2: w.0[01010101] a.1[01010101] d.1 v.1",),
    ),
    "depth to space, columns and rows last": Case(
        """
        a = Conv (x, w)
        d = DepthToSpace <blocksize = 2, mode = "CRD"> (a)
        s = SpaceToDepth <blocksize = 2> (d)
        y = Conv (s, v)
        """,
        "w 8 3 1 1, v 1 8 1 1",
        ("2: w.0[00001111] a.1[00001111] d.1 s.1[01010101] v.1[01010101]",),
    ),
    "resize by scales": Case(
        """
        a = Conv (x, w)
        s = Constant <value = float[4] {1, 1, 2, 2}> ()
        b = Resize (a, , s)
        y = Conv (b, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 b.1 v.1",),
    ),
    "resize to sizes": Case(
        """
        a = Conv (x, w)
        s = Constant <value = int64[4] {1, 4, 2, 2}> ()
        b = Resize (a, , , s)
        y = Conv (b, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 b.1 v.1",),
        inputs="float[1,3,4,4] x",
    ),
    "resize to computed sizes": Case(
        """
        a = Conv (x, w)
        z = Shape <end = 2> (a)
        k = Constant <value = int64[2] {8, 8}> ()
        s = Concat <axis = 0> (z, k)
        b = Resize (a, , , s)
        y = Conv (b, v)
        """,
        "w 4 3 1 1, v 1 4 1 1",
        ("4: w.0 a.1 b.1 v.1",),
    ),
    "expand and tile": Case(
        """
        a = Conv (x, w)
        p = GlobalAveragePool (a)
        k = Constant <value = int64[4] {1, 4, 3, 3}> ()
        e = Expand (p, k)
        r = Constant <value = int64[4] {1, 2, 1, 1}> ()
        t = Tile (e, r)
        y = Conv (t, v)
        """,
        "w 4 3 1 1, v 1 8 1 1",
        ("4: w.0 a.1 p.1 e.1 t.1[01230123] v.1[01230123]",),
    ),
    "group normalization": Case(
        """
        a = Conv (x, w)
        n = GroupNormalization <num_groups = 2> (a, g, b)
        y = Conv (n, v)
        """,
        "w 4 3 1 1, g 4, b 4, v 1 4 1 1",
        ("2: w.0[0011] a.1[0011] g.0[0011] b.0[0011] n.1[0011] v.1[0011]",),
        opset=21,
    ),
    "group normalization as exporters spell it": Case(
        """
        a = Conv (x, w)
        s = Constant <value = int64[3] {0, 2, -1}> ()
        r = Reshape (a, s)
        n = InstanceNormalization (r, g, b)
        z = Shape (a)
        c = Reshape (n, z)
        y = Conv (c, v)
        """,
        "w 4 3 1 1, g 2, b 2, v 1 4 1 1",
        ("2: w.0[0011] a.1[0011] r.1 g.0 b.0 n.1 c.1[0011] v.1[0011]",),
    ),
    "recurrent units": Case(
        """
        h, l = LSTM <hidden_size = 2, direction = "bidirectional"> (x, w, r, b)
        k = Constant <value = int64[2] {0, 1}> ()
        a = ReduceSum <keepdims = 0> (h, k)
        y = MatMul (a, v)
        """,
        "w 2 8 3, r 2 8 2, b 2 16, v 2 3",
        ("2: w.1[01010101] r.1[01010101] r.2 b.1[0101010101010101] h.3 l.2 a.1 v.0",),
        inputs="float[4,N,3] x",
    ),
    "a quantized weight": Case(
        """
        q = Constant <value = int8[4,3,1,1] {1, -2, 3, 4, 5, -6, 7, 8, 9, 1, 2, 3}> ()
        t = Constant <value = float {0.1}> ()
        d = DequantizeLinear <axis = 0> (q, s)
        a = Conv (x, d)
        f = QuantizeLinear (a, t)
        g = DequantizeLinear (f, t)
        y = Conv (g, v)
        """,
        "s 4, v 1 4 1 1",
        ("4: q.0 s.0 d.0 a.1 f.1 g.1 v.1",),
    ),
    "pad of channels": Case(
        """
        a = Conv (x, w)
        k = Constant <value = int64[2] {1, 0}> ()
        i = Constant <value = int64[1] {1}> ()
        p = Pad (a, k, , i)
        y = Conv (p, v)
        """,
        "w 4 3 1 1, v 1 5 1 1",
        ("4: w.0 a.1 p.1[-0123] v.1[-0123]", "1: p.1[0----] v.1[0----] | Pad adds them"),
        opset=18,
    ),
    "inside a branch": Case(
        """
        a = Conv (x, w)
        c = Constant <value = bool {1}> ()
        y = If (c) <
          then_branch = one () => (float p) {b = Relu (a) p = Conv (b, v)},
          else_branch = two () => (float q) {q = Conv (a, u)}
        >
        """,
        "w 4 3 1 1, v 1 4 1 1, u 1 4 1 1",
        (
            "4: w.0 a.1 b.1 v.1 u.1",
            "1: v.0 p.1 | they reach the graph output 'p'",
            "1: u.0 q.1 | they reach the graph output 'q'",
        ),
    ),
}

REFUSED: dict[str, Case] = {
    "layer normalization": Case(
        """
        a = MatMul (x, w)
        n = LayerNormalization (a, g)
        y = MatMul (n, v)
        """,
        "w 5 4, g 4, v 4 2",
        ("4: w.1 a.2 | they reach LayerNormalization: it takes the mean over them",),
        inputs="float[N,T,5] x",
    ),
    "every other channel": Case(
        """
        a = Conv (x, w)
        s = Constant <value = int64[1] {0}> ()
        e = Constant <value = int64[1] {9}> ()
        i = Constant <value = int64[1] {1}> ()
        t = Constant <value = int64[1] {2}> ()
        b = Slice (a, s, e, i, t)
        y = Conv (b, v)
        """,
        "w 4 3 1 1, v 1 2 1 1",
        ("4: w.0 a.1 | they reach Slice: it takes every other one of them",),
    ),
    "unknown bounds": Case(
        """
        a = Conv (x, w)
        i = Constant <value = int64[1] {1}> ()
        b = Slice (a, s, s, i)
        y = ReduceMax <axes = [1]> (b)
        """,
        "w 4 3 1 1",
        ("4: w.0 a.1 | they reach Slice: what it takes is not constant",),
        inputs="float[N,3,4,4] x, int64[1] s",
    ),
    "unknown indices": Case(
        """
        a = Conv (x, w)
        b = Gather <axis = 1> (a, i)
        y = ReduceMax <axes = [1]> (b)
        """,
        "w 4 3 1 1",
        ("4: w.0 a.1 | they reach Gather: which of them it takes is not constant",),
        inputs="float[N,3,4,4] x, int64[2] i",
    ),
    "resized channels": Case(
        """
        a = Conv (x, w)
        s = Constant <value = float[4] {1, 2, 1, 1}> ()
        b = Resize (a, , s)
        y = ReduceMax <axes = [1]> (b)
        """,
        "w 4 3 1 1",
        ("4: w.0 a.1 | they reach Resize: it resizes their axis",),
    ),
    "reflected channels": Case(
        """
        a = Conv (x, w)
        k = Constant <value = int64[8] {0, 1, 0, 0, 0, 0, 0, 0}> ()
        b = Pad <mode = "reflect"> (a, k)
        y = ReduceMax <axes = [1]> (b)
        """,
        "w 4 3 1 1",
        ("4: w.0 a.1 | they reach Pad: it pads their axis with copies of them",),
    ),
    "older softmax": Case(
        """
        a = Conv (x, w)
        s = Softmax <axis = 1> (a)
        y = ReduceMax <axes = [1]> (s)
        """,
        "w 4 3 1 1",
        ("4: w.0 a.1 | they reach Softmax: it works along their axis",),
        opset=11,
    ),
    "a state from outside": Case(
        """
        h = GRU <hidden_size = 2> (x, w, r, , , s)
        y = ReduceMax <axes = [3]> (h)
        """,
        "w 1 6 3, r 1 6 2",
        ("2: w.1[010101] r.1[010101] r.2 h.3 | GRU combines them with 's', which is fixed",),
        inputs="float[4,N,3] x, float[1,N,2] s",
    ),
}
