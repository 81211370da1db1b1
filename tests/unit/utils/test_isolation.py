"""What `untouched` puts back; and that each of its safeguards is needed: without it the difference is there."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lightning_gcam.utils import isolation
from lightning_gcam.utils.isolation import replaced_attribute, untouched
from lightning_gcam.utils.snapshots import parameters_restored
from tests.support.nets import bits, cnn, pictures, state_of


class Buffered(nn.Module):
    """Writes its buffers in eval mode too, in each of the ways there are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("written", torch.tensor([1.0, float("nan"), 3.0]))
        self.register_buffer("replaced", torch.tensor([1.0, 2.0]))
        self.register_buffer("removed", torch.tensor([5.0]))
        self.register_buffer("counted", torch.tensor(7), persistent=False)
        self.register_buffer("flipped", torch.tensor([0.0]))  # to -0, which equals 0 and is not the same bits
        self.register_buffer("empty", None)
        self.register_buffer("kept", torch.tensor([float("nan"), 1.0]))

    def forward(self, images: Tensor) -> Tensor:
        self.written[0] = 9
        self.replaced = self.replaced * 0.5
        self.removed = None
        self.counted += 1
        self.flipped.neg_()
        return images


class Noting(nn.Module):
    """Notes what it likes in plain attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.mean = torch.zeros(2)
        self.sizes: dict[Any, Tensor] = {}
        self.seen: set[int] = set()
        self.outputs: list[Tensor] = []
        self.last: deque[int] = deque([1, 2], maxlen=2)
        self.histogram = np.zeros(2)

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.mean.add_(images.mean())
        self.sizes[images.shape] = images.new_ones(1)
        self.seen.add(len(images))
        self.outputs.append(images)
        self.last.append(3)
        self.histogram[0] += 1
        self.built = True
        if not hasattr(self, "scale"):
            self.scale = nn.Parameter(images.mean())
        return images


class Writing(nn.Module):
    """Writes on its parameters in eval mode too, in each of the ways there are."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("data", "view", "nograd", "memory", "replaced", "spectral", "tied", "frozen", "graded"):
            self.register_parameter(name, nn.Parameter(torch.tensor([1.0, float("nan"), 3.0])))
        self.shared = self.data
        self.table = nn.Embedding(2, 3, max_norm=0.1)
        self.graded.grad = torch.ones(3)
        self.frozen.grad = torch.zeros(3)

    def forward(self, images: Tensor) -> Tensor:
        self.data.data.mul_(0.5)
        self.view.data[1:][0] = 7
        with torch.no_grad():
            self.nograd.add_(1)
        self.memory.data = self.memory.data + 1
        self.memory.data.add_(1)
        self.replaced = nn.Parameter(torch.zeros(3))
        torch.mul(self.data.data, 3, out=self.spectral.data)
        self.tied.data.copy_(self.data.data)
        self.frozen.requires_grad_(False)
        self.frozen.grad = None
        self.graded.grad.add_(1)
        self.table(torch.tensor([0]))
        return images


class Drawing(nn.Module):
    """Draws from generators of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.of_torch = torch.Generator().manual_seed(1)
        self.of_numpy = np.random.default_rng(1)
        self.older = [np.random.RandomState(1)]
        self.bits = {"first": np.random.PCG64(1)}
        self.of_python = random.Random(1)
        self.system = random.SystemRandom()  # it has no state
        self.augment = SimpleNamespace(generator=random.Random(2))

    def forward(self, images: Tensor) -> Tensor:
        for each in (self.of_numpy, self.older[0], self.of_python, self.augment.generator, self.system):
            each.random()
        torch.rand(1, generator=self.of_torch)
        self.bits["first"].random_raw()
        return images


class Dropping(nn.Dropout):
    """Remembers whether it dropped anything; in an object of its own, which is not put back."""

    def __init__(self) -> None:
        super().__init__(0.5)
        self.note = SimpleNamespace(dropped=False)

    def forward(self, images: Tensor) -> Tensor:
        output = super().forward(images)
        self.note.dropped = not torch.equal(output, images)
        return output


class _Logs:
    def __init__(self) -> None:
        super().__init__()
        self.said = SimpleNamespace(names=[])  # in an object of its own: lists are put back

    @property
    def logged(self) -> list[str]:
        return self.said.names

    def log(self, name: str, value: Any, **options: Any) -> None:
        self.logged.append(name)

    def log_dict(self, values: dict[str, Any], **options: Any) -> None:
        self.logged.extend(values)

    def forward(self, images: Tensor) -> Tensor:
        self.log("mean", images.mean(), prog_bar=True)
        self.log_dict({"min": images.min(), "max": images.max()})
        return images


class LogsInForward(_Logs, pytorch_lightning.LightningModule):
    pass


class LogsInForwardToo(_Logs, lightning.pytorch.LightningModule):
    pass


class Around(pytorch_lightning.LightningModule):
    """A LightningModule inside another one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = LogsInForward()

    def forward(self, images: Tensor) -> Any:
        return self.inner(images)


