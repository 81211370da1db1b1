"""What a look computes: methods, targets, scores and causal checks, refused early where they cannot be had; and how."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

from lightning_gcam.cam.heads import HeadForward, HeadPlan, names_of_heads
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.cam.layers import Fuse, TargetLayers
from lightning_gcam.cam.layouts import Reshape
from lightning_gcam.cam.registry import AnyMethod, Methods, resolve_methods
from lightning_gcam.cam.targets import Targets
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.metrics import SampleScore
from lightning_gcam.metrics.registry import ResolvedScores, Scores
from lightning_gcam.shortcuts import Checks, Removal, available_properties, check_removal, resolve_checks
from lightning_gcam.shortcuts.exchange import SCORES
from lightning_gcam.shortcuts.removal import DEFAULT_REMOVAL
from lightning_gcam.utils.errors import InputError, is_whole_number

PERTURBING, CHECKING = "Asking the model for the scores", "Checking what the model relies on"
"""The steps that may fail without the look: the names by which `on_failure` of `analyze` is called."""

_KNOWN_NEEDS = frozenset({"mask", "suspect", "forwards", "maps", "earlier", "random", "other"})


Result = TypeVar("Result")
OnFailure = Callable[[str, Exception], None]
"""Called with the name of a step, or of a score, and the error; the look goes on without it where this returns."""


class MapFn(Protocol):
    """How the work of a look is divided among processes."""

    def __call__(self, work: Callable[[list[int]], Result], n: int | None = None) -> Result:
        """Do the work, with the same result in every process; where it fails in one, raise in all of them.

        Args:
            work: from the numbers of some samples to one row for each.
            n: how many samples there are; where it is left out, every process does the whole work, given no numbers.
        """


def in_one_process(work: Callable[[list[int]], Result], n: int | None = None) -> Result:
    """Do the whole work here.

    Example:
        >>> in_one_process(lambda rows: rows, 3)
        [0, 1, 2]
    """
    return work(list(range(n or 0)))


@dataclass(frozen=True)
class LookConfig:
    """What a look computes.

    Args:
        methods: as in `attribute`.
        target_layer: as in `attribute`.
        targets: "label" for each sample's label (float labels of a single output that are not all 0 or 1 explain the
            output itself; without labels the predicted class is explained, as None does in `attribute`), or as in
            `attribute`. Logits at every position are summed over the object's mask or boxes.
        scores: names, metrics, or a mapping from names to metrics; None for those that are on by default; or what was
            resolved of these, which copies of the config share.
        forward: as in `attribute`.
        reshape_transform: as in `attribute`.
        fuse: as in `attribute`.
        checks: the causal checks (see `lightning_gcam.shortcuts.available_checks`): those that remove or cover
            something cost a forward or two each, and need masks; those that exchange a property ("color", "border")
            cost three, and most need no annotation but labels. None for all that are on by default and that the
            annotation allows; of a run's looks they are then made at the first, and further at those where accuracy is
            clearly above chance. `[]` for none.
        removal: how they remove an object: "blur", "mean", "neighbours", or a callable from images and regions
            `(N, *S)` bool to images.
        multi_label: whether each logit has a sigmoid of its own also where a sample is labelled with one class.
        draws_earlier: whether the picture shows something of the looks before.
        with_baselines: whether a uniform map and a Gaussian in the middle are scored as maps of their own.
        head: which of several heads are looked at, a look for each: names, or places in a tuple such as "1"; where it
            is left out, see `lightning_gcam.pipeline.labels.plan_heads`.
        plans: of these heads, once they are known.

    Raises:
        InputError: naming the argument, what came, and what to do.

    Example:
        >>> config = LookConfig(methods=["grad_cam", "layer_cam"], checks="salient_flips")
        >>> list(config.method_table), config.check_names
        (['grad_cam', 'layer_cam'], ('salient_flips',))
    """

    methods: Methods = "guidance_cam"
    target_layer: TargetLayers | None = None
    targets: Targets = "label"
    scores: Scores | ResolvedScores = None
    forward: Forward | None = None
    reshape_transform: Reshape | None = None
    fuse: Fuse | None = None
    checks: Checks = None
    removal: Removal = DEFAULT_REMOVAL
    multi_label: bool = False
    draws_earlier: bool = False
    with_baselines: bool = False
    head: str | Sequence[str] | None = None
    plans: Sequence[HeadPlan] = ()

    def __post_init__(self) -> None:
        check_removal(self.removal)
        names_of_heads(self.head)
        _ = self.method_table, self.exchange_names

    @cached_property
    def method_table(self) -> dict[str, AnyMethod]:
        """The methods by the names of their maps."""
        return resolve_methods(self.methods)

    @cached_property
    def check_names(self) -> tuple[str, ...]:
        """The causal checks, each once."""
        return resolve_checks(self.checks)

    @property
    def checks_wait(self) -> bool:
        """Whether the causal checks wait, behind the first look, until accuracy is clearly above chance."""
        return self.checks is None

    @cached_property
    def exchange_names(self) -> tuple[str, ...]:
        """The properties among the causal checks, which are exchanged with donors."""
        return tuple(name for name in self.check_names if name in available_properties())

    @cached_property
    def check_scores(self) -> frozenset[str]:
        """The names that the scores of the causal checks may have, without accuracy, which every look has."""
        exchanged = (f"{name}{score}" for name in self.exchange_names for score in SCORES)
        return frozenset([*exchanged, *self.check_names])

    @cached_property
    def resolved_scores(self) -> ResolvedScores:
        """The metrics by name, and what they need."""
        return self.scores if isinstance(self.scores, ResolvedScores) else ResolvedScores.of(self.scores)

    @property
    def compares_looks(self) -> bool:
        """Whether a score, or the picture, compares a look with an earlier one."""
        return self.draws_earlier or self.resolved_scores.compare_looks

    def at_layers(self, layers: list[str], forward: Forward | None) -> LookConfig:
        """The same look at these layers, by this way to call the model.

        Args:
            layers: the names of the target layers.
            forward: as in `attribute`.
        """
        config = self.with_forward(forward)
        object.__setattr__(config, "target_layer", layers)
        return config

    def with_forward(self, forward: Forward | None) -> LookConfig:
        """The same look by this way to call the model.

        Args:
            forward: as in `attribute`.
        """
        _ = self.resolved_scores  # the same object in all copies: what a history keeps is told apart by it
        config = copy.copy(self)  # with all that was resolved, none of which depends on it
        object.__setattr__(config, "forward", forward)
        return config

    def at_plans(self, plans: Sequence[HeadPlan], forward: Forward | None) -> LookConfig:
        """The same look at these heads, by this way to call the model.

        Args:
            plans: of all heads.
            forward: as in `attribute`.
        """
        config = self.with_forward(forward)
        object.__setattr__(config, "plans", tuple(plans))
        if plans and plans[0].name is None and plans[0].layers:
            object.__setattr__(config, "target_layer", [*plans[0].layers])
        return config

    def at_head(self, plan: HeadPlan) -> LookConfig:
        """The look at one head.

        Args:
            plan: of it.
        """
        forward = HeadForward(self.forward, plan.name) if plan.name is not None else self.forward
        config = self.at_plans([HeadPlan()], forward)
        if plan.is_bare_number and self.explains_labels:
            object.__setattr__(config, "targets", "output")
        return config.at_layers([*plan.layers], forward) if plan.layers else config

    def may_have_heads(self, batch: SaliencyBatch) -> bool:
        """Whether several heads are planned or, where nothing is planned, heads or their labels are named.

        Args:
            batch: the samples.
        """
        if self.plans:
            return self.plans[0].name is not None
        return self.head is not None or bool(batch.head_labels)

    @property
    def explains_labels(self) -> bool:
        """Whether the samples' labels are what the maps explain."""
        return isinstance(self.targets, str) and self.targets == "label"

    @property
    def explains_classes(self) -> bool:
        """Whether the labels have to be classes of the logits, as far as the targets determine it."""
        return not callable(self.targets) and self.targets != "output"

    @property
    def attribute_options(self) -> dict[str, Any]:
        """The arguments of `attribute` beside the model, the images and the targets."""
        return {
            "methods": self.method_table,
            "target_layer": self.target_layer,
            "forward": self.forward,
            "reshape_transform": self.reshape_transform,
            "fuse": self.fuse,
        }


