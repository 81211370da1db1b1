"""What the monitor says of itself: each thing once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from torch.utils.data import DataLoader

from lightning_gcam import SaliencyMonitor
from tests.support.toys import CLASSES, LIGHTNING_SAYS, Recast, Toy, listening, toy_loader, toy_trainer

pytestmark = LIGHTNING_SAYS


def said_in_a_fit(root: Path, monitor: SaliencyMonitor, loader: Any, module: Any = None) -> list[str]:
    with listening() as said:
        toy_trainer(root, monitor, max_epochs=3).fit(module or Toy(), toy_loader(32), loader)
    return said


def test_one_line_names_layer_samples_and_scores(tmp_path: Path) -> None:
    said = said_in_a_fit(tmp_path, SaliencyMonitor(num_samples=6), toy_loader())

    (line,) = [each for each in said if each.startswith("SaliencyMonitor:")]
    assert "6 fixed samples of 4 classes" in line
    assert "guidance_cam for each sample's label" in line
    assert 'at layer "network.5" (8 x 8 grid' in line
    assert "saliency/overlay" in line
    for score in ("energy", "energy_chance", "object_lift", "pointing_game", "rank_accuracy", "iou"):
        assert score in line
    assert not any("no masks" in each for each in said)


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


def test_without_masks_one_line_says_which_scores_are_left_out(tmp_path: Path) -> None:
    monitor = SaliencyMonitor()
    loader = DataLoader(Recast(lambda image, label, mask: (image, label)), batch_size=8)

    said = said_in_a_fit(tmp_path, monitor, loader)

    (line,) = [each for each in said if "no masks or boxes" in each]
    assert "energy, energy_chance, object_lift, pointing_game, rank_accuracy, iou" in line
    assert "blank_rate" not in line
    assert "adapter=" in line
    assert "background_only_accuracy" in line
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
