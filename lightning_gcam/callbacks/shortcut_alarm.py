"""`ShortcutAlarm`: an alarm where causal checks of several looks agree on something that carries the class."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter
from typing import Any

from lightning_gcam.callbacks.error_policy import FailurePolicy
from lightning_gcam.callbacks.resuming import check_mapping
from lightning_gcam.callbacks.saliency_monitor import SaliencyMonitor
from lightning_gcam.callbacks.trainer_state import is_fitting
from lightning_gcam.loggers import log_alert, write_alert
from lightning_gcam.loggers.disk import restored_on_failure
from lightning_gcam.metrics import measure_samples, resolve_scores
from lightning_gcam.metrics.measurement import ScoreKey
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.pipeline.scoring import score_maps
from lightning_gcam.shortcuts import Evidence, Finding, Reliance, Thresholds, judge, plain_of
from lightning_gcam.shortcuts.detector import counted_by, judged_by, unchecked_of
from lightning_gcam.shortcuts.exchange import CHANCE
from lightning_gcam.shortcuts.regions import classes_of_labels, have_class
from lightning_gcam.utils.errors import InputError, check_whole
from lightning_gcam.utils.isolation import same_random_streams
from lightning_gcam.utils.lightning_compat import (
    Callback,
    LightningModule,
    Trainer,
    rank_zero_info,
    rank_zero_warn,
)

_SCORES = ("energy", "energy_chance", "suspect_lift", "blank_rate")
_FEW = 30
"""With fewer samples weak reliance is not seen: docs/shortcuts.md, "What few samples can show"."""


class RecentLooks:
    """The last looks of one monitor, and the kinds of evidence that were alerted already.

    Args:
        thresholds: as in `judge`.
        looks_in_a_row: as in `judge`.
    """

    def __init__(self, thresholds: Thresholds, looks_in_a_row: int) -> None:
        self._thresholds = thresholds
        self._looks_in_a_row = looks_in_a_row
        self._recent: list[Evidence] = []
        self._alerted: list[str] = []
        self._looks_so_far = 0

    def add(self, evidence: Evidence) -> Finding | None:
        """Add a look; the finding is one of a kind not alerted yet, or alerted before a look without any."""
        self._recent = [*self._recent, evidence][-self._looks_in_a_row :]
        self._looks_so_far += evidence.reliance.is_above_chance
        finding = judge(self._recent, self._thresholds, self._looks_in_a_row, self._looks_so_far)
        kinds = list(finding.kinds) if finding is not None else []
        is_new = any(kind not in self._alerted for kind in kinds)
        self._alerted = list(dict.fromkeys([*self._alerted, *kinds])) if kinds else []
        return finding if is_new else None

    def interrupt(self) -> None:
        """Add a look that cannot be judged: the looks before it and behind it are not in a row."""
        self._recent = []

    def state_dict(self) -> dict[str, Any]:
        """Plain Python only."""
        recent = [each.to_plain() for each in self._recent]
        return {"recent": recent, "told": self._alerted, "looks": self._looks_so_far}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the looks of the run that is resumed."""
        self._recent = [Evidence.from_plain(each) for each in state["recent"]]
        self._alerted = list(state["told"])
        self._looks_so_far = int(state.get("looks", len(self._recent)))  # earlier versions did not count them


def evidence_of(record: SaliencyRecord) -> Evidence | None:
    """The checks of a look, and the scores of its first method; None where nothing of it can be judged."""
    if record.reliance is None or reason_not_judged(record) is not None:
        return None
    taken = {name: record.scores[name] for name in _SCORES if _is_builtin_score(record, name)}
    missing = [name for name in _SCORES if name not in taken]
    name, maps = next(iter(record.attribution.maps.items()))
    others = score_maps(replace(record.attribution, maps={name: maps}), record.batch, missing)
    scores, samples = {**others.values, **taken}, {**record.results.samples, **others.samples}
    intervals = {}
    if "energy" in scores:
        interval = measure_samples(*samples[ScoreKey(name, "energy")]).overall.interval
        intervals = {"energy": interval} if interval is not None else {}
    return Evidence(record.step, record.epoch, record.reliance, scores, intervals)


def _is_builtin_score(record: SaliencyRecord, name: str) -> bool:
    """Whether the look has the score of that name, and it is not one of the user's own under the same name."""
    key = ScoreKey(next(iter(record.attribution.maps)), name)
    metric, _ = record.results.samples.get(key, (None, None))
    return name in record.scores and type(metric) is type(resolve_scores(name)[name])


