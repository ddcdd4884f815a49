"""Every pass by the name the command line uses: built in, installed beside us, or given by path."""

from __future__ import annotations

import importlib
import importlib.metadata

import onnx_ir as ir

from ..backends.errors import PipelineError
from .base import Pass

ENTRY_POINTS = "onnxpress.passes"
"""The entry-point group in which an installed package offers passes of its own."""

_BUILTIN: dict[str, str] = {
    "fold-constants": ".lossless.fold_constants:FoldConstants",
    "fold-batch-norm": ".lossless.fold_batch_norm:FoldBatchNorm",
    "widen-convs": ".lossless.widen_convs:WidenConvs",
    "fill-blocks": ".lossless.fill_blocks:FillBlocks",
    "conv-heads": ".lossless.conv_heads:ConvHeads",
    "name-sizes": ".lossless.name_sizes:NameSizes",
    "simplify-shapes": ".lossless.simplify_shapes:SimplifyShapes",
    "hoist-invariants": ".lossless.hoist_invariants:HoistInvariants",
    "inline-functions": ".lossless.inline_functions:InlineFunctions",
    "permute-weights": ".lossless.permute_weights:PermuteWeights",
    "crop-unread": ".lossless.crop_unread:CropUnread",
    "fuse-gemm": ".lossless.fuse_gemm:FuseGemm",
    "compose-layers": ".lossless.compose_layers:ComposeLayers",
    "merge-branches": ".lossless.merge_branches:MergeBranches",
    "fold-affine": ".lossless.fold_affine:FoldAffine",
    "cleanup": ".lossless.cleanup:Cleanup",
    "batch-slices": ".lossless.batch_slices:BatchSlices",
    "simplify-layout": ".lossless.simplify_layout:SimplifyLayout",
    "recognize-activations": ".lossless.recognize_activations:RecognizeActivations",
    "simplify-indexing": ".lossless.simplify_indexing:SimplifyIndexing",
    "fuse-siblings": ".lossless.fuse_siblings:FuseSiblings",
    "fuse-attention": ".lossless.fuse_attention:FuseAttention",
    "simplify-with-onnxsim": ".lossless.simplify_with_onnxsim:SimplifyWithOnnxsim",
    "stack-members": ".ensembles.stack_members:StackMembers",
    "insert-qdq": ".quantization.insert_qdq:InsertQDQ",
    "equalize": ".quantization.equalize:Equalize",
    "smooth-activations": ".quantization.smooth:SmoothActivations",
    "refit": ".quantization.refit:Refit",
    "correct-bias": ".quantization.correct_bias:CorrectBias",
    "float16": ".quantization.float16:Float16",
    "quantize-dynamic": ".quantization.dynamic:QuantizeDynamic",
    "quantize-weights": ".quantization.weight_only:QuantizeWeights",
    "guard-inputs": ".guards.guard_inputs:GuardInputs",
    "guard-outputs": ".guards.guard_outputs:GuardOutputs",
    "prune-channels": ".pruning.prune_channels:PruneChannels",
}
"""Built-in passes, loaded one at a time: a pipeline of one pass imports that pass only."""


def builtin_names() -> list[str]:
    """The names of the passes that come with onnxpress."""
    return list(_BUILTIN)


def names() -> list[str]:
    """Every name that :func:`find` knows: built-in passes first, then installed ones."""
    return [*_BUILTIN, *(name for name in sorted(_installed()) if name not in _BUILTIN)]


def find(name: str) -> type[ir.passes.PassBase]:
    """The pass class called ``name``: ``fold-batch-norm``, an entry point's name, ``module:Class``.

    A class is an onnxpress :class:`~onnxpress.passes.base.Pass` or any ``onnx_ir`` pass.

    Raises:
        PipelineError: Nothing has that name, or what has it cannot be loaded or is no pass.
    """
    if name in _BUILTIN:
        return _import(_BUILTIN[name], name)
    if ":" in name:
        return _import(name, name)
    if name in (installed := _installed()):
        return _import(installed[name].value, name)
    import difflib

    close = difflib.get_close_matches(name, names(), n=1)
    raise PipelineError(
        f"there is no pass {name!r}",
        hint=f"did you mean {close[0]!r}?" if close else "`onnxpress passes` lists them",
    )


def origin(name: str) -> str:
    """Where the pass ``name`` comes from: ``built in``, or the distribution that brings it."""
    if name in _BUILTIN:
        return "built in"
    point = _installed().get(name)
    distribution = point.dist if point is not None else None
    return distribution.name if distribution is not None else "given by path"


def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _import(path: str, name: str) -> type[ir.passes.PassBase]:
    module, _, attribute = path.partition(":")
    package = Pass.__module__.rpartition(".")[0]
    try:
        found = getattr(importlib.import_module(module, package), attribute)
    except (ImportError, AttributeError) as error:
        raise PipelineError(
            f"the pass {name!r} cannot be loaded: {error}",
            hint="is the package that brings it installed, and the spelling module:Class right?",
        ) from error
    if not (isinstance(found, type) and issubclass(found, ir.passes.PassBase)):
        raise PipelineError(
            f"{name!r} is not a pass class",
            hint="a pass derives from onnxpress.Pass or onnx_ir.passes.PassBase",
        )
    return found
