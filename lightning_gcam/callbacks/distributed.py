"""Several processes look as one: they pool the samples they found, share out the work, and agree on the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed
from torch import Tensor, nn

from lightning_gcam.cam.calling import Forward
from lightning_gcam.data import SaliencyBatch
from lightning_gcam.data.fixed_samples import FixedBatch, Offered, Sample
from lightning_gcam.pipeline.attribution import Attribution
from lightning_gcam.pipeline.model_outputs import Answers
from lightning_gcam.utils.errors import words_of
from lightning_gcam.utils.isolation import untouched
from lightning_gcam.utils.lightning_compat import Trainer, in_both

Rows = TypeVar("Rows", Attribution, Answers)
"""What has one row a sample."""
Result = TypeVar("Result")


def pool_candidates(trainer: Trainer, fixed: FixedBatch) -> Offered | Exception:
    """The samples that each process would keep, the same in all of them; the exception where one failed."""
    if trainer.world_size == 1:
        return _tried(fixed.candidates)
    shares = agreed(trainer, lambda: _packed(fixed.candidates()))
    if isinstance(shares, Exception):
        return shares
    return together(trainer, lambda: _unpacked(shares, trainer.strategy.root_device))


def _packed(offered: Offered) -> tuple[Any, ...]:
    samples = [(each.position, each.group, each.batch.state_dict()) for each in offered.samples]
    return samples, offered.delivered, offered.unlabelled


def _unpacked(shares: list[tuple[Any, ...]], device: torch.device) -> Offered:
    whole = Offered([], Counter())
    for samples, delivered, unlabelled in shares:
        own = [
            Sample(position, group, SaliencyBatch(**state).to(device)) for position, group, state in samples
        ]
        whole = whole + Offered(own, delivered, unlabelled)
    return whole


def share_out(
    trainer: Trainer, module: nn.Module, n: int, work: Callable[[list[int]], Rows]
) -> Rows | Exception:
    """Do the work of a batch with all processes: each takes its share of the samples, all get the whole.

    Args:
        trainer: says how many processes there are, and whether each holds the whole model.
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
        failure = _failure(whole, _all_gather(trainer, (_words(whole), None)))
        return failure if failure is not None else whole
    buffers = _rank_zeros_buffers(module, rank)
    rows = everything[rank::world]
    part = _tried(lambda: _with_buffers(module, buffers, work, rows)) if rows else None
    sent = None if part is None or isinstance(part, Exception) else part.to("cpu")
    gathered = _all_gather(trainer, (_words(part), sent))
    failure = _failure(part, gathered)
    if failure is not None:
        return failure
    return _tried(lambda: _interleave([each for _, each in gathered if each is not None]))


def _rank_zeros_buffers(module: nn.Module, rank: int) -> dict[str, Tensor] | str:
    """The buffers of rank zero, or why they could not be had.

    They are sent by name, as objects: a buffer that only one process has built yet must not leave the others waiting.
    """
    own: Any = None
    if rank == 0:
        own = _tried(
            lambda: {name: each.cpu() for name, each in module.named_buffers() if each.is_floating_point()}
        )
        own = _words(own) if isinstance(own, Exception) else own
    sent = [own]
    torch.distributed.broadcast_object_list(sent, src=0)
    return cast("dict[str, Tensor] | str", sent[0])


def _with_buffers(
    module: nn.Module, buffers: dict[str, Tensor] | str, work: Callable[[list[int]], Rows], rows: list[int]
) -> Rows:
    """Work on one and the same network in all processes: the one that a checkpoint would keep.

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
    """The result or the exception, so that the exchange with the other processes comes in any case."""
    try:
        return work()
    except Exception as error:
        return error


def _words(result: Any) -> str | None:
    """An exception as words, which can be sent in any case; None for anything else."""
    return f"{type(result).__name__}: {words_of(result)}" if isinstance(result, Exception) else None


def _failure(own: Any, gathered: list[tuple[str | None, Any]]) -> Exception | None:
    """This process's exception, or another's; None where none failed."""
    failed = [(process, words) for process, (words, _) in enumerate(gathered) if words is not None]
    if not failed or isinstance(own, Exception):
        return own if isinstance(own, Exception) else None
    process, words = failed[0]
    return RuntimeError(f"{words} (in process {process})")


def first_layers(trainer: Trainer, names: list[str]) -> list[str]:
    """The layers that were found, by whichever process found any: they all hold the same network."""
    found = [names] if trainer.world_size == 1 else _all_gather(trainer, names)
    return next((each for each in found if each), [])


def agreed(trainer: Trainer, work: Callable[[], Result]) -> list[Result] | Exception:
    """What each process has, in every process, by rank; where `work` failed in one of them, the exception, in all."""
    own = _tried(work)
    words, sent = _words(own), None if isinstance(own, Exception) else own
    found: list[Any] = [(words, sent)] if trainer.world_size == 1 else _all_gather(trainer, (words, sent))
    failure = _failure(own, found)
    return failure if failure is not None else [each for _, each in found]


def together(trainer: Trainer, work: Callable[[], Result]) -> Result | Exception:
    """What this process's `work` gives; where it failed in one of them, the exception, in all: none goes on alone."""
    own = _tried(work)
    if trainer.world_size == 1:
        return own
    failure = _failure(own, _all_gather(trainer, (_words(own), None)))
    return failure if failure is not None else own


def all_have(trainer: Trainer, has: bool) -> bool:
    """Whether every process has what it needs to run a model that is sharded, which takes all of them."""
    if trainer.world_size == 1 or holds_whole_model(trainer):
        return has
    return all(_all_gather(trainer, has))


def gather(trainer: Trainer, work: Callable[[], Result]) -> list[Result]:
    """What each process has, in every process, by rank.

    Raises:
        Exception: where `work` failed in one of them, in all of them.
    """
    found = agreed(trainer, work)
    if isinstance(found, Exception):
        raise found
    return found


def same_everywhere(trainer: Trainer, plain: Result) -> Result:
    """Rank zero's plain data in every process: `EarlyStopping` on a score that differs would stop only some."""
    return plain if trainer.world_size == 1 else trainer.strategy.broadcast(plain)


def _interleave(parts: list[Rows]) -> Rows:
    """The shares, dealt out in turn, back in the order of the batch."""
    order = sorted((row, index) for index, part in enumerate(parts) for row in range(len(part)))
    starts = [sum(len(part) for part in parts[:index]) for index in range(len(parts))]
    return type(parts[0]).cat(parts).select([starts[index] + row for row, index in order])


def through_wrapper(trainer: Trainer, forward: Forward | None) -> Forward | None:
    """How the model is called: as it is, but under FSDP, which gathers parameters in its wrapper's forward only.

    Every process must call it alike. (A DDP wrapper would wait for the others, and is never called.)

    Args:
        trainer: says which strategy runs.
        forward: the user's own way to call the module, if there is one.
    """
    if not isinstance(trainer.strategy, in_both("strategies.FSDPStrategy")):
        return forward

    def call(module: nn.Module, images: Tensor) -> Any:
        if forward is None:
            return trainer.strategy.model(images)  # type: ignore[misc]
        with _standing_in(module, forward):
            return trainer.strategy.model(images)  # type: ignore[misc]

    return call


@contextmanager
def _standing_in(module: nn.Module, forward: Forward) -> Iterator[None]:
    """`forward` in place of the module's own, for the one call that the wrapper makes."""

    def once(images: Tensor) -> Any:
        del module.forward
        return forward(module, images)

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
