"""What the monitor refuses, and that it does so before the first training step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from lightning_gcam.utils.errors import InputError
from tests.support.toys import (
    CLASSES,
    LIGHTNING_SAYS,
    SIZE,
    Recast,
    Toy,
    toy_loader,
    toy_samples,
    toy_trainer,
)

pytestmark = LIGHTNING_SAYS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": "guidance_can"}, r'`methods` "guidance_can".*Did you mean "guidance_cam"\?'),
        ({"methods": ["grad_cam", "lime"]}, r'`methods` "lime"'),
        ({"methods": []}, "`methods`"),
        ({"num_samples": 0}, "`num_samples` must be a whole number from 1; got 0"),
        ({"num_samples": 2.5}, "`num_samples` must be a whole number from 1; got 2.5"),
        ({"num_samples": True}, "`num_samples` must be a whole number from 1; got True"),
        (
            {"every_n_epochs": None},
            "`every_n_epochs` and `every_n_train_steps` are both None.*Give one, such as",
        ),
        ({"every_n_epochs": 0}, "`every_n_epochs` must be a whole number from 1, or None for never; got 0"),
        ({"every_n_train_steps": -5}, "`every_n_train_steps` must be .* from 1, or None for never; got -5"),
        ({"targets": "labels"}, '`targets` must be "label", "predicted".*got \'labels\''),
        ({"targets": -1}, "`targets` must be .*a class from 0.*got -1"),
        ({"targets": [0, 1]}, r"`targets` must be .*got \[0, 1\]"),
        ({"targets": True}, "`targets` must be .*got True"),
        ({"selection": "balance"}, r'`selection` "balance" is not known. Did you mean "balanced"\?'),
        ({"selection": []}, r'`selection` must be "balanced", "first", or positions.*at least one; got \[\]'),
        ({"selection": [-1]}, r"`selection` must be .*whole numbers from 0.*got \[-1\]"),
        ({"selection": [2, 2]}, r"`selection` names a position twice: \[2, 2\]"),
        ({"selection": 5}, "`selection` must be .*got 5"),
        ({"normalize": 0.5}, r"`normalize` must be a pair \(mean, std\) of finite numbers, but it is 0.5"),
        ({"normalize": (0.5, 0.0)}, "`normalize` needs every std above 0"),
        ({"normalize": ((0.5, 0.5), (0.1,) * 3)}, "`normalize` has 2 means and 3 stds"),
        ({"scores": "enrgy"}, r'`scores` "enrgy" is not a score. Did you mean "energy" or "entropy"\?'),
        ({"scores": 3}, "`scores` must be a name, a torchmetrics.Metric, .*, got int"),
        ({"scores": ["iou", None]}, "`scores` must be a name, a torchmetrics.Metric, .*, got NoneType"),
        ({"scores": ["iou", "iou"]}, '`scores` has two scores named "iou"'),
        ({"log_prefix": ""}, "`log_prefix` must be a name"),
        ({"sample_images": 4}, "`sample_images` must be True or False; got 4"),
        (
            {"class_names": "cats"},
            r"`class_names` must be a list of names, one for each class, such as \[.*got 'cats'",
        ),
        ({"on_error": "ignore"}, '`on_error` "ignore" is not known. Known: "warn", "raise"'),
        ({"batch": torch.ones(3, 8, 8)}, r"`images` must be \(N, C, H, W\), .*; got \(3, 8, 8\) float32"),
        ({"batch": "validation"}, "The batch could not be read: str. Pass `adapter=`"),
    ],
    ids=lambda value: "=".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else "",
)
def test_refused_at_the_door(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SaliencyMonitor(**arguments)


def test_arguments_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        SaliencyMonitor("grad_cam")  # type: ignore[misc]


def refused_before_training(
    root: Path,
    message: str,
    monitor: SaliencyMonitor,
    loader: Any = None,
    module: Any = None,
    **options: Any,
) -> None:
    trainer = toy_trainer(root, monitor, **options)
    with pytest.raises(InputError, match=message):
        trainer.fit(module or Toy(), toy_loader(32), loader if loader is not None else toy_loader())
    assert trainer.global_step == 0
    assert monitor.history == []


NO_SANITY_CHECK = pytest.mark.parametrize("sanity", [2, 0], ids=["sanity check", "no sanity check"])


def test_unknown_layer_names_the_nearest(tmp_path: Path) -> None:
    message = r'`target_layer` "netwrk.5" is not a module of Toy. Did you mean "network.5".*Leave it out'

    refused_before_training(tmp_path, message, SaliencyMonitor(target_layer="netwrk.5"))


@NO_SANITY_CHECK
def test_a_layer_that_gives_no_grid(tmp_path: Path, sanity: int) -> None:
    monitor = SaliencyMonitor(target_layer="network.8")
    message = r"`target_layer` gives \(1, 4\) for images \(1, 1, 16, 16\): not a grid"

    refused_before_training(tmp_path, message, monitor, num_sanity_val_steps=sanity)


@NO_SANITY_CHECK
def test_a_network_without_a_spatial_layer(tmp_path: Path, sanity: int) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    refused_before_training(
        tmp_path,
        "Toy has no spatial layer that influences its output.*convolutional network or a vision transformer",
        SaliencyMonitor(),
        module=Toy(network),
        num_sanity_val_steps=sanity,
    )


@NO_SANITY_CHECK
def test_a_class_outside_the_logits(tmp_path: Path, sanity: int) -> None:
    monitor = SaliencyMonitor(targets=CLASSES)

    refused_before_training(
        tmp_path,
        r"`targets` holds class 4, but the logits have 4 \(classes 0 to 3\)",
        monitor,
        num_sanity_val_steps=sanity,
    )


class Forgiving(Toy):
    """Its own loss takes any label, image or layout, so that only the monitor can complain."""

    def loss(self, batch: Any) -> Any:
        images, labels = batch[0], batch[1]
        if images.ndim == 3:
            images = images[:, None]
        return super().loss((images, labels.clamp(0, CLASSES - 1)))


def refused_data(root: Path, message: str, cast: Any, **arguments: Any) -> None:
    loader = DataLoader(Recast(cast), batch_size=8)

    refused_before_training(root, message, SaliencyMonitor(**arguments), loader, Forgiving())


@pytest.mark.parametrize("wrong", [0, 3], ids=["in the first sample", "in a later one"])
def test_a_label_outside_the_logits(tmp_path: Path, wrong: int) -> None:
    refused_data(
        tmp_path,
        r"`labels` holds class 9, but the logits have 4 \(classes 0 to 3\)",
        lambda image, label, mask: (image, torch.where(label == wrong, 9, label)),
    )


def left_out(root: Path, message: str, cast: Any) -> SaliencyBatch:
    """What is looked at where annotation cannot be read: one warning before the first step, and looks without it."""
    monitor, loader = SaliencyMonitor(), DataLoader(Recast(cast), batch_size=8)
    trainer = toy_trainer(root, monitor)
    with pytest.warns(UserWarning, match=message) as caught:
        trainer.fit(Forgiving(), toy_loader(32), loader)
    assert sum("could be read" in str(each.message) for each in caught) == 1
    assert len(monitor.history) == 2
    return monitor.last_record.batch


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    batch = left_out(
        tmp_path,
        r"`masks` must have the size of the images, \(8, 16, 16\); got \(8, 8, 16\) bool. Resize them first",
        lambda image, label, mask: (image, label, mask[::2]),
    )
    assert batch.masks is None and batch.labels.tolist() == sorted([0, 1, 2, 3] * 4)


def test_images_without_a_channel(tmp_path: Path) -> None:
    refused_data(
        tmp_path,
        r"`images` must be \(N, C, H, W\), .*; got \(8, 16, 16\) float32.*`adapter=`",
        lambda image, label, mask: (image[0], label),
    )


def test_a_layout_that_is_not_understood(tmp_path: Path) -> None:
    batch = left_out(
        tmp_path,
        r"(?s)Not all of the batch could be read: list \(Tensor \(8, 1, 16, 16\) float32, .*Pass `adapter=`",
        lambda image, label, mask: (image, label, mask, 3 - label, label),
    )
    assert batch.labels is None and batch.masks is not None


def test_an_adapter_that_gives_no_batch(tmp_path: Path) -> None:
    refused_data(
        tmp_path,
        "The batch could not be read: NoneType",
        lambda image, label, mask: (image, label),
        adapter=lambda batch: None,
    )


def test_an_adapter_that_raises(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(adapter=lambda batch: batch["image"])
    trainer = toy_trainer(tmp_path, monitor)

    with pytest.raises(
        InputError,
        match=r"`adapter` failed on the batch list \(Tensor \(8, 1, 16, 16\).*TypeError: list indices",
    ):
        trainer.fit(Toy(), toy_loader(32), toy_loader())
    assert trainer.global_step == 0


def test_a_normalization_for_another_number_of_channels(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(normalize=((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)))

    refused_before_training(tmp_path, "`normalize` is for 3 channels, but the images have 1", monitor)


@pytest.mark.parametrize("how", ["no loader", "limit_val_batches"])
def test_no_validation_data_and_no_batch(tmp_path: Path, how: str) -> None:
    monitor = SaliencyMonitor()
    trainer = toy_trainer(tmp_path, monitor, **({"limit_val_batches": 0} if how != "no loader" else {}))
    loaders = [toy_loader(32)] if how == "no loader" else [toy_loader(32), toy_loader()]

    with pytest.raises(InputError, match="no validation data to take samples from.*by hand with `batch=`"):
        trainer.fit(Toy(), *loaders)
    assert trainer.global_step == 0


def test_a_label_outside_the_logits_in_samples_given_by_hand(tmp_path: Path) -> None:
    images, labels, masks = toy_samples(6)
    monitor = SaliencyMonitor(batch=SaliencyBatch(images, labels + 3, masks))

    refused_before_training(tmp_path, "`labels` holds class 4, but the logits have 4", monitor)


def test_validate_refuses_too(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, SaliencyMonitor(targets=9))

    with pytest.raises(InputError, match="`targets` holds class 9"):
        trainer.validate(Toy(), toy_loader(), verbose=False)


def twice(features: Tensor) -> Tensor:
    return features.reshape(len(features), 3, 5, 7)


@NO_SANITY_CHECK
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"forward": lambda module, images: module.network[-1](images)},
            "`forward` failed on Toy.*RuntimeError",
        ),
        ({"forward": lambda module, images: module(images, 1)}, "`forward` failed on Toy.*TypeError"),
        ({"targets": lambda outputs: outputs[:, 9]}, r"`targets` failed on \(1, 4\) float32: IndexError"),
        (
            {"targets": lambda outputs: outputs @ outputs},
            r"`targets` failed on \(1, 4\) float32: RuntimeError",
        ),
        ({"targets": lambda outputs: outputs.none}, "`targets` failed on .*: AttributeError"),
        (
            {"target_layer": "network.3", "reshape_transform": twice},
            "`reshape_transform` failed on .*: RuntimeError: shape",
        ),
        ({"methods": lambda a, g: a.sum(dim=1) @ g[:, 0, :3]}, "`methods` failed on .*: RuntimeError"),
        ({"methods": lambda a, g: a["x"]}, "`methods` failed on .*: (IndexError|TypeError)"),
    ],
)
def test_one_mistake_is_refused_whatever_the_type_of_its_error(
    tmp_path: Path, arguments: dict[str, Any], message: str, sanity: int
) -> None:
    refused_before_training(tmp_path, message, SaliencyMonitor(**arguments), num_sanity_val_steps=sanity)
