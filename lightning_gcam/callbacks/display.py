"""Where a look is shown: every logger, or files where there is none; and, once, what is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_gcam._lightning import Trainer, in_both
from lightning_gcam.callbacks.announcement import (
    announce,
    say_what_a_coarse_grid_means,
    say_what_dense_logits_mean,
    say_what_even_gradients_mean,
    say_what_probabilities_mean,
    what_is_left_out,
)
from lightning_gcam.callbacks.failures import FailurePolicy
from lightning_gcam.callbacks.recipe import Recipe
from lightning_gcam.cam.layers import TargetLayer
from lightning_gcam.fixed_batch import FixedBatch
from lightning_gcam.isolation import same_random_streams
from lightning_gcam.loggers import ReportLogger, log_saliency, write_look, write_scores
from lightning_gcam.loggers.event_file import left_as_found
from lightning_gcam.loggers.files import directory_of, next_version
from lightning_gcam.record import SaliencyRecord


class Display:
    """Show the looks of one run.

    Args:
        failures: told what could not be shown.
        directory: where files go where there is no logger; a new one where it is left out.
    """

    def __init__(self, failures: FailurePolicy, directory: Path | None = None) -> None:
        self.failures = failures
        self.directory = directory
        self._pages: dict[Path, ReportLogger] = {}
        self._announced = False

    @property
    def pages(self) -> list[ReportLogger]:
        """The reports that lie beside the files."""
        return list(self._pages.values())

    def show(
        self,
        trainer: Trainer,
        record: SaliencyRecord,
        fixed: FixedBatch,
        layers: Sequence[TargetLayer],
        recipe: Recipe,
    ) -> None:
        """Show the picture and the words of a look; only rank zero does."""
        is_rehearsal = getattr(trainer, "fast_dev_run", False)
        with self.failures.guard("Describing the look"):
            for kind, message in what_is_left_out(record, fixed):
                if not is_rehearsal:
                    self.failures.warn_once(kind, message)
        if not trainer.is_global_zero:
            return
        with self.failures.guard("Saying what is looked at"):
            self._announce(record, layers, recipe)
        to_files = not trainer.loggers and not is_rehearsal
        is_drawn = (trainer.loggers or to_files) and self._draws(record)
        for logger in trainer.loggers:
            if is_drawn or isinstance(logger, ReportLogger):  # the page is drawn where it is read
                with self.failures.guard(_logging_to(logger)), same_random_streams(), left_as_found(logger):
                    log_saliency(logger, record)
            if isinstance(logger, in_both("loggers.CSVLogger")):
                with self.failures.guard(_logging_to(logger)), same_random_streams():
                    self._write_page(trainer, directory_of(logger), record)
        if to_files:
            with self.failures.guard("Writing the look"):
                root = Path(trainer.default_root_dir) / "lightning_gcam"
                self.directory = self.directory or next_version(root)
                (write_look if is_drawn else write_scores)(self.directory, record)
            with self.failures.guard("Writing the look"):
                if self.directory is not None:
                    self._write_page(trainer, self.directory, record)

    def send_scores(self, trainer: Trainer, record: SaliencyRecord) -> None:
        """Log the scores as any other metric, at the look's step."""
        for logger in [*trainer.loggers, *self.pages]:
            with self.failures.guard(_logging_to(logger)), same_random_streams(), left_as_found(logger):
                logger.log_metrics({**record.metrics, "epoch": record.epoch}, step=record.step)
                logger.save()

    def add_scores(self, trainer: Trainer, record: SaliencyRecord) -> None:
        """As `send_scores`, and into the files, where there is no logger."""
        self.send_scores(trainer, record)
        if self.directory is not None and trainer.is_global_zero:
            with self.failures.guard("Writing the final scores"):
                write_scores(self.directory, record)

    def keep_metrics(self, trainer: Trainer, step: int) -> None:
        """Put the user's own numbers of the epoch that has ended on the pages beside the files.

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
        """Draw once, for all loggers: where that fails, it is told once."""
        with self.failures.guard("Drawing the look"):
            return record.overlay is not None
        return False

    def _announce(self, record: SaliencyRecord, layers: Sequence[TargetLayer], recipe: Recipe) -> None:
        """Say once what is looked at."""
        if self._announced or not layers:
            return
        self._announced = True
        announce(record, layers, recipe.scores, recipe.targets, recipe.checks.names)
        say_what_a_coarse_grid_means(record, layers)
        if record.attribution.even_gradients:
            say_what_even_gradients_mean(layers[0], recipe.methods)
        if record.attribution.squash is not None and record.attribution.explains == "classes":
            say_what_probabilities_mean(record)
        if record.attribution.in_mask is not None and record.attribution.explains == "classes":
            say_what_dense_logits_mean(record)


def _logging_to(logger: Any) -> str:
    """Pictures and scores that do not reach a logger are one failure."""
    return f"Logging the look to {type(logger).__name__}"
