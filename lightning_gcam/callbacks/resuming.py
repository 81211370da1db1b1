"""The state of a monitor in a checkpoint, read as a whole, or refused where a part is not as it should be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from lightning_gcam.callbacks.budget import CheckBudget
from lightning_gcam.cam.heads import HeadPlan
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data.fixed_samples import FixedBatch, Selection
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.heads import RunHistory
from lightning_gcam.utils.errors import InputError

_CHOICE = ("num_samples", "selection")
_SAMPLES = ("batch", *_CHOICE)
"""The settings that decide which samples are looked at; the others decide what is computed of them."""


@dataclass(frozen=True)
class CheckpointState:
    """The state of a monitor in a checkpoint.

    Args:
        fixed_batch: the state of a `FixedBatch`; empty where there were no samples yet.
        plans: of the heads, with the names of the layers; none where these were not found yet.
        history: a row for each look.
        settings: see `settings_of`.
        looks: the earlier looks that later ones are compared with; None where nothing is compared.
        budget: the state of a `CheckBudget`; empty where no look had checks yet.
    """

    fixed_batch: dict[str, Any]
    plans: list[HeadPlan]
    history: list[dict[str, float]]
    settings: dict[str, Any]
    looks: RunHistory | None
    budget: dict[str, Any]

    @staticmethod
    def of(state: Any) -> CheckpointState:
        """Read the state of a callback.

        Raises:
            InputError: naming what is missing, unknown or of another type.
        """
        required = {"fixed_batch", "target_layer", "history", "settings"}
        parts = check_mapping("state", state, required, {"memory", "budget", "heads"})
        budget = check_mapping("budget", parts.get("budget", {}))
        CheckBudget(None).load_state_dict(budget)
        return CheckpointState(
            _fixed_batch(parts["fixed_batch"]),
            _plans(parts["target_layer"], parts.get("heads", [])),
            _history(parts["history"]),
            check_mapping("settings", parts["settings"]),
            _looks(parts["memory"]) if "memory" in parts else None,
            budget,
        )

    def changed(self, now: Mapping[str, Any]) -> list[str]:
        """The settings that differ now, in words."""
        names = [*now, *(name for name in self.settings if name not in now)]
        if self.settings.get("batch") != now.get("batch"):
            names = [name for name in names if name not in _CHOICE]
        pairs = {name: (self.settings.get(name), now.get(name)) for name in names}
        return [
            f"`{name}` was {then!r} and is {here!r}" for name, (then, here) in pairs.items() if then != here
        ]

    def has_same_heads(self, now: Mapping[str, Any]) -> bool:
        """Whether the heads that are looked at are named as they were."""
        return self.settings.get("head") == now.get("head")

    def has_other_samples(self, now: Mapping[str, Any]) -> bool:
        """Whether one of the settings that choose the samples is another one now."""
        return any(self.settings.get(name) != now.get(name) for name in _SAMPLES)


def settings_of(config: LookConfig, num_samples: int, selection: Selection, by_hand: bool) -> dict[str, Any]:
    """The settings that decide whether two looks can be compared, as plain data.

    Args:
        config: what is computed.
        num_samples: how many samples to choose.
        selection: how they are chosen.
        by_hand: whether they were given instead.
    """
    targets = config.targets
    chosen = None if by_hand else (selection if isinstance(selection, str) else list(selection))
    return {
        "batch": "given" if by_hand else None,
        "num_samples": None if by_hand else num_samples,
        "selection": chosen,
        "methods": list(config.method_table),
        "fuse": config.fuse,
        "targets": getattr(targets, "__name__", "a callable") if callable(targets) else targets,
        **({"head": names_of(config.head)} if config.head is not None else {}),
    }


def state_of_plans(plans: Sequence[HeadPlan]) -> dict[str, Any]:
    """The layers of the only head as "target_layer", those of several in "heads", as plain data.

    Args:
        plans: of all heads; none where the layers were not found yet.
    """
    if [plan.name for plan in plans] in ([], [None]):
        names = [name for plan in plans for name in plan.layers]
        return {"target_layer": names if len(names) > 1 else names[0] if names else None}
    return {"target_layer": None, "heads": [plan.to_plain() for plan in plans]}


def names_of(layers: str | Sequence[str]) -> list[str]:
    """A name, or several, as a list."""
    return [layers] if isinstance(layers, str) else list(layers)


def check_mapping(
    name: str, value: Any, required: Collection[str] = (), optional: Collection[str] | None = None
) -> dict[str, Any]:
    """Check that a mapping has all required keys, and no unknown ones.

    Args:
        name: of the part, for the error.
        value: what came.
        required: the keys it must have.
        optional: the further ones it may have; any, where it is left out.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _unlike(name, "a dict", value)
    missing = [key for key in required if key not in value]
    unknown = [key for key in value if key not in required and key not in (optional or ())]
    if missing:
        raise InputError(f"`{name}` has no {_listed(missing)}.")
    if unknown and optional is not None:
        raise InputError(f"`{name}` has {_listed(unknown)}, which is not known here (of another version?).")
    return dict(value)


