"""A look at a model with several heads: the records of the heads as one, and their histories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lightning_gcam.cam.heads import HeadPlan
from lightning_gcam.cam.layers import TargetLayer
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data.saliency_batch import plain_tags
from lightning_gcam.metrics import GroupedMeasurement, Measurement
from lightning_gcam.pipeline.labels import samples_of_head
from lightning_gcam.pipeline.record import LookCost, LookHistory, SaliencyRecord, Stamp

Value = TypeVar("Value")

Layers = dict[HeadPlan, list[TargetLayer]]
"""The target layers of each head."""


@dataclass(frozen=True)
class JoinedRecord(SaliencyRecord):
    """The look at a model with several heads: `heads` has the record of each.

    Scores, measurements and the rows of the table are named `<head>/<score>`, by `tags_of_heads`; the pictures are
    those of all heads. What cannot be joined, such as the maps, is that of the first head.
    """

    @staticmethod
    def of(heads: Mapping[str, SaliencyRecord], host: SaliencyBatch, stamp: Stamp) -> JoinedRecord:
        """Join the records of the heads, without computing anything.

        Args:
            heads: by their names, one at least.
            host: the samples on the host, with all labels.
            stamp: of the look as a whole.
        """
        first, *_ = heads.values()
        costs = [each.cost for each in heads.values()]
        sizes = [each.chunk_size for each in heads.values() if each.chunk_size is not None]
        return JoinedRecord(
            host,
            first.attribution,
            _named({name: each.scores for name, each in heads.items()}),
            stamp,
            first.results,
            earlier=first.earlier,
            chunk_size=min(sizes, default=None),
            checks_wait=any(each.checks_wait for each in heads.values()),
            checks_rest=any(each.checks_rest for each in heads.values()),
            cost=LookCost(sum(each.maps for each in costs), sum(each.checks for each in costs)),
            heads=dict(heads),
        )

    @cached_property
    def measurements(self) -> dict[str, Measurement]:
        """Each score of each head with its n, what was left out, and a bootstrap interval."""
        return _named({name: each.measurements for name, each in self.heads.items()})

    @cached_property
    def class_measurements(self) -> dict[str, GroupedMeasurement]:
        """The same for each class of the head's labels."""
        return _named({name: each.class_measurements for name, each in self.heads.items()})

    @cached_property
    def group_measurements(self) -> dict[str, GroupedMeasurement]:
        """The same for each of the samples' groups."""
        return _named({name: each.group_measurements for name, each in self.heads.items()})

    @property
    def table(self) -> list[dict[str, str | float | int]]:
        """The rows of all heads."""
        tags = tags_of_heads(self.heads)
        return [
            {**row, "score": f"{tags[name]}/{row['score']}"}
            for name, each in self.heads.items()
            for row in each.table
        ]

    @cached_property
    def overlay(self) -> npt.NDArray[np.uint8]:
        """The pictures of the heads, one below the other; read-only."""
        pictures = [each.overlay for each in self.heads.values()]
        width = max(each.shape[1] for each in pictures)
        edge = ((0, 0), (0, 0))
        stacked = [
            np.pad(each, (edge[0], (0, width - each.shape[1]), edge[1]), mode="edge") for each in pictures
        ]
        picture = np.concatenate(stacked)
        picture.flags.writeable = False
        return picture

    @property
    def title(self) -> str:
        """The lines above the pictures."""
        return "\n".join(each.title for each in self.heads.values())

    @cached_property
    def sample_overlays(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Each sample's part of each head's picture, by its tag."""
        return {tag: each for head in self.heads.values() for tag, each in head.sample_overlays.items()}

    @property
    def pictures(self) -> dict[str, npt.NDArray[np.uint8]]:
        """The pictures of each head, by their tags."""
        return {tag: each for head in self.heads.values() for tag, each in head.pictures.items()}


def _named(values: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    """What the heads have by name, as `<head>/<name>`."""
    tags = tags_of_heads(values)
    return {f"{tags[head]}/{name}": each for head, found in values.items() for name, each in found.items()}


def tags_of_heads(heads: Iterable[str]) -> dict[str, str]:
    """Each head's name with the signs that every backend takes; all with their numbers where two come out alike.

    Args:
        heads: their names, in order.

    Example:
        >>> tags_of_heads(["sex", "age (years)"])
        {'sex': 'sex', 'age (years)': 'age_years_'}
        >>> tags_of_heads(["age (years)", "age [years]"])
        {'age (years)': '0_age_years_', 'age [years]': '1_age_years_'}
    """
    names = [*heads]
    return dict(zip(names, plain_tags(names), strict=True))


class RunHistory(LookHistory):
    """The history of a run's looks, and that of each head where the model has several.

    Example:
        >>> history = RunHistory()
        >>> history.of_head("sex") is history.of_head("sex")
        True
    """

    def __init__(self) -> None:
        self._heads: dict[str, LookHistory] = {}
        super().__init__()

    def of_head(self, name: str) -> LookHistory:
        """The history of one head's looks."""
        return self._heads.setdefault(name, LookHistory())

    @property
    def is_checked(self) -> bool:
        """Whether the causal checks were made, of any head."""
        return self._is_checked or any(each.is_checked for each in self._heads.values())

    @is_checked.setter
    def is_checked(self, value: bool) -> None:
        """Set it, of the looks at the only head."""
        self._is_checked = value

    def begin_run(self) -> None:
        """As in `LookHistory`, for every head."""
        super().begin_run()
        for each in self._heads.values():
            each.begin_run()

    def state_dict(self) -> dict[str, Any]:
        """As in `LookHistory`, with that of every head."""
        heads = {name: each.state_dict() for name, each in self._heads.items()}
        return {**super().state_dict(), **({"heads": heads} if heads else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the looks of a checkpoint."""
        super().load_state_dict(state)
        for name, each in state.get("heads", {}).items():
            self.of_head(name).load_state_dict(each)


def looks_at_heads(
    batch: SaliencyBatch,
    host: SaliencyBatch,
    plans: Sequence[HeadPlan],
    stamp: Stamp,
    history: LookHistory | None,
    largest_label: int,
) -> dict[HeadPlan, dict[str, Any]]:
    """The arguments of `analyze` that differ for each head; the images are the same objects.

    Args:
        batch: as in `analyze`.
        host: the same on the host, of which there is one copy whatever the number of heads.
        plans: of the heads.
        stamp: as in `analyze`.
        history: as in `analyze`; a `RunHistory` has one for each head.
        largest_label: as in `analyze`.
    """
    looks: dict[HeadPlan, dict[str, Any]] = {}
    tags = tags_of_heads(str(plan.name) for plan in plans)
    for plan in plans:
        past = history.of_head(str(plan.name)) if isinstance(history, RunHistory) else None
        looks[plan] = {
            **_samples_of(batch, host, plan, past),
            "stamp": _stamp_of(stamp, plan, tags[str(plan.name)]),
            "history": past,
            "largest_label": largest_label if plan.labels == "" else -1,
        }
    return looks


def _samples_of(
    batch: SaliencyBatch, host: SaliencyBatch, plan: HeadPlan, history: LookHistory | None
) -> dict[str, SaliencyBatch]:
    """The samples with one head's labels, on the device and on the host: the same objects at every look of a run."""

    def choose() -> dict[str, SaliencyBatch]:
        return {"batch": samples_of_head(batch, plan), "host": samples_of_head(host, plan)}

    return history.of_samples("samples of the head", batch, choose) if history is not None else choose()


def _stamp_of(stamp: Stamp, plan: HeadPlan, tag: str) -> Stamp:
    """The stamp of one head's look: a prefix of its own, and the class names where it has as many classes."""
    names, prefix = stamp.class_names, f"{stamp.log_prefix}/{tag}"
    fits = names is not None and len(names) == max(plan.width, 2)
    return replace(stamp, log_prefix=prefix, head=str(plan.name), class_names=names if fits else None)
