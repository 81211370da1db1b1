"""`ShortcutAlarm`: says so when the causal checks show, look after look, that the class is read off something else."""

from __future__ import annotations

from typing import Any

from lightning_gcam._errors import InputError
from lightning_gcam._lightning import Callback, LightningModule, Trainer, rank_zero_info, rank_zero_warn
from lightning_gcam.callbacks.arguments import check_whole
from lightning_gcam.callbacks.failures import FailurePolicy
from lightning_gcam.callbacks.resuming import check_mapping
from lightning_gcam.callbacks.saliency_monitor import SaliencyMonitor
from lightning_gcam.callbacks.trainer_facts import is_fitting
from lightning_gcam.callbacks.watch import Watch, evidence_of, why_not
from lightning_gcam.isolation import same_random_streams
from lightning_gcam.loggers import log_alert, write_alert
from lightning_gcam.loggers.event_file import left_as_found
from lightning_gcam.record import SaliencyRecord
from lightning_gcam.reliance import Finding, Thresholds, plain_of


class ShortcutAlarm(Callback):
    """Read every look of the `SaliencyMonitor`s, and speak where a model seems to be right for another reason.

    It speaks when accuracy is clearly above chance and, on several looks in a row, the class survives without the
    object, or dies with the suspect region exchanged (see `lightning_gcam.reliance.judge`). It says what was measured,
    on how many samples, with interval and chance, and what to try next: as a warning, a text in TensorBoard, an alert
    in Weights & Biases, and a line in `alerts.csv` beside `scores.csv` elsewhere. It speaks once; again when another
    kind of evidence comes up, or after it had nothing to say.

    No alarm means that these checks did not show anything, not that there is nothing: they see evidence outside of the
    objects as they are annotated, in the classes and the samples of the fixed batch.

    Args:
        thresholds: from where on a look counts; see `lightning_gcam.reliance.Thresholds`.
        looks_in_a_row: how many looks have to show the same.
        stop: end the training where it speaks, as `EarlyStopping` does: after `min_epochs` and `min_steps`.
        on_error: "warn" (the training goes on) or "raise".

    Raises:
        InputError: naming the argument; and in `setup`, where the Trainer has no `SaliencyMonitor`.

    Example:
        >>> from lightning_gcam import SaliencyMonitor, ShortcutAlarm
        >>> alarm = ShortcutAlarm()
        >>> callbacks = [SaliencyMonitor(), alarm]  # for the Trainer
        >>> alarm.alerts
        []
    """

    def __init__(
        self,
        *,
        thresholds: Thresholds | None = None,
        looks_in_a_row: int = 2,
        stop: bool = False,
        on_error: str = "warn",
    ) -> None:
        super().__init__()
        check_whole("looks_in_a_row", looks_in_a_row)
        if thresholds is not None and not isinstance(thresholds, Thresholds):
            raise InputError(
                f"`thresholds` must be lightning_gcam.reliance.Thresholds, such as `Thresholds(survives=0.8)`; got "
                f"{type(thresholds).__name__}."
            )
        self.thresholds = thresholds or Thresholds()
        self.looks_in_a_row = looks_in_a_row
        self.stop = stop
        self.alerts: list[dict[str, Any]] = []
        self._failures = FailurePolicy(on_error)
        self._watches: dict[str, Watch] = {}

    # -------------------------------------------------------------------------------- hooks: they only route

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin a run: forget the looks of the last one, and refuse to watch nothing."""
        callbacks = getattr(trainer, "callbacks", [])
        if not any(isinstance(each, SaliencyMonitor) for each in callbacks):
            raise InputError(
                "ShortcutAlarm reads the looks of a SaliencyMonitor, and the Trainer has none. Give it both:\n"
                "    Trainer(callbacks=[SaliencyMonitor(), ShortcutAlarm()])"
            )
        self._failures = FailurePolicy(self._failures.on_error)
        if stage == "fit":
            self._watches = {}
            if trainer.global_step == 0:
                self.alerts = []

    def on_saliency_look(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        monitor: SaliencyMonitor,
        record: SaliencyRecord | None,
    ) -> None:
        """A monitor has looked (None: in vain), in all processes alike; only looks of a fit count."""
        if is_fitting(trainer):
            with self._failures.guard("Reading the look"):
                self._hear(trainer, monitor, record)

    def state_dict(self) -> dict[str, Any]:
        """Alerts and the looks in a row: plain Python only."""
        watches = {prefix: watch.state_dict() for prefix, watch in self._watches.items()}
        return {"alerts": list(self.alerts), "watches": watches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the alerts and the looks of the run that is resumed; with none where they cannot be read."""
        with self._failures.guard("Going on with the alerts of the checkpoint (it begins afresh)"):
            alerts, watches = _read(state_dict, self.thresholds, self.looks_in_a_row)
            self.alerts, self._watches = alerts, watches

    # -------------------------------------------------------------------------------- one look

    def _hear(self, trainer: Trainer, monitor: SaliencyMonitor, record: SaliencyRecord | None) -> None:
        watch, prefix = self._watch(monitor.log_prefix), monitor.log_prefix
        if record is not None and (reason := why_not(record)) is not None:
            words = f"ShortcutAlarm cannot judge this run: {reason}"
            self._failures.warn_once(f"cannot judge:{prefix}", words)
        evidence = evidence_of(record) if record is not None else None
        if evidence is None:
            watch.miss()
        elif (finding := watch.hear(evidence)) is not None:
            self._speak(trainer, monitor, finding)

    def _watch(self, prefix: str) -> Watch:
        if prefix not in self._watches:
            self._watches[prefix] = Watch(self.thresholds, self.looks_in_a_row)
        return self._watches[prefix]

    def _speak(self, trainer: Trainer, monitor: SaliencyMonitor, finding: Finding) -> None:
        alert = {**plain_of(finding), "log_prefix": monitor.log_prefix}
        self.alerts.append(alert)
        if self.stop:
            trainer.should_stop = True
        rank_zero_warn(f"ShortcutAlarm ({monitor.log_prefix}): {alert['message']}")
        if self.stop:
            rank_zero_info("ShortcutAlarm: the training ends here (`stop=True`).")
        if not trainer.is_global_zero:
            return
        for logger in [*trainer.loggers, *monitor.pages]:
            with (
                self._failures.guard(f"Logging the alert to {type(logger).__name__}"),
                same_random_streams(),
                left_as_found(logger),
            ):
                log_alert(logger, alert)
                logger.save()
        if monitor.directory is not None:
            with self._failures.guard("Writing the alert"):
                write_alert(monitor.directory, alert)


def _read(
    state: Any, thresholds: Thresholds, looks_in_a_row: int
) -> tuple[list[dict[str, Any]], dict[str, Watch]]:
    """The alerts and the watches of a checkpoint.

    Raises:
        InputError: naming what is missing, unknown, or cannot be read.
    """
    parts = check_mapping("state", state, {"alerts", "watches"}, ())
    if not isinstance(parts["alerts"], list):
        raise InputError(f"`alerts` should be a list; got {type(parts['alerts']).__name__}.")
    alerts = [check_mapping("alerts", each) for each in parts["alerts"]]
    watches: dict[str, Watch] = {}
    for prefix, each in check_mapping("watches", parts["watches"]).items():
        watches[prefix] = Watch(thresholds, looks_in_a_row)
        try:
            watches[prefix].load_state_dict(check_mapping("watches", each, {"recent", "told"}, ()))
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f'`watches` of "{prefix}" cannot be read ({type(error).__name__}: {error}).'
            ) from error
    return alerts, watches
