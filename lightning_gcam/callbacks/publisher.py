"""A look sent to the loggers, and the messages that are logged once a run."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from lightning_gcam.callbacks.announcement import (
    announcement_of,
    as_text,
    description_of,
    destination_of,
)
from lightning_gcam.callbacks.error_policy import FailurePolicy
from lightning_gcam.callbacks.reading_notes import notes_of_parts
from lightning_gcam.callbacks.trainer_state import is_fitting
from lightning_gcam.cam.layers import TargetLayer
from lightning_gcam.data.fixed_samples import FixedBatch
from lightning_gcam.loggers import ReportLogger, log_picture, log_saliency
from lightning_gcam.loggers.disk import directory_of_logger, next_version, restored_on_failure
from lightning_gcam.loggers.files import write_look, write_picture, write_scores
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.heads import Layers
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.shortcuts import Reliance
from lightning_gcam.utils.isolation import same_random_streams
from lightning_gcam.utils.lightning_compat import Trainer, in_both, rank_zero_info


def explain_waiting(record: SaliencyRecord) -> None:
    """Log that the causal checks wait, and how they would not."""
    reliance = cast(Reliance, record.reliance)
    low, high = reliance.measurements["accuracy"].interval or (0.0, 1.0)
    rank_zero_info(
        f"The causal checks wait until accuracy is clearly above chance ({reliance.chance:.2f}): it is "
        f"{reliance.scores.get('accuracy', 0.0):.2f} [{low:.2f}, {high:.2f}]. `checks=[...]` by name do not wait."
    )


def explain_dense_logits(record: SaliencyRecord) -> None:
    """Log where a dense head's logits are summed, and what that does to the scores."""
    where = "in its mask" if bool(cast(Tensor, record.attribution.in_mask).all()) else "where it is predicted"
    rank_zero_info(
        f"The model gives logits at every position: a map explains the sum of a class's logits over the positions "
        f"{where}. Behind a late layer nothing but these positions can matter, so energy is high there whatever the "
        "model has learned; an early or a coarse layer sees the surroundings, too."
    )


def explain_probabilities(record: SaliencyRecord) -> None:
    """Log that the model gives probabilities, or the scores of detections, and how they are read."""
    squash = record.attribution.squash
    if record.attribution.predicted_boxes is not None:
        rank_zero_info(
            "The model returns detections: a map explains the score of the class's best one, and where there are "
            "target boxes, of those that match one (an IoU of 0.5 or more). `accuracy` is the share of samples whose "
            "class has the highest score, above 0.5."
        )
        return
    ends = {"log_sigmoid": "the logarithm of a sigmoid", "log_softmax": "the logarithm of a softmax"}
    rank_zero_info(
        f"The model's forward ends with {ends.get(str(squash), f'a {squash}')}: its outputs are read as probabilities, "
        "without a second sigmoid or softmax, and the maps explain the logits in front of it."
    )


_COINCIDE = {"grad_cam": "Grad-CAM", "xgrad_cam": "XGrad-CAM", "hires_cam": "HiResCAM"}


def explain_even_gradients(layer: TargetLayer, methods: Collection[str]) -> None:
    """Log why several methods give the same map here, and at which earlier layer they differ."""
    same = [text for name, text in _COINCIDE.items() if name in methods]
    with_guidance = "guidance_cam" in methods
    if len(same) < 2 and not with_guidance:
        return
    coincide = f"{', '.join(same[:-1])} and {same[-1]} coincide there" if len(same) > 1 else ""
    squared = (
        "guidance_cam is Grad-CAM squared: sharper, with the same order of pixels" if with_guidance else ""
    )
    earlier = (  # docs/methods_on_photographs.md
        f' The methods differ at target_layer="{layer.earlier[0]}", whose maps are not better ones: '
        'take methods="layer_cam" or "hires_cam" there.'
        if layer.earlier
        else ""
    )
    rank_zero_info(
        f'At layer "{layer.name}" the gradients are constant over space (a global-average-pooled linear head): '
        f"{', and '.join(each for each in (coincide, squared) if each)}.{earlier}"
    )


FEW_CELLS = 4
"""A grid of fewer cells a side, on average, is too coarse to say much of where."""

_UNITS = {"signal": "points of the signal", "volume": "voxels of the volume", "video": "pixels of the video"}


