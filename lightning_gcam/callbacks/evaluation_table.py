"""The table of an evaluation, made of all processes' numbers, and its causal checks; printed, written and logged."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_gcam.callbacks.distributed import (
    from_rank_zero,
    gather_or_raise,
    map_fn_of,
    pool_candidates,
    run_in_all,
    same_record,
    share_plans,
)
from lightning_gcam.callbacks.error_policy import FailurePolicy
from lightning_gcam.callbacks.positions import Numbers
from lightning_gcam.callbacks.trainer_state import (
    as_inputs,
    command,
    device_in_words,
    logged_step,
    seed,
    versions,
)
from lightning_gcam.cam.heads import HeadPlan
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data.fixed_samples import FixedBatch
from lightning_gcam.evaluation import (
    Columns,
    EvaluationResult,
    Facts,
    SampleStore,
    measure_columns,
    print_table,
    write_result,
)
from lightning_gcam.evaluation.result import as_csv
from lightning_gcam.loggers import log_table
from lightning_gcam.loggers.disk import next_version, restored_on_failure
from lightning_gcam.metrics.measurement import ScoreKey
from lightning_gcam.metrics.registry import BASELINES
from lightning_gcam.pipeline.config import CHECKING, LookConfig
from lightning_gcam.pipeline.labels import samples_of_head
from lightning_gcam.pipeline.record import SaliencyRecord, Stamp
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.pipeline.scoring import can_be_checked
from lightning_gcam.shortcuts import Reliance
from lightning_gcam.utils.chunking import without_progress_bars
from lightning_gcam.utils.errors import InputError
from lightning_gcam.utils.lightning_compat import LightningModule, Trainer, rank_zero_info, rank_zero_warn


@dataclass(frozen=True)
class EvaluationState:
    """How far an evaluation has come in this process.

    Args:
        config: what is computed.
        parts: the numbers of the samples that are done, on disk.
        positions: of the samples that this process was handed and that are done, batch by batch.
        unlabelled: how many samples had no label.
        failed: how many could not be done.
        first_digest: of the first sample, where every process should be handed the same ones.
        device: that the model is on.
        weights: the checksum of the model's.
        choice: of the samples that the causal checks are made on; None without checks.
        chunk_size: how many samples go through the model at once; a batch where it is left out.
        class_names: in the order of the logits.
    """

    config: LookConfig
    parts: SampleStore
    positions: list[Numbers]
    unlabelled: int
    failed: int
    first_digest: int | None
    device: torch.device
    weights: str
    choice: FixedBatch | None = None
    chunk_size: int | None = None
    class_names: Any = None


@dataclass(frozen=True)
class _Share:
    """The samples of one process, as it sends them to the others."""

    positions: Numbers
    names: list[ScoreKey]
    vectors: list[ScoreKey]
    forwards: float
    seconds: float
    unlabelled: int
    failed: int
    layers: list[str]
    first_digest: int | None = None

    @staticmethod
    def of(done: EvaluationState) -> _Share:
        positions = np.concatenate([np.zeros(0, dtype=np.int64), *done.positions])
        parts = done.parts
        layers = list(parts.read_common().get("layers", [])) if len(positions) else []
        costs, counts = parts.costs(positions), (done.unlabelled, done.failed)
        return _Share(
            positions, parts.names(), parts.columns_with_rows(), *costs, *counts, layers, done.first_digest
        )


@dataclass
class Table:
    """The output of an evaluation: makes the table, and prints, writes and logs it.

    Args:
        directory: of the files; a new one where it is left out.
        resamples: of the bootstrap.
        about: facts of the user's own.
    """

    directory: Path | None
    resamples: int
    about: dict[str, Any] = field(default_factory=dict)
    written_to: Path | None = None

    def make(self, trainer: Trainer, done: EvaluationState) -> EvaluationResult:
        """Make the table of all processes' samples, the same in each of them.

        Raises:
            InputError: where no sample could be evaluated.
        """
        shares = gather_or_raise(trainer, lambda: _Share.of(done))
        own = shares[trainer.global_rank].positions
        positions = np.concatenate([share.positions for share in shares])
        if not len(positions):
            raise InputError(
                "SaliencyEvaluation has no sample: the test delivered none, every label was negative, or every batch "
                "failed. Check the test dataloader."
            )
        _check_layers(shares)
        _warn_of_own_data(shares)
        order = np.argsort(positions, kind="stable")
        names, vectors = (
            _in_order([share.names for share in shares]),
            _in_order([share.vectors for share in shares]),
        )
        maps = list(dict.fromkeys(name.map for name in names))
        names.sort(key=lambda name: (name.map in BASELINES, maps.index(name.map)))
        small = Columns.cat(gather_or_raise(trainer, lambda: done.parts.read(own, names))).select(order)

        def read(name: ScoreKey) -> Columns:
            if name not in vectors:
                return small
            return Columns.cat(gather_or_raise(trainer, lambda: done.parts.read(own, [name], [name]))).select(
                order
            )

        metrics = done.config.resolved_scores.metrics
        rows = measure_columns(names, metrics, read, resamples=self.resamples)
        result = EvaluationResult(rows, self._facts(trainer, done, shares, names))
        return EvaluationResult.from_plain(from_rank_zero(trainer, result.to_plain()))

    def show(
        self, trainer: Trainer, result: EvaluationResult, log_prefix: str, failures: FailurePolicy
    ) -> None:
        """Print, write and log the table; only rank zero does."""
        self.written_to = None
        if not trainer.is_global_zero:
            return
        with failures.guard("Printing the table"):
            print_table(result)
        if getattr(trainer, "fast_dev_run", False):
            return
        with failures.guard("Writing the table"):
            directory = self.directory or next_version(Path(trainer.default_root_dir) / "lightning_gcam")
            table, whole = _written(directory, result)
            self.written_to = directory
            rank_zero_info(
                f"SaliencyEvaluation: the table is in {table}, and how it came about in {whole.name} beside it."
            )
        step, values = (
            logged_step(trainer),
            {f"{log_prefix}/{name}": each for name, each in result.scores.items()},
        )
        rows = [{**asdict(row), "left_out": row.left_out} for row in result.table]
        for logger in trainer.loggers:
            with failures.guard(f"Logging the table to {type(logger).__name__}"), restored_on_failure(logger):
                logger.log_metrics(values, step=step)
                log_table(logger, f"{log_prefix}/table", rows, step)
                logger.save()

    def tidy(self, trainer: Trainer, parts: SampleStore, result: EvaluationResult) -> None:
        """Remove the files that were kept to continue after an interrupt, unless a batch or the writing failed."""
        is_rehearsal = bool(getattr(trainer, "fast_dev_run", False))
        found = from_rank_zero(trainer, {"is_written": self.written_to is not None or is_rehearsal})
        trainer.strategy.barrier()
        if not found["is_written"]:
            rank_zero_warn(
                f"The table could not be written. What is done is kept in {parts.directory}: run the same "
                "again, and the table is written without explaining a sample a second time."
            )
        elif result.facts.failed:
            rank_zero_warn(
                f"{result.facts.failed} samples could not be evaluated and are not in the table. What is done is kept "
                f"in {parts.directory}: run the same again, and only they are tried."
            )
        elif trainer.local_rank == 0:
            parts.remove()

    def _facts(
        self, trainer: Trainer, done: EvaluationState, shares: list[_Share], names: list[ScoreKey]
    ) -> Facts:
        samples = sum(len(share.positions) for share in shares)
        targets = done.config.targets
        return Facts(
            methods=list(dict.fromkeys(name.map for name in names)),
            scores=list(dict.fromkeys(name.score for name in names)),
            target_layer=", ".join(next(share.layers for share in shares if share.layers)),
            targets=getattr(targets, "__name__", "a callable") if callable(targets) else str(targets),
            samples=samples,
            unlabelled=sum(share.unlabelled for share in shares),
            failed=sum(share.failed for share in shares),
            forwards=sum(share.forwards for share in shares) / samples,
            seconds=sum(share.seconds for share in shares),
            device=device_in_words(done.device),
            processes=trainer.world_size,
            precision=str(trainer.precision),
            seed=seed(),
            weights=done.weights,
            versions=versions(),
            command=command(),
            resamples=self.resamples,
            about=self.about,
        )


def measure_checks(
    trainer: Trainer, module: LightningModule, done: EvaluationState, failures: FailurePolicy
) -> Reliance | None:
    """Measure what the model relies on, on a choice out of the samples of all processes, the same in each of them.

    Args:
        trainer: that runs.
        module: the model.
        done: how far the evaluation has come.
        failures: the policy for what fails.

    Returns:
        The causal checks; None where there are to be none, where the labels or the output are no classes, or where
        they failed.
    """
    if done.choice is None:
        return None
    chosen = _choose(trainer, done.choice)
    if isinstance(chosen, Exception):
        failures.report(CHECKING, chosen)
        return None
    plan = next(iter(share_plans(trainer, _plans_in(done.parts.read_common()))), HeadPlan())
    config = _of_checks(done.config).at_head(plan)
    map_fn = map_fn_of(trainer, module)

    def samples() -> SaliencyBatch:
        return samples_of_head(as_inputs(trainer, chosen.samples, module.device), plan)

    try:
        with without_progress_bars():
            record = analyze(
                module,
                map_fn(lambda _: samples()),
                config,
                map_fn,
                stamp=Stamp(class_names=done.class_names),
                chunk_size=done.chunk_size or done.choice.largest_batch,
                largest_label=chosen.largest_label,
                on_failure=failures.report,
            )
    except Exception as error:
        failures.report(CHECKING, error)
        return None
    _announce(record, config)
    return same_record(trainer, record).reliance


def _plans_in(common: Mapping[str, Any]) -> list[HeadPlan]:
    """The plan of the head that was evaluated, as it is stored; none where no batch was."""
    if "plan" in common:
        return [HeadPlan.from_plain(common["plan"])]
    return [HeadPlan(tuple(common["layers"]))] if "layers" in common else []


def _choose(trainer: Trainer, choice: FixedBatch) -> FixedBatch | Exception:
    """Choose the samples of the checks out of those that each process kept."""
    offered = pool_candidates(trainer, choice)
    if isinstance(offered, Exception):
        return offered
    chosen = FixedBatch(choice.num_samples)
    failed = run_in_all(trainer, lambda: chosen.close(offered))
    return failed if failed is not None else chosen


def _announce(record: SaliencyRecord, config: LookConfig) -> None:
    """Log what the samples, or their images, do not allow."""
    if not can_be_checked(record.batch, record.attribution, config, record.stamp.class_names):
        rank_zero_info(
            "SaliencyEvaluation: there are no causal checks, which need labels that are classes, and one score of the "
            "model for each class."
        )
    elif record.reliance is not None and record.exchanges is None and config.exchange_names:
        rank_zero_info(
            "SaliencyEvaluation: no property is exchanged, which takes samples of several classes, and images that "
            "have the property."
        )
    elif record.exchanges is not None and (lacking := record.exchanges.lacking(config.exchange_names)):
        rank_zero_info(f"SaliencyEvaluation: the images have no {' and no '.join(lacking)} to exchange.")


def _of_checks(config: LookConfig) -> LookConfig:
    """The causal checks of an evaluation alone; those that need a map take the first method's."""
    (name, method), *_ = config.method_table.items()
    return replace(config, methods={name: method}, scores=[], with_baselines=False)


