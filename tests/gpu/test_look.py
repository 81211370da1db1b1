"""One look on a CUDA device: the same maps and scores as on the CPU, whatever the precision, layout and memory.

Each test that can runs on the CPU, too, so that its own code is proven where there is no such device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.cost.gpu import count_waits
from lightning_gcam import SaliencyBatch, SaliencyEvaluation, attribute
from lightning_gcam.cam import available_methods
from lightning_gcam.pipeline.config import LookConfig
from lightning_gcam.pipeline.record import LookHistory, SaliencyRecord, Stamp
from lightning_gcam.pipeline.run import analyze
from lightning_gcam.shortcuts import resolve_checks
from lightning_gcam.utils.errors import InputError
from tests.support.device import needs_cuda
from tests.support.modules import AlwaysDropout, Plain

pytestmark = pytest.mark.filterwarnings("ignore")

LAYER = "net.4"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Products in the precision of their numbers: TF32 would round the maps of the device to three digits."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def samples(n: int = 16, side: int = 16) -> SaliencyBatch:
    """Images of one channel whose square is as bright as their class, with its mask."""
    images = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(5))
    labels, masks = torch.arange(n) % 3, torch.zeros(n, side, side, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    images[:, 0, 4:12, 4:12] += labels[:, None, None]
    return SaliencyBatch(images, labels, masks)


def network(kind: Callable[[], nn.Module] = Plain) -> Any:
    torch.manual_seed(0)
    return kind().eval()


def look(model: nn.Module, batch: SaliencyBatch, **options: Any) -> SaliencyRecord:
    config = LookConfig(target_layer=LAYER, checks=resolve_checks(None), with_baselines=True)
    return analyze(model, batch, config, **options)


def on(device: torch.device, batch: SaliencyBatch, dtype: torch.dtype = torch.float32) -> SaliencyBatch:
    return SaliencyBatch(batch.images.to(dtype), batch.labels, batch.masks).to(device)


def test_maps_and_scores_are_those_of_the_cpu(device: torch.device) -> None:
    """In double precision, in which no pixel and no prediction lies so near a tie that rounding decides it."""
    there = look(network().double().to(device), on(device, samples(), torch.float64))
    here = look(network().double(), on(CPU, samples(), torch.float64))
    assert there.attribution.logits.device.type == device.type
    for name, maps in here.attribution.maps.items():
        torch.testing.assert_close(there.attribution.maps[name].cpu(), maps, rtol=0, atol=1e-4)
    assert there.scores.keys() == here.scores.keys()
    assert len(here.scores) > 30
    for name, score in here.scores.items():
        assert there.scores[name] == pytest.approx(score, abs=1e-3), name


@pytest.mark.parametrize("method", available_methods())
def test_every_method_gives_the_maps_of_the_cpu(method: str, device: torch.device) -> None:
    images, targets = samples(4).images.double(), torch.arange(4) % 3
    how = {"methods": method, "target_layer": LAYER}
    try:
        here = attribute(network().double(), images, targets, **how).maps[method]
    except (ImportError, InputError) as error:
        pytest.skip(str(error))
    if method == "random":
        return  # its numbers are the device's own
    there = attribute(network().double().to(device), images.to(device), targets.to(device), **how)
    torch.testing.assert_close(there.maps[method].cpu(), here, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_lower_precision_gives_nearly_the_same_maps(dtype: torch.dtype, device: torch.device) -> None:
    batch = on(device, samples())
    exact = look(network().to(device), batch)
    with torch.autocast(device.type, dtype=dtype):
        rounded = look(network().to(device), batch)
    for name, maps in exact.attribution.maps.items():
        found = rounded.attribution.maps[name]
        assert found.dtype == torch.float32
        assert found.isfinite().all(), name
        alike = nn.functional.cosine_similarity(found.flatten(1), maps.flatten(1))
        assert alike.min() > 0.95, name


def test_channels_last_gives_the_same_maps(device: torch.device) -> None:
    batch = on(device, samples(), torch.float64)
    plain = look(network().double().to(device), batch)
    batch.images = batch.images.contiguous(memory_format=torch.channels_last)
    model = network().double().to(device, memory_format=torch.channels_last)
    found = look(model, batch)
    for name, maps in plain.attribution.maps.items():
        torch.testing.assert_close(found.attribution.maps[name], maps, rtol=0, atol=1e-4)


class OwnGenerator(Plain):
    """Draws from the device's stream and from a generator of its own, in eval mode too."""

    def forward(self, images: Tensor) -> Tensor:
        if not hasattr(self, "own"):
            self.own = torch.Generator(images.device).manual_seed(3)
        noise = torch.rand(images.shape, device=images.device, generator=self.own, dtype=images.dtype)
        return self.net(images + 0.1 * noise + 0.1 * torch.rand_like(images))


