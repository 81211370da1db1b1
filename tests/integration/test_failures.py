"""What goes wrong, and what then happens: the training goes on as if nothing were there, and one warning says why.

Every parameter is one fault. Each training is compared bit for bit with the same one without the callback.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from PIL import Image
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import Metric

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from lightning_gcam.metrics import EnergyPointingGame
from lightning_gcam.utils.errors import InputError
from lightning_gcam.visual import drawing as text
from tests.support import faults
from tests.support.faults import (
    EVERY,
    EVERY_STEP,
    FIRST,
    FROM_STEPS,
    FROM_VALIDATION,
    LATER,
    STEPS,
    WHEN,
    Fault,
    Observer,
    Training,
    When,
    absolute,
    assert_same,
    assert_same_training,
    fit,
    samples,
    struck,
)
from tests.support.modules import (
    MODULES,
    AlwaysDropout,
    Counting,
    LogsInForward,
    Plain,
    Spectral,
    Transformer,
)
from tests.support.witness import digest

# Lightning's advice on runs this small is not this file's subject; what we say is caught and read.
pytestmark = pytest.mark.filterwarnings("ignore")

THREE_IN_A_ROW = "The look failed 3 times in a row and is not tried again in this run."


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all, so that each training without a callback is run once."""
    return tmp_path_factory.mktemp("failures")


def assert_told(training: Training, *expected: str) -> None:
    """Exactly these warnings, each as words that must stand in it in this order."""
    assert len(training.told) == len(expected), training.told
    for said, words in zip(training.told, expected, strict=True):
        assert re.search(words, said, re.DOTALL), said


def named(value: Any) -> str | None:
    return value.__name__ if isinstance(value, type) else None


# ------------------------------------------------------------------- the model misbehaves, in a look and only there

FAILED = r"^The look failed, and the training goes on without it: "
HINT = r'.*on_error="raise"'
NO_MEMORY = r".*Not even one sample fits.*a later `target_layer`, or free memory" + HINT
NOT_FINITE = r"[1-3] of 3 absolute maps are not finite.*NaN or infinity.*try a lower learning rate"
CPU_SAYS = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
CUDA_SAYS = "CUDA out of memory. Tried to allocate 2.00 GiB"

FAILING: dict[str, tuple[Fault, str]] = {
    "forward raises": (
        faults.raising(RuntimeError("a tensor went missing")),
        FAILED + "RuntimeError: a tensor went missing" + HINT,
    ),
    "forward raises at its end": (
        faults.raising_behind(KeyError("a tensor went missing")),
        FAILED + "KeyError: 'a tensor went missing'" + HINT,
    ),
    "layer raises": (
        faults.layer_raising(AssertionError("not that shape")),
        FAILED + "AssertionError: not that shape" + HINT,
    ),
    "no output": (
        faults.giving(lambda logits: None),
        FAILED + "InputError: .*forward=",
    ),
    "fewer classes": (
        faults.giving(lambda logits: logits[:, :1]),
        FAILED + "InputError: `targets` holds class 2, but the logits have 1",
    ),
    "detached output": (
        faults.giving(lambda logits: logits.detach()),
        FAILED + "InputError: The score does not depend on `target_layer`.*Name a later layer",
    ),
    "wrong number of rows": (
        faults.giving(lambda logits: torch.cat([logits, logits])),
        FAILED + "InputError: .*forward=",
    ),
    "CUDA out of memory": (
        faults.raising(torch.OutOfMemoryError(CUDA_SAYS)),
        FAILED + "OutOfMemoryError: CUDA out of memory" + NO_MEMORY,
    ),
    "CPU out of memory": (
        faults.raising(RuntimeError(CPU_SAYS)),
        FAILED + "RuntimeError: .*can't allocate memory" + NO_MEMORY,
    ),
    "out of memory behind the layer": (
        faults.raising_behind(MemoryError()),
        FAILED + "MemoryError: " + NO_MEMORY,
    ),
    "file gone": (
        faults.raising(FileNotFoundError(errno.ENOENT, "No such file", "table.pt")),
        FAILED + "FileNotFoundError: .*table.pt.*Check that it is there" + HINT,
    ),
}
"""The look fails: no row in the history, and no further one after three."""


def run_struck(
    module: type[Any], fault: Fault, when: When, root: Path, **options: Any
) -> tuple[Any, Training]:
    monitor = faults.monitor(when, **options)
    training = fit(struck(module, fault, when.looks), root, monitor, **when.options)
    assert_same_training(training, module, **when.options)
    return monitor, training


def assert_failed(monitor: SaliencyMonitor, training: Training, when: When, words: str) -> None:
    assert_told(training, words)
    assert training.given_up == ([THREE_IN_A_ROW] if len(when.looks) > 2 else [])
    looks = training.module.clock.looks
    assert len(looks) == min(len(when.looks), 3) + len(monitor.history)
    assert len(monitor.history) == (0 if len(when.looks) > 2 else 3)


def rotated(names: Sequence[str]) -> list[Any]:
    """Each fault in each module, and over the modules each fault at each time."""
    return [
        pytest.param(
            name,
            module,
            WHEN[(i + j) % len(WHEN)],
            id=f"{name}-{module.__name__}-{WHEN[(i + j) % len(WHEN)]}",
        )
        for i, name in enumerate(names)
        for j, module in enumerate(MODULES)
    ]


@pytest.mark.parametrize(("name", "module", "when"), rotated(list(FAILING)))
def test_a_look_that_fails(name: str, module: type[Any], when: When, root: Path) -> None:
    fault, words = FAILING[name]
    monitor, training = run_struck(module, fault, when, root)
    assert_failed(monitor, training, when, words)


BROKEN_VALUES: dict[str, tuple[Fault, str]] = {
    "layer gives NaN": (faults.layer_giving(lambda output: output * torch.nan), NOT_FINITE),
    "layer gives infinity": (faults.layer_giving(lambda output: output + torch.inf), NOT_FINITE),
    "layer gives -infinity": (faults.layer_giving(lambda output: output - torch.inf), NOT_FINITE),
    "one pixel is NaN": (faults.layer_giving(faults.one_nan), NOT_FINITE),
    "gradients are NaN": (faults.gradient_of(torch.nan), NOT_FINITE),
    "gradients are infinite": (faults.gradient_of(torch.inf), NOT_FINITE),
    "no gradient at all": (
        faults.gradient_of(0.0),
        "3 of 3 absolute maps are blank.*saliency/blank_rate.*another `target_layer` or other `methods`",
    ),
}
"""The look succeeds: it is in the history, without the scores that do not exist."""


@pytest.mark.parametrize(("name", "module", "when"), rotated(list(BROKEN_VALUES)))
def test_values_that_are_not_numbers(name: str, module: type[Any], when: When, root: Path) -> None:
    fault, words = BROKEN_VALUES[name]
    monitor, training = run_struck(module, fault, when, root)
    assert_told(training, words)
    assert training.given_up == []
    assert len(monitor.history) == 4
    if name != "one pixel is NaN":
        scored = [look for look, row in enumerate(monitor.history, start=1) if "energy" in row]
        assert scored == [look for look in (1, 2, 3, 4) if look not in when.looks]


