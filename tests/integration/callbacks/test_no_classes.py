"""The monitor beside outputs that are no logits: probabilities, embeddings, reconstructions, ages, marks of several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from lightning_gcam import SaliencyBatch, SaliencyMonitor
from lightning_gcam.pipeline.captions import instead_of_classes, subject_of
from lightning_gcam.pipeline.run import record_saliency
from lightning_gcam.utils.errors import InputError
from tests.integration.callbacks.test_heads import Fits, backbone, fit, pooled
from tests.support.toys import LIGHTNING_SAYS, Toy, toy_samples, toy_trainer

pytestmark = [*LIGHTNING_SAYS, pytest.mark.filterwarnings("ignore:.* maps are blank")]

NO_CLASSIFIER = "ignore:The model seems to be no classifier"


class Then(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def fixed(
    head: nn.Module, labels: Tensor | None = None, n: int = 8, *, masks: bool = True
) -> tuple[nn.Module, Any]:
    """A network whose class is the quadrant of the square, with `head` behind its four logits; and its samples."""
    images, classes, objects = toy_samples(n)
    quadrants = nn.Sequential(
        nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 4), head
    )
    with torch.no_grad():
        quadrants[0].weight.fill_(1.0)
        quadrants[0].bias.zero_()
        quadrants[3].weight.copy_(torch.eye(4) * 40 - 8)
        quadrants[3].bias.zero_()
    given = labels if labels is not None else classes
    return quadrants.eval(), SaliencyBatch(images, given, objects if masks else None)


# ------------------------------------------------------------------------------------------------- probabilities

ENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda z: z.softmax(dim=1),
    "log_softmax": lambda z: functional.log_softmax(z, dim=1),
    "sigmoid": torch.sigmoid,
}


@pytest.mark.parametrize("end", ENDS)
def test_a_model_that_gives_probabilities_is_the_one_that_gives_logits(end: str) -> None:
    """Accuracy, causal checks, scores of probabilities, words: all as of the module itself."""
    scores = ["energy", "average_drop"]
    plain, batch = fixed(nn.Identity())
    found, _ = fixed(Then(ENDS[end]))
    expected, record = (record_saliency(each, batch, scores=scores) for each in (plain, found))
    assert expected.scores["accuracy"] == 1.0 and "object_only_accuracy" in expected.scores
    if end != "sigmoid":  # beside one label a row, a softmax is what logits are read by
        assert record.scores == pytest.approx(expected.scores, abs=1e-4)
        assert record.captions == expected.captions
    assert record.correct == [True] * 8
    own = ENDS[end](plain(batch.images)).detach()
    own = own.exp() if end == "log_softmax" else own
    torch.testing.assert_close(record.probabilities, own.amax(dim=1), atol=1e-5, rtol=1e-5)
    assert record.captions[1] == f"true 1 · predicted 1 ({float(own[1].max()):.2f})"


def test_a_single_probability_is_right_where_the_module_is() -> None:
    """[5e-5, 0.99995] for classes 0 and 1 was read as two logits above 0."""
    labels = torch.tensor([0, 1, 0, 1])
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Sigmoid())
    with torch.no_grad():
        model[0].weight.fill_(20.0)
        model[0].bias.fill_(-10.0)
    images = labels[:, None, None, None].float().expand(4, 1, 8, 8) * torch.linspace(0.9, 1.1, 8)
    record = record_saliency(model, SaliencyBatch(images, labels), methods="layer_cam")
    assert record.scores["accuracy"] == 1.0
    assert record.captions[0] == "true 0 · predicted 0 (1.00)"
    assert record.captions[1] == "true 1 · predicted 1 (1.00)"
    low = record_saliency(model, SaliencyBatch(images * 0.55, labels), methods="layer_cam")
    assert low.captions[1] == "true 1 · predicted 1 (0.73)"  # 1 / (1 + e^-1)
    assert (low.attribution.peaks["layer_cam"][labels > 0] > 0).all()


def test_it_is_said_once_that_probabilities_came(tmp_path: Path) -> None:
    loss: Any = lambda outputs, batch: functional.nll_loss(outputs.log(), batch[1])  # noqa: E731
    monitor = SaliencyMonitor(num_samples=4, on_error="raise")
    module = Fits(nn.Sequential(pooled(4), nn.Softmax(dim=1)), loss)
    said = fit(tmp_path, module, monitor, *toy_samples(12))
    assert sum("forward ends with a softmax" in each for each in said) == 1
    assert len(monitor.history) == 2
    own = module(monitor.last_record.batch.images).argmax(dim=1)  # type: ignore[union-attr]
    assert monitor.history[-1]["accuracy"] == float((own == monitor.last_record.batch.labels).float().mean())  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------- no classes


def squares(outputs: Tensor, batch: Any) -> Tensor:
    return functional.mse_loss(outputs, batch[0].expand_as(outputs) if outputs.ndim == 4 else outputs * 0)


def autoencoder() -> nn.Sequential:
    return backbone(
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(8, 1, 3, padding=1)
    )


def test_a_reconstruction_is_explained_by_its_error(tmp_path: Path) -> None:
    images, classes, _ = toy_samples(12)
    module, monitor = Fits(autoencoder(), squares), SaliencyMonitor(num_samples=4, on_error="raise")
    with pytest.warns(
        UserWarning, match="seems to be no classifier.*a reconstruction of the image.*no accuracy"
    ):
        fit(tmp_path, module, monitor, images, classes + 5)  # labels beyond its channel
    record = monitor.last_record
    assert record is not None
    assert record.attribution.explains == "error"
    images = record.batch.images
    errors = (module(images) - images).square().flatten(1).mean(dim=1).detach()
    torch.testing.assert_close(record.attribution.values, errors)
    assert record.correct == [None] * 4
    assert record.captions[0] == f"true {int(record.batch.labels[0])} · score {float(errors[0]):.2f}"
    assert not {"accuracy", "accuracy_chance", "object_only_accuracy"} & set(monitor.history[-1])
    assert "maps of the reconstruction's error" in record.title
    assert record.attribution.peaks["guidance_cam"].max() > 0


class Vae(nn.Module):
    """A reconstruction, a mean and a log variance: a code of sixteen, wider than there are classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU())
        self.mean, self.spread = nn.Linear(8, 16), nn.Linear(8, 16)
        self.up = nn.Linear(16, 16 * 16)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.body(images).mean(dim=(2, 3))
        mean, spread = self.mean(features), self.spread(features)
        return self.up(mean).view_as(images), mean, spread


