"""Image networks of torchvision and timm with seeded random weights, exported by PyTorch."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision

OPSET = {"torchscript": 17, "dynamo": 18}
SHAPE = (3, 224, 224)


def export(path: Path, network: str, exporter: str) -> None:
    """Export ``network``, such as ``timm/repvgg_a0``, with ``torchscript`` or ``dynamo``.

    ``image`` is float32 ``[batch, 3, 224, 224]``, ``logits`` float32 ``[batch, 1000]``. The
    TorchScript exporter is told to leave BatchNormalization alone; the dynamo exporter runs as it
    comes and folds what it can.
    """
    torch.manual_seed(0)
    library, name = network.split("/")
    create = timm.create_model if library == "timm" else torchvision.models.get_model
    model = create(name)
    settle(model)
    image = torch.randn(2, *SHAPE)
    names = {"input_names": ["image"], "output_names": ["logits"], "opset_version": OPSET[exporter]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            torch.onnx.export(
                model,
                (image,),
                path,
                dynamo=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
                **names,
            )
        else:
            torch.onnx.export(
                model,
                (image,),
                path,
                dynamo=True,
                external_data=False,
                verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                **names,
            )


def settle(model: Any) -> None:
    """Give every BatchNorm random scales, shifts and statistics that fit, and leave eval mode on.

    The statistics are those of two batches of noise, so that activations keep a sane size through
    all layers, as in a trained network, and no two channels are alike.
    """
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0, 0.2)
        norm.momentum = None  # the average of all batches seen
    model.train()
    with torch.no_grad():
        for _ in range(2 if norms else 0):
            model(torch.randn(4, *SHAPE))
    model.eval()