def numpy_stream() -> list[Any]:
    return [np.asarray(each).tolist() for each in np.random.get_state()]


def buffers_of(module: nn.Module) -> Any:
    return [(name, id(each), bits(each)) for name, each in module._buffers.items()]


def parameters_of(module: nn.Module) -> Any:
    """Values, memory, gradient and whether there is to be one."""
    return {
        name: (id(each), bits(each), each.data_ptr(), each.requires_grad, id(each.grad), bits(each.grad))
        for name, each in module.named_parameters()
        if name != "replaced"  # it stands in a dict, which `_attributes` refills
    }


def states_of(module: Drawing) -> dict[str, str]:
    """Where each of its generators stands."""
    return {
        "torch": str(bits(module.of_torch.get_state())),
        "numpy": str(module.of_numpy.bit_generator.state),
        "numpy's older one": str(module.older[0].get_state(legacy=False)),
        "numpy's bits": str(module.bits["first"].state),
        "python": str(module.of_python.getstate()),
        "in another object": str(module.augment.generator.getstate()),
    }


@dataclass(frozen=True)
class Case:
    """One thing that a forward disturbs, what can be seen of it, and the safeguard that puts it back."""

    safeguard: str
    make: Callable[[], nn.Module]
    disturb: Callable[[Any], Any]
    see: Callable[[Any], Any]


CASES = {
    "python's random stream": Case(
        "same_random_streams", cnn, lambda m: random.random(), lambda m: random.getstate()
    ),
    "numpy's random stream": Case(
        "same_random_streams", cnn, lambda m: np.random.rand(), lambda m: numpy_stream()
    ),
    "torch's random stream": Case(
        "same_random_streams", cnn, lambda m: torch.rand(1), lambda m: bits(torch.get_rng_state())
    ),
    "a seed set anew": Case(
        "same_random_streams",
        cnn,
        lambda m: pytorch_lightning.seed_everything(7, verbose=False),
        lambda m: (random.getstate(), numpy_stream(), bits(torch.get_rng_state())),
    ),
    "buffers": Case("_buffers", Buffered, lambda m: m(pictures()), buffers_of),
    "the log": Case("_silenced_log", LogsInForward, lambda m: m(pictures()), lambda m: list(m.logged)),
    "the other package's log": Case(
        "_silenced_log", LogsInForwardToo, lambda m: m(pictures()), lambda m: list(m.logged)
    ),
    "a nested module's log": Case(
        "_silenced_log", Around, lambda m: m(pictures()), lambda m: list(m.inner.logged)
    ),
    "dropout in training": Case(
        "_training_flags",
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), Dropping()).train(),
        lambda m: m(pictures()),
        lambda m: m[1].note.dropped,
    ),
    "a count of the calls": Case("_attributes", Noting, lambda m: m(pictures()), lambda m: m.calls),
    "an attribute that was not there": Case(
        "_attributes", Noting, lambda m: m(pictures()), lambda m: sorted(vars(m))
    ),
    "a tensor that is no buffer": Case(
        "_attributes", Noting, lambda m: m(pictures()), lambda m: bits(m.mean)
    ),
    "a cache by size": Case("_attributes", Noting, lambda m: m(pictures()), lambda m: list(m.sizes)),
    "a list": Case("_attributes", Noting, lambda m: m(pictures()), lambda m: len(m.outputs)),
    "a set": Case("_attributes", Noting, lambda m: m(pictures()), lambda m: set(m.seen)),
    "a queue": Case("_attributes", Noting, lambda m: m(pictures()), lambda m: list(m.last)),
    "an array of numpy's": Case(
        "_attributes", Noting, lambda m: m(pictures()), lambda m: m.histogram.tolist()
    ),
    "parameters that it writes": Case("_parameters", Writing, lambda m: m(pictures()), parameters_of),
    "generators of its own": Case("_generators", Drawing, lambda m: m(pictures()), states_of),
    "a parameter that was not there": Case(
        "_attributes", Noting, lambda m: m(pictures()), lambda m: sorted(m.state_dict())
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_put_back(name: str) -> None:
    case = CASES[name]
    module = case.make()
    before = case.see(module)
    with untouched(module):
        case.disturb(module)
    assert case.see(module) == before


@pytest.mark.parametrize("name", CASES)
def test_it_is_put_back_after_an_exception(name: str) -> None:
    case = CASES[name]
    module = case.make()
    before = case.see(module)

    def fail() -> None:
        case.disturb(module)
        raise ArithmeticError("after the forward")

    with pytest.raises(ArithmeticError, match="after the forward"), untouched(module):
        fail()
    assert case.see(module) == before


@pytest.mark.parametrize("name", CASES)
def test_its_safeguard_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    monkeypatch.setattr(isolation, case.safeguard, lambda *module: nullcontext())
    module = case.make()
    before = case.see(module)
    with untouched(module):
        case.disturb(module)
    assert case.see(module) != before


def test_every_safeguard_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """With none of them `untouched` does nothing at all, so the cases above leave none out."""
    for safeguard in {case.safeguard for case in CASES.values()}:
        monkeypatch.setattr(isolation, safeguard, lambda *module: nullcontext())
    module = Buffered().train()
    with untouched(module):
        assert module.training
        torch.rand(1)
        module(pictures())
    assert module.counted == 8


@pytest.mark.parametrize("name", ["parameters that it writes", "generators of its own"])
def test_every_way_to_write_and_to_draw_is_tried(name: str) -> None:
    """Without `untouched` each of them is another afterwards, so that the cases above cannot pass by themselves."""
    case = CASES[name]
    module = case.make()
    before = case.see(module)
    case.disturb(module)
    after = case.see(module)
    assert [each for each in before if after[each] == before[each]] == []


def test_parameters_are_not_copied_where_nothing_writes_on_them() -> None:
    """Of a large network a copy at every look would be too dear: only what is written on is copied, before it is."""
    model, writing = cnn(), Writing()
    for each, module in ((model, model), (writing, writing)):
        with parameters_restored(each.parameters()):
            watch = _get_current_dispatch_mode()
            module(pictures())
            copied = [len(values) for _, values in watch._copies]
        assert copied == ([] if each is model else [3, 3, 3, 3, 3, 3, 2])


def test_a_parameter_that_was_written_breaks_no_pending_backward() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2 * 12 * 10, 1))
    loss = model(pictures()).square().sum()
    expected = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    with untouched(model):
        model[2].weight.data.mul_(0.5)
    for found, each in zip(torch.autograd.grad(loss, list(model.parameters())), expected, strict=True):
        assert torch.equal(found, each)


