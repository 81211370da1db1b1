"""One look by several processes: samples are pooled, the work is split, and the result is the same everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
import torch.distributed
from torch import Tensor, nn

from lightning_gcam.callbacks.trainer_state import precision
from lightning_gcam.cam.calling import WrappedForward, call_model
from lightning_gcam.cam.heads import HeadPlan
from lightning_gcam.cam.invocation import Forward
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data.fixed_samples import Candidates, FixedBatch, Sample
from lightning_gcam.metrics.perturbation import PerturbedOutputs
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.shortcuts import Reliance
from lightning_gcam.utils.errors import error_text
from lightning_gcam.utils.isolation import untouched
from lightning_gcam.utils.lightning_compat import Trainer, in_both

Rows = TypeVar("Rows", Attribution, PerturbedOutputs)
"""Results with one row a sample."""
Result = TypeVar("Result")


def pool_candidates(trainer: Trainer, fixed: FixedBatch) -> Candidates | Exception:
    """Pool the samples that each process would keep; the exception, in all processes, where one failed."""
    if trainer.world_size == 1:
        return _tried(fixed.candidates)
    shares = gather_results(trainer, lambda: _packed(fixed.candidates()))
    if isinstance(shares, Exception):
        return shares
    return run_in_all(trainer, lambda: _unpacked(shares, trainer.strategy.root_device))


def _packed(offered: Candidates) -> tuple[Any, ...]:
    samples = [(each.position, each.group, each.batch.state_dict()) for each in offered.samples]
    return samples, offered.delivered, offered.unlabelled, offered.largest_label


def _unpacked(shares: list[tuple[Any, ...]], device: torch.device) -> Candidates:
    whole = Candidates([], Counter())
    for samples, *counts in shares:
        own = [
            Sample(position, group, SaliencyBatch(**state).to(device)) for position, group, state in samples
        ]
        whole = whole + Candidates(own, *counts)
    return whole


def own_map_fn(trainer: Trainer) -> Callable[..., Any]:
    """The `map_fn` of a process by itself: the model runs in the precision of a validation step, and nothing else.

    Args:
        trainer: that runs.
    """

    def map_fn(work: Callable[[list[int]], Any], n: int | None = None) -> Any:
        if n is None:
            return work([])
        with precision(trainer):
            return work(list(range(n)))

    return map_fn


def map_fn_of(trainer: Trainer, module: nn.Module) -> Callable[..., Any]:
    """The `map_fn` of a look in this Trainer: all processes share its work, in the precision of a validation step.

    Args:
        trainer: that runs.
        module: the model.
    """

    def map_fn(work: Callable[[list[int]], Any], n: int | None = None) -> Any:
        def precisely(rows: list[int]) -> Any:
            with precision(trainer):
                return work(rows)

        if n is None:
            result = run_in_all(trainer, lambda: work([]))
        else:
            result = split_rows(trainer, module, n, precisely)
        if isinstance(result, Exception):
            raise result
        return result

    return map_fn


def split_rows(
    trainer: Trainer, module: nn.Module, n: int, work: Callable[[list[int]], Rows]
) -> Rows | Exception:
    """Split the rows of a batch among the processes, and give every process the rows of all.

    Args:
        trainer: gives the number of processes, and whether each holds the whole model.
        module: the model that `work` runs.
        n: how many samples there are, in every process.
        work: given the numbers of some samples, gives one row for each.

    Returns:
        The rows of the whole batch, the same in every process; on the CPU where they came from several. Where it
        failed in one of them, the exception, in all of them: none may go on alone and wait for the others forever.
    """
    world, rank = trainer.world_size, trainer.global_rank
    everything = list(range(n))
    if world == 1:
        return _tried(lambda: work(everything))
    if not holds_whole_model(trainer):  # all must run every forward, on the same samples
        whole = _tried(lambda: work(everything))
        failure = _failure(whole, _all_gather(trainer, (_sendable(whole), None)))
        return failure if failure is not None else whole
    buffers = _rank_zeros_buffers(module, rank)
    rows = everything[rank::world]
    part = _tried(lambda: _with_buffers(module, buffers, work, rows).to("cpu")) if rows else None
    sent = None if isinstance(part, Exception) else part
    gathered = _all_gather(trainer, (_sendable(part), sent))
    failure = _failure(part, gathered)
    if failure is not None:
        return failure
    return run_in_all(trainer, lambda: _interleave([each for _, each in gathered if each is not None]))


def _rank_zeros_buffers(module: nn.Module, rank: int) -> dict[str, Tensor] | str:
    """The buffers of rank zero, or why they could not be had.

    They are sent by name, as objects: a buffer that only one process has built yet must not leave the others waiting.
    """
    own: Any = None
    if rank == 0:
        own = _tried(
            lambda: {name: each.cpu() for name, each in module.named_buffers() if each.is_floating_point()}
        )
        own = _sendable(own) if isinstance(own, Exception) else own
    sent = [own]
    torch.distributed.broadcast_object_list(sent, src=0)
    return cast("dict[str, Tensor] | str", sent[0])


def _with_buffers(
    module: nn.Module, buffers: dict[str, Tensor] | str, work: Callable[[list[int]], Rows], rows: list[int]
) -> Rows:
    """Work with rank zero's buffers in every process: those that a checkpoint would keep.

    Between two forwards of DDP each process has its own BatchNorm statistics.
    """
    if isinstance(buffers, str):
        raise RuntimeError(f"{buffers} (in process 0)")
    with untouched(module):
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                if name in buffers and buffer.shape == buffers[name].shape:
                    buffer.copy_(buffers[name])
        return work(rows)


def _tried(work: Callable[[], Result]) -> Result | Exception:
    """The result, or the exception as a value, so that the exchange with the other processes happens in any case."""
    try:
        return work()
    except Exception as error:
        return error


def _sendable(result: Any) -> str | None:
    """The type and the message of an exception as text, which can always be sent; None for anything else."""
    return f"{type(result).__name__}: {error_text(result)}" if isinstance(result, Exception) else None


def _failure(own: Any, gathered: list[tuple[str | None, Any]]) -> Exception | None:
    """This process's exception, or another's; None where none failed."""
    failed = [(process, message) for process, (message, _) in enumerate(gathered) if message is not None]
    if not failed or isinstance(own, Exception):
        return own if isinstance(own, Exception) else None
    process, message = failed[0]
    return RuntimeError(f"{message} (in process {process})")


def share_plans(trainer: Trainer, plans: list[HeadPlan]) -> list[HeadPlan]:
    """The plans of the first process that found layers, in every process: all hold the same network."""
    found = [plans] if trainer.world_size == 1 else _all_gather(trainer, plans)
    return next((each for each in found if each), [])


def gather_results(trainer: Trainer, work: Callable[[], Result]) -> list[Result] | Exception:
    """Gather each process's result, by rank; where `work` failed in one of them, the exception, in all."""
    own = _tried(work)
    message, sent = _sendable(own), None if isinstance(own, Exception) else own
    found: list[Any] = [(message, sent)] if trainer.world_size == 1 else _all_gather(trainer, (message, sent))
    failure = _failure(own, found)
    return failure if failure is not None else [each for _, each in found]