@pytest.mark.parametrize("kind", [AlwaysDropout, OwnGenerator])
def test_random_streams_of_the_device_are_left_as_they_were(
    kind: Callable[[], nn.Module], device: torch.device
) -> None:
    model, batch = network(kind).to(device), on(device, samples())
    with torch.no_grad():
        model(batch.images)
    drawn = [_drawn(model, device) for _ in range(2)]
    assert not torch.equal(*drawn)
    state = _streams(model, device)
    expected = _drawn(model, device)
    _restore(model, device, state)
    look(model, batch)
    assert torch.equal(_drawn(model, device), expected)


def _drawn(model: Any, device: torch.device) -> Tensor:
    own = torch.rand(3, device=device, generator=model.own) if hasattr(model, "own") else torch.zeros(0)
    return torch.cat([torch.rand(3, device=device).cpu(), own.cpu()])


def _streams(model: Any, device: torch.device) -> list[Tensor]:
    stream = torch.cuda.get_rng_state() if device.type == "cuda" else torch.get_rng_state()
    return [stream, *([model.own.get_state()] if hasattr(model, "own") else [])]


def _restore(model: Any, device: torch.device, state: list[Tensor]) -> None:
    (torch.cuda.set_rng_state if device.type == "cuda" else torch.set_rng_state)(state[0])
    if hasattr(model, "own"):
        model.own.set_state(state[1])


class Hungry(Plain):
    """Asks for a pebibyte where more than four samples come at once: the allocator's own refusal, on any device."""

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 4:
            torch.empty(2**50, dtype=torch.uint8, device=images.device)
        return self.net(images)


def test_memory_that_runs_out_halves_the_chunks_and_the_look_goes_on(device: torch.device) -> None:
    batch = on(device, samples(), torch.float64)
    with pytest.raises(RuntimeError, match="memory"):
        network(Hungry).double().to(device)(batch.images)
    found, expected = (look(network(kind).double().to(device), batch) for kind in (Hungry, Plain))
    assert found.chunk_size == 4
    for name, maps in expected.attribution.maps.items():
        torch.testing.assert_close(found.attribution.maps[name], maps, rtol=0, atol=1e-4)
    assert found.scores == pytest.approx(expected.scores, abs=1e-3)


