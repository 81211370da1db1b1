"""The history of a run's looks: earlier maps and peaks, and what is the same at every look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.metrics.perturbation import PerturbedOutputs
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.captions import class_probabilities
from lightning_gcam.pipeline.rendering import Earlier

PREVIOUS, FIRST, BEST = "previous", "first", "best"


class LookHistory:
    """The maps of the previous, the first and the best look, on the CPU; and results that are the same at every look.

    The best look is the one at which the explained classes were the most probable, on average.

    Example:
        >>> history = LookHistory()
        >>> history.maps
        {}
    """

    def __init__(self) -> None:
        self._baselines: list[tuple[list[tuple[str, Any]], dict[str, float]]] = []
        self._random_maps: PerturbedOutputs | None = None
        self._explained: Tensor | None = None
        self._maps: dict[str, dict[str, Tensor]] = {}
        self._confidence = float("-inf")
        self._step: int | None = None
        self._tops: dict[str, float] = {}

    def begin_run(self) -> None:
        """Forget what depends on the target layer, which another run may change; the earlier looks stay."""
        self._random_maps, self._baselines = None, []

    @property
    def maps(self) -> Mapping[str, Mapping[str, Tensor]]:
        """The maps `(N, H, W)` by name, of the "previous", the "first" and the "best" look, where there was one."""
        return self._maps

    @property
    def for_picture(self) -> Earlier:
        """The earlier looks as the picture of the next one shows them."""
        return Earlier(self._step, self._maps.get(PREVIOUS, {}), dict(self._tops))

    def keep(self, attribution: Attribution, step: int | None = None) -> None:
        """Keep the maps of the look at `step`: it is the previous one of the next."""
        self._step = step
        for name, peaks in attribution.peaks.items():
            self._tops[name] = max(self._tops.get(name, 0.0), float(peaks.nan_to_num(0, 0, 0).max()))
        maps = {name: each.detach().cpu() for name, each in attribution.maps.items()}
        self._maps.setdefault(FIRST, maps)
        self._maps[PREVIOUS] = maps
        confidence = _confidence(attribution)
        if confidence > self._confidence:
            self._maps[BEST], self._confidence = maps, confidence

    def random_maps(self, attribution: Attribution) -> PerturbedOutputs | None:
        """The maps of the model with random weights; None where they are not known for the classes explained now."""
        return self._random_maps if _same(attribution.targets, self._explained) else None

    def keep_random_maps(self, outputs: PerturbedOutputs, attribution: Attribution) -> None:
        """Keep the maps of random weights: they stay the same while the explained classes do."""
        if len(outputs):  # else computing them failed, and may succeed the next time
            self._random_maps, self._explained = outputs, attribution.targets

    def baselines_of(self, scores: Any) -> dict[str, float] | None:
        """The `scores` of maps that do not depend on the model; None where they were not computed yet.

        Args:
            scores: as they were given. Metrics are compared as objects: two of one name may be set differently.
        """
        return next((found for given, found in self._baselines if _are_same(given, _parts(scores))), None)

    def keep_baselines(self, scores: Any, found: dict[str, float]) -> None:
        """Keep the scores of maps that do not depend on the model: they are the same at every look of a run."""
        self._baselines.append((_parts(scores), found))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only; what can be computed again is left out."""
        kept = {"confidence": self._confidence, "step": self._step, "tops": dict(self._tops)}
        return {"maps": dict(self._maps), **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the looks of a checkpoint."""
        self._maps, self._confidence = dict(state["maps"]), float(state["confidence"])
        self._step, self._tops = state.get("step"), dict(state.get("tops", {}))


def _parts(scores: Any) -> list[tuple[str, Any]]:
    """Each score that was given, with its name."""
    if isinstance(scores, Mapping):
        return list(scores.items())
    return [("", each) for each in scores] if isinstance(scores, (list, tuple)) else [("", scores)]


def _are_same(left: list[tuple[str, Any]], right: list[tuple[str, Any]]) -> bool:
    """By identity where it is a metric: `==` of two metrics is a third one in torchmetrics, and as such true."""
    return len(left) == len(right) and all(
        name == other
        and (score is twin or (isinstance(score, str) and isinstance(twin, str) and score == twin))
        for (name, score), (other, twin) in zip(left, right, strict=True)
    )


def _same(now: Tensor | None, then: Tensor | None) -> bool:
    if now is None or then is None:
        return now is then
    return now.shape == then.shape and torch.equal(now, then.to(now.device))


def _confidence(attribution: Attribution) -> float:
    """How probable the explained classes are, on average; -inf where the maps explain no classes."""
    if attribution.targets is None:
        return float("-inf")
    own = attribution.squash in ("sigmoid", "log_sigmoid") if attribution.squash is not None else None
    return float(class_probabilities(attribution.logits, attribution.targets, own).nanmean())