def reason_not_judged(record: SaliencyRecord) -> str | None:
    """The reason why the alarm cannot judge a look, and what to give it; None where it can.

    Nor is there one while accuracy is not clearly above chance: then nothing is evidence, and checks may wait for it.
    """
    reliance = record.reliance or Reliance({}, 1.0)
    if judged_by(reliance):
        return None
    labels = classes_of_labels(record.batch)
    if record.batch.labels is None:
        return "the fixed samples have no labels. Deliver (images, labels) in the validation batch, or with masks."
    if labels is not None and len(labels[have_class(labels)].unique(dim=0)) == 1:
        return (
            "the fixed samples are all of one class, so that none can borrow from another. Take samples of several, "
            'with `selection="balanced"` or `num_samples=` of the monitor.'
        )
    if "accuracy" in reliance.scores and not reliance.is_above_chance:
        return None
    if any(name.endswith(CHANCE) and name != f"object{CHANCE}" for name in reliance.scores):
        return (
            "no two of the fixed samples have the same labels, so that a prediction that follows and one that fails "
            "cannot be told apart. Take more samples, with `num_samples=` of the monitor."
        )
    return (
        "no check could be made that counts. They take labels that are classes and one score a class; exchanged "
        "properties two classes, the checks without the object a mask or a box that leaves some background, in "
        "samples of two classes; and the monitor's `checks` must not leave them out. (A check that failed was warned "
        "of by itself.)"
    )