@pytest.mark.parametrize("are_labelled", [True, False])
def test_of_a_vae_the_reconstruction_is_explained_whatever_the_labels(
    tmp_path: Path, are_labelled: bool
) -> None:
    images, classes, _ = toy_samples(12)
    module = Fits(Vae(), lambda outputs, batch: functional.mse_loss(outputs[0], batch[0]))
    monitor = SaliencyMonitor(num_samples=4, on_error="raise")
    dataset = TensorDataset(images, classes) if are_labelled else TensorDataset(images)
    with pytest.warns(UserWarning, match="seems to be no classifier.*a reconstruction of the image"):
        toy_trainer(tmp_path, monitor).fit(
            module, DataLoader(dataset, batch_size=4), DataLoader(dataset, batch_size=4)
        )
    assert monitor.last_record is not None
    record = monitor.last_record.heads["0"]
    assert (record.attribution.explains, record.attribution.target_layer) == ("error", "network.body")
    images = record.batch.images
    errors = (module(images)[0] - images).square().flatten(1).mean(dim=1).detach()
    torch.testing.assert_close(record.attribution.values, errors)
    assert not any("accuracy" in each for each in monitor.history[-1])


def test_with_masks_an_output_of_the_images_shape_is_a_segmentation() -> None:
    images, classes, masks = toy_samples(4)
    record = record_saliency(autoencoder().eval(), SaliencyBatch(images, classes % 2, masks))
    assert record.attribution.explains == "classes"
    assert record.attribution.in_mask is not None


