"""Merged networks answer what their members answer one by one, combined in NumPy."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxpress.backends.base import Array, SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.ensembles.combine import Combine
from onnxpress.passes.ensembles.merge import member_names, merge

ZOO = Path(__file__).parents[3] / "benchmarks" / "models"


def answers(model: ir.Model, **feeds: Array) -> dict[str, Array]:
    return session_of(model, SessionConfig(level="disabled", threads=1)).run(feeds)


def vote_shares(answers_apart: list[Array]) -> Array:
    """The share of votes of each class along the last axis."""
    classes = np.arange(answers_apart[0].shape[-1])
    votes = [scores.argmax(-1)[..., None] == classes for scores in answers_apart]
    return np.asarray(np.mean(votes, axis=0))


def digits(layout: str, count: int = 64) -> Array:
    with np.load(ZOO.parent / "data" / "mnist_test.npz") as archive:
        pixels = archive["images"][:count].astype(np.float32) / 255
    return np.expand_dims(pixels, 1 if layout == "nchw" else 3)


@pytest.mark.parametrize("combine", ["mean", "weighted", "vote"])
def test_the_shipped_cnns_answer_as_one_by_one(combine: Combine) -> None:
    paths = sorted(ZOO.glob("mnist_cnn_*.onnx"))
    models = [ir.load(path) for path in paths]
    image = digits("nhwc")
    alone = [answers(model, image=image)["probabilities"] for model in models]
    weights = [4.0, 3.0, 2.0, 1.0] if combine == "weighted" else None

    merged = merge(models, names=member_names(paths), combine=combine, weights=weights).model

    expected = (
        vote_shares(alone) if combine == "vote" else np.average(alone, axis=0, weights=weights)
    )
    assert [value.name for value in merged.graph.outputs] == ["probabilities"]
    np.testing.assert_allclose(answers(merged, image=image)["probabilities"], expected, atol=1e-6)


def test_networks_of_other_layouts_and_exporters_answer_as_one_by_one() -> None:
    paths = [ZOO / f"mnist_{name}.onnx" for name in ("resnet", "mobilenet", "cnn_0")]
    models = [ir.load(path) for path in paths]
    models[1] = lowered(models[1])
    nchw, nhwc = digits("nchw"), digits("nhwc")
    alone = [
        next(iter(answers(model, image=image).values()))
        for model, image in zip(models, (nchw, nchw, nhwc), strict=True)
    ]

    result = merge(models, names=member_names(paths))

    np.testing.assert_allclose(
        answers(result.model, image=nchw)["logits"], np.mean(alone, axis=0), rtol=1e-5, atol=1e-5
    )
    onnx.checker.check_model(ir.to_proto(result.model), full_check=True)
    (note,) = result.details["notes"]
    assert "(mnist_resnet, mnist_mobilenet)" in note
    vote = merge(models, names=member_names(paths), combine="vote")
    assert not vote.details["notes"]
    np.testing.assert_allclose(
        answers(vote.model, image=nchw)["logits"], vote_shares(alone), rtol=1e-6
    )


def lowered(model: ir.Model) -> ir.Model:
    """``model`` as an exporter for opset 12 would write it."""
    proto = ir.to_proto(model)
    proto.opset_import[0].version = 12
    for node in proto.graph.node:
        if node.op_type == "BatchNormalization":
            kept = [a for a in node.attribute if a.name != "training_mode"]
            del node.attribute[:]
            node.attribute.extend(kept)
    return ir.from_proto(proto)


def mlp(seed: int, opset: int = 17) -> ir.Model:
    rng = np.random.default_rng(seed)
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    mlp (float[n,12] x) => (float[n,5] y) {{
      a = Gemm (x, w, b) r = Relu (a) c = Gemm (r, v, d) y = Softmax (c)
    }}"""
    sizes = {"w": (12, 16), "b": (16,), "v": (16, 5), "d": (5,)}
    tensors = [
        ir.tensor(rng.normal(size=size).astype(np.float32), name=name)
        for name, size in sizes.items()
    ]
    return ir.from_onnx_text(text, initializers=tensors)


@pytest.mark.parametrize(("count", "combine"), [(16, "mean"), (64, "vote")])
def test_many_members(count: int, combine: Combine) -> None:
    models = [mlp(seed, opset=11 + seed % 7) for seed in range(count)]
    x = np.random.default_rng(1).normal(size=(20, 12)).astype(np.float32)
    alone = [answers(model, x=x)["y"] for model in models]

    merged = merge(models, names=[f"m{index}" for index in range(count)], combine=combine).model

    expected = vote_shares(alone) if combine == "vote" else np.mean(alone, axis=0)
    np.testing.assert_allclose(answers(merged, x=x)["y"], expected, rtol=1e-5, atol=1e-6)


def test_external_data_stays_in_its_files(tmp_path: Path) -> None:
    models: list[ir.Model] = []
    for seed in (1, 2, 1):
        path = tmp_path / f"{len(models)}.onnx"
        ir.save(mlp(seed), path, external_data=f"{path.name}.data", size_threshold_bytes=0)
        models.append(ir.load(path))
    x = np.random.default_rng(1).normal(size=(3, 12)).astype(np.float32)
    alone = [answers(mlp(seed), x=x)["y"] for seed in (1, 2, 1)]

    result = merge(models, names="abc")

    weights = {
        name: value.const_value
        for name, value in result.model.graph.initializers.items()
        if not name.startswith("ensemble/")
    }
    assert all(isinstance(tensor, ir.ExternalTensor) for tensor in weights.values())
    assert sorted(weights) == ["a/b", "a/d", "a/v", "a/w", "b/b", "b/d", "b/v", "b/w"]
    first = ir.to_proto(models[0]).graph.initializer
    assert [tensor.name for tensor in first] == ["w", "b", "v", "d"]
    np.testing.assert_allclose(answers(result.model, x=x)["y"], np.mean(alone, axis=0), rtol=1e-6)


def test_a_merged_model_can_be_merged_again() -> None:
    inner = merge([mlp(1), mlp(2)], names=["a", "b"]).model
    x = np.random.default_rng(1).normal(size=(3, 12)).astype(np.float32)
    alone = [answers(mlp(seed), x=x)["y"] for seed in (1, 2, 3, 4)]

    outer = merge(
        [inner, mlp(3), mlp(4)], names=["a", "b", "c"], combine="weighted", weights=[2, 1, 1]
    ).model

    np.testing.assert_allclose(answers(outer, x=x)["y"], np.mean(alone, axis=0), rtol=1e-5)
