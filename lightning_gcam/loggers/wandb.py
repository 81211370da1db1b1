"""The backend for Weights & Biases: the overlay, tables, and each sample with its masks and boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from lightning_gcam.loggers.disk import encode_jpeg, run_all, write_png
from lightning_gcam.loggers.registry import Backend, Pixels, Rows, has, register_backend
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.report.serialize import predicted, sample_scores, true_classes
from lightning_gcam.utils.files import safe_path
from lightning_gcam.visual import to_display
from lightning_gcam.visual.layout import cut_panels
from lightning_gcam.visual.overlay import enlarge, shrink_maps

_LONGEST_TITLE = 63
"""Of an alert: W&B takes titles of less than 64 characters."""

_OBJECT, _SUSPECT = (1, "object"), (2, "suspect")
"""The numbers and names of the regions: W&B has one list of classes for all masks and boxes of a picture."""

SampleImages = list[tuple[Any, list[Any]]]
"""For each sample its picture and its heatmaps, as `wandb.Image`."""


def sample_images(record: SaliencyRecord, folder: Path) -> SampleImages:
    """Return each sample's picture and heatmaps as `wandb.Image`, with masks and boxes that can be switched on and off.

    Args:
        record: the look.
        folder: where the files are until they are logged.
    """
    import wandb

    masks, boxes = _masks(record), _boxes(record)
    panels, columns = cut_panels(record.overlay, record.layout), max(len(record.attribution.maps), 1)
    first = record.layout.pictures
    stride = max(
        (record.layout.panels - first) // columns, 1
    )  # a map's own panel is the first of its columns
    is_flat = record.batch.kind == "image"
    pictures = (
        _pictures(record) if is_flat else [each[0] for each in panels]
    )  # the regions are drawn in others
    shown: SampleImages = []
    for index, (picture, caption) in enumerate(zip(pictures, record.captions, strict=True)):
        regions: dict[str, Any] = {
            "masks": {name: wandb.data_types.ImageMask(each, name) for name, each in masks[index].items()},
            "boxes": boxes[index],
            "caption": caption,
        }
        image, *heat = (
            wandb.Image(_write_jpeg(pixels, folder / f"{index}-{panel}.jpg"), **regions)
            for panel, pixels in enumerate([picture, *panels[index][first::stride]])
        )
        shown.append((image, heat))
    return shown


def samples_table(record: SaliencyRecord, shown: SampleImages) -> Any:
    """Return the table of the samples of a look, a row each.

    Args:
        record: the look.
        shown: as `sample_images` gives it.
    """
    groups = record.batch.groups.tolist() if record.batch.groups is not None else [None] * len(shown)
    facts = zip(true_classes(record), predicted(record), record.correct, groups, strict=True)
    rows = [
        {
            "step": record.step,
            "epoch": record.epoch,
            "sample": name,
            "image": image,
            **dict(zip(record.attribution.maps, maps, strict=True)),
            "caption": caption,
            "true": ", ".join(true) or None,
            "predicted": guess.get("predicted"),
            "probability": guess.get("probability"),
            "correct": correct,
            "group": group,
        }
        for name, (image, maps), caption, (true, guess, correct, group) in zip(
            _sample_names(record), shown, record.captions, facts, strict=True
        )
    ]
    return _table([row | scores for row, scores in zip(rows, sample_scores(record), strict=True)])


def measurements_table(record: SaliencyRecord) -> Any:
    """Return the table of the scores with their n, what was left out, and their intervals.

    Args:
        record: the look.
    """
    rows = [{name: None if value == "" else value for name, value in row.items()} for row in record.table]
    return _table([{"step": record.step, **row} for row in rows])


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Create a `wandb.Table`; a value that a row lacks is empty."""
    import wandb

    columns = list(dict.fromkeys(name for row in rows for name in row))
    return wandb.Table(columns=[*columns], data=[[row.get(name) for name in columns] for row in rows])


def _write_jpeg(picture: npt.NDArray[np.uint8], path: Path) -> str:
    """Write a picture as a JPEG of high quality, and return its path; W&B's own JPEGs smear small maps."""
    path.write_bytes(encode_jpeg(picture))
    return str(path)


def _sample_names(record: SaliencyRecord) -> list[str]:
    given = record.batch.names or [""] * len(record.batch)
    return [name or str(number) for number, name in enumerate(given)]


def _pictures(record: SaliencyRecord) -> list[npt.NDArray[np.uint8]]:
    layout = record.layout
    images = to_display(record.batch.images, record.stamp.normalize, layout.work)
    return list(enlarge(images, layout.factors).permute(0, 2, 3, 1).numpy())


def _masks(record: SaliencyRecord) -> list[dict[str, dict[str, Any]]]:
    """Return the known masks of each image, object and suspect region, in the size of its picture."""
    batch = record.batch
    found: list[dict[str, dict[str, Any]]] = [{} for _ in range(len(batch))]
    if batch.kind != "image":
        return found
    for masks, (number, name) in ((batch.masks, _OBJECT), (batch.suspect_masks, _SUSPECT)):
        if masks is not None:
            for row, mask in zip(found, _resized(masks, record), strict=True):
                row[name] = {"mask_data": mask * np.uint8(number), "class_labels": {number: name}}
    return found


