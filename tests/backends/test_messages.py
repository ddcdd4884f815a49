"""ONNX Runtime's messages without its codes, paths and signatures."""

from __future__ import annotations

import pytest

from onnxpress.backends.messages import backend_error, clean

ROOT = "/onnxruntime_src/onnxruntime/core"

# As ONNX Runtime 1.32 says them, and what is left.
MESSAGES = [
    (
        f"[ONNXRuntimeError] : 1 : FAIL : {ROOT}/graph/model.cc:256 onnxruntime::Model::Model("
        "onnx::ModelProto&&, const onnxruntime::PathString&, const onnxruntime::"
        "IOnnxRuntimeOpSchemaRegistryList*, const onnxruntime::logging::Logger&, const "
        "onnxruntime::ModelOptions&) Unsupported model IR version: 99, max supported IR version: "
        "14\n",
        "Unsupported model IR version: 99, max supported IR version: 14",
        "update onnxruntime",
    ),
    (
        f"[ONNXRuntimeError] : 1 : FAIL : {ROOT}/graph/model_load_utils.h:46 void onnxruntime::"
        "model_load_utils::ValidateOpsetForDomain(const std::unordered_map<std::__cxx11::"
        "basic_string<char>, int>&, const onnxruntime::logging::Logger&, bool, const std::string&,"
        " int) ONNX Runtime only *guarantees* support for models stamped with official released "
        "onnx opset versions. Opset 99 is under development and support for this is limited. The "
        "operator schemas and or other functionality may change before next ONNX release and in "
        "this case ONNX Runtime will not guarantee backward compatibility. Current official "
        "support for domain ai.onnx is till opset 28.\n",
        "Opset 99 is under development and support for this is limited. Current official support "
        "for domain ai.onnx is till opset 28.",
        "update onnxruntime",
    ),
    (
        "[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model. In Node, "
        '("n", Reluu, "", -1) : ("x": tensor(float),) -> ("y": tensor(float),) , Error No Op '
        "registered for Reluu with domain_version of 17",
        'In Node, ("n", Reluu, "", -1) : ("x": tensor(float),) -> ("y": tensor(float),) , Error '
        "No Op registered for Reluu with domain_version of 17",
        "no such operator",
    ),
    (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. "
        "Name:'' Status Message: matmul_helper.h:59 Compute MatMul dimension mismatch",
        "MatMul failed. Compute MatMul dimension mismatch",
        "",
    ),
    (
        "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Add node. "
        f"Name:'a/b' Status Message: {ROOT}/providers/cpu/math/element_wise_ops.h:563 void "
        "onnxruntime::BroadcastIterator::Init(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest "
        "was false. Attempting to broadcast an axis by a dimension other than 1. 6 by 7\n",
        "Add failed. Node a/b: axis == 1 || axis == largest was false. Attempting to broadcast an "
        "axis by a dimension other than 1. 6 by 7",
        "",
    ),
    (
        "[ONNXRuntimeError] : 3 : NO_SUCHFILE : Load model from /d/m.onnx failed:Load model "
        "/d/m.onnx failed. File doesn't exist",
        "Load model /d/m.onnx failed. File doesn't exist",
        "",
    ),
    (
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: x for the "
        "following indices\n index: 1 Got: 3 Expected: 4\n Please fix either the inputs/outputs "
        "or the model.",
        "Got invalid dimensions for input: x for the following indices index: 1 Got: 3 Expected: 4",
        "inputs ask for",
    ),
    ("bad allocation: std::bad_alloc", "bad allocation: std::bad_alloc", "more memory"),
]


@pytest.mark.parametrize(("raw", "message", "hint"), MESSAGES)
def test_what_is_left_of_a_message(raw: str, message: str, hint: str) -> None:
    error = backend_error(RuntimeError(raw), "m.onnx cannot be loaded")

    assert error.message == f"m.onnx cannot be loaded: {message}"
    assert hint in error.hint
    assert bool(hint) == bool(error.hint)


def test_long_messages_are_cut() -> None:
    assert len(clean("word " * 1000)) == 400
    assert clean("word " * 1000).endswith("…")
