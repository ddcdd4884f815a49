"""Train the PyTorch ResNet and MobileNetV2 and export them with their normalizations.

    python -m benchmarks.zoo.torch_nets --digits mnist10k.npz

writes ``mnist_resnet.onnx`` and ``mnist_mobilenet.onnx``. Needs the extra ``frameworks``. The
exporter is asked to keep the network as it is: no constant folding and no fusion of
BatchNormalization, so that folding them is left to the compiler.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from .digits import Digits, load, split

MODELS = Path(__file__).parents[1] / "models"
OPSET = 17


class Residual(nn.Module):  # type: ignore[misc,unused-ignore]
    """``after(body(x) + shortcut(x))``."""

    def __init__(self, body: Any, shortcut: Any, after: Any) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut, after

    def forward(self, x: Any) -> Any:
        return self.after(self.body(x) + self.shortcut(x))


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
    """A convolution without bias, padded to keep the size, and its BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def basic_block(inputs: int, outputs: int, stride: int) -> Any:
    """The two-convolution block of He et al. 2015, with a projection where the shape changes."""
    same = inputs == outputs and stride == 1
    return Residual(
        nn.Sequential(
            conv_norm(inputs, outputs, 3, stride), nn.ReLU(), conv_norm(outputs, outputs, 3)
        ),
        nn.Identity() if same else conv_norm(inputs, outputs, 1, stride),
        nn.ReLU(),
    )


def inverted_residual(inputs: int, outputs: int, stride: int, expand: int) -> Any:
    """The block of MobileNetV2 (Sandler et al. 2018): widen, filter depthwise, project."""
    wide = inputs * expand
    body = nn.Sequential(
        *((conv_norm(inputs, wide, 1), nn.ReLU6()) if expand > 1 else ()),
        conv_norm(wide, wide, 3, stride, groups=wide),
        nn.ReLU6(),
        conv_norm(wide, outputs, 1),
    )
    same = inputs == outputs and stride == 1
    return Residual(body, nn.Identity(), nn.Identity()) if same else body


def resnet() -> Any:
    """Thirteen 3x3 convolutions, at 28, 14 and 7 pixels."""
    return nn.Sequential(
        conv_norm(1, 16, 3),
        nn.ReLU(),
        basic_block(16, 16, 1),
        basic_block(16, 16, 1),
        basic_block(16, 32, 2),
        basic_block(32, 32, 1),
        basic_block(32, 64, 2),
        basic_block(64, 64, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def mobilenet() -> Any:
    """Seven inverted residuals, at 14, 7 and 4 pixels."""
    return nn.Sequential(
        conv_norm(1, 16, 3, 2),
        nn.ReLU6(),
        inverted_residual(16, 16, 1, 1),
        inverted_residual(16, 24, 1, 6),
        inverted_residual(24, 24, 1, 6),
        inverted_residual(24, 32, 2, 6),
        inverted_residual(32, 32, 1, 6),
        inverted_residual(32, 48, 2, 6),
        inverted_residual(48, 48, 1, 6),
        conv_norm(48, 128, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(128, 10),
    )


def jitter(images: Any) -> Any:
    """Turn, scale and shift each image a little: up to 10 degrees, 10 percent, 2 pixels."""
    count = len(images)
    angle = (torch.rand(count) - 0.5) * math.radians(20)
    scale = 1 + (torch.rand(count) - 0.5) * 0.2
    shift = (torch.rand(count, 2) - 0.5) * (8 / 28)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [
        torch.stack([cosine, -sine, shift[:, 0]], 1),
        torch.stack([sine, cosine, shift[:, 1]], 1),
    ]
    grid = nn.functional.affine_grid(torch.stack(rows, 1), images.shape, align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def train(network: Any, digits: Digits, epochs: int) -> None:
    """AdamW with a one-cycle rate, 64 jittered digits a step; leaves ``network`` in eval mode."""
    images = torch.from_numpy(digits.pixels("nchw"))
    labels = torch.from_numpy(digits.labels.astype("int64"))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = epochs * (len(labels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    network.train()
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(labels)).split(64)[: len(labels) // 64]:
            loss = nn.functional.cross_entropy(network(jitter(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(labels):.4f}", flush=True)
    network.eval()


def export(network: Any, path: Path) -> None:
    """Write ``network`` as ONNX: ``image`` float32 ``[batch, 1, 28, 28]`` to ``logits``."""
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, 28, 28),),
        path,
        dynamo=False,
        opset_version=OPSET,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
    )
    onnx.checker.check_model(onnx.load(path), full_check=True)


def main() -> None:
    networks = {"mnist_resnet": resnet, "mnist_mobilenet": mobilenet}
    parser = argparse.ArgumentParser(description="Train and export the PyTorch networks.")
    parser.add_argument(
        "--digits", type=Path, required=True, help="the .npz of benchmarks.zoo.digits"
    )
    parser.add_argument("--output", type=Path, default=MODELS, help="folder for the models")
    parser.add_argument("--networks", nargs="+", choices=networks, default=list(networks))
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    training, _ = split(load(options.digits))
    for name in options.networks:
        torch.manual_seed(0)
        network = networks[name]()
        train(network, training, options.epochs)
        export(network, options.output / f"{name}.onnx")


if __name__ == "__main__":
    main()