def _resized(masks: Tensor, record: SaliencyRecord) -> npt.NDArray[np.uint8]:
    layout = record.layout
    shown = enlarge(shrink_maps(masks.bool(), *layout.work), layout.factors)
    return shown.to("cpu").numpy().astype(np.uint8)


def _boxes(record: SaliencyRecord) -> list[dict[str, dict[str, Any]]]:
    if record.batch.boxes is None or record.batch.kind != "image":
        return [{}] * len(record.batch)
    height, width = record.batch.images.shape[2:]
    number, name = _OBJECT
    return [
        {name: {"box_data": data, "class_labels": {number: name}}}
        if (data := [_box(corners, height, width) for corners in boxes.tolist() if _is_valid_box(corners)])
        else {}
        for boxes in record.batch.boxes
    ]


def _is_valid_box(corners: list[float]) -> bool:
    left, top, right, bottom = corners
    return all(map(math.isfinite, corners)) and right > left and bottom > top


def _box(corners: list[float], height: int, width: int) -> dict[str, Any]:
    """Return a box in shares of the picture's size."""
    left, top, right, bottom = corners
    number, name = _OBJECT
    position = {
        "minX": left / width,
        "maxX": right / width,
        "minY": top / height,
        "maxY": bottom / height,
    }
    return {"position": position, "class_id": number, "box_caption": name}


def log_to_wandb(logger: Any, record: SaliencyRecord) -> None:
    """Log the look on the axis `trainer/global_step`: pictures and tables, under four keys.

    The step goes through `WandbLogger.log_metrics`, which writes it as a value of the row. W&B's own `step=` is never
    used: it drops whatever comes behind a later step, without an error.

    `saliency/samples` has each sample's heat with the object and the suspect region as masks to switch on and off;
    `saliency/table` a row a sample, one table a look under one key; `saliency/measurements` each score with its n and
    its interval.

    Args:
        logger: a `WandbLogger`.
        record: the look; of several heads, one after the other.
    """
    if record.heads:
        run_all(partial(log_to_wandb, logger, each) for each in record.heads.values())
        return
    prefix = safe_path(record.stamp.log_prefix)  # W&B makes paths of the keys of pictures and tables
    picture_to_wandb(logger, record.tag, record.overlay, record.step)
    with TemporaryDirectory() as folder:  # as above
        shown = sample_images(record, Path(folder))
        row: dict[str, Any] = {f"{prefix}/table": samples_table(record, shown)}
        if record.attribution.maps:
            row[f"{prefix}/samples"] = [heat[0] for _, heat in shown]
        if record.table:
            row[f"{prefix}/measurements"] = measurements_table(record)
        logger.log_metrics(row, step=record.step)


def picture_to_wandb(logger: Any, tag: str, picture: Pixels, step: int) -> None:
    """Log a picture under the tag as `safe_path` writes it.

    Args:
        logger: a `WandbLogger`.
        tag: its name.
        picture: `(height, width, 3)`, uint8.
        step: of it.
    """
    with TemporaryDirectory() as folder:  # W&B has copied what is in it when it returns
        file = write_png(Path(folder) / "picture.png", picture)  # in a third of the time W&B takes
        logger.log_image(key=safe_path(tag), images=[str(file)], step=step)


def alert_to_wandb(logger: Any, alert: Mapping[str, Any]) -> None:
    """Send the alert by `run.alert`, its headline as the title: it reaches people by mail or Slack as they set it up.

    Args:
        logger: a `WandbLogger`, or any logger whose `experiment` has `alert(title, text, level=...)`.
        alert: as in `log_alert`.
    """
    title = f"ShortcutAlarm ({alert['log_prefix']})"
    if "headline" in alert:
        title = f"{title}: {alert['headline']}"
    if len(title) > _LONGEST_TITLE:  # the message begins with the whole headline
        title = f"{title[: _LONGEST_TITLE - 1]}…"
    logger.experiment.alert(title, alert["message"], level="WARN")


def table_to_wandb(logger: Any, tag: str, rows: Rows, step: int) -> None:
    """Log a table by `logger.log_table`, under the tag as `safe_path` writes it.

    Args:
        logger: a `WandbLogger`, or any logger with `log_table(key, columns, data, step=...)`.
        tag: its name.
        rows: its lines, one at least; their keys are its columns.
        step: of it.
    """
    data = [list(row.values()) for row in rows]
    logger.log_table(key=safe_path(tag), columns=list(rows[0]), data=data, step=step)


register_backend(
    Backend(
        log_look=log_to_wandb,
        log_alert=alert_to_wandb,
        log_table=table_to_wandb,
        types=["loggers.WandbLogger"],
        takes_alert=has("experiment.alert"),
        takes_table=has("log_table"),
        log_picture=picture_to_wandb,
    )
)