# ------------------------------------------------------------------------------------------------ training flags


class OwnTrain(nn.Module):
    """A user's `train()` that keeps its backbone frozen, and counts how often it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cnn()
        self.calls = 0

    def train(self, mode: bool = True) -> OwnTrain:
        self.calls += 1
        super().train(mode)
        self.net.features.eval()
        return self


def flags(model: nn.Module) -> dict[str, bool]:
    return {name: each.training for name, each in model.named_modules()}


def test_flags_come_back_one_by_one() -> None:
    model = cnn().train()
    model.features[1].eval()
    model.head[2].eval()
    before = flags(model)
    with untouched(model):
        assert not any(flags(model).values())
    assert flags(model) == before
    assert len(set(before.values())) == 2

    model.eval().train()  # what a tool does that calls `.train()`
    assert flags(model) != before


def test_flags_come_back_after_an_exception() -> None:
    model = cnn().train()
    model.features[1].eval()
    before = flags(model)
    with pytest.raises(ZeroDivisionError, match="division"), untouched(model):
        model.eval()(1 / 0)
    assert flags(model) == before


def test_a_users_train_is_not_called() -> None:
    model = OwnTrain().train()
    calls, before = model.calls, flags(model)
    with untouched(model):
        assert not model.training
    assert model.calls == calls
    assert flags(model) == before

    model.eval().train()
    assert model.calls == calls + 2


def test_a_module_in_eval_stays_in_eval() -> None:
    model = cnn().eval()
    with untouched(model):
        pass
    assert not any(flags(model).values())


def test_batch_norm_statistics_do_not_move() -> None:
    model = cnn().train()
    before = state_of(model)
    with untouched(model):
        model(pictures())
    assert state_of(model) == before

    model(pictures())
    assert state_of(model)["buffers"] != before["buffers"]


# -------------------------------------------------------------------------------------------------------- buffers


def test_a_buffer_that_was_not_written_is_not_written_back() -> None:
    """Writing would raise its version, and break a graph of the training that is still to be run backwards."""
    model = Buffered()
    versions = {name: each._version for name, each in model.named_buffers()}
    with untouched(model):
        model(pictures())
    written = {name for name, each in model.named_buffers() if each._version != versions[name]}
    assert written == {"written", "counted", "flipped"}  # "kept" holds a NaN, and is the same all the same


def test_a_pending_backward_of_the_training_still_runs() -> None:
    model = cnn().train()
    loss = model(pictures()).sum()
    with untouched(model):
        model(pictures())
    loss.backward()
    assert model.features[0].weight.grad.abs().max() > 0


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")
def test_a_scripted_submodule_keeps_its_buffers() -> None:
    model = nn.Sequential(torch.jit.script(nn.BatchNorm2d(3)), nn.Flatten()).train()
    before = {name: bits(each) for name, each in model.state_dict().items()}
    with untouched(model):
        model(pictures())
        model[0].running_mean.add_(1)
    assert {name: bits(each) for name, each in model.state_dict().items()} == before
    assert all(each.training for each in model.modules())


class HooksItself(nn.Module):
    """As transformers does it: the first forward adds hooks, and notes that it did."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)
        self.kept: list[Tensor] = []

    def forward(self, images: Tensor) -> int:
        if not getattr(self, "has_hooks", False):
            self.layer.register_forward_hook(lambda *args: self.kept.append(args[2]))
            self.has_hooks = True
        self.kept.clear()
        self.layer(images)
        return len(self.kept)