@pytest.mark.filterwarnings(NO_CLASSIFIER)
@pytest.mark.parametrize("masks", [False, True])
def test_rows_of_norm_one_are_explained_by_their_norm_before(tmp_path: Path, masks: bool) -> None:
    samples = toy_samples(12) if masks else toy_samples(12)[:2]
    module = Fits(nn.Sequential(pooled(8), Then(functional.normalize)), squares)
    monitor = SaliencyMonitor(num_samples=4, on_error="raise")
    fit(tmp_path, module, monitor, *samples)
    record = monitor.last_record
    assert record is not None
    assert record.attribution.explains == "norm"
    norms = module.network[0](record.batch.images).norm(dim=1).detach()
    torch.testing.assert_close(record.attribution.values, norms)
    assert record.captions[0].endswith(f"score {float(norms[0]):.2f}")
    assert "accuracy" not in record.scores
    assert ("energy" in record.scores) == masks
    assert record.attribution.peaks["guidance_cam"].max() > 0


def shifted(k: int, by: float, at: int) -> Callable[[Tensor], Tensor]:
    """The four logits at some places of k numbers that are otherwise waves."""

    def widen(z: Tensor) -> Tensor:
        waves = torch.arange(k).cos() * by + 0 * z.sum(dim=1, keepdim=True)
        return torch.cat([waves[:, :at], z, waves[:, at + 4 :]], dim=1)

    return widen


def test_a_wide_embedding_is_no_classifier_and_a_wide_classifier_is_one() -> None:
    embedding, batch = fixed(Then(shifted(128, 60.0, at=100)))
    record = record_saliency(embedding, batch)
    assert record.attribution.explains == "norm"
    torch.testing.assert_close(record.attribution.values, embedding(batch.images).norm(dim=1).detach())
    assert "accuracy" not in record.scores and record.correct == [None] * 8
    assert record.captions[0].startswith("true 0 · score ")

    classifier, _ = fixed(Then(shifted(1000, 1.0, at=0)))
    judged = record_saliency(classifier, batch)  # of 1000 classes, of which the samples have four
    assert judged.attribution.explains == "classes"
    assert judged.scores["accuracy"] == 1.0
    named = record_saliency(embedding, batch, targets="predicted")  # whoever insists
    assert named.attribution.explains == "classes"
    assert subject_of(batch, named.attribution) == "classes"


def test_no_network_is_called_no_classifier_for_good(tmp_path: Path) -> None:
    """Untrained, 1,000 classes beside four labels look like an embedding; trained for a little, they do not."""
    torch.manual_seed(1)
    images, classes, masks = toy_samples(24)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000)
    )
    nn.init.uniform_(network[-1].bias, -1, 1)
    nn.init.constant_(network[-1].bias[:4], -2.0)
    loss: Any = lambda outputs, batch: functional.cross_entropy(outputs, batch[1])  # noqa: E731
    module = Fits(network, loss)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=3.0)  # type: ignore[method-assign]
    before = record_saliency(module, SaliencyBatch(images, classes, masks))
    assert before.attribution.explains == "norm"
    monitor = SaliencyMonitor(num_samples=8, on_error="raise")
    fit(tmp_path, module, monitor, images, classes, masks, num_sanity_val_steps=0)
    assert "accuracy" in monitor.history[0]
    assert monitor.last_record is not None and monitor.last_record.attribution.explains == "classes"