class Wide(nn.Module):
    """At 512 x 512 each sample passes through 64 MiB of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 64, 3, padding=1),
            nn.AvgPool2d(32),
            nn.ReLU(),
            nn.Identity(),
            nn.Conv2d(64, 8, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


class TestOnCuda:
    """What only a CUDA device has."""

    pytestmark = needs_cuda

    def test_a_card_that_is_full_halves_the_chunks(self) -> None:
        batch = on(torch.device("cuda"), samples(16, 512))
        model, config = network(Wide).cuda(), LookConfig(target_layer=LAYER, checks=())
        expected = analyze(model, batch, config)
        torch.cuda.empty_cache()
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 700 * 2**20) / total)
        try:
            found = analyze(model, batch, config)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert expected.chunk_size in (None, 16)
        assert found.chunk_size is not None
        assert found.chunk_size < 16
        for name, maps in expected.attribution.maps.items():
            torch.testing.assert_close(found.attribution.maps[name], maps, rtol=0, atol=1e-3)

    def test_a_look_waits_for_the_device_as_often_as_is_counted_without_one(self) -> None:
        """See tests/unit/pipeline/test_synchronizations.py; the aim is three times."""
        batch, model = on(torch.device("cuda"), samples()), network().cuda()
        config, history = LookConfig(target_layer=LAYER), LookHistory()

        def one_look() -> None:
            analyze(model, batch, config, history=history, stamp=Stamp(1))

        def forward() -> None:
            with torch.no_grad():
                model(batch.images)

        for call in (forward, one_look, one_look):
            call()  # the first times load kernels
        found, own = (count_waits(call, torch.device("cuda")) for call in (one_look, forward))
        assert found is not None and own is not None and found - own <= 7

    @pytest.mark.parametrize("mode", ["default", "reduce-overhead"], ids=["inductor", "CUDA graphs"])
    def test_compiled_code_gives_the_maps_of_the_plain_one_and_runs_on(self, mode: str) -> None:
        torch._dynamo.reset()
        batch = on(torch.device("cuda"), samples())
        plain, compiled = network().cuda(), network().cuda()
        compiled.net = torch.compile(compiled.net, mode=mode)
        with torch.no_grad():
            before = [compiled(batch.images).clone() for _ in range(3)]  # records the graph, then replays it
        config = LookConfig(checks=())
        found, expected = (
            analyze(each, batch, LookConfig(target_layer=name, checks=config.checks))
            for each, name in ((compiled, "net._orig_mod.4"), (plain, LAYER))
        )
        torch.testing.assert_close(
            found.attribution.maps["guidance_cam"],
            expected.attribution.maps["guidance_cam"],
            rtol=0,
            atol=1e-3,
        )
        with torch.no_grad():
            assert torch.equal(compiled(batch.images), before[-1])
        torch._dynamo.reset()

    def test_the_memory_of_a_look_is_given_back(self) -> None:
        batch, model, used = on(torch.device("cuda"), samples(16, 64)), network().cuda(), []
        for _ in range(6):
            look(model, batch)
            torch.cuda.synchronize()
            used.append(torch.cuda.memory_allocated())
        assert max(used[2:]) <= max(used[:2])


def test_a_picture_is_drawn_of_what_lies_on_the_device(device: torch.device) -> None:
    picture = look(network().to(device), on(device, samples())).overlay
    assert picture.ndim == 3
    assert picture.std() > 0


def test_an_evaluation_gives_the_table_of_the_cpu(device: torch.device, tmp_path: Path) -> None:
    tables = [_evaluated(each, tmp_path / str(number)) for number, each in enumerate((device, CPU))]
    assert tables[0].keys() == tables[1].keys()
    for name, value in tables[1].items():
        assert tables[0][name] == pytest.approx(value, abs=1e-3), name


class Evaluated(Plain):
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)


def _evaluated(device: torch.device, folder: Path) -> dict[str, float]:
    batch = on(CPU, samples(24), torch.float64)
    loader = DataLoader(TensorDataset(batch.images, batch.labels, batch.masks), batch_size=8)
    evaluation = SaliencyEvaluation(
        methods=["guidance_cam", "layer_cam"],
        target_layer=LAYER,
        directory=folder,
        resamples=20,
        on_error="raise",
        checks=[],
    )
    trainer = pytorch_lightning.Trainer(
        accelerator=device.type,
        devices=1,
        precision="64-true",
        callbacks=[evaluation],
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.test(network(Evaluated), loader, verbose=False)
    assert evaluation.result is not None
    return {f"{row.method}/{row.score}": row.value for row in evaluation.result.rows if row.value is not None}
