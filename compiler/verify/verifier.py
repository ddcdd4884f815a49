"""Runs an original and rewritten models side by side, and says whether the answers are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import onnx_ir as ir

from ...backends.base import Array, Feeds, Provider, SessionConfig
from ...backends.data import Data
from ...backends.errors import BackendError, DataError
from ...backends.feeds import Kind, sizes_in
from ...backends.ort import session_of
from ...backends.search import find_cases
from ...passes.base import EXACT, Contract, SessionFactory
from .answers import Answers, Leaf, Runner
from .judge import Judge
from .reference import EXACTLY, Reference, optimized
from .signature import check_signature
from .verification import Verification

DATA_BATCHES = 8
DATA_BATCH_SIZE = 8
"""How much of the user's data is run: so many batches, of so many samples each."""

MEMORY = 1 << 30
"""Bytes of answers that are kept; inputs whose answers do not fit are left out and reported."""


class Verifier:
    """Compares rewritten models with an original that is run once.

    What is right is what ONNX Runtime answers with all its optimizations off; a candidate has to
    answer the same without and with them. It is run on seeded inputs, at several sizes of every
    dynamic dimension, that the original accepts, and on the user's samples. The original is
    copied, weights excepted, so it may change afterwards. At any time only one session exists.

    Args:
        original: The model whose answers are right.
        data: Samples that the user brings.
        dims: Sizes of dynamic dimensions that are settled.
        kinds: Kinds of values by input name (:mod:`~onnxpress.backends.kinds`).
        seed: The root of every random choice.
        provider: The execution provider of the optimized session.
        cases: On how many seeded inputs to run; 0 runs the samples only.
        sessions: Loads models.

    Raises:
        UsageError: ``dims`` or ``kinds`` name what the model does not have.
        DataError: The original does not accept a sample of ``data``.
    """

    def __init__(
        self,
        original: ir.Model,
        *,
        data: Data | None = None,
        dims: Mapping[str, int] | None = None,
        kinds: Mapping[str, str | Kind] | None = None,
        seed: int = 0,
        provider: Provider = "cpu",
        cases: int = 3,
        sessions: SessionFactory = session_of,
    ) -> None:
        self.sessions = sessions
        self.provider: Provider = provider
        self.feeds: list[Feeds] = []
        self.sizes: list[dict[str, int]] = []
        self.samples: set[int] = set()
        self.not_run: list[str] = []
        self._original = original.clone()
        self._answers: list[Answers] = []
        self._reference: Reference | None = None
        self._unavailable = ""
        try:
            runner = Runner(self._original, EXACTLY, sessions, inner=True)
        except BackendError as error:
            self._unavailable = f"the original cannot be loaded: {error.message}"
            return
        if data is not None:
            self._run_samples(runner, data)
        if cases:
            self._run_seeded(runner, dims, kinds, seed, cases)
        del runner
        if self.feeds:
            self._reference = Reference(
                self._original, self.feeds, sessions, provider, self._answers
            )

    def _run_samples(self, runner: Runner, data: Data) -> None:
        for number, feeds in enumerate(islice(data.batches(DATA_BATCH_SIZE), DATA_BATCHES)):
            try:
                answers = runner.run(feeds)
            except BackendError as error:
                raise DataError(
                    f"the model does not accept batch {number + 1} of the data: {error.message}",
                    hint=error.hint,
                ) from error
            if self._keep(sizes_in(self._original, feeds), feeds, answers):
                self.samples.add(len(self.feeds) - 1)

    def _run_seeded(
        self,
        runner: Runner,
        dims: Mapping[str, int] | None,
        kinds: Mapping[str, str | Kind] | None,
        seed: int,
        count: int,
    ) -> None:
        try:
            found = find_cases(
                self._original, runner.run, dims=dims, kinds=kinds, seed=seed, wanted=count
            )
        except DataError as error:
            self._unavailable = error.message
            return
        for case in found.accepted:
            self._keep(case.sizes, case.feeds, case.answers)
        if not found.accepted:
            sizes, why = found.rejected[0] if found.rejected else ({}, "it has no inputs")
            self._unavailable = (
                f"no inputs were found that the original accepts, at {_sizes_text(sizes)}: {why}; "
                "give some with --data, or sizes with --dim"
            )
            self.not_run.append(self._unavailable)

    def _keep(self, sizes: dict[str, int], feeds: Feeds, answers: Mapping[Leaf, Array]) -> bool:
        held = sum(array.nbytes for one in (*self._answers, answers) for array in one.values())
        if self._answers and held > MEMORY:
            self.not_run.append(f"the run at {sizes or 'these sizes'}: its answers take {held} B")
            return False
        self.sizes.append(sizes)
        self.feeds.append(feeds)
        self._answers.append(dict(answers))
        return True

    def rebase(self, model: ir.Model) -> None:
        """Compare with ``model`` from now on, on the same inputs.

        Raises:
            BackendError: ``model`` does not run on them.
        """
        if self._reference is not None:
            self._reference = Reference(model, self.feeds, self.sessions, self.provider)

    def check(self, candidate: ir.Model, contract: Contract = EXACT) -> Verification:
        """Whether ``candidate`` gives the reference's answers, as far as ``contract`` promises.

        An exact contract is held to the tolerance of the number format (:mod:`.tolerance`), an
        approximate one to its ``min_sqnr_db`` for every float output: on the user's samples
        where there are some, for what is fitted to data owes nothing to noise.
        """
        original = self._original if self._reference is None else self._reference.model
        if problems := check_signature(original, candidate):
            return Verification("failed", "; ".join(problems), not_run=list(self.not_run))
        return self.run(candidate, contract)

    def run(self, candidate: ir.Model, contract: Contract = EXACT) -> Verification:
        """As :meth:`check`, without a look at the signature beyond the names."""
        found = Verification(not_run=list(self.not_run))
        if self._reference is None:
            found.status, found.reason = "not-run", self._unavailable
        else:
            self._compare(self._reference, candidate, contract, found)
        return found

    def _compare(
        self, reference: Reference, candidate: ir.Model, contract: Contract, found: Verification
    ) -> None:
        judge = Judge(reference, contract)
        cases = list(range(len(self.feeds)))
        if not contract.exact and self.samples:
            cases = sorted(self.samples)
        found.noise = reference.noise
        for config in (EXACTLY, optimized(candidate, self.provider)):
            if problem := self._run_cases(reference, candidate, config, judge, cases, found):
                found.status, found.reason = "failed", problem
                break
        judge.conclude()
        found.outputs = judge.checks
        found.sizes = [self.sizes[case] for case in cases]
        found.cases = len(found.sizes)
        found.conclude()

    def _run_cases(
        self,
        reference: Reference,
        candidate: ir.Model,
        config: SessionConfig,
        judge: Judge,
        cases: Sequence[int],
        found: Verification,
    ) -> str:
        """Run ``candidate`` in one session on all cases; what is wrong, if it does not run."""
        level = config.level
        try:
            runner = Runner(candidate, config, self.sessions, inner=level == EXACTLY.level)
        except BackendError as error:
            if level == "all" and all(isinstance(one, BackendError) for one in reference.optimized):
                found.not_run.append(f"the optimized session: neither model loads: {error.message}")
                return ""
            return f"it cannot be loaded (optimizations: {level}): {error.message}"
        found.sessions.append(level)
        for case in cases:
            where = f"at {_sizes_text(self.sizes[case])} (optimizations: {level})"
            answers = runner.attempt(self.feeds[case])
            if not isinstance(answers, BackendError):
                judge.compare(answers, case, level, where)
            elif level == "all" and isinstance(reference.optimized[case], BackendError):
                found.not_run.append(f"neither model runs {where}: {answers.message}")
            else:
                return f"it does not run {where}: {answers.message}"
        return ""


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items()) or "its fixed sizes"
