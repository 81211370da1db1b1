"""What the monitor says of itself: each thing once."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from lightning_gcam.callbacks.announcement import as_text, destination_of
from lightning_gcam.loggers import ReportLogger
from tests.support.toys import (
    CLASSES,
    LIGHTNING_SAYS,
    PACKAGES,
    LightningToy,
    Recast,
    Toy,
    listening,
    toy_loader,
    toy_samples,
    toy_trainer,
)

pytestmark = LIGHTNING_SAYS


def said_in_a_fit(root: Path, monitor: SaliencyMonitor, loader: Any, module: Any = None) -> list[str]:
    with listening() as said:
        toy_trainer(root, monitor, max_epochs=3).fit(module or Toy(), toy_loader(32), loader)
    return said


def announced(said: list[str]) -> list[str]:
    """The lines of the one announcement."""
    (words,) = [each for each in said if each.startswith("SaliencyMonitor (")]
    return words.splitlines()


def test_five_lines_name_samples_layer_checks_and_logger(tmp_path: Path) -> None:
    said = said_in_a_fit(tmp_path, SaliencyMonitor(num_samples=6), toy_loader())
    directory = tmp_path / "lightning_gcam" / "version_0"

    assert announced(said) == [
        "SaliencyMonitor (saliency): 6 fixed samples of 4 classes, with masks, every epoch",
        '  layer     "network.5" (8 x 8 grid, channels first), guidance_cam for each sample\'s label',
        "  left out  color: the images have none",
        "  checks    background_only_accuracy, object_only_accuracy, salient_flips, 6 more; later where accuracy is "
        "clearly above chance",
        f"  logged    saliency/overlay and 19 scores, in {directory} (report.html, scores.csv, overlays)",
    ]


def test_the_schedule_and_named_checks_are_announced(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(every_n_epochs=3, every_n_train_steps=4, checks=["border"], log_prefix="other")
    title, _, checks, _ = announced(said_in_a_fit(tmp_path, monitor, toy_loader()))
    assert title.startswith("SaliencyMonitor (other): ") and title.endswith(
        ", every 3 epochs and every 4 steps"
    )
    assert checks == "  checks  border"


@pytest.mark.parametrize(
    ("labels", "words"),
    [([0, 1, -1, 3], " of 3 classes"), ([2, 2, -1, -1], " of 1 class"), ([-1] * 4, "")],
)
def test_a_sample_without_a_class_counts_for_none(tmp_path: Path, labels: list[int], words: str) -> None:
    images, _, masks = toy_samples(4)
    monitor = SaliencyMonitor(
        batch=SaliencyBatch(images, torch.tensor(labels), masks=masks), targets="predicted"
    )
    title = announced(said_in_a_fit(tmp_path, monitor, toy_loader()))[0]
    assert title == f"SaliencyMonitor (saliency): 4 fixed samples{words}, with masks, every epoch"


def test_outside_of_a_fit_no_schedule_is_announced(tmp_path: Path) -> None:
    with listening() as said:
        toy_trainer(tmp_path, SaliencyMonitor()).validate(Toy(), toy_loader())
    title, _, _, checks, _ = announced(said)
    assert title.endswith("with masks") and "later" not in checks


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_loggers_are_announced_with_what_shows_them(
    tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    events, rows = (
        package.loggers.TensorBoardLogger(tmp_path),
        package.loggers.CSVLogger(tmp_path, name="rows"),
    )
    page, monitor = ReportLogger(tmp_path / "page"), SaliencyMonitor(scores="blank_rate", checks=[])
    module = Toy() if package is PACKAGES[0] else LightningToy()
    with listening() as said:
        toy_trainer(tmp_path, monitor, package=package, logger=[events, rows, page]).fit(
            module, toy_loader(32), toy_loader()
        )
    assert announced(said)[-1] == (
        "  logged  saliency/overlay and 1 score, in TensorBoard: tensorboard --logdir lightning_logs/version_0 "
        "--samples_per_plugin images=0 and rows/version_0 (report.html, scores.csv, overlays) and page/report.html"
    )


@pytest.mark.parametrize(
    ("directory", "shown"),
    [
        ("{here}/runs", "runs"),
        ("{here}/my runs", '"my runs"'),
        ("s3://bucket/runs/version_0", "s3://bucket/runs/version_0"),
    ],
)
def test_the_command_that_shows_the_looks_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, shown: str
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    monkeypatch.chdir(tmp_path)
    writer = SummaryWriter(str(tmp_path / "events"))
    writer.log_dir = directory.format(here=tmp_path)  # a remote one takes a package of its own
    trainer: Any = SimpleNamespace(loggers=[SimpleNamespace(experiment=writer)])
    command = f"tensorboard --logdir {shown} --samples_per_plugin images=0"
    assert destination_of(trainer, None) == f", in TensorBoard: {command}"
    writer.close()


def test_a_rehearsal_is_logged_nowhere(tmp_path: Path) -> None:
    with listening() as said:
        toy_trainer(tmp_path, SaliencyMonitor(), fast_dev_run=True).fit(Toy(), toy_loader(32), toy_loader())
    assert announced(said)[-1] == "  logged    saliency/overlay and 19 scores"


def test_in_a_terminal_rich_draws_it_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    title, rows = (
        "SaliencyMonitor (saliency): 16 samples",
        [("layer", '"layer4" [bold]'), ("logged", "12 scores")],
    )
    plain = ["SaliencyMonitor (saliency): 16 samples", '  layer   "layer4" [bold]', "  logged  12 scores"]
    assert as_text(title, rows).splitlines() == plain

    monkeypatch.setattr(sys, "stderr", Terminal("utf-8"))
    monkeypatch.setenv("COLUMNS", "80")
    assert as_text(title, rows).splitlines() == [
        "SaliencyMonitor (saliency): 16 samples",
        "╭────────┬─────────────────╮",
        '│ layer  │ "layer4" [bold] │',
        "│ logged │ 12 scores       │",
        "╰────────┴─────────────────╯",
    ]
    monkeypatch.setattr(sys, "stderr", Terminal("ascii"))
    assert as_text(title, rows).isascii()
    monkeypatch.setenv("COLUMNS", "30")
    assert as_text(title, rows).splitlines() == plain, "a line that is wrapped cannot be copied"
    monkeypatch.setattr(sys, "stderr", None)  # of pythonw
    assert as_text(title, rows).splitlines() == plain


class Terminal(io.StringIO):
    """A standard error of a terminal."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True