def run_in_all(trainer: Trainer, work: Callable[[], Result]) -> Result | Exception:
    """Do `work` in every process, each for itself; where it fails in one, the exception, in all: none goes on alone."""
    own = _tried(work)
    if trainer.world_size == 1:
        return own
    failure = _failure(own, _all_gather(trainer, (_sendable(own), None)))
    return failure if failure is not None else own


def all_ready(trainer: Trainer, has: bool) -> bool:
    """Whether every process is ready to run a sharded model, which takes all of them."""
    if trainer.world_size == 1 or holds_whole_model(trainer):
        return has
    return all(_all_gather(trainer, has))


def gather_or_raise(trainer: Trainer, work: Callable[[], Result]) -> list[Result]:
    """Gather each process's result in every process, by rank.

    Raises:
        Exception: where `work` failed in one of them, in all of them.
    """
    found = gather_results(trainer, work)
    if isinstance(found, Exception):
        raise found
    return found


def same_record(trainer: Trainer, record: SaliencyRecord) -> SaliencyRecord:
    """The record with rank zero's scores and checks, in every process."""
    if trainer.world_size == 1:
        return record
    heads = {name: same_record(trainer, each) for name, each in record.heads.items()}
    checks = record.reliance.to_plain() if record.reliance is not None else None
    scores, checks = from_rank_zero(trainer, (record.scores, checks))
    reliance = Reliance.from_plain(checks) if checks is not None else None
    return replace(record, scores=scores, reliance=reliance, heads=heads)


def from_rank_zero(trainer: Trainer, plain: Result) -> Result:
    """Rank zero's plain data in every process: `EarlyStopping` on a score that differs would stop only some."""
    return plain if trainer.world_size == 1 else trainer.strategy.broadcast(plain)


def _interleave(parts: list[Rows]) -> Rows:
    """The shares, dealt out in turn, back in the order of the batch."""
    order = sorted((row, index) for index, part in enumerate(parts) for row in range(len(part)))
    starts = [sum(len(part) for part in parts[:index]) for index in range(len(parts))]
    return type(parts[0]).cat(parts).select([starts[index] + row for row, index in order])


def through_wrapper(trainer: Trainer, forward: Forward | None) -> Forward | None:
    """The `forward` that calls the model: through FSDP's wrapper, which alone gathers parameters, else as given.

    Every process must call it alike. (A DDP wrapper would wait for the others, and is never called.)

    Args:
        trainer: gives the strategy that runs.
        forward: the user's own way to call the module, if there is one.
    """
    if not isinstance(trainer.strategy, in_both("strategies.FSDPStrategy")):
        return forward

    return _ThroughWrapper(forward, trainer)


@dataclass(frozen=True)
class _ThroughWrapper(WrappedForward):
    """A `forward` that calls the strategy's own module, which calls the user's."""

    trainer: Trainer

    def __call__(self, model: nn.Module, images: Tensor) -> Any:
        wrapper: Any = self.trainer.strategy.model
        if self.forward is None:
            return wrapper(images)
        with _standing_in(model, self.forward):
            return wrapper(images)


@contextmanager
def _standing_in(module: nn.Module, forward: Forward) -> Iterator[None]:
    """Put `forward` in place of the module's own, for the one call that the wrapper makes."""

    def once(images: Tensor) -> Any:
        del module.forward
        return call_model(module, images, forward)

    module.forward = once
    try:
        yield
    finally:
        vars(module).pop("forward", None)


def holds_whole_model(trainer: Trainer) -> bool:
    """Whether every process has all parameters; not so where they are sharded."""
    sharded = ("strategies.FSDPStrategy", "strategies.ModelParallelStrategy", "strategies.DeepSpeedStrategy")
    return not isinstance(trainer.strategy, tuple(kind for path in sharded for kind in in_both(path)))


def _all_gather(trainer: Trainer, value: Any) -> list[Any]:
    gathered: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(gathered, value)
    return gathered
