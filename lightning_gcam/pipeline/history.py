"""What a run keeps of its looks: earlier maps and peaks, the maps of random weights, and what never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.model_outputs import Answers, class_probabilities
from lightning_gcam.pipeline.rendering import Earlier

PREVIOUS, FIRST, BEST = "previous", "first", "best"


class Memory:
    """The maps of the previous, the first and the best look, on the CPU; and answers that are the same at every look.

    The best look is the one at which the explained classes were the most probable, on average.

    Example:
        >>> memory = Memory()
        >>> memory.earlier("previous", "grad_cam") is None
        True
    """

    def __init__(self) -> None:
        self._baselines: list[tuple[list[tuple[str, Any]], dict[str, float]]] = []
        self._random_maps: Answers | None = None
        self._explained: Tensor | None = None
        self._maps: dict[str, dict[str, Tensor]] = {}
        self._confidence = float("-inf")
        self._step: int | None = None
        self._tops: dict[str, float] = {}

    def begin_run(self) -> None:
        """Another run may look at another layer; the earlier looks stay, as the history does."""
        self._random_maps, self._baselines = None, []

    def earlier(self, since: str, map_name: str) -> Tensor | None:
        """The maps `(N, H, W)` of an earlier look; None where there was none.

        Args:
            since: "previous", "first" or "best".
            map_name: as in `Attribution.maps`.
        """
        return self._maps.get(since, {}).get(map_name)

    @property
    def for_picture(self) -> Earlier:
        """What the picture of the next look shows of those before."""
        return Earlier(self._step, self._maps.get(PREVIOUS, {}), dict(self._tops))

    def keep(self, attribution: Attribution, step: int | None = None) -> None:
        """A look was taken, at `step`: it is the previous one of the next."""
        self._step = step
        for name, peaks in attribution.peaks.items():
            self._tops[name] = max(self._tops.get(name, 0.0), float(peaks.nan_to_num(0, 0, 0).max()))
        maps = {name: each.detach().cpu() for name, each in attribution.maps.items()}
        self._maps.setdefault(FIRST, maps)
        self._maps[PREVIOUS] = maps
        confidence = _confidence(attribution)
        if confidence > self._confidence:
            self._maps[BEST], self._confidence = maps, confidence

    def random_maps(self, attribution: Attribution) -> Answers | None:
        """The maps of the model with random weights; None where they are not known for the classes explained now."""
        return self._random_maps if _same(attribution.targets, self._explained) else None

    def keep_random_maps(self, answers: Answers, attribution: Attribution) -> None:
        """Note them: they are the same at every look, as long as the explained classes are."""
        if len(answers):  # else asking failed, and may go well the next time
            self._random_maps, self._explained = answers, attribution.targets

    def baselines_of(self, scores: Any) -> dict[str, float] | None:
        """What maps that know nothing of the model have for `scores`; None where that is not known.

        Args:
            scores: as they were asked for. Metrics are told apart as objects: two of one name may be set differently.
        """
        return next((found for asked, found in self._baselines if _are_same(asked, _parts(scores))), None)

    def keep_baselines(self, scores: Any, found: dict[str, float]) -> None:
        """Note them: they are the same at every look of a run."""
        self._baselines.append((_parts(scores), found))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain Python only; what can be computed again is left out."""
        kept = {"confidence": self._confidence, "step": self._step, "tops": dict(self._tops)}
        return {"maps": dict(self._maps), **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the looks of a checkpoint."""
        self._maps, self._confidence = dict(state["maps"]), float(state["confidence"])
        self._step, self._tops = state.get("step"), dict(state.get("tops", {}))


def _parts(scores: Any) -> list[tuple[str, Any]]:
    """Each score that was asked for, with the name that it was given."""
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
