"""What is wrong with what a pipeline makes of a random model, and the least that shows it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxpress.backends.serde import from_proto, to_proto
from onnxpress.backends.targets import Target
from onnxpress.compiler.compile import compile_model
from onnxpress.compiler.pipeline import Fixpoint, Pipeline, Step, parse, preset
from onnxpress.compiler.reduce import reduce_fault
from onnxpress.passes.base import EXACT
from tests.compiler.answers import Expected
from tests.compiler.kept import ONNXSIM, exact_passes, faults, loaded, rewritten
from tests.graphs import Case, Plan

from .apart import first_line
from .fuzz import Finding


def text_of(pipeline: str, seed: int) -> str:
    """The passes that ``pipeline`` asks for: a level's, those in a random order, or its own."""
    if pipeline in {"1", "2", "3"}:
        return str(_without_onnxsim(preset(int(pipeline), Target("cpu"))))
    if pipeline == "shuffled":
        names = np.random.default_rng(seed).permutation(np.array(exact_passes())).tolist()
        return f"fixpoint{{{','.join(names)}}}"
    return pipeline


def _without_onnxsim(pipeline: Pipeline) -> Pipeline:
    """``pipeline`` without the one pass that is not ours and not always right."""
    items: list[Step | Fixpoint] = []
    for item in pipeline:
        if isinstance(item, Fixpoint):
            items.append(Fixpoint(_without_onnxsim(item.steps)))
        elif item.name != ONNXSIM:
            items.append(item)
    return Pipeline(tuple(items))


def fault(expected: Expected, pipeline: str, rewrites: Counter[str] | None = None) -> str:
    """What is wrong with what ``pipeline`` makes of a case; empty if nothing is."""
    try:
        run = rewritten(loaded(expected.case), pipeline)
        if rewrites is not None:
            for record in run.records:
                rewrites[record.name] += record.rewritten
        return next(iter(faults(expected, run.model)), "")
    except Exception as error:  # noqa: BLE001 - whatever a pass raises is a fault
        return f"{type(error).__name__}: {first_line(error)}"


def alarm(expected: Expected) -> str:
    """What is wrong with a whole compilation, with onnxsim in it and the verifier around it."""
    try:
        outcome = compile_model(loaded(expected.case), preset(2, Target("cpu")))
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {first_line(error)}"
    for one in outcome.report.passes:
        if one.status == "quarantined" and one.name != ONNXSIM:
            return f"{one.name} is undone: {one.reason}"
    if outcome.report.verified["status"] != "ok":
        return f"not verified: {outcome.report.verified['reason']}"
    return next(iter(expected.problems(to_proto(outcome.model))), "")


def report(number: int, plan: Plan, pipeline: str, text: str, what: str, folder: Path) -> Finding:
    """Cut a wrong case down and save it."""
    plan, what = _shorter(plan, text, what)
    case = plan.case()
    guilty, model = _guilty(case, text)
    what = f"{guilty}: {what}" if guilty else what
    reduced = None
    if guilty:

        def apply(part: ir.Model) -> ir.Model | None:
            run = rewritten(part, guilty)
            return run.model if any(one.modified for one in run.records) else None

        try:
            reduced = reduce_fault(model, apply, EXACT, case.feeds)
        except Exception:  # noqa: BLE001 - the whole model shows it as well
            reduced = None
    if reduced is None:
        return save(number, case, pipeline, f"{what}\npasses: {text}", folder)
    small = Case(to_proto(reduced.model), (reduced.feeds,), case.dtype)
    return save(number, small, pipeline, f"{what}\npass: {guilty}", folder)


def _shorter(plan: Plan, text: str, what: str) -> tuple[Plan, str]:
    """``plan`` without the steps and the choices that the fault does not need."""

    def wrong(candidate: Plan) -> str:
        try:
            return fault(Expected(candidate.case()), text)
        except Exception:  # noqa: BLE001 - the original does not run
            return ""

    at = len(plan.steps)
    while at > 0:
        at -= 1
        fewer = replace(plan, steps=plan.steps[:at] + plan.steps[at + 1 :])
        if found := wrong(fewer):
            plan, what = fewer, found
    for change in ({"ending": ()}, {"odd_names": False}, {"defaults": False}, {"dynamic": False}):
        if found := wrong(candidate := replace(plan, **change)):
            plan, what = candidate, found
    return plan, what


def _guilty(case: Case, text: str) -> tuple[str, ir.Model]:
    """The first pass after which something is wrong, and the model that it was given."""
    expected, model = Expected(case), loaded(case)
    steps = [str(step) for step in parse(text).steps()]
    for step in steps * (3 if "fixpoint" in text else 1):
        try:
            after = rewritten(model, step).model
            wrong = faults(expected, after)
        except Exception:  # noqa: BLE001
            return step, model
        if wrong:
            return step, model
        model = after
    return "", model


def save(number: int, case: Case, pipeline: str, what: str, folder: Path) -> Finding:
    """Write the model, its inputs, and what is wrong in words."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / f"case-{number:06d}-{pipeline.split(',', maxsplit=1)[0]}"
    onnx.save(case.model, base.with_suffix(".onnx"))
    feeds: dict[str, Any] = dict(case.feeds[0])
    np.savez(base.with_suffix(".npz"), **feeds)
    shown = onnx.printer.to_text(case.model)
    base.with_suffix(".txt").write_text(f"{what}\n\n{shown}\n", encoding="utf-8")
    nodes = len(from_proto(case.model).graph)
    return Finding(number, pipeline, what.splitlines()[0], nodes, str(base))
