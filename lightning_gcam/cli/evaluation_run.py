"""The command `lightning-gcam evaluate`: data, model and callback, and a Trainer that tests."""

from __future__ import annotations

import argparse
import json
import os
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from lightning_gcam.callbacks import SaliencyEvaluation
from lightning_gcam.cam.forward import logits_of
from lightning_gcam.cli.models import Explained, build_model
from lightning_gcam.datasets import DatasetModule, dataset_module
from lightning_gcam.evaluation.result import TABLE
from lightning_gcam.loggers.disk import claim_directory
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.files import safe_name
from lightning_gcam.utils.isolation import untouched
from lightning_gcam.utils.lightning_compat import Trainer, seed_everything


def evaluate(chosen: argparse.Namespace) -> Path | None:
    """Evaluate, and give the path of the table; None in a process that does not write.

    Args:
        chosen: the arguments, as `lightning_gcam.cli.evaluate` declares them.

    Raises:
        InputError: what cannot be used, or found.
    """
    output = chosen.output or Path("evaluations") / safe_name(f"{chosen.dataset}-{_model_name(chosen)}")
    evaluation = _evaluation(chosen, output)
    is_there = (output / TABLE).exists() and not chosen.force
    if is_there and not any(output.glob("*/*.npz")):  # nothing to go on with: refused before anything is read
        raise _already(output)
    if os.environ.get("LOCAL_RANK", "0") == "0" and not claim_directory(output):
        raise InputError(
            f'"{output}" is written to by another evaluation. Wait for it, or give another --output.'
        )
    seed_everything(chosen.seed, workers=True)
    data = _data(chosen)
    data.setup("test")
    model = build_model(
        chosen.model,
        chosen.module,
        weights=chosen.weights,
        checkpoint=chosen.checkpoint,
        outputs=chosen.outputs or data.num_classes,
    )
    if is_there and not evaluation.is_unfinished(model):
        raise _already(output)
    model.renormalize(data.normalize)
    if chosen.targets == "label":
        data.check_outputs(_outputs(model, chosen.image_size))
    trainer = _trainer(chosen, evaluation, output)
    trainer.test(model, datamodule=data, verbose=False)
    return output / TABLE if trainer.is_global_zero else None


def _trainer(chosen: argparse.Namespace, evaluation: SaliencyEvaluation, output: Path) -> Trainer:
    try:
        return Trainer(
            accelerator=chosen.accelerator,
            devices=chosen.devices,
            strategy="ddp" if chosen.devices > 1 else "auto",
            precision=chosen.precision,
            callbacks=[evaluation],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            default_root_dir=output,
        )
    except Exception as error:  # Lightning's own, a ValueError among them
        raise InputError(
            f'`--accelerator` "{chosen.accelerator}", `--devices` {chosen.devices} or `--precision` '
            f'"{chosen.precision}" cannot be used here: {error}'
        ) from error


def _already(output: Path) -> InputError:
    return InputError(
        f'"{output / TABLE}" is there already. Give --force to write over it, or another --output.'
    )


def _evaluation(chosen: argparse.Namespace, output: Path) -> SaliencyEvaluation:
    """Make the callback, and report what it refuses as wrong arguments."""
    layers = list(chain(*chosen.target_layer)) if chosen.target_layer else None
    try:
        return SaliencyEvaluation(
            methods=list(chain(*chosen.methods)),
            scores=list(chain(*chosen.scores)) if chosen.scores else None,
            target_layer=[f"model.{layer}" for layer in layers] if layers else None,
            fuse=chosen.fuse,
            targets=chosen.targets,
            multi_label=chosen.multi_label,
            chunk_size=chosen.chunk_size,
            directory=output,
            resume=not chosen.no_resume,
            on_error="raise",
            about={
                "dataset": chosen.dataset,
                "model": chosen.model or chosen.module,
                "probabilities": "sigmoid" if chosen.multi_label else "softmax",
            },
        )
    except InputError as error:
        raise SystemExit(chosen.parser.error(str(error))) from error


def _data(chosen: argparse.Namespace) -> DatasetModule:
    options: dict[str, Any] = {"subset": chosen.subset}
    if chosen.annotation is not None:
        options["annotation"] = chosen.annotation
    if chosen.class_map is not None:
        options["class_map"] = _class_map(chosen.class_map)
    try:
        return dataset_module(
            chosen.dataset,
            chosen.root,
            batch_size=chosen.batch_size,
            num_workers=chosen.num_workers,
            image_size=chosen.image_size,
            limit=chosen.limit,
            **options,
        )
    except TypeError as error:
        raise InputError(f"`--annotation` is nothing that {chosen.dataset} has: {error}.") from error


def _class_map(path: Path) -> dict[str, int]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors put a mark in front
    except RecursionError:
        raise InputError(f'`--class-map` "{path}" is nested too deep. Give {{class name: output}}.') from None
    except UnicodeDecodeError as error:
        raise InputError(f'`--class-map` "{path}" is not in UTF-8 ({error}). Save it in UTF-8.') from error
    except ValueError as error:
        raise InputError(f'`--class-map` "{path}" is no JSON: {error}.') from error
    if not isinstance(found, dict):
        raise InputError(
            f'`--class-map` "{path}" must hold {{class name: output}}; got a {type(found).__name__}.'
        )
    return found


def _outputs(model: Explained, image_size: int) -> int:
    """How many numbers the model gives for an image."""
    with untouched(model), torch.no_grad():
        return logits_of(model, torch.zeros(1, 3, image_size, image_size)).shape[1]


def _model_name(chosen: argparse.Namespace) -> str:
    """The model's name as it stands in a directory's name."""
    name: str = chosen.model or chosen.module
    return name.replace(":", "-").replace("/", "-")
