"""Remove whole channels, and re-solve what reads them so that the answers change little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

import numpy as np
import onnx_ir as ir

from ...backends.errors import UsageError
from ...backends.feeds import sizes_in
from ...backends.targets import Target
from ..analysis.channel_flow import describe
from ..analysis.channel_rules import RULES
from ..analysis.channels import ChannelGroup, Coupling, OpId, Rule, channel_groups
from ..analysis.cost import parameters as count_parameters
from ..analysis.macs import macs as count_macs
from ..analysis.macs import sized
from ..base import Context, Contract, Pass, Result
from ..errors import PassError
from ..graph import is_constant
from .allocate import allocate
from .choose import rank
from .importance import ON_DATA, Criterion, importance
from .on_data import scores_on_data
from .reconstruct import consumers_of, solve_consumers
from .select import Scope, select
from .slice import Cuts, Mask, cuts_of, slice_channels
from .work import parameters_of, work_of

TOLD = 4
"""So many reasons why channels stay are told in an error; the report has all."""

CRITERIA = get_args(Criterion)


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Keep the fraction ``macs`` of the multiply-accumulates, and as much of the answers.

    Channels that can only be removed together are found (:mod:`~..analysis.channels`), ranked and
    removed; weights, groups and reshapes shrink for good. Each layer that lost inputs is then
    fitted, by ridge least squares on unlabelled samples, to what it gave before. No labels and no
    training are needed. Fold batch normalizations first, so that weights show what a channel is
    worth.

    By ``reconstruction`` channels of a group go one after the other, each time the one that the
    layers that read it make up for best; how many go of each group follows from what the answers
    lose when that group alone is pruned, measured on samples held out.

    Options:

    - ``macs``: the fraction to keep, above 0 and at most 1.
    - ``parameters``: the fraction of the parameters to keep, in the place of ``macs``; 0 leaves
      them alone.
    - ``criterion``: what makes a channel important: ``reconstruction``; the ``l2`` or ``l1`` norm
      of its weights, or that which ``soft-threshold`` leaves of them; ``activation``, its mean
      square on the samples; ``bn-scale``, the factors of its batch normalizations, where they are
      not folded yet; ``geometric-median``, its distance to the others; or ``random``. ``auto`` is
      ``reconstruction`` if layers are fitted, else ``l2``.
    - ``scope``: ``global`` takes channels wherever they matter least, ``uniform`` the same part
      of each group.
    - ``reconstruct``: fit the layers that lost inputs. Without it no data is needed, and the
      answers are those of the model with the removed weights set to zero.
    - ``ridge``: how much changes of weights are penalized, relative to the variance of inputs; 0
      chooses it for each layer, on a quarter of the samples that is held out.
    - ``samples``: how many samples to read at most; 0 for all.
    - ``sweeps``: how many times each layer is fitted. From the second on it is fitted towards
      what the ``Relu`` or ``Clip`` behind it lets through, where there is one: below zero any
      number does.
    - ``multiple``: the number of channels left is a multiple of this, or of half of it and so on
      where the fraction cannot be reached otherwise. ONNX Runtime's convolutions compute so many
      channels at a time, and leave their fast layout for other numbers. 0 takes what the target
      needs: 8 with AVX2 alone and for CUDA, else 16, which suits all.
    - ``min_channels``: what is left of each group at least.

    For operators of your own, derive a pass whose ``rules`` have more entries.
    """

    name: ClassVar[str] = "prune-channels"
    contract: ClassVar[Contract] = Contract(
        exact=False, changes="removes channels, fits the rest to samples", min_sqnr_db=0.0
    )
    needs_data: ClassVar[bool] = True
    summary: ClassVar[str] = "Remove whole channels until a fraction of the work is left"
    rules: ClassVar[Mapping[OpId, Rule]] = RULES

    macs: float = 0.5
    parameters: float = 0.0
    criterion: Criterion = "auto"
    scope: Scope = "global"
    reconstruct: bool = True
    ridge: float = 0.0
    samples: int = 512
    sweeps: int = 1
    multiple: int = 0
    min_channels: int = 2

    def __post_init__(self) -> None:
        for option, sound, wanted in (
            ("macs", 0 < self.macs <= 1, "a fraction above 0 and at most 1"),
            ("parameters", 0 <= self.parameters <= 1, "a fraction above 0 and at most 1, or 0"),
            ("criterion", self.criterion in CRITERIA, f"one of {', '.join(CRITERIA)}"),
            ("scope", self.scope in get_args(Scope), "global or uniform"),
            ("ridge", 0 <= self.ridge < np.inf, "a number of at least 0"),
            ("samples", self.samples >= 0, "a number of at least 0"),
            ("sweeps", self.sweeps >= 1, "a number of at least 1"),
            ("multiple", self.multiple >= 0, "a number of at least 0"),
            ("min_channels", self.min_channels >= 1, "a number of at least 1"),
        ):
            if not sound:
                raise UsageError(
                    f"prune-channels cannot have {option} {getattr(self, option)!r}",
                    hint=f"{option} is {wanted}",
                )
        if not self.reconstruct:
            # Nothing ties the answers to the original's then; fine-tuning elsewhere may follow.
            loose = Contract(exact=False, changes="removes channels", min_sqnr_db=-np.inf)
            object.__setattr__(self, "contract", loose)

    def requires_data(self) -> bool:
        """For fitting, and for the criteria that look at samples."""
        return self.reconstruct or self.criterion in ON_DATA

    def rewrite(self, model: ir.Model, context: Context) -> Result:
        """Prune ``model``, functions apart.

        ``Result.details`` holds ``macs`` and ``parameters`` (before, after), ``groups`` (channels
        before and after, by the name of the first tensor that has them), ``losses`` (for each
        group, what the answers lose with so many channels left, as part of their variance),
        ``kept`` (for each weight and axis that was cut, the indices that stayed) and ``residuals``
        (for each layer that was fitted, the part of the dense layer's variance that it misses).
        Groups that are not free are declined.

        Raises:
            PassError: There is no data to fit to, the multiply-accumulates cannot be counted, or
                so few cannot be reached.
            DataError: The data has no sample.
            ModelError: Shapes cannot be inferred.
            BackendError: The model does not run on the samples.
        """
        if self.requires_data() and context.data is None:
            raise PassError(
                "prune-channels needs samples to fit the pruned model to",
                hint="give some with --data, or set reconstruct=false",
            )
        context = replace(context, dims=_sizes(model, context))
        before = count_macs(model, context.dims)
        if before is None:
            raise PassError(
                "the multiply-accumulates of the model cannot be counted",
                hint="a shape does not follow from those of the inputs; "
                "fold-constants before prune-channels may help",
            )
        weights = count_parameters(model)
        result = Result(model)
        coupling = channel_groups(model, self.rules)
        for group in coupling.groups:
            if group.frozen:
                result.decline(group.name, because=group.frozen)
        groups = [group for group in coupling.groups if not group.frozen]
        masks = self._choose(model, coupling, before, context, result)
        cuts = cuts_of(groups, masks)
        consumers = consumers_of(model.graph, cuts, result) if self.reconstruct else []
        dense = model.clone()
        if cuts:
            slice_channels(model, coupling, cuts)
        if self.reconstruct and context.data is not None:
            result.details["residuals"] = solve_consumers(
                model,
                dense,
                consumers,
                context,
                data=context.data,
                ridge=self.ridge,
                samples=self.samples,
                sweeps=self.sweeps,
                result=result,
            )
        for group, mask in zip(groups, masks, strict=True):
            if not mask.all():
                result.rewrote(group.name)
        result.details |= {
            "macs": [before, count_macs(model, context.dims)],
            "parameters": [weights, count_parameters(model)],
            "groups": {g.name: [g.size, int(m.sum())] for g, m in zip(groups, masks, strict=True)},
            "kept": _kept(groups, cuts),
        }
        return result

    def _criterion(self) -> Criterion:
        if self.criterion != "auto":
            return self.criterion
        return "reconstruction" if self.reconstruct else "l2"

    def _choose(
        self, model: ir.Model, coupling: Coupling, before: int, context: Context, result: Result
    ) -> list[Mask]:
        """The channels of each free group that stay."""
        groups = [group for group in coupling.groups if not group.frozen]
        multiple = self.multiple or _channels_at_a_time(context.target)
        if self.parameters:
            work, whole, fraction = parameters_of(groups), count_parameters(model), self.parameters
        else:
            work = work_of(model, sized(model, context.dims), groups, multiple)
            whole, fraction = before, self.macs
        # What functions and subgraphs compute is counted, and stays.
        fixed = whole - work.total([np.ones(group.size, dtype=np.bool_) for group in groups])
        budget = math.floor(fraction * whole - fixed)
        steps = [multiple // math.gcd(multiple, _repeats(group)) for group in groups]
        fewest = [np.arange(g.size) < self.min_channels for g in groups]
        least = work.total([m | (not work.of_group[n]) for n, m in enumerate(fewest)])
        if least > budget + 0.5:
            counted = "parameters" if self.parameters else "multiply-accumulates"
            raise PassError(
                f"pruning keeps at least {(least + fixed) / whole:.3g} of the {counted} of this "
                f"model, {fraction} was asked for: {_obstacles(coupling)}",
                hint="a channel rule of your own frees channels that an operator freezes; "
                "see the guide on pruning",
            )
        if self._criterion() == "reconstruction" and context.data is not None:
            ranked = rank(
                model,
                groups,
                steps,
                self.min_channels,
                context,
                context.data,
                self.samples,
                before,
                measured=self.scope == "global",
            )
            if self.scope == "global":
                result.details["losses"] = {
                    group.name: [[*one] for one in zip(own.curve.left, own.curve.loss, strict=True)]
                    for group, own in zip(groups, ranked, strict=True)
                }
                return allocate(ranked, work, budget + 0.5, self.min_channels)
            scores = [own.scores() for own in ranked]
        elif self._criterion() in ON_DATA and context.data is not None:
            scores = scores_on_data(
                model, groups, self._criterion(), context, context.data, self.samples
            )
        else:
            rng = np.random.default_rng(context.seed)
            scores = [importance(group, self._criterion(), rng) for group in groups]
        return select(scores, work, budget, self.scope, min_channels=self.min_channels, steps=steps)


def _obstacles(coupling: Coupling) -> str:
    """Why no more channels are free to go, the groups with the most channels first."""
    frozen = sorted((g for g in coupling.groups if g.frozen), key=lambda g: -g.size)
    told = [f"{group.size} channels of {group.name!r} stay: {group.frozen}" for group in frozen]
    told += [
        f"{describe(node)}: {refusal}"
        for node, refusal in coupling.refusals.items()
        if "not constant" in refusal
    ]
    more = f"; and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return "; ".join(told[:TOLD]) + more if told else "so many channels have to stay"


def _sizes(model: ir.Model, context: Context) -> dict[str, int]:
    """The sizes of dynamic dimensions to count at: those of one sample, where there are samples."""
    batches = iter(()) if context.data is None else context.data.batches(1)
    return sizes_in(model, next(batches, {})) | context.dims


def _channels_at_a_time(target: Target) -> int:
    """A block of the convolutions, or what CUDA's units take at once."""
    return 8 if target.name == "cuda" else target.channel_block or 16


def _repeats(group: ChannelGroup) -> int:
    """How many indices of the tensor that ``group`` is named after belong to one channel."""
    return len(group.members[0].positions) // group.size


def _kept(groups: Sequence[ChannelGroup], cuts: Cuts) -> dict[str, dict[str, list[int]]]:
    """What stayed of each weight; JSON has only strings as keys."""
    weights = {m.value for group in groups for m in group.members if is_constant(m.value)}
    return {
        value.name or "": {str(axis): np.flatnonzero(mask).tolist() for axis, mask in axes.items()}
        for value, axes in cuts.items()
        if value in weights
    }