def _fixed_batch(value: Any) -> dict[str, Any]:
    if value == {} and isinstance(value, Mapping):
        return {}
    state = check_mapping("fixed_batch", value, FixedBatch.STATE, ())
    samples = check_mapping(
        "samples", state["samples"], {"images"}, {each.name for each in fields(SaliencyBatch)}
    )
    try:
        batch = SaliencyBatch(**samples)
    except Exception as error:
        raise InputError(f"`samples` cannot be read ({error})") from error
    positions, counts = state["positions"], state["passed_over"]
    if not _is_whole_numbers(positions) or len(positions) not in (0, len(batch)):
        raise _unlike("positions", "a whole number for each sample", positions)
    if not _is_whole_numbers([state["chunk"]]) or state["chunk"] < 1:
        raise _unlike("chunk", "a whole number from 1", state["chunk"])
    if not _is_whole_numbers(counts) or len(counts) != 2:
        raise _unlike("passed_over", "two whole numbers", counts)
    if not _is_whole_numbers([state["largest_label"]]):
        raise _unlike("largest_label", "a whole number", state["largest_label"])
    return state


def _plans(layers: Any, heads: Any) -> list[HeadPlan]:
    names = _layers(layers)
    if not isinstance(heads, list):
        raise _unlike("heads", "a list", heads)
    return [HeadPlan(tuple(names))] if names else [HeadPlan.from_plain(each) for each in heads]


def _layers(value: Any) -> list[str] | None:
    names = [value] if isinstance(value, str) else value
    if names is not None and (
        not isinstance(names, list) or not all(isinstance(each, str) for each in names)
    ):
        raise _unlike("target_layer", "a name, names, or None", value)
    return names or None


def _history(value: Any) -> list[dict[str, float]]:
    if not isinstance(value, list):
        raise _unlike("history", "a list of dicts", value)
    rows = [check_mapping("history", row, {"step", "epoch"}) for row in value]
    for row in rows:
        if not all(isinstance(each, (int, float)) for each in row.values()):
            raise _unlike("history", "rows of numbers", row)
    return rows


def _looks(value: Any) -> RunHistory:
    state = check_mapping("memory", value, {"maps", "confidence", "step", "tops"}, {"is_checked", "heads"})
    for each in check_mapping("heads", state.get("heads", {})).values():
        _looks(each)
    for maps in check_mapping("maps", state["maps"]).values():
        if not all(isinstance(each, Tensor) for each in check_mapping("maps", maps).values()):
            raise _unlike("maps", "tensors by name", maps)
    numbers = [state["confidence"], *check_mapping("tops", state["tops"]).values()]
    if not all(isinstance(each, (int, float)) for each in numbers):
        raise _unlike("memory", "numbers as `confidence` and `tops`", numbers)
    if state["step"] is not None and not isinstance(state["step"], int):
        raise _unlike("step", "a whole number or None", state["step"])
    if not isinstance(state.get("is_checked", False), bool):
        raise _unlike("is_checked", "True or False", state["is_checked"])
    looks = RunHistory()
    looks.load_state_dict(state)
    return looks


def _is_whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is int for each in value)


def _unlike(name: str, wanted: str, value: Any) -> InputError:
    came = repr(value)
    return InputError(f"`{name}` should be {wanted}; got {type(value).__name__} {came[:60]}.")


def _listed(names: Collection[str]) -> str:
    return " and ".join(f'"{name}"' for name in names)
