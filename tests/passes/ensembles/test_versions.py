"""Members of different operator sets become one model, or the message names the one that cannot."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxpress.backends.errors import ModelError
from onnxpress.backends.ort import session_of
from onnxpress.passes.ensembles.merge import merge


def test_lower_members_are_raised_and_the_details_say_so() -> None:
    text = """<ir_version: 8, opset_import: ["" : {}]>
    main (float[2,3,4] x) => (float[2,3,4] y) {{ a = Relu (x) y = Softmax (a) }}"""
    models = [ir.from_onnx_text(text.format(version)) for version in (17, 12)]
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    alone = [session_of(model).run({"x": x})["y"] for model in models]

    result = merge(models, names=["new", "old"])

    assert result.model.opset_imports == {"": 17}
    new, old = result.details["members"]
    assert "opset" not in new
    assert (old["opset"], old["converted"]) == ([12, 17], 1)
    after = session_of(result.model).run({"x": x})["y"]
    np.testing.assert_allclose(after, np.mean(alone, axis=0), rtol=1e-6)
    assert not np.allclose(alone[0], alone[1])


def test_a_vote_raises_everything_to_what_it_needs() -> None:
    text = """<ir_version: 4, opset_import: ["" : 7]>
    main (float[n,3] x) => (float[n,3] y) { y = Neg (x) }"""

    merged = merge([ir.from_onnx_text(text)] * 2, names="ab", combine="vote").model

    assert merged.opset_imports == {"": 11}


def test_a_member_that_cannot_be_raised_is_named() -> None:
    text = """<ir_version: 8, opset_import: ["" : {}]>
    main (float[2,3] x) => (float[2,3] y) {{ y = Hardmax (x) }}"""
    models = [ir.from_onnx_text(text.format(version)) for version in (17, 12)]

    with pytest.raises(
        ModelError, match="member 'old' of opset 12 cannot be raised to 17: Hardmax ''"
    ) as caught:
        merge(models, names=["new", "old"])

    assert "leave it out" in caught.value.hint


@pytest.mark.parametrize(
    ("node", "version", "reason"),
    [
        ('ai.onnx.ml.Normalizer <norm = "L2"> (x)', 1, ""),
        ('ai.onnx.ml.LabelEncoder <classes_strings = ["a"]> (x)', 1, "LabelEncoder of ai.onnx.ml"),
        ("custom.Op (x)", 1, "Op of custom version 1.*version 3"),
    ],
)
def test_other_domains_are_raised_where_nothing_changed(
    node: str, version: int, reason: str
) -> None:
    domain = node.rpartition(".")[0] if node.startswith("custom") else "ai.onnx.ml"
    text = f"""<ir_version: 10, opset_import: ["" : 22, "{domain}" : {{}}]>
    main (float[4,6] x) => (float[4,6] o) {{{{ o = {node} }}}}"""
    old = ir.from_onnx_text(text.format(version))
    new = ir.from_onnx_text(text.format(3).replace(node, f"{domain}.Scaler (x)"))

    if reason:
        with pytest.raises(ModelError, match=f"member 'old' uses {reason}"):
            merge([new, old], names=["new", "old"], combine="none")
    else:
        merged = merge([new, old], names=["new", "old"], combine="none").model
        assert merged.opset_imports == {"": 22, domain: 3}


def test_unused_imports_do_not_conflict() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : {}]>
    main (float[2] x) => (float[2] y) {{ y = Relu (x) }}"""
    models = [ir.from_onnx_text(text.format(version)) for version in (2, 3)]

    assert merge(models, names=["a", "b"]).model.opset_imports == {"": 17}


def test_a_custom_operator_is_told_with_its_member() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "acme" : 1]>
    m (float[n] x) => (float[n] y) { z = acme.Magic (x) y = Relu (z) }"""
    plain = ir.from_onnx_text(text.replace("acme.Magic", "Neg"))

    result = merge([plain, ir.from_onnx_text(text)], names="ab")

    assert result.details["notes"] == [
        "member 'b' uses Magic of acme, which has to be registered wherever the merged model runs"
    ]
    assert [node.domain for node in result.model.graph].count("acme") == 1