def explain_coarse_grid(record: SaliencyRecord, layers: Sequence[TargetLayer]) -> None:
    """Log that a map of a few cells is coarse, and which earlier layer is finer; nothing for a finer grid."""
    size = record.batch.image_size
    few = FEW_CELLS ** len(size)
    for layer in layers:
        if layer.grid is None or math.prod(layer.grid) >= few:
            continue
        finer = next((each for each in layer.others if math.prod(each.grid or ()) >= few), None)
        earlier = (
            f' An earlier layer is finer: target_layer="{finer.name}" ({_by(finer.grid)}).'
            if finer is not None and finer.grid is not None
            else " Larger images have a finer one."
        )
        covered = [round(side / cells) for side, cells in zip(size, layer.grid, strict=True)]
        rank_zero_info(
            f'At layer "{layer.name}" the grid is only {_by(layer.grid)}: each of its cells covers about '
            f"{_by(covered)} {_UNITS.get(str(record.batch.kind), 'pixels of the image')}, so the maps and the "
            f"localization scores tell little of where.{earlier}"
        )


def _by(sides: Sequence[int]) -> str:
    """The lengths of the sides, as in 7 x 7."""
    return " x ".join(map(str, sides))


class Publisher:
    """Send the looks of one run to the loggers.

    Args:
        failures: the policy for what could not be shown.
        directory: where files go where there is no logger; a new one where it is left out.
        schedule: when looks are taken, in words.
        verbose: whether each look is logged in a line.
    """

    def __init__(
        self,
        failures: FailurePolicy,
        directory: Path | None = None,
        *,
        schedule: str = "",
        verbose: bool = False,
    ) -> None:
        self.failures = failures
        self.directory = directory
        self._schedule = schedule
        self._verbose = verbose
        self._pages: dict[Path, ReportLogger] = {}
        self._announced: set[str] = set()
        self._waiting: set[str] = set()
        self._exchanges_shown_at: dict[str, int] = {}
        self._last_exchanges: dict[str, SaliencyRecord] = {}

    @property
    def pages(self) -> list[ReportLogger]:
        """The reports that lie beside the files."""
        return list(self._pages.values())

    def show(
        self,
        trainer: Trainer,
        record: SaliencyRecord,
        fixed: FixedBatch,
        layers: Layers,
        config: LookConfig,
    ) -> None:
        """Show the pictures and the texts of a look; only rank zero does."""
        is_rehearsal = getattr(trainer, "fast_dev_run", False)
        with self.failures.guard("Describing the look"):
            for kind, message in notes_of_parts(record, fixed):
                if not is_rehearsal:
                    self.failures.warn_once(kind, message)
        if not trainer.is_global_zero:
            return
        to_files = not trainer.loggers and not is_rehearsal
        if to_files:
            with self.failures.guard("Writing the look"):
                self.directory = self.directory or next_version(
                    Path(trainer.default_root_dir) / "lightning_gcam"
                )
        for part in record.parts:
            of_part = [*chain(*(layers[plan] for plan in layers if (plan.name or "") == part.stamp.head))]
            self._explain(trainer, part, of_part, config)
        is_drawn = (trainer.loggers or to_files) and self._draws(record)
        for logger in trainer.loggers:
            if is_drawn or isinstance(logger, ReportLogger):  # the page is drawn where it is read
                with (
                    self.failures.guard(_logging_to(logger)),
                    same_random_streams(),
                    restored_on_failure(logger),
                ):
                    log_saliency(logger, record)
            if isinstance(logger, in_both("loggers.CSVLogger")):
                with self.failures.guard(_logging_to(logger)), same_random_streams():
                    self._write_page(trainer, directory_of_logger(logger), record)
        if to_files and self.directory is not None:
            with self.failures.guard("Writing the look"):
                (write_look if is_drawn else write_scores)(self.directory, record)
            with self.failures.guard("Writing the look"):
                self._write_page(trainer, self.directory, record)
        for part in record.parts:
            if part.exchange_logits:
                self._last_exchanges[part.tag] = part
            if is_drawn and part.tag not in self._exchanges_shown_at:
                self._show_exchanges(trainer, part)

    def _explain(
        self, trainer: Trainer, record: SaliencyRecord, layers: Sequence[TargetLayer], config: LookConfig
    ) -> None:
        """Log once which layer, samples and scores the looks are of, and that checks wait; each look with `verbose`."""
        with self.failures.guard("Saying what is looked at"):
            if layers and record.tag not in self._announced:
                self._announced.add(record.tag)
                self._announce(trainer, record, layers, config)
            if self._verbose:
                rank_zero_info(description_of(record))
            if record.checks_wait and record.tag not in self._waiting:
                self._waiting.add(record.tag)
                explain_waiting(record)

    def show_last_exchanges(self, trainer: Trainer) -> None:
        """Show the exchanges of the run's last look that has any, where a look before it was the first."""
        for tag, record in self._last_exchanges.items():
            if self._exchanges_shown_at.get(tag, record.step) != record.step:
                self._show_exchanges(trainer, record)

    def _show_exchanges(self, trainer: Trainer, record: SaliencyRecord) -> None:
        """Show a sample with its edits, where the look has any; only rank zero does."""
        if not trainer.is_global_zero or not record.exchange_logits:
            return
        self._exchanges_shown_at[record.tag] = record.step
        tag = f"{record.stamp.log_prefix}/exchanges"
        with self.failures.guard("Showing the exchanges"), same_random_streams():
            picture = record.exchange_figure().image
            for logger in trainer.loggers:
                with self.failures.guard(_logging_to(logger)), restored_on_failure(logger):
                    log_picture(logger, tag, picture, record.step)
            if not trainer.loggers and self.directory is not None:
                write_picture(self.directory, tag, picture, record.step)

    def send_scores(self, trainer: Trainer, record: SaliencyRecord) -> None:
        """Log the scores as any other metric, at the look's step."""
        for logger in [*trainer.loggers, *self.pages]:
            with self.failures.guard(_logging_to(logger)), same_random_streams(), restored_on_failure(logger):
                logger.log_metrics({**record.metrics, "epoch": record.epoch}, step=record.step)
                logger.save()

    def add_scores(self, trainer: Trainer, record: SaliencyRecord) -> None:
        """As `send_scores`, and into the files, where there is no logger."""
        self.send_scores(trainer, record)
        if self.directory is not None and trainer.is_global_zero:
            with self.failures.guard("Writing the final scores"):
                write_scores(self.directory, record)

    def keep_metrics(self, trainer: Trainer, step: int) -> None:
        """Add the user's own metrics of the epoch that has ended to the pages beside the files.

        Call it between epochs: there Lightning has reduced them already, and nothing is computed by reading them.
        """
        for page in self.pages:
            with self.failures.guard(_logging_to(page)):
                numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
                page.log_metrics({**numbers, "epoch": trainer.current_epoch - 1}, step)
                page.save()

    def finish(self) -> None:
        """Bring the pages beside the files up to date."""
        for page in self.pages:
            with self.failures.guard(_logging_to(page)):
                page.finalize("success")

    def _write_page(self, trainer: Trainer, directory: Path, record: SaliencyRecord) -> None:
        """Write the report beside the files, unless the run has one of its own."""
        if not any(isinstance(logger, ReportLogger) for logger in trainer.loggers):
            self._pages.setdefault(directory, ReportLogger(directory)).log_look(record)

    def _draws(self, record: SaliencyRecord) -> bool:
        """Draw the look once for all loggers; whether that succeeded."""
        with self.failures.guard("Drawing the look"):
            return record.overlay is not None
        return False

    def _announce(
        self, trainer: Trainer, record: SaliencyRecord, layers: Sequence[TargetLayer], config: LookConfig
    ) -> None:
        """Log which layer, samples and scores the looks are of; of further heads the first two lines."""
        schedule = self._schedule if is_fitting(trainer) else ""
        title, rows = announcement_of(
            record, layers, config, schedule, destination_of(trainer, self.directory)
        )
        rank_zero_info(as_text(title, rows[: 1 if len(self._announced) > 1 else None]))
        explain_coarse_grid(record, layers)
        if record.attribution.even_gradients:
            explain_even_gradients(layers[0], config.method_table)
        if record.attribution.squash is not None and record.attribution.explains == "classes":
            explain_probabilities(record)
        if record.attribution.in_mask is not None and record.attribution.explains == "classes":
            explain_dense_logits(record)


def _logging_to(logger: Any) -> str:
    """The name of the failure to log a look, the same for its pictures and its scores."""
    return f"Logging the look to {type(logger).__name__}"