def _in_order(lists: list[list[ScoreKey]]) -> list[ScoreKey]:
    return list(dict.fromkeys(name for names in lists for name in names))


def _check_layers(shares: list[_Share]) -> None:
    """Refuse different layers: each process finds the layer by itself, on a sample of its own."""
    found = {tuple(share.layers) for share in shares if share.layers}
    if len(found) > 1:
        layers = " and ".join(sorted(", ".join(each) for each in found))
        raise InputError(f"The processes found different layers ({layers}). Name one with `target_layer`.")


def _warn_of_own_data(shares: list[_Share]) -> None:
    """Warn where processes have samples of their own, of which each counts only its share."""
    if len({share.first_digest for share in shares} - {None}) > 1:
        rank_zero_warn(
            f"SaliencyEvaluation counted one in {len(shares)} of the samples: each process was handed samples of its "
            "own by a dataloader that goes through its dataset in order, without Lightning's sampler, which usually "
            "hands all samples to every process. Leave `use_distributed_sampler` on and give every process the whole "
            "dataset, or give the dataloader a `DistributedSampler`."
        )


def _written(directory: Path, result: EvaluationResult) -> tuple[Path, Path]:
    """Write the table; where that fails, write it elsewhere, or print it as it would have been written.

    Raises:
        OSError: where it is not in `directory`; the message names where it is.
    """
    try:
        return write_result(directory, result)
    except OSError as error:
        instead = _saved_elsewhere(result)
        raise type(error)(error.errno, f"{error.strerror}. {instead}", str(directory)) from error


def _saved_elsewhere(result: EvaluationResult) -> str:
    """Save the table in a new directory, or print it, and return a message about where it is."""
    with suppress(OSError):
        elsewhere = Path(tempfile.mkdtemp(prefix="lightning_gcam-"))
        try:
            return f"The table is in {write_result(elsewhere, result)[0]} instead"
        except OSError:
            elsewhere.rmdir()
    print(as_csv(result))
    return "The table was printed instead"


def check_about(about: Mapping[str, Any] | None) -> None:
    """Refuse facts that cannot be written into `evaluation.json`, which would be found out when all is computed."""
    try:
        json.dumps(dict(about or {}), allow_nan=False, default=str)
    except (TypeError, ValueError) as error:
        raise InputError(f"`about` must hold plain facts, by name: {error}.") from error
