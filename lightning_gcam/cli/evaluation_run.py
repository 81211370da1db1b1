"""The command `lightning-gcam evaluate`: its model, its data and its callback, and a Trainer that tests."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_gcam.callbacks import SaliencyEvaluation
from lightning_gcam.cam.calling import call_model
from lightning_gcam.cam.forward import logits_of
from lightning_gcam.datasets import DatasetModule, dataset_module
from lightning_gcam.evaluation.result import TABLE
from lightning_gcam.loggers.disk import claim_directory
from lightning_gcam.utils.errors import InputError, did_you_mean
from lightning_gcam.utils.files import safe_name
from lightning_gcam.utils.isolation import untouched
from lightning_gcam.utils.lightning_compat import (
    LightningModule,
    Trainer,
    rank_zero_info,
    rank_zero_warn,
    seed_everything,
)


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
            checks=list(chain(*chosen.checks)) if chosen.checks is not None else None,
            check_samples=chosen.check_samples,
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


Stats = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel."""


class Explained(LightningModule):
    """A model as `trainer.test` takes it, whatever it was written for: its own steps and hooks are not run.

    Args:
        model: any `nn.Module`.
        expects: the normalization of the images that it was trained with; None for the dataset's.
    """

    def __init__(self, model: nn.Module, expects: Stats | None = None) -> None:
        super().__init__()
        self.model = model
        self.expects = expects
        self._scale: tuple[Tensor, Tensor] | None = None

    def renormalize(self, given: Stats) -> None:
        """Convert images from the dataset's normalization into the one that the model was trained with.

        Args:
            given: the normalization of the images that come.
        """
        if self.expects is None or self.expects == given:
            return
        (mean, std), (own_mean, own_std) = (
            (torch.tensor(each) for each in given),
            (torch.tensor(each) for each in self.expects),
        )
        self._scale = (std / own_std)[:, None, None], ((mean - own_mean) / own_std)[:, None, None]

    def forward(self, images: Tensor) -> Any:
        """What the model gives for images `(N, C, H, W)`."""
        if self._scale is not None:
            factor, shift = (each.to(images) for each in self._scale)
            images = images * factor + shift
        return call_model(self.model, images, None)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Do nothing: the callback evaluates."""


def build_model(
    name: str | None,
    module: str | None,
    *,
    weights: str | None = None,
    checkpoint: Path | None = None,
    outputs: int | None = None,
) -> Explained:
    """The model that the command line names.

    Args:
        name: torchvision's or timm's; `timm:<name>` where both have it.
        module: the class path of a LightningModule, in the place of a name.
        weights: "DEFAULT", the name of the library's, or a file; random where it is left out.
        checkpoint: of Lightning's.
        outputs: how many a model without the library's own weights has.

    Raises:
        InputError: naming the argument, what came, and what to do.
    """
    if checkpoint is not None and not checkpoint.is_file():
        raise InputError(f'`--checkpoint` "{checkpoint}" is no file. Give the path of a .ckpt.')
    if module is not None:
        if weights is not None:
            raise InputError("`--weights` belongs to `--model`. Give `--checkpoint` with `--module`.")
        return Explained(_own_module(module, checkpoint))
    assert name is not None
    if weights is not None and checkpoint is not None:
        raise InputError(
            "`--weights` and `--checkpoint` are both given. Give the one whose weights are meant."
        )
    source = str(checkpoint) if checkpoint is not None else weights
    is_file = source is not None and (checkpoint is not None or Path(source).is_file())
    library, plain = _library_of(name)
    make = _from_timm if library == "timm" else _from_torchvision
    try:
        model, expects = make(plain, None if is_file else source, outputs)
    except (MemoryError, RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f'`--model` "{name}" with {outputs} outputs could not be made: {reason}') from error
    if is_file:
        load_state(model, Path(str(source)), f"{name} with {outputs} outputs")
    elif source is None:
        _warn_of_random(f"`--model {name}`", "--weights DEFAULT, or the file of a training,")
    return Explained(model, expects)


def load_state(model: nn.Module, path: Path, what: str) -> None:
    """Load a state dict from a file: plain, under "state_dict" or "model", and with a prefix or without.

    Args:
        model: whose parameters they are.
        path: of the file; it is read with `weights_only=True`.
        what: the model is called in an error.

    Raises:
        InputError: where the file holds something else.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f'`--weights` "{path}" cannot be read as weights alone ({type(error).__name__}: {error}). Save '
            "`model.state_dict()` with torch.save."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(each, Tensor) for each in found.values()):
        raise InputError(
            f'`--weights` "{path}" holds no state dict. Save `model.state_dict()` with torch.save.'
        )
    try:
        model.load_state_dict(without_prefix(found, model.state_dict()))
    except RuntimeError as error:
        reasons = "\n".join(str(error).splitlines()[:4])
        raise InputError(f'`--weights` "{path}" does not fit {what}: {reasons}') from error


