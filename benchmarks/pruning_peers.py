"""Other tools that prune without training, on the nets that ship: torch-pruning and onnxsim.

Each is asked for the least pruning with which at most the wanted part of the multiply-accumulates
is left, found by bisection of its own ratio. Neither fits anything to data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from . import shipped
from .zoo.digits import shipped_for_testing

STEPS = 7
"""Halvings of the interval of ratios: to a hundredth."""


class NotReachedError(Exception):
    """No ratio leaves so few multiply-accumulates."""


def torch_pruning(net: str, macs: float, output: Path) -> None:
    """Group L2 magnitude, the same ratio in every layer, the classifier's answers kept.

    The ResNet and the MobileNet are the networks that were exported, with the weights of the file;
    the Keras CNN goes through onnx2torch.
    """
    import torch
    import torch_pruning as pruning

    example = torch.from_numpy(shipped_for_testing()[:1].pixels(layout_of(net)))

    def prune(ratio: float) -> None:
        network = _network(net).eval()
        last = [one for one in network.modules() if isinstance(one, torch.nn.Linear)][-1:]
        pruning.pruner.BasePruner(
            network,
            example,
            importance=pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=last,
        ).step()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pruned.onnx"
            batch = {"image": {0: "batch"}}
            torch.onnx.export(
                network,
                (example,),
                path,
                dynamo=False,
                opset_version=17,
                input_names=["image"],
                output_names=["logits"],
                dynamic_axes=batch | {"logits": {0: "batch"}},
            )
            output.write_bytes(path.read_bytes())

    _smallest(prune, net, macs, output)


def onnxsim(net: str, macs: float, output: Path) -> None:
    """``apply_structured_pruning`` by L2, after its simplifier has folded the normalizations."""
    import onnxsim as tool

    simplified = tool.simplify(onnx.load(shipped.path_of(net)))[0]

    def prune(ratio: float) -> None:
        onnx.save(tool.apply_structured_pruning(simplified, ratio), output)

    _smallest(prune, net, macs, output)


PEERS: dict[str, Callable[[str, float, Path], None]] = {
    "torch-pruning": torch_pruning,
    "onnxsim": onnxsim,
}


def layout_of(net: str) -> str:
    """How ``net`` takes its images."""
    return "nhwc" if net in shipped.CNNS else "nchw"


def _network(net: str) -> Any:
    import torch

    proto = onnx.load(shipped.path_of(net))
    if net in shipped.CNNS:
        import onnx2torch

        return onnx2torch.convert(proto)
    from .zoo import torch_nets

    network = torch_nets.resnet() if "resnet" in net else torch_nets.mobilenet()
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in proto.graph.initializer}
    for node in proto.graph.node:  # the exporter writes equal weights once
        if node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    state = {
        name: torch.from_numpy(np.array(weights[name]))
        for name in network.state_dict()
        if name in weights
    }
    missing, _ = network.load_state_dict(state, strict=False)
    if wrong := [name for name in missing if not name.endswith("num_batches_tracked")]:
        raise ValueError(f"{net} has no weights for {wrong[0]}")
    return network


def _smallest(prune: Callable[[float], None], net: str, macs: float, output: Path) -> None:
    """Prune by the smallest ratio that leaves at most ``macs``, and write that to ``output``."""
    whole = shipped.macs(shipped.path_of(net)) or 0
    low, high = 0.0, 0.95
    found = b""
    for step in range(STEPS):
        ratio = (low + high) / 2 if step else high
        prune(ratio)
        left = (shipped.macs(output) or whole) / whole
        if left <= macs:
            found, high = output.read_bytes(), ratio
        elif not step:
            raise NotReachedError(f"{left:.2f} of the MACs stay at a ratio of {ratio}")
        else:
            low = ratio
    output.write_bytes(found)
