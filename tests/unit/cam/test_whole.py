"""Outputs that are explained as a whole, by hand: coordinates, heat maps, the similarity of an image and its text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch, attribute
from lightning_gcam.cam.outputs import Head, find_logits, read_head
from lightning_gcam.cam.regions import same_score, score_of_head
from lightning_gcam.pipeline.attribution import attribute_in_chunks
from lightning_gcam.pipeline.captions import captions, explained, subject_of
from tests.support.nets import cnn, pictures, seeded

ROWS = torch.tensor([1, 0])


def head(outputs: Any, dims: int = 2) -> Head:
    n = len(outputs) if isinstance(outputs, Tensor) else 2
    return read_head(outputs, n, dims=dims)


def test_coordinates_are_explained_by_their_norm() -> None:
    points = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 5.0], [12.0, 0.0]]])
    score = score_of_head(head(points), None)
    assert (score.explains, score.values.tolist(), score.targets) == ("norm", [5.0, 13.0], None)
    assert score.logits.tolist() == points.flatten(1).tolist()
    assert same_score(head(points), score, ROWS).tolist() == [5.0, 13.0]
    assert find_logits(points, 2).shape == (2, 4)


def test_three_dimensions_are_coordinates_only_where_they_can_be_nothing_else() -> None:
    with pytest.raises(ValueError, match="holds no logits"):
        head(torch.zeros(2, 5, 7))
    assert head(torch.zeros(2, 5, 3), dims=1).outputs.shape == (2, 5, 3)  # five classes along a signal
    logits = torch.ones(2, 4, requires_grad=True)
    assert head((logits.relu(), torch.zeros(2, 5, 2))).outputs.shape == (2, 4)


def test_heat_maps_are_explained_by_the_sum_of_their_peaks() -> None:
    maps = torch.tensor([[[[1.0, 4.0], [0.0, 2.0]], [[-3.0, -1.0], [-2.0, -5.0]]]]).requires_grad_()
    score = score_of_head(head(maps), "whole")
    assert (score.explains, score.values.tolist(), score.in_mask) == ("peaks", [3.0], None)
    (gradient,) = torch.autograd.grad(score.values.sum(), maps)
    assert gradient.tolist() == [[[[0.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]]
    moved = head(maps.detach().flip(2) * 2)  # wherever they are
    assert same_score(moved, score, torch.tensor([0])).tolist() == [6.0]


@pytest.mark.parametrize(
    ("outputs", "masks", "explains"),
    [
        (torch.ones(2, 3, 4, 4), None, "peaks"),
        (torch.ones(2, 3, 4), None, "peaks"),
        (torch.ones(2, 1, 4, 4), None, "output"),
        (torch.ones(2, 10), None, "norm"),
        (torch.ones(2, 1), None, "output"),
        (torch.ones(2, 3, 4, 4), torch.ones(2, 8, 8, dtype=torch.bool), "classes"),
        (torch.rand(2, 3, requires_grad=True).softmax(dim=1), None, "classes"),
    ],
)
def test_beside_labels_that_are_no_classes(outputs: Tensor, masks: Tensor | None, explains: str) -> None:
    read = head(outputs, dims=max(outputs.ndim - 2, 1))
    assert score_of_head(read, "whole", masks).explains == explains
    if explains != "classes":  # without labels it might hold classes
        assert score_of_head(read, None, masks).explains == "classes"


LOGITS = torch.tensor([[2.0, 9.0], [7.0, 3.0]])
IMAGES, TEXTS = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, 2.0]])


@pytest.mark.parametrize(
    ("output", "values"),
    [
        ({"loss": torch.tensor(0.5), "logits_per_image": LOGITS, "text_embeds": TEXTS}, [2.0, 3.0]),
        (SimpleNamespace(logits_per_image=LOGITS, logits_per_text=LOGITS.T), [2.0, 3.0]),
        ({"image_embeds": IMAGES, "text_embeds": TEXTS}, [24 / 25, 0.0]),
        (
            {"image_features": IMAGES, "text_features": TEXTS, "logit_scale": torch.tensor(9.0)},
            [24 / 25, 0.0],
        ),
    ],
)
def test_two_towers_are_explained_by_the_similarity_of_each_image_to_its_own_text(
    output: Any, values: list[float]
) -> None:
    read = head(output)
    score = score_of_head(read, None)
    assert score.explains == "similarity"
    assert score.values.tolist() == pytest.approx(values)
    assert same_score(read, score, ROWS).tolist() == pytest.approx(values)


def test_the_logits_of_images_for_given_texts_are_those_of_classes() -> None:
    with pytest.raises(ValueError, match="holds no logits|none is known"):
        head({"logits_per_image": torch.ones(3, 5), "image_embeds": torch.ones(3, 5)}, dims=2)


# --------------------------------------------------------------------------------------- in words, and as maps


class Joints(nn.Module):
    """Heat maps of three joints, `(N, 3, 6, 5)`."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = cnn().features, nn.Conv2d(9, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class Tower(nn.Module):
    """The similarity of images and texts of three tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.words = cnn(), nn.Embedding(7, 5)

    def forward(self, images: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        return {"logits_per_image": self.image(images) @ self.words(tokens).mean(dim=1).T}


METHODS = ["grad_cam", "occlusion", "score_cam", "full_grad"]


def test_of_heat_maps_a_batch_is_its_samples_and_it_is_said_what_is_explained() -> None:
    model, batch = seeded(Joints()), SaliencyBatch(pictures(3), no_classes=True)
    found = attribute(model, batch, "label", methods=METHODS)
    peaks = model(batch.images).flatten(2).amax(dim=2).sum(dim=1).detach()
    torch.testing.assert_close(found.values, peaks)
    assert explained(batch, found) == "maps of the sum of the heat maps' peaks"
    assert subject_of(batch, found) == "score"
    assert captions(batch, found)[0] == f"score {float(peaks[0]):.2f}"
    for row in range(3):
        alone = attribute(model, batch.select([row]), "label", methods=METHODS)
        for name in METHODS:
            torch.testing.assert_close(alone.maps[name][0], found.maps[name][row], rtol=1e-3, atol=1e-4)


def test_of_two_towers_each_sample_has_its_own_text_in_every_chunk() -> None:
    model, tokens = seeded(Tower()), torch.tensor([[0, 1, 2], [3, 4, 5], [6, 0, 3]])
    batch = SaliencyBatch(pictures(3), inputs={"tokens": tokens})
    found = attribute(model, batch, "label", methods=METHODS)
    similarity = model(batch.images, tokens)["logits_per_image"].diagonal().detach()
    torch.testing.assert_close(found.values, similarity)
    assert explained(batch, found) == "maps of the similarity to the text"
    assert subject_of(batch, found) == "score"
    for row in range(3):
        alone = attribute(model, batch.select([row]), "label", methods=METHODS)
        for name in METHODS:
            torch.testing.assert_close(alone.maps[name][0], found.maps[name][row], rtol=1e-3, atol=1e-4)


class ZeroShot(nn.Module):
    """Images beside the texts of four classes, which it holds itself."""

    def __init__(self, *, has_logits: bool = True) -> None:
        super().__init__()
        self.image, self.words, self.has_logits = cnn(), nn.Parameter(torch.randn(4, 5)), has_logits

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        image = self.image(images)
        towers = {"image_embeds": image, "text_embeds": self.words}
        return {"logits_per_image": image @ self.words.T, **towers} if self.has_logits else towers


@pytest.mark.parametrize("n", [1, 3, 4, 6])
def test_texts_that_are_no_samples_own_are_classes_however_many_samples_there_are(n: int) -> None:
    model, images = seeded(ZeroShot()), pictures(n)
    logits = model(images)["logits_per_image"].detach()
    labels = torch.arange(n) % 4
    found, _ = attribute_in_chunks(model, SaliencyBatch(images, labels), methods=METHODS, chunk_size=4)
    assert found.explains == "classes"
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.values, logits[torch.arange(n), labels])
    towers = attribute(seeded(ZeroShot(has_logits=False)), images)
    torch.testing.assert_close(towers.logits, model(images)["image_embeds"].detach())