# ------------------------------------------------------------------------------------------- a line a look


def test_only_if_asked_each_look_is_a_line(tmp_path: Path) -> None:
    quiet = said_in_a_fit(tmp_path, SaliencyMonitor(), toy_loader())
    assert not any(each.startswith("saliency, step") for each in quiet)

    monitor = SaliencyMonitor(verbose=True)
    said = said_in_a_fit(tmp_path, monitor, toy_loader())
    lines = [each for each in said if each.startswith("saliency, step")]
    assert [each.split(":")[0] for each in lines] == [
        f"saliency, step {row['step']} (epoch {row['epoch']})" for row in monitor.history
    ]
    row = monitor.history[0]
    energy = f"energy {row['energy']:.2f} (chance {row['energy_chance']:.2f})"
    without = f"without the object {row['background_only_accuracy']:.2f}"
    assert f": accuracy {row['accuracy']:.2f} (chance 0.25), {energy}, {without}, follows " in lines[0]


@pytest.mark.parametrize("wrong", [1, "yes", None])
def test_verbose_is_true_or_false(wrong: Any) -> None:
    with pytest.raises(ValueError, match="`verbose` must be True or False; got"):
        SaliencyMonitor(verbose=wrong)


# -------------------------------------------------------------------------------- what is explained, and left out


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("predicted", "for each sample's predicted class"),
        (2, "for class 2"),
        (lambda logits: logits[:, 0] - logits[:, 1], "for a score of your own"),
    ],
)
def test_the_line_says_whose_score_is_explained(tmp_path: Path, targets: Any, words: str) -> None:
    said = said_in_a_fit(tmp_path, SaliencyMonitor(targets=targets, scores="blank_rate"), toy_loader())

    assert sum(words in each for each in said) == 1