@pytest.mark.parametrize(
    ("outputs", "labels", "found"),
    [
        ([34.0, 52.0, 7.5], [0, 1, 1], "output"),
        ([34.0, 52.0, 7.5], [1, 1, 1], None),  # a network that is sure, and right
        ([34.0, -5.0, 7.5], [0, 1, 1], None),
        ([0.4, 0.2, 0.1], [0, 1, 1], None),
        ([-8.0, -7.0, -9.0], [0, 1, 1], None),  # a rare class, early in the training
        ([34.0, 52.0, 7.5], [3, 1, 2], None),
    ],
)
def test_an_age_beside_a_sex_label(outputs: list[float], labels: list[int], found: str | None) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        Then(lambda z: 2 * z - 10),
    )
    nn.init.ones_(model[0].weight)
    images = ((torch.tensor(outputs) + 10) / 2)[:, None, None, None] * torch.linspace(0.5, 1.5, 8)[
        :, None
    ].expand(8, 8)
    batch = SaliencyBatch(images, torch.tensor(labels))
    if max(labels) > 1:
        with pytest.raises(InputError, match='or `targets="output"` if the model predicts a number'):
            record_saliency(model, batch)
        return
    record = record_saliency(model, batch, methods="layer_cam")
    assert record.attribution.explains == (found or "classes")
    assert ("accuracy" in record.scores) == (found is None)
    if found:
        assert record.captions == ["true 0 · score 34.00", "true 1 · score 52.00", "true 1 · score 7.50"]
        assert record.correct == [None] * 3
    assert instead_of_classes(batch, record.attribution, ["no", "yes"]) is None


def test_a_validation_set_that_is_sorted_by_class_makes_no_embedding_of_a_classifier(tmp_path: Path) -> None:
    """Of 40 classes the fixed samples hold the first four, and an early network has not told them apart yet."""
    monitor = SaliencyMonitor(num_samples=4, target_layer="network.0", on_error="raise")
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 40)
    )
    nn.init.zeros_(network[-1].weight)
    network[-1].bias.data = torch.arange(40.0)  # the first classes have the lowest logits
    images = torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(images, torch.arange(40)), batch_size=8)
    toy_trainer(tmp_path, monitor).validate(Toy(network), loader, verbose=False)

    batch, attribution = monitor._collection.fixed.samples, monitor.last_record.attribution
    assert batch.labels.tolist() == [0, 1, 2, 3]
    assert attribution.explains == "classes" and monitor.history[0]["accuracy"] == 0
    assert instead_of_classes(batch, attribution) == "norm"  # what these four by themselves look like


# ------------------------------------------------------------------------------------------------- several marks


def test_the_picture_and_the_numbers_have_one_definition() -> None:
    """The third sample has no mark, of the fourth one is missed; each class is the quadrant's own sigmoid."""
    marks = torch.eye(4)[torch.arange(8) % 4]
    marks[2] = 0
    marks[3, 0] = 1
    for head in (nn.Identity(), nn.Sigmoid()):
        model, batch = fixed(head, marks)
        record = record_saliency(model, batch)
        likely = model(batch.images) > (0.5 if isinstance(head, nn.Sigmoid) else 0)
        assert likely.sum(dim=1).tolist() == [1] * 8
        assert record.correct == [True, True, False, False, True, True, True, True]
        assert record.scores["exact_match"] == sum(bool(each) for each in record.correct) / 8
        assert record.scores["accuracy"] == pytest.approx(30 / 32)
        means = marks.mean(dim=0)
        assert record.scores["accuracy_chance"] == pytest.approx(
            float(torch.maximum(means, 1 - means).mean())
        )
        assert record.scores["exact_match_chance"] == 2 / 8
        assert record.reliance is not None
        assert record.reliance.measurements["accuracy"].n == 8
        assert record.scores["blank_rate"] == 0  # the predicted class stands in where no mark is
        assert record.attribution.targets[2].tolist() == [0, 0, 1, 0]
        assert record.captions[2].startswith("true none · predicted 2 (")
        assert "maps of the true classes" in record.title


# ------------------------------------------------------------------------------------ labels that are no classes


def keypoints(images: Tensor, shape: tuple[int, ...]) -> list[SaliencyBatch]:
    labels = torch.rand(len(images), *shape, generator=torch.Generator().manual_seed(0))
    return list(zip(images, labels, strict=True))


POINTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str, str]] = {
    "heat maps": (
        lambda: backbone(nn.Conv2d(8, 5, 1)),
        (5, 8, 8),
        "peaks",
        "the sum of the heat maps' peaks",
    ),
    "coordinates": (
        lambda: nn.Sequential(pooled(10), nn.Unflatten(1, (5, 2))),
        (5, 2),
        "norm",
        "the output's norm",
    ),
    "coordinates in a row": (lambda: pooled(10), (10,), "norm", "the output's norm"),
    "a depth map": (lambda: backbone(nn.Conv2d(8, 1, 1)), (1, 8, 8), "output", "the output"),
}


@pytest.mark.parametrize("kind", POINTS)
def test_labels_that_are_no_classes_end_no_training(kind: str, tmp_path: Path) -> None:
    network, shape, explains, words = POINTS[kind]
    loader = DataLoader(keypoints(toy_samples(12)[0], shape), batch_size=8)
    loss: Any = lambda outputs, batch: functional.mse_loss(outputs, batch[1])  # noqa: E731
    monitor = SaliencyMonitor(
        num_samples=4, scores=["gini", "coherency"], methods="layer_cam", on_error="raise"
    )
    module = Fits(network(), loss)
    with pytest.warns(UserWarning, match="Not all of the batch could be read") as warned:
        toy_trainer(tmp_path, monitor, max_epochs=1).fit(module, loader, loader)
    assert not [each for each in warned if "seems to be no classifier" in str(each.message)]  # one is enough
    record = monitor.last_record
    assert record is not None
    assert record.attribution.explains == explains
    assert f"maps of {words}" in record.title
    outputs = module(record.batch.images).detach()
    expected: dict[str, Callable[[], Tensor]] = {
        "peaks": lambda: outputs.flatten(2).amax(dim=2).sum(dim=1),
        "norm": lambda: outputs.flatten(1).norm(dim=1),
        "output": lambda: outputs.flatten(1).sum(dim=1),
    }
    torch.testing.assert_close(record.attribution.values, expected[explains]())
    assert "accuracy" not in record.scores and "gini" in record.scores
    assert record.correct == [None] * 4


class Towers(nn.Module):
    """The similarity of each image to each text of three tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.words = pooled(6), nn.Embedding(9, 6)

    def forward(self, image: Tensor, input_ids: Tensor) -> dict[str, Tensor]:
        image_embeds, text_embeds = self.image(image), self.words(input_ids).mean(dim=1)
        logits = image_embeds @ text_embeds.T
        return {"logits_per_image": logits, "image_embeds": image_embeds, "text_embeds": text_embeds}


class Pairs(Fits):
    def __init__(self) -> None:
        super().__init__(Towers(), lambda outputs, _: outputs["logits_per_image"].square().mean())

    def forward(self, image: Tensor, input_ids: Tensor) -> dict[str, Tensor]:
        return self.network(image, input_ids)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self(**batch), batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(self(**batch), batch))


def test_two_towers_are_explained_by_the_similarity_to_the_samples_own_text(tmp_path: Path) -> None:
    images, tokens = toy_samples(12)[0], torch.randint(9, (12, 3), generator=torch.Generator().manual_seed(0))
    pairs = [{"image": image, "input_ids": ids} for image, ids in zip(images, tokens, strict=True)]
    loader = DataLoader(pairs, batch_size=4)
    monitor = SaliencyMonitor(
        num_samples=5, scores=["gini", "coherency"], methods="layer_cam", on_error="raise"
    )
    module = Pairs()
    toy_trainer(tmp_path, monitor, max_epochs=1).fit(module, loader, loader)
    record = monitor.last_record
    assert record is not None
    assert record.attribution.explains == "similarity"
    assert "maps of the similarity to the text" in record.title
    own = (
        module(record.batch.images, record.batch.inputs["input_ids"])["logits_per_image"].diagonal().detach()
    )
    torch.testing.assert_close(record.attribution.values, own)
    assert record.captions[0] == f"score {float(own[0]):.2f}"