def check_targets(targets: Any) -> None:
    """Refuse targets that are no known word, no class and no callable."""
    if callable(targets) or targets in ("label", "predicted", "output"):
        return
    if not is_whole_number(targets, 0):
        raise InputError(
            '`targets` must be "label", "predicted", "output", a class from 0, or a callable on the logits; got '
            f"{targets!r}."
        )


def check_class_names(class_names: Any) -> None:
    """Refuse class names that are no sequence of names."""
    if class_names is not None and (isinstance(class_names, str) or not hasattr(class_names, "__getitem__")):
        raise InputError(
            f'`class_names` must be a list of names, one for each class, such as ["cat", "dog"]; got {class_names!r}.'
        )


def check_prefix(log_prefix: Any) -> None:
    """Refuse a prefix that is no name."""
    if not isinstance(log_prefix, str) or not log_prefix.strip("/"):
        raise InputError(f'`log_prefix` must be a name, such as the default "saliency"; got {log_prefix!r}.')


def check_scores(scores: Scores) -> None:
    """Refuse scores that are not known, and metrics that need what a look does not have.

    Raises:
        InputError: naming the score and what it needs.

    Example:
        >>> check_scores(["iou", "gini"])
    """
    resolved = ResolvedScores.of(scores)
    for name, metric in resolved.metrics.items():
        needs = resolved.needs[name]
        beyond = needs - _KNOWN_NEEDS
        if beyond or (needs & {"forwards", "maps"} and getattr(metric, "perturbation", None) is None):
            lacking = " and ".join(sorted(beyond)) or "answers of the model, but has no `perturbation`"
            raise InputError(
                f'`scores` "{name}" needs {lacking}, which a look does not compute. Leave it out, and compute it by '
                "itself from `monitor.last_record` (see docs/scores.md)."
            )


def check_final_scores(scores: Scores) -> None:
    """As `check_scores`; and a look at the end has no earlier one to compare with.

    Raises:
        InputError: naming the score, and what to do.
    """
    check_scores(scores)
    if ResolvedScores.of(scores).compare_looks:
        raise InputError(
            "`final_scores` holds a drift, which compares a look with an earlier one. Ask for it at every look, with "
            "`scores=`."
        )


def check_streamed_scores(scores: Scores) -> None:
    """As `check_scores`; and of a whole dataset only numbers of single samples are kept, and each is seen once.

    Raises:
        InputError: naming the score, and what to do.

    Example:
        >>> check_streamed_scores(["energy", "insertion"])
    """
    check_scores(scores)
    resolved = ResolvedScores.of(scores)
    for name, metric in resolved.metrics.items():
        if "earlier" in resolved.needs[name]:
            raise InputError(
                f'`scores` "{name}" compares a look with an earlier one, and an evaluation looks at each sample once. '
                "Leave it out; SaliencyMonitor has it."
            )
        if not isinstance(metric, SampleScore):
            raise InputError(
                f'`scores` "{name}" is a {type(metric).__name__}, which gives one value for all samples; an evaluation '
                "keeps a number of each, for intervals and for going on. Write it as a "
                "`lightning_gcam.metrics.SampleScore`."
            )