def test_without_masks_one_line_says_how_many_scores_are_left_out(tmp_path: Path) -> None:
    monitor = SaliencyMonitor()
    loader = DataLoader(Recast(lambda image, label, mask: (image, label)), batch_size=8)

    said = said_in_a_fit(tmp_path, monitor, loader)

    title, _, left_out, *others = announced(said)
    assert "without masks or boxes" in title and len(others) == 2
    assert left_out == (
        "  left out  6 scores, 5 checks: deliver (images, labels, masks), or pass `adapter=`; color: the images have "
        "none"
    )
    without = {"step", "epoch", "blank_rate", "accuracy", "accuracy_chance"}
    exchanged = [{name for name in row if re.search("_(swap|follow|same)_", name)} for row in monitor.history]
    assert {"border_follow_rate", "salient_region_swap_accuracy"} <= exchanged[0]  # these need labels only
    assert not any(name.startswith(("background", "object")) for name in exchanged[0])
    assert [{*row} - exchanged[at] for at, row in enumerate(monitor.history)] == [without] * 3
    assert len(list(tmp_path.rglob("overlay-*.png"))) == 3


def test_nothing_is_left_out_where_no_score_needs_a_mask(tmp_path: Path) -> None:
    loader = DataLoader(Recast(lambda image, label, mask: (image, label)), batch_size=8)

    said = said_in_a_fit(tmp_path, SaliencyMonitor(scores="blank_rate", checks=[]), loader)

    assert not any("left out" in each for each in said)


@pytest.mark.filterwarnings("ignore:.* maps are blank")
def test_an_even_gradient_is_explained_once_and_only_where_it_is_seen(tmp_path: Path) -> None:
    def network(head: list[nn.Module]) -> Any:
        return Toy(nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Softplus(), *head))

    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)]
    flat = [nn.Flatten(), nn.Linear(4 * 64, CLASSES)]
    monitors = [SaliencyMonitor(scores="blank_rate") for _ in range(2)]

    even = said_in_a_fit(tmp_path, monitors[0], toy_loader(), network(pooled))
    uneven = said_in_a_fit(tmp_path, monitors[1], toy_loader(), network(flat))

    assert sum("constant over space" in each for each in even) == 1
    assert not any("constant over space" in each for each in uneven)


@pytest.mark.parametrize("methods", [["guidance_cam"], ["grad_cam"], ["grad_cam", "hires_cam"]], ids="-".join)
def test_only_what_was_asked_for_is_said_of_an_even_gradient(tmp_path: Path, methods: list[str]) -> None:
    said = said_in_a_fit(tmp_path, SaliencyMonitor(methods=methods), toy_loader())

    lines = [each for each in said if "constant over space" in each]
    assert ["guidance_cam is Grad-CAM squared" in each for each in lines] == {
        "guidance_cam": [True],
        "grad_cam": [],
        "grad_cam-hires_cam": [False],
    }["-".join(methods)]
    assert ["Grad-CAM and HiResCAM coincide there" in each for each in lines] == [len(methods) > 1] * len(
        lines
    )


def test_the_monitor_describes_its_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = SaliencyMonitor(scores="blank_rate")
    assert monitor.describe().startswith("SaliencyMonitor has no layer yet")

    said_in_a_fit(tmp_path, monitor, toy_loader())
    capsys.readouterr()
    text = monitor.describe()

    assert capsys.readouterr().out == text + "\n"
    first, why, others = text.splitlines()
    assert first == 'SaliencyMonitor looks at layer "network.5" (8 x 8 grid, channels first)'
    assert why.startswith("Why: of ")
    assert others.startswith("Others that would do: ")


