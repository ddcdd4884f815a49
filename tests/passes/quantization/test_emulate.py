"""Saturating kernels in NumPy, against sums spelled out and against ONNX Runtime's own."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.probe import u8s8_saturates
from onnxpress.backends.targets import Target
from onnxpress.passes.base import Array, Context
from onnxpress.passes.lossless.fold_batch_norm import FoldBatchNorm
from onnxpress.passes.quantization.emulate import answers_on
from onnxpress.passes.quantization.insert_qdq import InsertQDQ

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SATURATING, EXACT = (Target("cpu", frozenset({name})) for name in ("avx2", "avx512_vnni"))


def model_of(operator: str, weight: Array, axis: int, kind: str, rank: int) -> ir.Model:
    """``operator`` of a quantized ``x`` (scale 1, zero point in the middle) and ``weight``."""
    zero = np.asarray(128 if kind == "uint8" else 0, kind)
    dims = ",".join("abcd"[:rank])
    text = f"""<ir_version: 8, opset_import: ["" : 13]>
    main (float[{dims}] x) => (float[n] y) {{
      q = QuantizeLinear (x, s, z)
      d = DequantizeLinear (q, s, z)
      v = DequantizeLinear <axis = {axis}> (w, ws, wz)
      o = {operator} (d, v)
      r = QuantizeLinear (o, t, z)
      y = DequantizeLinear (r, t, z)
    }}"""
    channels = weight.shape[axis]
    arrays = {
        "s": np.float32(1), "t": np.float32(2000), "z": zero, "w": weight,
        "ws": np.ones(channels, np.float32), "wz": np.zeros(channels, np.int8),
    }  # fmt: skip
    tensors = [ir.tensor(np.asarray(array), name=name) for name, array in arrays.items()]
    return ir.from_onnx_text(text, initializers=tensors)


def saturated(elements: Array, weights: Array) -> int:
    """A sum of products as ``vpmaddubsw`` and ``vpmaddwd`` add them up."""
    total = 0
    for start in range(0, len(weights) - 1, 2):
        pair = sum(
            int(a) * int(w) for a, w in zip(elements[start:], weights[start:][:2], strict=False)
        )
        total += min(max(pair, -32768), 32767)
    if len(weights) % 2:
        total += int(elements[-1]) * int(weights[-1])
    return total


def spelled_out(
    x: Array, weight: Array, pads: int, stride: int, dilation: int, groups: int
) -> Array:
    """``Conv`` of two dimensions of activations 0 to 255, whose zero is 128, one sum at a time."""
    padded = np.pad(x, [(0, 0), (0, 0), (pads, pads), (pads, pads)], constant_values=128)
    reach = dilation * (weight.shape[2] - 1) + 1
    size = (padded.shape[2] - reach) // stride + 1
    answer = np.zeros((len(x), len(weight), size, size))
    per_group, inner = len(weight) // groups, weight.shape[1]
    for n, m, i, j in np.ndindex(answer.shape):
        first = m // per_group * inner
        rows, columns = (slice(k * stride, k * stride + reach, dilation) for k in (i, j))
        seen = padded[n, first : first + inner, rows, columns]
        elements, weights = np.moveaxis(seen, 0, -1).ravel(), np.moveaxis(weight[m], 0, -1).ravel()
        answer[n, m, i, j] = saturated(elements, weights) - 128 * int(weights.astype(int).sum())
    return answer


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("attributes", "pads", "stride", "dilation", "groups"),
    [
        ("group = 1", 0, 1, 1, 1),
        ("pads = [1,1,1,1], strides = [2,2]", 1, 2, 1, 1),
        ('auto_pad = "SAME_UPPER"', 1, 1, 1, 1),
        ("dilations = [2,2], group = 2", 0, 1, 2, 2),
    ],
)
def test_a_conv_loses_what_its_pairs_lose(
    attributes: str, pads: int, stride: int, dilation: int, groups: int, kind: str
) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (4, 6 // groups, 3, 3), np.int8)
    steps = rng.integers(0, 256, (2, 6, 7, 7))
    model = model_of(f"Conv <{attributes}>", weight, 0, kind, 4)

    (y,) = answers_on(model, {"x": (steps - 128).astype(np.float32)}, SATURATING).values()
    (exact,) = answers_on(model, {"x": (steps - 128).astype(np.float32)}, EXACT).values()

    expected = spelled_out(steps, weight, pads, stride, dilation, groups)
    assert np.abs(y - np.clip(expected, -256000, 254000)).max() <= 1000.5
    assert np.abs(exact - expected).max() > 10_000


@pytest.mark.parametrize("operator", ["MatMul", "Gemm", "Gemm <transB = 1>", "Gemm <transA = 1>"])
def test_a_product_loses_what_its_pairs_lose(operator: str) -> None:
    rng = np.random.default_rng(1)
    weight = rng.integers(-127, 128, (25, 5), np.int8)
    steps = rng.integers(0, 256, (25, 7))
    stored = weight.T if "transB" in operator else weight
    model = model_of(
        operator, np.ascontiguousarray(stored), 0 if "transB" in operator else 1, "uint8", 2
    )
    x = (steps if "transA" in operator else steps.T).astype(np.float32) - 128

    (y,) = answers_on(model, {"x": x}, SATURATING).values()

    sums = [[saturated(row, column) for column in weight.T] for row in steps.T]
    expected = np.array(sums) - 128 * weight.astype(int).sum(axis=0)
    assert np.abs(y - np.clip(expected, -256000, 254000)).max() <= 1000.5


def quantized(name: str, samples: type, saturation: str) -> tuple[ir.Model, ir.Model, Array]:
    """A shipped network in float and in 8 bits, and images that it has not seen."""
    layout = "nhwc" if "cnn" in name else "nchw"
    with np.load(BENCHMARKS / f"data/mnist_calibration_{layout}.npz") as file:
        data = samples({"image": file["image"][:256]})
    with np.load(BENCHMARKS / "data/mnist_test.npz") as test:
        images = test["images"].astype(np.float32) / 255
    original = ir.load(BENCHMARKS / f"models/{name}.onnx")
    model = ir.load(BENCHMARKS / f"models/{name}.onnx")
    FoldBatchNorm().rewrite(model, Context())
    InsertQDQ(saturation=saturation).rewrite(model, Context(data=data))
    return original, model, images[..., None] if layout == "nhwc" else images[:, None]


@pytest.mark.parametrize("name", ["mnist_cnn_0", "mnist_mobilenet"])
def test_it_foretells_the_kernels_of_this_machine(
    name: str, samples: type, run: Any, run_fused: Any, decibels: Any
) -> None:
    original, model, images = quantized(name, samples, "ignore")
    here = SATURATING if u8s8_saturates() else EXACT
    images = images[: 20 if here is SATURATING else 200]
    (reference,) = run(original, {"image": images})

    (foretold,) = answers_on(model, {"image": images}, here).values()

    real = decibels(reference, run_fused(model, {"image": images})[0])
    assert decibels(reference, foretold) == pytest.approx(real, abs=0.5)


@pytest.mark.parametrize("name", ["mnist_cnn_0", "mnist_resnet", "mnist_mobilenet"])
def test_what_is_kept_from_saturating_is_as_good_on_every_cpu(
    name: str, samples: type, run: Any, run_fused: Any, decibels: Any
) -> None:
    original, model, images = quantized(name, samples, "avoid")
    (reference,) = run(original, {"image": images[:50]})
    simulated = decibels(reference, run(model, {"image": images[:50]})[0])

    (saturating,) = answers_on(model, {"image": images[:50]}, SATURATING).values()

    assert decibels(reference, saturating) == pytest.approx(simulated, abs=0.01)
    real = decibels(reference, run_fused(model, {"image": images[:50]})[0])
    assert real == pytest.approx(simulated, abs=1)


def test_saturation_is_seen_before_it_happens(samples: type, run: Any, decibels: Any) -> None:
    original, model, images = quantized("mnist_cnn_0", samples, "ignore")
    (reference,) = run(original, {"image": images[:50]})

    (saturating,) = answers_on(model, {"image": images[:50]}, SATURATING).values()
    (exact,) = answers_on(model, {"image": images[:50]}, EXACT).values()

    assert decibels(reference, exact) - decibels(reference, saturating) > 10


RUN_THERE = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
numpy.save(sys.argv[3], session.run(None, {"image": numpy.load(sys.argv[2])})[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("saturation", ["ignore", "avoid"])
def test_it_foretells_the_kernels_of_a_haswell(
    saturation: str, samples: type, run: Any, decibels: Any, tmp_path: Path
) -> None:
    """ONNX Runtime itself on a CPU without VNNI, which QEMU emulates."""
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("qemu-x86_64 is not installed (Debian: qemu-user)")
    original, model, images = quantized("mnist_cnn_0", samples, saturation)
    images = images[:20]
    (reference,) = run(original, {"image": images})
    ir.save(model, tmp_path / "model.onnx")
    np.save(tmp_path / "images.npy", images)
    files = [str(tmp_path / name) for name in ("model.onnx", "images.npy", "answers.npy")]

    (foretold,) = answers_on(model, {"image": images}, SATURATING).values()
    subprocess.run(
        [qemu, "-cpu", "Haswell", sys.executable, "-c", RUN_THERE, *files],
        check=True, capture_output=True, timeout=600,
    )  # fmt: skip

    real = decibels(reference, np.load(tmp_path / "answers.npy"))
    assert decibels(reference, foretold) == pytest.approx(real, abs=0.5)
    assert (real > 45) == (saturation == "avoid")
