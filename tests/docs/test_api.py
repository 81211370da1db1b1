"""The facade: every public name, and the pinned names and arguments that other people's scripts already use."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import pytest
import torch

import lightning_gcam

FACADES = {
    "lightning_gcam": {
        "Attribution",
        "SaliencyBatch",
        "SaliencyEvaluation",
        "SaliencyMonitor",
        "SaliencyRecord",
        "ShortcutAlarm",
        "__version__",
        "attribute",
    },
    "lightning_gcam.data": {"Adapter", "SaliencyBatch", "as_saliency_batch"},
    "lightning_gcam.callbacks": {
        "SaliencyEvaluation",
        "SaliencyLookHook",
        "SaliencyMonitor",
        "ShortcutAlarm",
    },
    "lightning_gcam.datasets": {
        "Coco2014",
        "DatasetModule",
        "ImageNet",
        "Voc2012",
        "available_datasets",
        "dataset_module",
    },
    "lightning_gcam.evaluation": {
        "Columns",
        "EvaluationResult",
        "Facts",
        "SampleStore",
        "StoredBatch",
        "Row",
        "measure_columns",
        "print_table",
        "read_result",
        "write_result",
    },
    "lightning_gcam.loggers": {
        "Backend",
        "ReportLogger",
        "log_alert",
        "log_picture",
        "log_saliency",
        "log_table",
        "register_backend",
        "write_alert",
        "write_look",
        "write_picture",
        "write_scores",
    },
    "lightning_gcam.report": {
        "Monitor",
        "Run",
        "Store",
        "build_page",
        "plain_look",
        "plain_samples",
        "read_run",
    },
    "lightning_gcam.shortcuts": {
        "Checks",
        "Evidence",
        "Exchanges",
        "Finding",
        "Reliance",
        "Removal",
        "Thresholds",
        "available_checks",
        "available_properties",
        "changed_images",
        "check_removal",
        "exchange_property",
        "judge",
        "measure_reliance",
        "message_of",
        "plain_of",
        "register_property",
        "remove_regions",
        "resolve_checks",
    },
    "lightning_gcam.cam.methods": {
        "ablation_cam",
        "attention_relevance",
        "attention_rollout",
        "cameras",
        "centre",
        "eigen_cam",
        "eigen_grad_cam",
        "element_wise_grad_cam",
        "full_grad",
        "grad_cam",
        "grad_cam_plus_plus",
        "guidance_cam",
        "guided_grad_cam",
        "hires_cam",
        "hires_cam_squared",
        "integrated_gradients",
        "is_cam",
        "layer_cam",
        "layer_cam_squared",
        "occlusion",
        "random",
        "score_cam",
        "smooth_full_grad",
        "smooth_grad_cam_plus_plus",
        "ss_cam",
        "xgrad_cam",
    },
    "lightning_gcam.cam": {
        "ModelMethod",
        "MethodContext",
        "TargetLayer",
        "available_methods",
        "find_target_layer",
        "register_method",
        "register_model_method",
        "resolve_methods",
        "resolve_target_layer",
    },
}

PINNED = {
    "lightning_gcam": ["SaliencyMonitor", "ShortcutAlarm", "attribute", "SaliencyBatch", "metrics"],
    "lightning_gcam.callbacks": ["SaliencyEvaluation", "SaliencyMonitor", "ShortcutAlarm"],
    "lightning_gcam.loggers": ["log_saliency", "ReportLogger"],
    "lightning_gcam.cam": ["register_method", "available_methods", "find_target_layer"],
}

MONITOR: dict[str, Any] = {
    "methods": "guidance_cam",
    "target_layer": None,
    "fuse": None,
    "targets": "label",
    "num_samples": 16,
    "selection": "balanced",
    "batch": None,
    "every_n_epochs": 1,
    "every_n_train_steps": None,
    "scores": None,
    "final_scores": (),
    "checks": None,
    "max_overhead": 0.05,
    "removal": "neighbours",
    "adapter": None,
    "forward": None,
    "normalize": None,
    "reshape_transform": None,
    "class_names": None,
    "log_prefix": "saliency",
    "sample_images": False,
    "on_error": "warn",
    "dataloader_idx": 0,
    "scale": "own",
    "show_change": False,
    "head": None,
    "verbose": False,
}


def modules() -> list[str]:
    found = pkgutil.walk_packages(lightning_gcam.__path__, "lightning_gcam.")
    return ["lightning_gcam", *(each.name for each in found)]


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(function).parameters)
    found.pop("self", None)
    return found


def defaults(function: Any) -> dict[str, Any]:
    return {name: each.default for name, each in parameters(function).items()}


@pytest.mark.parametrize("room", FACADES)
def test_a_facade_is_what_it_says(room: str) -> None:
    module = importlib.import_module(room)
    assert set(module.__all__) == FACADES[room]
    assert list(module.__all__) == sorted(module.__all__)


@pytest.mark.parametrize("name", modules())
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what lives there"
    for public in getattr(module, "__all__", []):
        found = getattr(module, public)
        if inspect.isfunction(found) or inspect.isclass(found):
            ours = (
                found.__module__.startswith("lightning_gcam")
                and found.__module__ != "lightning_gcam.utils.lightning_compat"
            )
            assert not ours or inspect.getdoc(found), f"{name}.{public} has no docstring"


def test_every_room_has_a_tested_facade() -> None:
    with_all = {name for name in modules() if hasattr(importlib.import_module(name), "__all__")}
    tested_elsewhere = {  # tests/metrics, tests/visual; and the shim, which is nobody's to import
        "lightning_gcam.metrics",
        "lightning_gcam.metrics.functional",
        "lightning_gcam.visual",
        "lightning_gcam.utils.lightning_compat",
    }
    assert with_all == set(FACADES) | tested_elsewhere


@pytest.mark.parametrize("room", PINNED)
def test_pinned_names_can_be_imported(room: str) -> None:
    for name in PINNED[room]:
        namespace: dict[str, Any] = {}
        exec(f"from {room} import {name}", namespace)
        assert isinstance(namespace[name], ModuleType) or callable(namespace[name])


def test_the_same_thing_under_each_of_its_names() -> None:
    from lightning_gcam import SaliencyMonitor
    from lightning_gcam.callbacks import SaliencyMonitor as InItsRoom

    assert SaliencyMonitor is InItsRoom


def test_the_arguments_of_the_monitor() -> None:
    arguments = parameters(lightning_gcam.SaliencyMonitor.__init__)
    assert defaults(lightning_gcam.SaliencyMonitor.__init__) == MONITOR
    assert list(arguments) == list(MONITOR)
    assert {each.kind for each in arguments.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_arguments_of_the_alarm() -> None:
    alarm = lightning_gcam.ShortcutAlarm()
    assert alarm.alerts == []
    assert defaults(lightning_gcam.ShortcutAlarm.__init__) == {
        "thresholds": None,
        "looks_in_a_row": 2,
        "stop": False,
        "on_error": "warn",
    }
    kinds = {each.kind for each in parameters(lightning_gcam.ShortcutAlarm.__init__).values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def test_the_arguments_of_the_evaluation() -> None:
    arguments = parameters(lightning_gcam.SaliencyEvaluation.__init__)
    assert {each.kind for each in arguments.values()} == {inspect.Parameter.KEYWORD_ONLY}
    shared = set(arguments) & set(MONITOR) - {"log_prefix"}
    assert shared >= {"methods", "scores", "target_layer", "targets", "adapter", "forward", "on_error"}
    own = defaults(lightning_gcam.SaliencyEvaluation.__init__)
    assert {name: own[name] for name in shared} == {name: MONITOR[name] for name in shared}


def test_what_a_monitor_keeps() -> None:
    monitor = lightning_gcam.SaliencyMonitor()
    assert monitor.last_record is None
    assert monitor.history == []


def test_the_arguments_of_attribute() -> None:
    assert defaults(lightning_gcam.attribute) == {
        "model": inspect.Parameter.empty,
        "images": inspect.Parameter.empty,
        "targets": None,
        "methods": "guidance_cam",
        "target_layer": None,
        "reshape_transform": None,
        "forward": None,
        "fuse": None,
        "masks": None,
        "head": None,
    }
    kinds = [each.kind for each in parameters(lightning_gcam.attribute).values()]
    assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * 3 + [inspect.Parameter.KEYWORD_ONLY] * 7


def test_what_an_attribution_holds() -> None:
    fields = {each.name for each in dataclasses.fields(lightning_gcam.Attribution)}
    assert fields >= {"maps", "logits", "targets", "target_layer", "peaks", "explains", "values", "in_mask"}


def test_the_arguments_of_a_batch() -> None:
    assert defaults(lightning_gcam.SaliencyBatch) == {
        "images": inspect.Parameter.empty,
        **dict.fromkeys(("labels", "masks", "boxes", "suspect", "groups", "names")),
        **dict.fromkeys(("kind", "head_labels", "inputs", "faults")),
        **dict.fromkeys(("frames_first", "no_classes"), False),
    }
    assert lightning_gcam.SaliencyBatch(torch.zeros(2, 3, 4, 4)).labels is None


def test_the_names_of_the_methods() -> None:
    from lightning_gcam.cam import available_methods

    assert set(available_methods()) >= {
        "guidance_cam",
        "grad_cam",
        "grad_cam_plus_plus",
        "xgrad_cam",
        "layer_cam",
        "hires_cam",
        "hires_cam_squared",
        "layer_cam_squared",
    }


def test_errors_are_value_errors() -> None:
    with pytest.raises(ValueError, match="`methods`"):
        lightning_gcam.SaliencyMonitor(methods="no_such_cam")


def test_a_version() -> None:
    assert [int(part) for part in lightning_gcam.__version__.split(".")[:2]] >= [0, 1]