def test_a_layer_that_was_named_is_described_as_such(tmp_path: Path) -> None:
    monitor = SaliencyMonitor(scores="blank_rate", target_layer="network.2")
    assert monitor.describe() == 'SaliencyMonitor looks at layer "network.2", which was named.'

    said_in_a_fit(tmp_path, monitor, toy_loader())

    assert monitor.describe().splitlines()[1].startswith("Why: it was named")


@pytest.mark.filterwarnings("ignore:.* maps are blank")
def test_the_earlier_layer_that_is_named_has_gradients_that_are_not_even(tmp_path: Path) -> None:
    layers = [
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Softplus(),
    ]
    pooled = Toy(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)))
    monitor = SaliencyMonitor(scores="blank_rate")

    said = said_in_a_fit(tmp_path, monitor, toy_loader(), pooled)

    (line,) = [each for each in said if "constant over space" in each]
    assert line.endswith(  # as fine a grid; behind it a Softplus
        'The methods differ at target_layer="network.2", whose maps are not better ones: '
        'take methods="layer_cam" or "hires_cam" there.'
    )
    again = SaliencyMonitor(scores="blank_rate", target_layer="network.2")
    said = said_in_a_fit(tmp_path, again, toy_loader(), pooled)
    assert not any("constant over space" in each for each in said)


def halvings(count: int) -> Toy:
    """A network that halves the 16 x 16 pixels `count` times; each position has a weight of its own in the head."""
    blocks: list[nn.Module] = []
    for index in range(count):
        blocks += [nn.Conv2d(4 if index else 1, 4, 3, stride=2, padding=1), nn.Softplus()]
    return Toy(nn.Sequential(*blocks, nn.Flatten(), nn.Linear(4 * (16 >> count) ** 2, CLASSES)))


@pytest.mark.filterwarnings("ignore:.* maps are blank")
@pytest.mark.parametrize(
    ("count", "said"),
    [
        (2, None),  # 4 x 4
        (
            3,
            r'"network\.5" .* only 2 x 2: .* about 8 x 8 pixels .* finer: target_layer="network\.3" \(4 x 4\)\.',
        ),
    ],
)
def test_a_coarse_grid_is_told_once_with_the_layer_to_try(
    tmp_path: Path, count: int, said: str | None
) -> None:
    heard = said_in_a_fit(tmp_path, SaliencyMonitor(scores="blank_rate"), toy_loader(), halvings(count))
    lines = [each for each in heard if "the grid is only" in each]
    assert len(lines) == (said is not None)
    assert said is None or re.search(said, lines[0]), lines


@pytest.mark.filterwarnings("ignore:.* maps are blank")
def test_an_earlier_layer_that_is_coarse_too_is_not_the_one_to_try(tmp_path: Path) -> None:
    grids = [
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 4, stride=2),
        nn.Conv2d(4, 4, 2),
    ]  # 8, 3, 2
    layers = [each for grid in grids for each in (grid, nn.Softplus())]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, CLASSES))
    monitor = SaliencyMonitor(scores="blank_rate")
    heard = said_in_a_fit(tmp_path, monitor, toy_loader(), Toy(network))
    (line,) = [each for each in heard if "the grid is only" in each]
    assert line.endswith('An earlier layer is finer: target_layer="network.1" (8 x 8).')
    assert '"network.3" (3 x 3 grid' in monitor.describe()


@pytest.mark.filterwarnings("ignore:.* maps are blank")
def test_where_no_layer_is_finer_it_is_the_image_that_is_small(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 8, stride=8), nn.Softplus(), nn.Flatten(), nn.Linear(16, CLASSES))
    heard = said_in_a_fit(tmp_path, SaliencyMonitor(scores="blank_rate"), toy_loader(), Toy(network))
    (line,) = [each for each in heard if "the grid is only" in each]
    assert line.endswith("tell little of where. Larger images have a finer one.")
