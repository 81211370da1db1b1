"""The causal checks of a look: the changed images that the model is asked about, and what its answers measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_gcam.data import SaliencyBatch
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.captions import has_own_sigmoids, subject_of
from lightning_gcam.shortcuts import (
    Checks,
    Reliance,
    Removal,
    changed_images,
    check_removal,
    measure_reliance,
    resolve_checks,
)
from lightning_gcam.shortcuts.checks import Make, image_changes
from lightning_gcam.shortcuts.regions import classes_of_labels
from lightning_gcam.shortcuts.removal import DEFAULT_REMOVAL


@dataclass(frozen=True)
class CausalChecks:
    """Which checks are made, and how an object is removed.

    Args:
        names: out of `lightning_gcam.shortcuts.available_checks`; without any nothing is measured.
        removal: as in `lightning_gcam.shortcuts.remove_regions`.
    """

    names: tuple[str, ...] = ()
    removal: Removal = DEFAULT_REMOVAL

    @staticmethod
    def of(checks: Checks, removal: Removal) -> CausalChecks:
        """What a user asked for.

        Raises:
            InputError: naming a check or a removal that is not known.

        Example:
            >>> CausalChecks.of("salient_flips", "mean").names
            ('salient_flips',)
        """
        check_removal(removal)
        return CausalChecks(resolve_checks(checks), removal)

    def apply_to(
        self, batch: SaliencyBatch, attribution: Attribution, class_names: Sequence[str] | None = None
    ) -> bool:
        """Whether there is anything to measure: the labels are classes, and the model gives one score for each.

        The logits of a dense head are none: they are read at the object, which the checks take away.
        """
        labels, k = classes_of_labels(batch), attribution.logits.shape[1]
        if not self.names or labels is None or attribution.in_mask is not None:
            return False
        fits = labels.shape[1] == k if labels.ndim == 2 else int(labels.max()) < max(k, 2)
        return fits and subject_of(batch, attribution, class_names) == "classes"

    def images(self, batch: SaliencyBatch, attribution: Attribution) -> dict[str, Tensor]:
        """The changed versions of the batch; see `lightning_gcam.shortcuts.changed_images`."""
        return changed_images(batch, _first_map(attribution), self.names, self.removal)

    def changes(self, batch: SaliencyBatch, attribution: Attribution) -> dict[str, Make]:
        """As `images`, made when they are needed; see `lightning_gcam.shortcuts.checks.image_changes`."""
        return image_changes(batch, _first_map(attribution), self.names, self.removal)

    def measure(
        self, batch: SaliencyBatch, attribution: Attribution, answers: Mapping[str, Tensor]
    ) -> Reliance:
        """What the logits `(N, K)` of the changed versions say; see `lightning_gcam.shortcuts.measure_reliance`."""
        several = has_own_sigmoids(batch, attribution)
        maps = _first_map(attribution)
        return measure_reliance(batch, attribution.logits, answers, maps, own_sigmoids=several)


NO_CHECKS = CausalChecks()


def with_checks(scores: dict[str, float], reliance: Reliance | None) -> dict[str, float]:
    """A look's scores and its checks; a score of the user's that has a check's name stays.

    Example:
        >>> with_checks({"accuracy": 0.5}, Reliance({}, 0.1))
        {'accuracy': 0.5}
    """
    checks = reliance.scores if reliance is not None else {}
    return {**scores, **{name: value for name, value in checks.items() if name not in scores}}


def _first_map(attribution: Attribution) -> Tensor:
    return next(iter(attribution.maps.values()))