def without_prefix(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a state dict under the model's own names, without a prefix such as a LightningModule's "net.".

    Example:
        >>> without_prefix({"net.weight": torch.ones(1), "loss.weight": torch.zeros(1)}, {"weight": torch.zeros(1)})
        {'weight': tensor([1.])}
    """
    first = next(iter(own), "")
    endings = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
    prefix = min(endings, key=len, default="")
    if not prefix:
        return dict(state)
    return {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}


def _library_of(name: str) -> tuple[str, str]:
    """The library that has a model, torchvision first, and the model's name in it."""
    from torchvision.models import list_models  # type: ignore[import-untyped]

    library, _, plain = name.rpartition(":")
    if library not in ("", "timm", "torchvision"):
        raise InputError(
            f'`--model` "{name}": "{library}" is no library that is known. Use torchvision: or timm:.'
        )
    has_timm = importlib.util.find_spec("timm") is not None
    known = {"torchvision": list_models(), "timm": []}
    if has_timm:
        known["timm"] = importlib.import_module("timm").list_models()
    for each in (library,) if library else ("torchvision", "timm"):
        base = plain.split(".")[0] if each == "timm" else plain  # timm: <architecture>.<tag>
        if base in known[each]:
            return each, plain
    install = "" if has_timm else " (timm, which has more, is not installed: pip install timm)"
    near = did_you_mean(plain, [*known["torchvision"], *known["timm"]])
    raise InputError(f"`--model` \"{name}\" is no model of torchvision's or timm's{install}. {near}")


def _from_torchvision(name: str, weights: str | None, outputs: int | None) -> tuple[nn.Module, Stats | None]:
    from torchvision.models import get_model, get_model_weights

    if weights is None:
        return get_model(name, weights=None, **({"num_classes": outputs} if outputs else {})), None
    known = get_model_weights(name)
    if weights != "DEFAULT" and weights not in known.__members__:
        raise InputError(
            f'`--weights` "{weights}" is neither a file nor weights of {name}. '
            f"{did_you_mean(weights, ['DEFAULT', *known.__members__])}"
        )
    chosen = known[weights] if weights != "DEFAULT" else known.DEFAULT
    preset = chosen.transforms()
    expects = (tuple(preset.mean), tuple(preset.std)) if hasattr(preset, "mean") else None
    return get_model(name, weights=chosen), expects


def _from_timm(name: str, weights: str | None, outputs: int | None) -> tuple[nn.Module, Stats | None]:
    import timm

    if weights is None:
        return timm.create_model(name, pretrained=False, num_classes=outputs), None
    if weights != "DEFAULT":
        name = f"{name.split('.')[0]}.{weights}"
    try:
        model = timm.create_model(name, pretrained=True)
    except RuntimeError as error:
        raise InputError(f'`--weights` "{weights}" of timm\'s {name} could not be had: {error}') from error
    config: Any = model.pretrained_cfg
    return model, (tuple(config["mean"]), tuple(config["std"]))


def _own_module(path: str, checkpoint: Path | None) -> nn.Module:
    """A LightningModule by its class path, from a checkpoint or as its arguments' defaults make it."""
    kind = _import(path)
    try:
        if checkpoint is not None:
            return kind.load_from_checkpoint(checkpoint, map_location="cpu")  # type: ignore[no-any-return]
        made: nn.Module = kind()
    except Exception as error:
        how = f"from {checkpoint}" if checkpoint is not None else "without arguments"
        raise InputError(
            f"`--module` {path} could not be made {how}: {type(error).__name__}: {error}. Its hyperparameters have to "
            "be in the checkpoint (`self.save_hyperparameters()`), or to have defaults."
        ) from error
    _warn_of_random(f"`--module {path}`", "--checkpoint")
    return made


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")) or not module:
        raise InputError(f'`--module` "{path}" is no path of a class. Give package.module.Class.')
    if str(Path.cwd()) not in sys.path:
        # a command that is installed does not look in the working directory; last, so that no file in it takes the
        # place of an installed package that something else imports
        sys.path.append(str(Path.cwd()))
    try:
        found = importlib.import_module(module)
        kind = getattr(found, name)
    except (Exception, SystemExit) as error:  # whatever the user's file does when it is imported
        cause = (
            str(error)
            if isinstance(error, ImportError | AttributeError)
            else f"{type(error).__name__}: {error}"
        )
        raise InputError(
            f'`--module` "{path}" cannot be imported: {cause}. Give package.module.Class.'
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, nn.Module) and hasattr(kind, "load_from_checkpoint")):
        raise InputError(f'`--module` "{path}" is no LightningModule. Give package.module.Class.')
    rank_zero_info(f"`--module` {path} is of {getattr(found, '__file__', None) or module}")
    return kind


def _warn_of_random(what: str, remedy: str) -> None:
    rank_zero_warn(
        f"{what} has random weights: its maps and scores say nothing of a trained model. Give {remedy} to evaluate one."
    )