@pytest.mark.parametrize("when", WHEN, ids=str)
@pytest.mark.parametrize(
    "name", ["forward raises", "CPU out of memory", "layer gives NaN", "no gradient at all"]
)
def test_at_every_time(name: str, when: When, root: Path) -> None:
    fault, words = {**FAILING, **BROKEN_VALUES}[name]
    _, training = run_struck(Plain, fault, when, root)
    assert_told(training, words)


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_logits_that_are_nan_are_drawn_as_they_are(module: type[Any], root: Path) -> None:
    monitor, training = run_struck(module, faults.giving(lambda logits: logits + torch.nan), FIRST, root)
    assert_told(training)
    assert len(monitor.history) == 4


# --------------------------------------------------------------------------------------------- out of memory


SIX: dict[str, Any] = {"num_samples": 6, "scores": None}
"""More than a batch of four: two pieces already, where memory suffices."""


@pytest.fixture(scope="session")
def plentiful(root: Path) -> dict[type[Any], list[dict[str, float]]]:
    """The history of a run in which memory never ran out."""
    histories = {}
    for module in (Plain, Spectral, LogsInForward, Transformer):
        monitor = faults.monitor(**SIX)
        fit(module, root, monitor, **FROM_VALIDATION)
        histories[module] = monitor.history
    return histories


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(CUDA_SAYS), RuntimeError(CPU_SAYS), MemoryError()], ids=named
)
@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("module", [Plain, Spectral, LogsInForward, Transformer], ids=named)
def test_memory_for_fewer_samples_gives_the_same_scores(
    module: type[Any], most: int, error: Exception, root: Path, plentiful: Any
) -> None:
    monitor, training = run_struck(module, faults.raising_above(error, most), EVERY, root, **SIX)
    assert_told(training)
    for row, expected in zip(monitor.history, plentiful[module], strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


def test_the_smaller_piece_is_remembered(root: Path) -> None:
    fault = faults.raising_above(MemoryError(), 1)
    _, training = run_struck(Plain, fault, EVERY, root, **SIX)
    sizes = training.module.clock.sizes
    assert sizes.count(4) == 1
    assert sizes.count(2) == 1


def test_memory_that_comes_back(root: Path) -> None:
    """A look without memory for one sample is given up; the next one is taken as usual."""
    monitor, training = run_struck(Plain, faults.raising(MemoryError()), LATER, root)
    assert_told(training, NO_MEMORY)
    assert [row["step"] for row in monitor.history] == [1, 3, 7]


# --------------------------------------------------------------------------------- three in a row, and afterwards


def test_two_in_a_row_are_no_reason_to_stop(root: Path) -> None:
    when = When("two by two", [1, 2, 4, 5], {**FROM_VALIDATION, "max_epochs": 6})
    monitor, training = run_struck(Plain, faults.raising(RuntimeError("gone")), when, root)
    assert_told(training, "gone")
    assert training.given_up == []
    assert [row["step"] for row in monitor.history] == [5, 11]


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_after_three_in_a_row_the_model_is_not_called_any_more(module: type[Any], root: Path) -> None:
    when = When("always", range(100), {**FROM_VALIDATION, "max_epochs": 6})
    monitor, training = run_struck(module, faults.raising(RuntimeError("gone")), when, root)
    assert training.given_up == [THREE_IN_A_ROW]
    assert_told(training, "^Preparing the looks failed.*RuntimeError: gone" + HINT)
    assert max(training.module.clock.looks, default=0) <= 6
    assert monitor.history == []


def test_another_run_tries_again(root: Path) -> None:
    monitor, _ = run_struck(Plain, faults.raising(RuntimeError("gone")), EVERY, root)
    again = fit(Plain, root, monitor, **FROM_VALIDATION)
    assert_same_training(again, Plain, **FROM_VALIDATION)
    assert_told(again)
    assert len(monitor.history) == 4


@pytest.mark.parametrize("when", WHEN, ids=str)
def test_two_kinds_are_told_once_each(when: When, root: Path) -> None:
    errors = iter([RuntimeError("gone"), KeyError("lost")] * 50)

    def alternating(module: Any, images: Tensor, forward: Any) -> Any:
        raise next(errors)

    _, training = run_struck(Plain, alternating, when, root)
    assert_told(training, *["RuntimeError: gone", "KeyError: 'lost'"][: len(when.looks)])


@pytest.mark.parametrize("module", MODULES, ids=named)
@pytest.mark.parametrize("sanity", [0, 2], ids=["no sanity check", "sanity check"])
def test_a_trial_that_fails_is_repeated(sanity: int, module: type[Any], root: Path) -> None:
    options = {**FROM_VALIDATION, "num_sanity_val_steps": sanity}
    when = When("trial", [0], options)
    monitor, training = run_struck(module, faults.raising(RuntimeError("not warm yet")), when, root)
    assert_told(training, "^Preparing the looks failed.*RuntimeError: not warm yet" + HINT)
    assert len(monitor.history) == 4


# ------------------------------------------------------------------------------------------- loggers and disks


class Faulty(Logger):
    """A logger that takes the training's rows, and fails at one thing of ours."""

    at = "log_image"

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.refused = 0
        self.has_begun = False

    @property
    def name(self) -> str:
        return "faulty"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing to keep."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.has_begun = True
        if self.at == "log_metrics" and any(name.startswith("saliency") for name in metrics):
            self._refuse()

    def log_image(self, *_: Any, **__: Any) -> None:
        if self.at != "log_metrics":
            self._refuse()

    def _refuse(self) -> None:
        self.refused += 1
        raise self.error


class FaultyNumbers(Faulty):
    at = "log_metrics"


class FaultyWriter(Faulty):
    """As TensorBoard's: the pictures go through `experiment`."""

    @property
    def experiment(self) -> Any:
        return type("Writer", (), {"add_image": lambda *_, **__: self._refuse()})()


class FaultyExperiment(Faulty):
    """There is no reaching what lies behind it."""

    @property
    def experiment(self) -> Any:
        if self.has_begun:
            raise self.error
        return None


ERRORS = [
    (ConnectionError("no route to host"), "ConnectionError: no route to host.*can be reached"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), "BrokenPipeError.*can be reached"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left.*The disk is full: free some space"),
    (TypeError("uint8 is not supported"), "TypeError: uint8 is not supported" + HINT),
]
LOGGERS = [Faulty, FaultyNumbers, FaultyWriter, FaultyExperiment]


@pytest.mark.parametrize("when", [EVERY, EVERY_STEP], ids=["from validation", "from steps"])
@pytest.mark.parametrize(("error", "words"), ERRORS, ids=[named(type(error)) for error, _ in ERRORS])
@pytest.mark.parametrize("kind", LOGGERS, ids=named)
def test_a_logger_that_raises(kind: Any, error: Exception, words: str, when: When, root: Path) -> None:
    monitor, broken = faults.monitor(when), kind(error)
    training = fit(Plain, root, monitor, loggers=[broken], **when.options)
    assert_same_training(training, Plain, **when.options)
    assert_told(training, f"^Logging the look to {kind.__name__} failed.*{words}")
    assert len(monitor.history) == len(training.rows.ours) == 4
    assert "saliency/energy" in training.rows.ours[-1]
    assert broken.refused >= 4 or kind is FaultyExperiment


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_a_logger_that_takes_nothing_of_ours(module: type[Any], root: Path) -> None:
    """The picture and the numbers: one failure, one warning."""

    class Nothing(FaultyNumbers):
        def log_image(self, *_: Any, **__: Any) -> None:
            self._refuse()

    training = fit(module, root, faults.monitor(), loggers=[Nothing(OSError("gone"))], **FROM_VALIDATION)
    assert_same_training(training, module, **FROM_VALIDATION)
    assert_told(training, "^Logging the look to Nothing failed.*OSError: gone")


class Sabotage(pytorch_lightning.Callback):
    """Does harm to the disk as the second epoch begins, when one look has been written."""

    def __init__(self, harm: Callable[[Path], Any]) -> None:
        self.harm = harm

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            self.harm(Path(trainer.loggers[-1].log_dir))


FULL: list[str] = []
"""How the names begin that find no room."""


@pytest.fixture(autouse=True)
def a_disk_with_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written under a name in `FULL` goes to /dev/full, whatever its name before it is whole."""
    opened = Path.open

    def maybe_full(self: Path, mode: str = "r", **options: Any) -> Any:
        file = opened(self, mode, **options)
        if not {"x", "a"} & set(mode) or not self.name.startswith(tuple(FULL)):
            return file
        file.close()
        return open("/dev/full", mode.replace("x", "w"), **options)

    FULL.clear()
    monkeypatch.setattr(Path, "open", maybe_full)


def to_full_device(name: str) -> Callable[[Path], None]:
    """Whatever is written under a name that begins so meets a full disk: a real one, /dev/full."""
    return lambda _: FULL.append(name)


def by_a_file(directory: Path) -> None:
    shutil.rmtree(directory / "saliency")
    (directory / "saliency").write_text("in the way")


DISKS: dict[str, tuple[Callable[[Path], Any], str | None, int]] = {
    "vanished": (lambda directory: shutil.rmtree(directory / "saliency"), None, 3),
    "vanished with all of the run": (shutil.rmtree, None, 3),
    "replaced by a file": (by_a_file, "FileExistsError.*saliency.*may be written", 0),
    "full for pictures": (
        to_full_device("overlay-step="),
        "OSError: .*No space left on device.*free some space",
        1,
    ),
    "full for the table": (
        to_full_device("scores.csv"),
        "OSError: .*No space left on device.*free some space",
        4,
    ),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is played by /dev/full")
@pytest.mark.parametrize("module", [Plain, Transformer], ids=named)
@pytest.mark.parametrize("disk", DISKS)
def test_a_disk_that_fails(disk: str, module: type[Any], root: Path, tmp_path: Path) -> None:
    harm, words, pictures = DISKS[disk]
    monitor, files = faults.monitor(), _Files(tmp_path)
    training = fit(module, root, monitor, Sabotage(harm), loggers=[files], **FROM_VALIDATION)
    assert_same_training(training, module, **FROM_VALIDATION)
    times = 2 if disk == "full for the table" else 1  # a line is appended, and then the table written anew
    assert_told(training, *([f"^Logging the look to _Files failed.*{words}"] * times if words else []))
    assert len(monitor.history) == 4
    whole = list(tmp_path.rglob("*.png"))
    assert len([each for each in whole if each.name.startswith("overlay-")]) == pictures
    for each in whole:  # what stands under its own name is whole
        Image.open(each).verify()


class _Files(Faulty):
    """Takes no pictures, so ours are written beside it; and writes nothing itself."""

    log_image = None  # type: ignore[assignment]

    def __init__(self, directory: Path) -> None:
        super().__init__(OSError())
        self.directory = directory / "run"
        self.directory.mkdir()

    @property
    def log_dir(self) -> str:
        return str(self.directory)


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EROFS, "Read-only")]
)
@pytest.mark.parametrize("at", ["mkdir", "open", "replace"])
def test_a_directory_that_may_not_be_written(
    at: str, error: OSError, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = os if at == "replace" else Path
    real = getattr(of, at)

    def refuse(path: Any, *args: Any, **options: Any) -> Any:
        if "saliency" in str(path):
            raise error
        return real(path, *args, **options)

    files = _Files(tmp_path)
    monkeypatch.setattr(of, at, refuse)
    monitor = faults.monitor()
    training = fit(Plain, root, monitor, loggers=[files], **FROM_VALIDATION)
    monkeypatch.undo()
    assert_same_training(training, Plain, **FROM_VALIDATION)
    assert_told(training, "^Logging the look to _Files failed.*may be written")
    assert len(monitor.history) == 4


def test_without_a_logger_a_file_stands_where_the_directory_should_be(tmp_path: Path) -> None:
    options = {**FROM_VALIDATION, "logger": False}
    (tmp_path / "lightning_gcam").write_text("in the way")
    training = fit(Plain, tmp_path, faults.monitor(), **options)
    assert_same(training, fit(Plain, tmp_path, **options))
    assert_told(training, "^Writing the look failed.*(FileExists|NotADirectory)Error.*may be written")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the service process in /proc")
def test_wandb_offline_and_its_service_process_is_killed(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tests.support.faults import without_service as run"
    # a service that another test has started here would be taken, and is not that process's to kill
    here = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; run(Path(sys.argv[1]))", str(tmp_path)],
        env={**here, "PYTHONPATH": os.getcwd(), "WANDB_MODE": "offline", "WANDB_SILENT": "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    without = fit(faults.Silent, tmp_path, **FROM_VALIDATION)
    assert outcome["witness"] == digest(without.witness.lines)
    assert outcome["looks"] == 4
    (said,) = outcome["said"]
    assert re.search("Logging the look to WandbLogger failed.*can be reached", said)


# ------------------------------------------------------------------------------------- annotation and dataloaders


def batches(change: Callable[..., Any], n: int = 12, size: int = 4) -> list[Any]:
    """The validation set as a list of batches, each of them changed: `(index, images, labels, masks) -> batch`."""
    parts = zip(*(tensor.split(size) for tensor in samples(n)), strict=True)
    return [
        change(index, images, labels, masks.clone()) for index, (images, labels, masks) in enumerate(parts)
    ]


def stream_of(delivered: list[Any]) -> DataLoader[Any]:
    """A dataloader that delivers these batches as they are."""
    return DataLoader(delivered, batch_size=None)  # type: ignore[arg-type]


def without_masks(rows: slice) -> Callable[..., Any]:
    def change(index: int, images: Tensor, labels: Tensor, masks: Tensor) -> Any:
        masks[rows] = False
        return images, labels, masks

    return change


def unlabelled(*where: tuple[int, slice]) -> Callable[..., Any]:
    def change(index: int, images: Tensor, labels: Tensor, masks: Tensor) -> Any:
        labels = labels.clone()
        for batch, rows in where:
            if batch == index:
                labels[rows] = -100
        return images, labels, masks

    return change


def second(other: Callable[[Tensor, Tensor, Tensor], Any]) -> Callable[..., Any]:
    """The second batch comes in another form."""
    return lambda index, *usual: other(*usual) if index == 1 else tuple(usual)


def with_boxes(boxes: Any) -> Callable[..., Any]:
    def change(index: int, images: Tensor, labels: Tensor, masks: Tensor) -> Any:
        return images, labels, [torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) for _ in images]

    return change


def larger(images: Tensor, labels: Tensor, masks: Tensor) -> Any:
    double = nn.functional.interpolate(images, scale_factor=2)
    return double, labels, masks.repeat_interleave(2, 1).repeat_interleave(2, 2)


def several_kinds_of_labels(images: Tensor, labels: Tensor, masks: Tensor) -> Any:
    return images, nn.functional.one_hot(labels, 3).float(), masks


ALL = slice(None)
EMPTY = "{} of 3 samples have an empty mask or no box.*Check the annotation"
SKIPPED = "{} validation samples were not considered.*they have no label"
UNREAD = "^Not all of the batch could be read: .*"
FAULTY = "^3 of 3 samples are looked at without annotation that cannot be used: {} \\(3\\)"
STREAMS: dict[str, tuple[list[Any], str | None, int]] = {
    "some masks empty": (batches(without_masks(slice(0, 1))), EMPTY.format(1), 4),
    "all masks empty": (batches(without_masks(ALL)), EMPTY.format(3), 4),
    "no box": (batches(with_boxes([])), EMPTY.format(3), 4),
    "box outside of the image": (
        batches(with_boxes([[20, 20, 30, 30]])),
        FAULTY.format("a box outside of the image"),
        4,
    ),
    "box upside down": (
        batches(with_boxes([[6, 6, 2, 2], [20, 20, 30, 30]])),
        FAULTY.format("an inverted box"),
        4,
    ),
    "all boxes upside down": (
        batches(second(lambda images, labels, _: (images, labels, [torch.tensor([[6, 6, 2, 2]])] * 4))),
        UNREAD + "Are they x, y, width, height.*",
        4,
    ),
    "box of NaN": (batches(with_boxes([[float("nan")] * 4])), FAULTY.format("a box with NaN"), 4),
    "box without end": (
        batches(with_boxes([[0, 0, float("inf"), float("inf")]])),
        "The object fills each of the 3 images.*boxes",
        4,
    ),
    "one label of -100": (batches(unlabelled((0, slice(1, 2)))), SKIPPED.format(1), 4),
    "the first label -100": (batches(unlabelled((0, slice(0, 1)))), SKIPPED.format(1), 4),
    "the first batch -100": (batches(unlabelled((0, ALL))), SKIPPED.format(4), 4),
    "all labels -100": (
        batches(unlabelled((0, ALL), (1, ALL), (2, ALL))),
        FAULTY.format("a label of -100"),
        4,
    ),
    "one class only": (batches(lambda _, images, labels, masks: (images, labels * 0, masks)), None, 4),
    "mask of another size": (
        batches(second(lambda images, labels, masks: (images, labels, masks[:, :6]))),
        UNREAD + "`masks` must have the size of the images.*Resize them first",
        4,
    ),
    "images of another size": (
        batches(second(larger)),
        "4 validation samples.*another one than 8 x 8, the commonest.*resized",
        4,
    ),
    "a layout that is not known": (
        batches(second(lambda images, labels, masks: (images, labels, masks, "dog"))),
        UNREAD + "Not every part of it is known.*Pass `adapter=`",
        4,
    ),
    "a list in place of a tuple": (batches(second(lambda *usual: list(usual))), None, 4),
    "masks as numbers": (
        batches(second(lambda images, labels, masks: (images, labels, masks[:, None].float()))),
        None,
        4,
    ),
    "labels as a column": (
        batches(second(lambda images, labels, masks: (images, labels[:, None], masks))),
        None,
        4,
    ),
    "smaller than num_samples": (
        batches(lambda _, *usual: tuple(usual), n=2),
        "has 2 samples, not `num_samples=3`",
        4,
    ),
    "batches of one": (
        batches(lambda _, *usual: tuple(usual), n=4, size=1),
        "has 2 samples, not `num_samples=3`",
        4,
    ),
}
"""What the validation delivers, what is said, and how many looks there are."""


class Lenient(Plain):
    """Its own validation step takes whatever comes."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self(batch[0]).mean(), batch_size=len(batch[0]))


@pytest.mark.parametrize("sanity", [0, 2], ids=["no sanity check", "sanity check"])
@pytest.mark.parametrize("stream", STREAMS)
def test_what_the_validation_delivers(stream: str, sanity: int, root: Path) -> None:
    delivered, words, looks = STREAMS[stream]
    options = {**FROM_VALIDATION, "num_sanity_val_steps": sanity}
    if looks == 0 or "-100" in stream:
        options["limit_val_batches"] = 3
    monitor = faults.monitor()
    training = fit(Lenient, root, monitor, validation=stream_of(delivered), **options)
    assert_same(training, fit(Lenient, root, validation=stream_of(delivered), **options))
    assert_told(training, *([words] if words else []))
    assert len(monitor.history) == looks
    assert training.given_up == []


MIXED = [
    (
        second(lambda images, labels, masks: (images, labels)),
        "Only some of the fixed samples came with masks.*Deliver them with every batch",
        4,
    ),
    (
        second(lambda images, labels, masks: (images,)),
        "Only some of the fixed samples came with labels and masks.*every batch",
        4,
    ),
    (
        second(several_kinds_of_labels),
        "^Collecting the fixed samples failed.*InputError: `labels` came as .* and as .*`adapter=`",
        0,
    ),
]


@pytest.mark.parametrize(("other", "words", "looks"), MIXED, ids=["masks", "images alone", "kinds of labels"])
@pytest.mark.parametrize("sanity", [0, 2], ids=["no sanity check", "sanity check"])
def test_samples_that_do_not_belong_together(
    other: Any, words: str, looks: int, sanity: int, root: Path
) -> None:
    options = {**FROM_VALIDATION, "num_sanity_val_steps": sanity}
    monitor, delivered = faults.monitor(num_samples=8), batches(other)
    training = fit(Lenient, root, monitor, validation=stream_of(delivered), **options)
    assert_same(training, fit(Lenient, root, validation=stream_of(delivered), **options))
    assert_told(training, words)
    assert len(monitor.history) == looks


@pytest.mark.parametrize("module", MODULES, ids=named)
@pytest.mark.parametrize("masks", ["some", "all"])
def test_empty_masks_in_every_module(masks: str, module: type[Any], root: Path) -> None:
    delivered = STREAMS[f"{masks} masks empty"][0]
    monitor = faults.monitor()
    training = fit(module, root, monitor, validation=stream_of(delivered), **FROM_VALIDATION)
    assert_same(training, fit(module, root, validation=stream_of(delivered), **FROM_VALIDATION))
    assert_told(training, EMPTY.format("1" if masks == "some" else "3"))
    assert ("energy" in monitor.history[-1]) == (masks == "some")


@pytest.mark.parametrize("sanity", [0, 2], ids=["no sanity check", "sanity check"])
def test_an_empty_validation_loader(sanity: int, root: Path) -> None:
    options = {**FROM_VALIDATION, "num_sanity_val_steps": sanity}
    training = fit(Plain, root, faults.monitor(), validation=DataLoader([]), **options)
    assert_same(training, fit(Plain, root, validation=DataLoader([]), **options))
    assert_told(training, "^No look was taken in this run.*Check the validation dataloader.*`batch=`")


@pytest.mark.parametrize(
    "unlabelled_rows", [slice(0, 1), slice(1, 3), slice(0, 3)], ids=["first", "others", "nearly all"]
)
@pytest.mark.parametrize("when", [EVERY, EVERY_STEP], ids=["from validation", "from steps"])
def test_labels_of_minus_100_given_by_hand(unlabelled_rows: slice, when: When, root: Path) -> None:
    images, labels, masks = samples(4)
    labels[unlabelled_rows] = -100
    monitor = faults.monitor(when, batch=SaliencyBatch(images, labels, masks))
    training = fit(Plain, root, monitor, **when.options)
    assert_same_training(training, Plain, **when.options)
    assert_told(training)  # they are explained by the predicted class
    assert len(monitor.history) >= 4
    assert "energy" in monitor.history[-1]


# ----------------------------------------------------------------------------------- the network changes its layers


class Changing(Plain):
    """As the third epoch begins, the layer "features" is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = self.net[:6], self.net[6:]
        del self.net
        self.features[4].weight.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.compute(images))

    def compute(self, images: Tensor) -> Tensor:
        return self.features(images)

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 2:
            self.change()

    def change(self) -> None:
        """Nothing, here."""


class Replaced(Changing):
    def change(self) -> None:
        self.features = nn.Sequential(*self.features, nn.Tanh())


class Wrapped(Changing):
    def change(self) -> None:
        self.features = nn.Sequential(self.features)


class Removed(Changing):
    def change(self) -> None:
        self.trunk = self.features
        del self.features

    def compute(self, images: Tensor) -> Tensor:
        return (self.features if hasattr(self, "features") else self.trunk)(images)


class Renamed(Removed):
    def change(self) -> None:
        self.feature = self.trunk = self.features
        del self.features


class Bypassed(Changing):
    def compute(self, images: Tensor) -> Tensor:
        if self.current_epoch < 2:
            return self.features(images)
        for layer in self.features:
            images = layer(images)
        return images


class Emptied(Changing):
    def change(self) -> None:
        self.features = nn.Sequential(self.features, nn.AdaptiveAvgPool2d(1))


LAYERS: list[tuple[type[Changing], str | None]] = [
    (Replaced, None),
    (Wrapped, None),
    (Removed, '`target_layer` "features" is not a module of Removed'),
    (Renamed, '`target_layer` "features" is not a module of Renamed. Did you mean "feature'),
    (
        Bypassed,
        '`target_layer` Sequential "features" was not called by the forward of Bypassed.*Name one that runs',
    ),
    (Emptied, "`target_layer` gives .* not a grid over the image.*Name a layer that has one"),
]


@pytest.mark.parametrize("source", [FROM_VALIDATION, FROM_STEPS], ids=["from validation", "from steps"])
@pytest.mark.parametrize(("module", "words"), LAYERS, ids=named)
def test_a_layer_that_changes(
    module: type[Changing], words: str | None, source: dict[str, Any], root: Path
) -> None:
    options = {**source, "max_epochs": 4}
    steps = {} if source is FROM_VALIDATION else EVERY_STEP.monitor
    monitor = faults.monitor(target_layer="features", **steps)
    training = fit(module, root, monitor, **options)
    assert_same_training(training, module, **options)
    assert_told(training, *([FAILED + "InputError: " + words] if words else []))
    assert (
        len(monitor.history) == (4 if words is None else 2) if source is FROM_VALIDATION else monitor.history
    )


@pytest.mark.parametrize("module", [Replaced, Wrapped], ids=named)
def test_a_layer_that_was_found_and_changes(module: type[Changing], root: Path) -> None:
    monitor = faults.monitor()
    training = fit(module, root, monitor, **FROM_VALIDATION)
    assert_same_training(training, module, **FROM_VALIDATION)
    assert_told(training)
    assert len(monitor.history) == 4


GONE = [
    (Removed, '`target_layer` "features" is not a module of Removed'),
    (Renamed, '`target_layer` "features" is not a module of Renamed'),
    (Bypassed, '`target_layer` Sequential "features" was not called by the forward'),
    (Emptied, "`target_layer` gives .* not a grid over the image"),
]


@pytest.mark.parametrize(("module", "words"), GONE, ids=named)
def test_a_layer_that_was_found_and_is_gone(module: type[Changing], words: str, root: Path) -> None:
    monitor = faults.monitor()
    training = fit(module, root, monitor, **FROM_VALIDATION)
    assert_same_training(training, module, **FROM_VALIDATION)
    assert_told(training, FAILED + "InputError: " + words)
    assert len(monitor.history) == 2


# --------------------------------------------------------------------- what a forward leaves in the module by itself


class Cached(Plain):
    """Builds something in the first forward, in one of the usual ways, and needs it in the training."""

    how = "attribute"

    def __init__(self) -> None:
        super().__init__()
        self.positions: Tensor | None = None
        self.cache: dict[Any, Tensor] = {}
        self.is_built = False
        self.register_buffer("table", None)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) + self.built(images) * self.scale()

    def scale(self) -> Tensor:
        return self.net[0].weight.mean()  # so that the training's graph runs through what was built

    def build(self, images: Tensor) -> Tensor:
        return torch.linspace(-1, 1, 3).expand(1, 3) * float(images.shape[-1])

    def built(self, images: Tensor) -> Tensor:
        if self.positions is None:
            self.positions = self.build(images)
        return self.positions

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Takes another way, so that the look comes first."""
        self.log("val_loss", self.net(batch[0]).mean())


class CachedInDict(Cached):
    def built(self, images: Tensor) -> Tensor:
        return self.cache.setdefault(images.shape[1:], self.build(images))


class CachedInBuffer(Cached):
    def built(self, images: Tensor) -> Tensor:
        if self.table is None:
            self.table = self.build(images)
        return self.table


class CachedInNewBuffer(Cached):
    def built(self, images: Tensor) -> Tensor:
        if not self.is_built:
            self.register_buffer("late", self.build(images), persistent=False)
            self.is_built = True
        return self.late


class CachedFromData(Cached):
    """Data-dependent initialisation: what is built depends on the first images that are seen."""

    def build(self, images: Tensor) -> Tensor:
        return images.detach().mean() + torch.zeros(1, 3)


class CachedFromDataInBuffer(CachedFromData):
    def built(self, images: Tensor) -> Tensor:
        if self.table is None:
            self.table = self.build(images)
        return self.table


class CachedFromDataInNewBuffer(CachedFromData):
    def built(self, images: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.register_buffer("late", self.build(images))
        return self.late


class CachedFromDataInDict(CachedFromData):
    def built(self, images: Tensor) -> Tensor:
        return self.cache.setdefault("scale", self.build(images))


class RemembersElsewhere(CachedFromData):
    """What was built and that it was built stand in two places."""

    def built(self, images: Tensor) -> Tensor:
        if "scale" not in self.cache:
            self.cache["scale"] = torch.tensor(1)
            self.scale_of_images = self.build(images)
        return self.scale_of_images


class CachedFromWeights(Cached):
    """In evaluation, weights are folded once, until the next `train()`; the validation uses what it finds."""

    def train(self, mode: bool = True) -> CachedFromWeights:
        if mode:
            self.positions = None
        return super().train(mode)

    def built(self, images: Tensor) -> Tensor:
        if self.training:
            return torch.zeros(1, 3)
        if self.positions is None:
            self.positions = self.net[-1].bias.detach().clone()[None]
        return self.positions

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self(batch[0]).mean())


class Counts(Cached):
    """Counts its forwards in plain Python, and does something else every fifth time."""

    calls = 0

    def built(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.full((1, 3), float(self.calls % 5 == 0))


class Remembers(Cached):
    """Keeps a running tensor that is no buffer."""

    def built(self, images: Tensor) -> Tensor:
        if self.positions is None:
            self.positions = torch.zeros(1, 3)
        self.positions.mul_(0.9).add_(0.1 * images.detach().mean())
        return self.positions.clone()


CACHES = [
    Cached,
    CachedInDict,
    CachedInBuffer,
    CachedInNewBuffer,
    CachedFromData,
    CachedFromDataInBuffer,
    CachedFromDataInNewBuffer,
    CachedFromDataInDict,
    RemembersElsewhere,
    CachedFromWeights,
    Counts,
    Remembers,
]


@pytest.mark.parametrize("by_hand", [False, True], ids=["collected", "by hand"])
@pytest.mark.parametrize("source", [EVERY, EVERY_STEP], ids=["from validation", "from steps"])
@pytest.mark.parametrize("module", CACHES, ids=named)
def test_what_the_look_is_the_first_to_build(
    module: type[Any], source: When, by_hand: bool, root: Path
) -> None:
    options = {**source.options, "num_sanity_val_steps": 0}
    given = {"batch": SaliencyBatch(*samples(4))} if by_hand else {}
    monitor = faults.monitor(source, **given)
    training = fit(module, root, monitor, **options)
    assert_same_training(training, module, **options)
    assert_told(training)
    assert len(monitor.history) >= 4


@pytest.mark.parametrize("verb", ["validate", "test"])
@pytest.mark.parametrize("module", CACHES, ids=named)
def test_what_was_built_under_inference_mode_before_the_training(
    module: type[Any], verb: str, root: Path
) -> None:
    """`trainer.validate` runs under inference mode; what our look makes in it must serve the training."""

    def before(trainer: Any, made: Any) -> None:
        made.test_step = made.validation_step
        torch.manual_seed(2)
        getattr(trainer, verb)(made, faults.loader(12), verbose=False)

    monitor = faults.monitor()
    training = fit(module, root, monitor, before=before, **FROM_VALIDATION)
    assert_same(training, fit(module, root, before=before, **FROM_VALIDATION))
    kept = [r"^Preparing the looks failed.*Inference tensors cannot.*pass `Trainer\(inference_mode=False\)`"]
    is_kept = module is CachedFromWeights  # by the module's own validation step
    assert_told(training, *(kept if is_kept else []))
    assert training.given_up == ([THREE_IN_A_ROW] if is_kept else [])


# ------------------------------------------------------------------------ what the user hands to the monitor raises


class FragileScore(Metric):
    """A score of the user's own, which cannot deal with more than one sample: the trial does not show it."""

    full_state_update = False
    at = "update"

    def __init__(self) -> None:
        super().__init__()
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, saliency: Tensor, mask: Tensor | None) -> None:
        self.n += len(saliency)
        if self.at == "update" and self.n > 1:
            raise ZeroDivisionError("no pixel")

    def compute(self) -> Tensor:
        if self.at == "compute" and self.n > 1:
            raise ZeroDivisionError("no pixel")
        return self.n.float() if self.at != "shape" else torch.zeros(int(self.n))


class FragileAtOnce(FragileScore):
    def update(self, saliency: Tensor, mask: Tensor | None) -> None:
        raise ZeroDivisionError("no pixel")


class FragileAtTheEnd(FragileScore):
    at = "compute"


class NotANumber(FragileScore):
    at = "shape"


class NanScore(FragileScore):
    at = ""

    def compute(self) -> Tensor:
        return torch.tensor(torch.nan)


@pytest.mark.parametrize("when", [EVERY, EVERY_STEP], ids=["from validation", "from steps"])
@pytest.mark.parametrize(
    "score", [FragileScore, FragileAtOnce, FragileAtTheEnd, NotANumber, NanScore], ids=named
)
def test_a_score_that_raises_leaves_the_others(score: Any, when: When, root: Path) -> None:
    scores = {"mine": score(), "energy": EnergyPointingGame()}
    monitor = faults.monitor(when, methods=[absolute, "grad_cam"], scores=scores)
    training = fit(Plain, root, monitor, **when.options)
    assert_same_training(training, Plain, **when.options)
    ours = [words for words in training.told if "maps are blank" not in words]
    expected = [] if score is NanScore else ['^The score "mine" failed.*' + HINT]
    assert len(ours) == len(expected)
    assert all(re.search(words, said) for words, said in zip(expected, ours, strict=True))
    assert len(monitor.history) == 4
    assert all("energy" in row and "mine" not in row for row in monitor.history)


@pytest.mark.parametrize("loggers", [0, 2], ids=["one logger", "three loggers"])
@pytest.mark.parametrize("when", [EVERY, EVERY_STEP], ids=["from validation", "from steps"])
@pytest.mark.parametrize(
    ("where", "error", "words"),
    [
        (
            "lightning_gcam.visual.grid.write_lines",
            OSError("cannot open resource"),
            "OSError: cannot open resource.*there",
        ),
        ("lightning_gcam.visual.panels.heat_pixels", MemoryError(), "MemoryError"),
        (
            "lightning_gcam.pipeline.rendering.to_display",
            ValueError("no such range"),
            "ValueError: no such range" + HINT,
        ),
    ],
    ids=["font", "heatmap", "image"],
)
def test_a_picture_that_cannot_be_drawn(
    where: str,
    error: Exception,
    words: str,
    when: When,
    loggers: int,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(where, refuse)
    others = [CSVLogger(tmp_path), _Files(tmp_path)][:loggers]
    monitor = faults.monitor(when)
    training = fit(Plain, root, monitor, loggers=others, **when.options)
    assert_same_training(training, Plain, **when.options)
    assert_told(training, "^Drawing the look failed.*" + words)
    assert len(monitor.history) == len(training.rows.ours) == 4


def test_a_missing_font_is_replaced(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text.load_font.cache_clear()
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path / "gone"))
    monitor = faults.monitor()
    training = fit(Plain, root, monitor, **FROM_VALIDATION)
    text.load_font.cache_clear()
    assert_same_training(training, Plain, **FROM_VALIDATION)
    assert_told(training)


@pytest.mark.parametrize(
    "names", [[], ["cat"], ["cat", "dog"], ("cat",)], ids=["none", "one", "two", "tuple"]
)
@pytest.mark.parametrize("when", [EVERY, EVERY_STEP], ids=["from validation", "from steps"])
def test_too_few_class_names(names: Sequence[str], when: When, root: Path) -> None:
    monitor = faults.monitor(when, class_names=names)
    training = fit(Plain, root, monitor, **when.options)
    assert_same_training(training, Plain, **when.options)
    assert_told(training, rf"^`class_names` holds {len(names)} names for 3 classes.*Give one name per class")
    assert len(monitor.history) == 4


def later(working: Callable[..., Any], error: Exception, good: int) -> Callable[..., Any]:
    """A function of the user's own that works a few times."""
    calls: list[int] = []

    def function(*args: Any) -> Any:
        calls.append(1)
        if len(calls) > good:
            raise error
        return working(*args)

    return function


@pytest.mark.parametrize("error", [RuntimeError("bug"), IndexError("bug"), ValueError("bug")], ids=named)
@pytest.mark.parametrize(
    ("argument", "working", "good", "words"),
    [
        ("methods", absolute, 4, "^The look failed.*bug"),
        ("targets", lambda logits: logits[:, 0], 4, "^The look failed.*bug"),
        (
            "forward",
            lambda module, images: module(images),
            4,
            "^Checking what the model relies on failed.*bug",
        ),
        (
            "forward",
            lambda module, images: module(images),
            9,
            "^Checking what the model relies on failed.*bug",
        ),
        ("reshape_transform", lambda output: output, 8, "^The look failed.*bug"),
        ("adapter", lambda batch: batch, 3, "^Reading the validation batch failed.*`adapter` failed.*bug"),
    ],
    ids=["methods", "targets", "forward", "forward, later", "reshape_transform", "adapter"],
)
def test_a_function_of_the_users_raises_later(
    argument: str, working: Any, good: int, words: str, error: Exception, root: Path
) -> None:
    given = {argument: later(working, error, good)}
    monitor = faults.monitor(num_samples=4, target_layer="net.5", **given)
    training = fit(Plain, root, monitor, **FROM_VALIDATION)
    assert_same_training(training, Plain, **FROM_VALIDATION)
    assert_told(training, words)
    assert 1 <= len(monitor.history) < (5 if argument == "adapter" else 4)


# ------------------------------------------------------------------------------------------- interrupts pass through

INTERRUPTS = [KeyboardInterrupt(), SystemExit(3), SIGTERMException()]


@pytest.mark.parametrize("when", [FIRST, STEPS], ids=["from validation", "from steps"])
@pytest.mark.parametrize("interrupt", INTERRUPTS, ids=[named(type(each)) for each in INTERRUPTS])
@pytest.mark.parametrize("module", MODULES, ids=named)
def test_an_interrupt_in_the_middle_of_a_look(
    module: type[Any], interrupt: BaseException, when: When, root: Path
) -> None:
    observer, monitor = Observer(), faults.monitor(when)
    interrupted = struck(module, faults.raising_behind(interrupt), when.looks)
    with pytest.raises(SystemExit if isinstance(interrupt, KeyboardInterrupt) else type(interrupt)):
        fit(interrupted, root, observer, monitor, **when.options)
    assert observer.after == observer.before != {}


@pytest.mark.parametrize("when", [FIRST, STEPS], ids=["from validation", "from steps"])
@pytest.mark.parametrize("layer", ["features", "behind it"])
def test_an_interrupt_between_our_hooks(layer: str, when: When, root: Path) -> None:
    observer, monitor = Observer(), faults.monitor(when)
    strike = (
        faults.layer_raising(KeyboardInterrupt())
        if layer == "features"
        else faults.head_raising(KeyboardInterrupt())
    )
    with pytest.raises(SystemExit):
        fit(struck(Plain, strike, when.looks), root, observer, monitor, **when.options)
    assert observer.after == observer.before != {}


ELSEWHERE = [
    "lightning_gcam.cam.capture._gradients",
    "lightning_gcam.pipeline.attribution.scaled_maps",
    "lightning_gcam.pipeline.scoring.score_counted",
    "lightning_gcam.visual.grid.write_lines",
    "tests.support.witness.RowLogger.log_image",
]


@pytest.mark.parametrize("interrupt", INTERRUPTS, ids=[named(type(each)) for each in INTERRUPTS])
@pytest.mark.parametrize("where", ELSEWHERE)
def test_an_interrupt_elsewhere_in_a_look(
    where: str, interrupt: BaseException, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While gradients are taken, maps drawn up, scores computed, pictures drawn, or a logger called."""

    def strike(*_: Any, **__: Any) -> Any:
        raise interrupt

    observer = Observer()
    arm = faults.Armed(lambda: monkeypatch.setattr(where, strike))
    with pytest.raises(SystemExit if isinstance(interrupt, KeyboardInterrupt) else type(interrupt)):
        fit(Plain, root, arm, observer, faults.monitor(), **FROM_VALIDATION)
    assert observer.after == observer.before != {}


@pytest.fixture
def answering_ctrl_c() -> Iterator[None]:
    """Python's own answer to SIGINT, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def signalling(number: int) -> Fault:
    """A real signal, from outside, in the middle of a look."""

    def fault(module: Any, images: Tensor, forward: Any) -> Any:
        output = forward(images)
        os.kill(os.getpid(), number)
        return output

    return fault


@pytest.mark.usefixtures("answering_ctrl_c")
@pytest.mark.parametrize("when", [FIRST, STEPS], ids=["from validation", "from steps"])
@pytest.mark.parametrize("module", [Plain, Counting, LogsInForward, AlwaysDropout], ids=named)
def test_ctrl_c_in_the_middle_of_a_look(module: type[Any], when: When, root: Path) -> None:
    observer, monitor = Observer(), faults.monitor(when)
    with pytest.raises(SystemExit):
        fit(struck(module, signalling(signal.SIGINT), when.looks), root, observer, monitor, **when.options)
    assert observer.after == observer.before != {}


@pytest.mark.parametrize("when", [FIRST, STEPS], ids=["from validation", "from steps"])
@pytest.mark.parametrize("module", [Plain, Counting, LogsInForward, AlwaysDropout], ids=named)
def test_sigterm_in_the_middle_of_a_look(module: type[Any], when: When, root: Path) -> None:
    """Lightning notes the signal and ends the training at the next batch; the look is finished."""
    observer, monitor = Observer(), faults.monitor(when)
    with pytest.raises(SIGTERMException):
        fit(struck(module, signalling(signal.SIGTERM), when.looks), root, observer, monitor, **when.options)
    assert len(monitor.history) == when.looks[-1]
    assert observer.after["attributes"] == observer.before["attributes"]
    assert observer.after["hooks"] == observer.before["hooks"]


# ----------------------------------------------------------------------- EarlyStopping and ModelCheckpoint on scores


@pytest.mark.parametrize("metric", ["val_loss", "saliency/energy"])
@pytest.mark.parametrize(
    "name", ["layer gives NaN", "no gradient at all", "forward raises", "CPU out of memory"]
)
def test_early_stopping_never_meets_a_nan_of_ours(name: str, metric: str, root: Path) -> None:
    fault = {**FAILING, **BROKEN_VALUES}[name][0]
    met: list[float] = []

    class Stopping(EarlyStopping):
        def _evaluate_stopping_criteria(self, current: Tensor) -> Any:
            met.append(float(current))
            return super()._evaluate_stopping_criteria(current)

    stopping = Stopping(metric, patience=100, mode="max", check_finite=True)
    monitor = faults.monitor()
    module = struck(Plain, fault, [2, 3, 4])
    training = fit(module, root, monitor, stopping, **FROM_VALIDATION)
    assert_same_training(training, Plain, **FROM_VALIDATION)
    assert len(met) == 4
    assert all(torch.isfinite(torch.tensor(met)))
    assert training.trainer.current_epoch == 4


@pytest.mark.parametrize("name", ["layer gives NaN", "no gradient at all", "forward raises"])
def test_checkpoints_of_the_best_score_go_on(name: str, root: Path, tmp_path: Path) -> None:
    fault = {**FAILING, **BROKEN_VALUES}[name][0]
    checkpoints = ModelCheckpoint(tmp_path, monitor="saliency/energy", mode="max", save_top_k=-1)
    options = {**FROM_VALIDATION, "enable_checkpointing": True}
    training = fit(struck(Plain, fault, [2, 3, 4]), root, faults.monitor(), checkpoints, **options)
    assert_same_training(training, Plain, **FROM_VALIDATION)
    assert torch.isfinite(checkpoints.best_model_score)


# ----------------------------------------------------------------------------------------- on_error="raise" raises

RAISED: dict[str, tuple[type[Exception], str]] = {
    "forward raises": (RuntimeError, "a tensor went missing"),
    "forward raises at its end": (KeyError, "a tensor went missing"),
    "layer raises": (AssertionError, "not that shape"),
    "no output": (InputError, "forward="),
    "fewer classes": (InputError, "`targets` holds class 2"),
    "detached output": (InputError, "does not depend on `target_layer`"),
    "wrong number of rows": (InputError, "forward="),
    "CUDA out of memory": (torch.OutOfMemoryError, "CUDA out of memory"),
    "CPU out of memory": (RuntimeError, "can't allocate memory"),
    "out of memory behind the layer": (MemoryError, ""),
    "file gone": (FileNotFoundError, "table.pt"),
}


@pytest.mark.parametrize("when", [FIRST, STEPS], ids=["from validation", "from steps"])
@pytest.mark.parametrize("name", RAISED)
def test_raise_raises_what_a_look_meets(name: str, when: When, root: Path) -> None:
    kind, words = RAISED[name]
    observer, monitor = Observer(), faults.monitor(when, on_error="raise")
    with pytest.raises(kind, match=words):
        fit(struck(Plain, FAILING[name][0], when.looks), root, observer, monitor, **when.options)
    assert observer.after == observer.before != {}


@pytest.mark.parametrize("kind", LOGGERS, ids=named)
def test_raise_raises_what_a_logger_meets(kind: Any, root: Path) -> None:
    with pytest.raises(ConnectionError, match="no route to host"):
        fit(
            Plain,
            root,
            faults.monitor(on_error="raise"),
            loggers=[kind(ConnectionError("no route to host"))],
            **FROM_VALIDATION,
        )


RAISING_ARGUMENTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "score": ({"scores": {"mine": FragileScore()}}, ZeroDivisionError, "no pixel"),
    "method": ({"methods": later(absolute, KeyError("bug"), 4)}, InputError, "`methods` failed.*bug"),
    "adapter": (
        {"adapter": later(lambda batch: batch, KeyError("bug"), 3)},
        InputError,
        "`adapter` failed.*bug",
    ),
}


@pytest.mark.parametrize("name", RAISING_ARGUMENTS)
def test_raise_raises_what_the_users_own_meets(name: str, root: Path) -> None:
    arguments, kind, words = RAISING_ARGUMENTS[name]
    with pytest.raises(kind, match=words):
        fit(Plain, root, faults.monitor(on_error="raise", **arguments), **FROM_VALIDATION)


def test_raise_raises_what_the_drawing_meets(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("cannot open resource")

    monkeypatch.setattr("lightning_gcam.visual.grid.write_lines", refuse)
    with pytest.raises(OSError, match="cannot open resource"):
        fit(Plain, root, faults.monitor(on_error="raise"), **FROM_VALIDATION)


def test_raise_raises_what_the_validation_delivers(root: Path) -> None:
    delivered = stream_of(batches(second(several_kinds_of_labels)))
    with pytest.raises(InputError, match="`labels` came as"):
        fit(
            Lenient,
            root,
            faults.monitor(on_error="raise", num_samples=8),
            validation=delivered,
            **FROM_VALIDATION,
        )


@pytest.mark.parametrize("stream", ["mask of another size", "a layout that is not known"])
def test_raise_goes_on_without_annotation_that_is_unclear(stream: str, root: Path) -> None:
    monitor, delivered = faults.monitor(on_error="raise"), stream_of(STREAMS[stream][0])
    assert_told(fit(Lenient, root, monitor, validation=delivered, **FROM_VALIDATION), str(STREAMS[stream][1]))
    assert len(monitor.history) == STREAMS[stream][2]


@pytest.mark.parametrize("module", [Removed, Bypassed, Emptied], ids=named)
def test_raise_raises_what_the_network_does(module: type[Changing], root: Path) -> None:
    with pytest.raises(InputError, match="`target_layer`"):
        fit(module, root, faults.monitor(on_error="raise", target_layer="features"), **FROM_VALIDATION)