def test_hooks_that_the_first_forward_adds_are_taken_away_with_its_note() -> None:
    model = HooksItself()
    others = model.layer.register_forward_hook(lambda *args: None)
    with untouched(model):
        assert model(pictures()) == 1
    assert list(model.layer._forward_hooks) == [others.id]
    assert not hasattr(model, "has_hooks")
    assert model(pictures()) == 1  # and not two, one of them ours


def test_a_buffer_that_the_forward_adds_is_taken_away() -> None:
    """It would hold what our images made of it; the training's own forward builds it as it would have."""
    module = nn.Identity()
    module.register_buffer("empty", None)
    with untouched(module):
        module.register_buffer("cache", torch.ones(2))
        module.empty = torch.ones(2)
    assert not hasattr(module, "cache")
    assert module.empty is None


# ------------------------------------------------------------------------------------------------------------ log


@pytest.mark.parametrize("make", [LogsInForward, LogsInForwardToo])
def test_the_log_speaks_again(make: Callable[[], Any]) -> None:
    module = make()
    attributes = sorted(vars(module))
    with untouched(module):
        module(pictures())
        assert module.logged == []
    assert sorted(vars(module)) == attributes
    module(pictures())
    assert module.logged == ["mean", "min", "max"]


def test_a_log_of_the_instance_comes_back() -> None:
    module = LogsInForward()
    heard: list[str] = []

    def own(name: str, value: Any, **options: Any) -> None:
        heard.append(name)

    module.log = own
    with untouched(module):
        module(pictures())
    assert heard == []
    assert vars(module)["log"] is own
    assert "log_dict" not in vars(module)


def test_a_module_that_is_no_lightning_module_keeps_what_it_calls_log() -> None:
    class Logarithm(nn.Module):
        def log(self, images: Tensor) -> Tensor:
            return images.log()

        def forward(self, images: Tensor) -> Tensor:
            return self.log(images)

    module = Logarithm()
    with untouched(module):
        assert module(torch.ones(2)).tolist() == [0, 0]


# ---------------------------------------------------------------------------------------------------------- streams


def test_the_streams_go_on_as_if_nothing_had_been_drawn() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def seed() -> None:
        random.seed(3)
        np.random.seed(3)
        torch.manual_seed(3)

    seed()
    expected = [draw(), draw()]
    seed()
    found = [draw()]
    with untouched(nn.Identity()):
        inside = draw()
    found.append(draw())
    assert found == expected
    assert inside == expected[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_streams_of_the_devices_are_put_back() -> None:
    torch.rand(1, device="cuda")
    before = torch.cuda.get_rng_state_all()
    with untouched(nn.Identity()):
        torch.rand(1, device="cuda")
    assert all(torch.equal(a, b) for a, b in zip(before, torch.cuda.get_rng_state_all(), strict=True))


def test_one_inside_another() -> None:
    model = Buffered().train()
    before = state_of(model)
    with untouched(model):
        with untouched(model):
            model(torch.rand(1))
        assert not model.training
        model(torch.rand(1))
    assert state_of(model) == before


class Thresholds:
    inherited = 3


def test_an_attribute_that_is_replaced_comes_back_also_where_it_is_none() -> None:
    owner = Thresholds()
    owner.own, owner.nothing = 5, None  # type: ignore[attr-defined]
    with ExitStack() as stack:
        for name in ("own", "nothing", "inherited"):
            stack.enter_context(replaced_attribute(owner, name, 1))
        assert vars(owner) == {"own": 1, "nothing": 1, "inherited": 1}
    assert vars(owner) == {"own": 5, "nothing": None}
    assert owner.inherited == 3
