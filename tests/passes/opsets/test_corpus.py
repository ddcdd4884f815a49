"""Real models raised by as many versions as there are: the answers stay."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.corpus import CorpusModel, load_corpus
from onnxpress.backends.base import SessionConfig
from onnxpress.backends.ort import session_of
from onnxpress.passes.opsets import raise_opset

pytestmark = pytest.mark.corpus

CORPUS = load_corpus()


@pytest.mark.parametrize("model", CORPUS.values(), ids=list(CORPUS))
def test_a_real_model_answers_as_before(model: CorpusModel) -> None:
    if not model.is_fetched:
        pytest.skip(f"not there: {model.get_it}")
    original, raised = ir.load(model.path), ir.load(model.path)
    unoptimized = SessionConfig(level="disabled")
    feeds = model.feeds()[0]

    raise_opset(raised, 22)

    before = session_of(original, unoptimized).run(feeds)
    after = session_of(raised, unoptimized).run(feeds)
    for name, wanted in before.items():
        if wanted.dtype.kind == "f":
            scale = float(np.abs(wanted).max())
            np.testing.assert_allclose(after[name], wanted, rtol=1e-4, atol=1e-5 * scale)
        else:
            np.testing.assert_array_equal(after[name], wanted)