class ShortcutAlarm(Callback):
    """Judge every look of the `SaliencyMonitor`s, and alert where a model seems to be right for another reason.

    It alerts when accuracy is clearly above chance and, on several looks in a row,

    - predictions follow a property that is borrowed from another class: its colours, its border, ... (see
      `lightning_gcam.shortcuts.available_properties`), for which (images, labels) suffice; or
    - with masks, the class survives without the object; or
    - with a suspect region, the class dies with that region exchanged.

    `lightning_gcam.shortcuts.judge` states the rule. It says what was measured, on how many samples, with interval,
    chance and the same edit within a class, and what to try next: as a warning, a text in TensorBoard, an alert in
    Weights & Biases, and a line in `alerts.csv` beside `scores.csv` elsewhere. It alerts once; again when another kind
    of evidence comes up, or after a look without a finding.

    A property that is followed may be the class's own, as the red of a ripe tomato: that is yours to say, and the
    monitor's `checks=` leaves a property out.

    No alarm means that these checks did not show anything, not that there is nothing: they find the properties that are
    exchanged and, with masks, evidence outside of the objects as they are annotated, in the classes and the samples of
    the fixed batch. Without masks a mark at a random place is an object like any other, and outside of these checks.

    Args:
        thresholds: from where on a look counts; see `lightning_gcam.shortcuts.Thresholds`.
        looks_in_a_row: how many looks have to show the same.
        stop: end the training where it alerts, as `EarlyStopping` does: after `min_epochs` and `min_steps`.
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
                f"`thresholds` must be lightning_gcam.shortcuts.Thresholds, such as `Thresholds(survives=0.8)`; got "
                f"{type(thresholds).__name__}."
            )
        self.thresholds = thresholds or Thresholds()
        self.looks_in_a_row = looks_in_a_row
        self.stop = stop
        self.alerts: list[dict[str, Any]] = []
        self._failures = FailurePolicy(on_error)
        self._recent_looks: dict[str, RecentLooks] = {}
        self._informed: set[str] = set()

    # -------------------------------------------------------------------------------- hooks: they only route

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin a run or go on with it: forget the looks of another one, and refuse a Trainer without a monitor."""
        callbacks = getattr(trainer, "callbacks", [])
        if not any(isinstance(each, SaliencyMonitor) for each in callbacks):
            raise InputError(
                "ShortcutAlarm reads the looks of a SaliencyMonitor, and the Trainer has none. Give it both:\n"
                "    Trainer(callbacks=[SaliencyMonitor(), ShortcutAlarm()])"
            )
        self._failures, self._informed = FailurePolicy(self._failures.on_error), set()
        if stage == "fit" and trainer.global_step == 0:
            self.alerts, self._recent_looks = [], {}

    def on_saliency_look(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        monitor: SaliencyMonitor,
        record: SaliencyRecord | None,
    ) -> None:
        """Judge a monitor's look (None where it failed), in all processes alike; only looks of a fit count."""
        if is_fitting(trainer):
            with self._failures.guard("Reading the look"):
                self._judge(trainer, monitor, record)

    def state_dict(self) -> dict[str, Any]:
        """The alerts and the looks in a row: plain Python only."""
        watches = {prefix: recent.state_dict() for prefix, recent in self._recent_looks.items()}
        return {"alerts": list(self.alerts), "watches": watches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the alerts and looks of the run that is resumed; none where they cannot be read."""
        with self._failures.guard("Going on with the alerts of the checkpoint (it begins afresh)"):
            alerts, watches = _read(state_dict, self.thresholds, self.looks_in_a_row)
            self.alerts, self._recent_looks = alerts, watches

    # -------------------------------------------------------------------------------- one look

    def _judge(self, trainer: Trainer, monitor: SaliencyMonitor, record: SaliencyRecord | None) -> None:
        if record is None:
            for prefix, recent in self._recent_looks.items():
                if prefix == monitor.log_prefix or prefix.startswith(f"{monitor.log_prefix}/"):
                    recent.interrupt()
            return
        of_classes = [
            each for each in record.parts if each.batch.labels is not None and each.subject == "classes"
        ]
        for part in of_classes or record.parts:
            self._judge_head(trainer, monitor, part)

    def _judge_head(self, trainer: Trainer, monitor: SaliencyMonitor, record: SaliencyRecord) -> None:
        """Judge a look, or of several heads that of one, under its own prefix."""
        prefix = record.stamp.log_prefix
        if prefix not in self._recent_looks:
            self._recent_looks[prefix] = RecentLooks(self.thresholds, self.looks_in_a_row)
        recent = self._recent_looks[prefix]
        if record.checks_rest:
            return  # the looks with checks before it and behind it are in a row
        if (reason := reason_not_judged(record)) is not None:
            message = f"ShortcutAlarm cannot judge this run: {reason}"
            self._failures.warn_once(f"cannot judge:{prefix}", message)
        evidence = evidence_of(record)
        if evidence is None:
            recent.interrupt()
            return
        self._inform(prefix, record)
        if (finding := recent.add(evidence)) is not None:
            self._alert(trainer, monitor, prefix, finding)

    def _inform(self, prefix: str, record: SaliencyRecord) -> None:
        """Log once a run what is judged, what is not, and where few samples count for it."""
        reliance = record.reliance or Reliance({}, 1.0)
        judged = judged_by(reliance)
        if not judged or prefix in self._informed:
            return
        self._informed.add(prefix)
        rank_zero_info(
            f"ShortcutAlarm ({prefix}) judges: {', '.join(judged)}. Not checked: {'; '.join(unchecked_of(reliance))}."
        )
        if (fewest := min(counted_by(reliance).items(), key=itemgetter(1)))[1] < _FEW:
            rank_zero_info(
                f"ShortcutAlarm ({prefix}): {fewest[1]} samples count for {fewest[0]}: so few show only strong "
                "reliance. Take more, such as `num_samples=64` of the monitor."
            )

    def _alert(self, trainer: Trainer, monitor: SaliencyMonitor, prefix: str, finding: Finding) -> None:
        alert = {**plain_of(finding), "log_prefix": prefix}
        self.alerts.append(alert)
        if self.stop:
            trainer.should_stop = True
        rank_zero_warn(f"ShortcutAlarm ({prefix}): {alert['message']}")
        if self.stop:
            rank_zero_info("ShortcutAlarm: the training ends here (`stop=True`).")
        if not trainer.is_global_zero:
            return
        for logger in [*trainer.loggers, *monitor.pages]:
            with (
                self._failures.guard(f"Logging the alert to {type(logger).__name__}"),
                same_random_streams(),
                restored_on_failure(logger),
            ):
                log_alert(logger, alert)
                logger.save()
        if monitor.directory is not None:
            with self._failures.guard("Writing the alert"):
                write_alert(monitor.directory, alert)


def _read(
    state: Any, thresholds: Thresholds, looks_in_a_row: int
) -> tuple[list[dict[str, Any]], dict[str, RecentLooks]]:
    """Read the alerts and the recent looks of a checkpoint.

    Raises:
        InputError: naming what is missing, unknown, or cannot be read.
    """
    parts = check_mapping("state", state, {"alerts", "watches"}, ())
    if not isinstance(parts["alerts"], list):
        raise InputError(f"`alerts` should be a list; got {type(parts['alerts']).__name__}.")
    alerts = [check_mapping("alerts", each) for each in parts["alerts"]]
    watches: dict[str, RecentLooks] = {}
    for prefix, each in check_mapping("watches", parts["watches"]).items():
        watches[prefix] = RecentLooks(thresholds, looks_in_a_row)
        try:
            watches[prefix].load_state_dict(check_mapping("watches", each, {"recent", "told"}, {"looks"}))
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f'`watches` of "{prefix}" cannot be read ({type(error).__name__}: {error}).'
            ) from error
    return alerts, watches
