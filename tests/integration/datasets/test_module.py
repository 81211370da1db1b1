"""What all three share: batches, limits, workers, processes, both Lightning packages, and other models' classes."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from lightning_gcam import SaliencyMonitor
from lightning_gcam.data import as_saliency_batch
from lightning_gcam.datasets import DatasetModule, Voc2012, available_datasets, dataset_module
from lightning_gcam.datasets.rows import collate
from lightning_gcam.utils.errors import InputError
from tests.support.toys import PACKAGES, toy_trainer
from tests.support.trees import write_coco, write_imagenet, write_voc

SIZE = 20
WRITERS = {"voc2012": write_voc, "coco2014": write_coco, "imagenet": write_imagenet}
HAS_MASKS = {"voc2012": True, "coco2014": True, "imagenet": False}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: write(tmp_path_factory.mktemp(name)) for name, write in WRITERS.items()}


def module_of(name: str, roots: dict[str, Path], **options: Any) -> DatasetModule:
    return dataset_module(name, roots[name], **{"image_size": SIZE, **options})


def assert_same(left: Any, right: Any) -> None:
    assert left.keys() == right.keys()
    for key, value in left.items():
        if isinstance(value, Tensor):
            assert value.equal(right[key]), key
        elif key == "boxes":
            assert all(map(torch.equal, value, right[key]))
        else:
            assert value == right[key], key


def test_there_is_a_tree_for_every_dataset() -> None:
    assert set(available_datasets()) == set(WRITERS)


@pytest.mark.parametrize("name", WRITERS)
def test_a_batch(name: str, roots: dict[str, Path]) -> None:
    module = module_of(name, roots, batch_size=3)
    module.setup("test")
    batches = list(module.test_dataloader())
    batch = batches[0]
    assert [len(each["name"]) for each in batches] == [3, 1]
    assert (batch["image"].shape, batch["image"].dtype) == ((3, 3, SIZE, SIZE), torch.float32)
    assert (batch["label"].shape, batch["label"].dtype) == ((3,), torch.int64)
    assert (batch["difficult"].shape, batch["difficult"].dtype) == ((3,), torch.bool)
    assert [each.shape[1] for each in batch["boxes"]] == [4, 4, 4]
    assert {each.dtype for each in batch["boxes"]} == {torch.float32}
    assert all(isinstance(each, str) for each in batch["name"])
    assert ("mask" in batch) == ("void" in batch) == HAS_MASKS[name]
    for region in {"mask", "void"} & batch.keys():
        assert (batch[region].shape, batch[region].dtype) == ((3, SIZE, SIZE), torch.bool)


@pytest.mark.parametrize("name", WRITERS)
def test_the_rows_of_an_image_show_the_same_image(name: str, roots: dict[str, Path]) -> None:
    rows = module_of(name, roots).dataset
    for left, right in zip(range(len(rows) - 1), range(1, len(rows)), strict=True):
        is_same = rows[left]["name"] == rows[right]["name"]
        assert rows[left]["image"].equal(rows[right]["image"]) == is_same


@pytest.mark.parametrize("name", WRITERS)
def test_the_adapter_reads_a_batch(name: str, roots: dict[str, Path]) -> None:
    batch = next(iter(module_of(name, roots).test_dataloader()))
    samples = as_saliency_batch(batch)
    assert samples.labels is not None and samples.labels.equal(batch["label"])
    assert samples.names == batch["name"]
    assert samples.boxes is not None and all(map(torch.equal, samples.boxes, batch["boxes"]))
    assert (samples.masks is not None) == HAS_MASKS[name]
    if samples.masks is not None:
        assert samples.masks.equal(batch["mask"])
    assert samples.object_masks is not None and samples.object_masks.flatten(1).any(dim=1).all()


@pytest.mark.parametrize("name", WRITERS)
def test_validation_and_test_are_the_same_and_nothing_is_drawn(name: str, roots: dict[str, Path]) -> None:
    module = module_of(name, roots)
    for left, right in zip(module.val_dataloader(), module.test_dataloader(), strict=True):
        assert_same(left, right)


def test_two_workers_deliver_what_one_process_does(roots: dict[str, Path]) -> None:
    alone = module_of("coco2014", roots, batch_size=1).test_dataloader()
    shared = module_of("coco2014", roots, batch_size=1, num_workers=2).test_dataloader()
    assert shared.num_workers == 2
    for left, right in zip(alone, shared, strict=True):
        assert_same(left, right)


@pytest.mark.parametrize("name", WRITERS)
def test_a_module_can_be_sent_to_another_process(name: str, roots: dict[str, Path]) -> None:
    """As a spawned worker, or a spawned Trainer's process, gets it: before and after it was set up."""
    module = module_of(name, roots)
    before = pickle.loads(pickle.dumps(module))
    module.setup("test")
    after = pickle.loads(pickle.dumps(module))
    for copy in (before, after):
        assert copy.class_names == module.class_names
        assert_same(collate([copy.dataset[0]]), collate([module.dataset[0]]))


def test_two_processes_share_out_the_rows(roots: dict[str, Path]) -> None:
    rows = module_of("voc2012", roots).dataset
    found = []
    for rank in (0, 1):
        sampler = DistributedSampler(rows, num_replicas=2, rank=rank, shuffle=False)
        for batch in DataLoader(rows, batch_size=1, sampler=sampler, collate_fn=collate):
            found += list(zip(batch["name"], batch["label"].tolist(), strict=True))
    expected = [(rows[index]["name"], rows[index]["label"]) for index in range(len(rows))]
    assert sorted(found) == sorted(expected)


def test_an_error_in_a_worker_is_still_ours(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg").unlink()
    batches = iter(Voc2012(tmp_path, num_workers=1).test_dataloader())
    with pytest.raises(InputError, match=r"2007_000033.jpg.* is not there"):
        next(batches)


@pytest.mark.parametrize(("limit", "names"), [(1, 2), (2, 3), (3, 3), (4, 4), (99, 4)])
def test_the_limit_counts_images_of_the_owners_list(limit: int, names: int, roots: dict[str, Path]) -> None:
    rows = module_of("voc2012", roots, limit=limit).dataset  # the third image gives no row
    everything = module_of("voc2012", roots).dataset
    assert rows.rows == everything.rows[:names]


def test_annotation_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "VOCdevkit/VOC2012/Annotations/2007_000123.xml").unlink()
    Voc2012(tmp_path, limit=3).setup()
    with pytest.raises(InputError, match="is not there"):
        Voc2012(tmp_path, limit=4).setup()


def test_no_row_left(roots: dict[str, Path]) -> None:
    module = module_of("voc2012", roots, limit=1, class_map={"sofa": 0})
    with pytest.raises(InputError, match=r'the first 1 images no row .* `subset="all"` and this `class_map`'):
        module.setup("test")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("batch_size", 0),
        ("batch_size", True),
        ("num_workers", -1),
        ("image_size", 0),
        ("image_size", 22.5),
        ("limit", 0),
    ],
)
def test_numbers_that_cannot_be_used(argument: str, value: Any, roots: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=rf"`{argument}` must be a whole number, [01] or more; got {value}"):
        module_of("voc2012", roots, **{argument: value})


def test_a_name_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='"coco2017" is no dataset that is known. Did you mean "coco2014"'):
        dataset_module("coco2017", tmp_path)


# --------------------------------------------------------------------------------------- other models' classes


def test_a_class_map_relabels_and_leaves_the_other_classes_out(roots: dict[str, Path]) -> None:
    module = module_of("voc2012", roots, class_map={"dog": 7, "cat": 3})
    rows = [module.dataset[index] for index in range(len(module.dataset))]
    assert [(row["name"], row["label"]) for row in rows] == [("2007_000033", 7), ("2007_000042", 3)]
    assert module.class_names == ("0", "1", "2", "cat", "4", "5", "6", "dog")
    assert [row["difficult"] for row in rows] == [
        True,
        False,
    ]  # the person is there, whether asked for or not


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ({}, "`class_map` is empty"),
        ({"hound": 1}, r'`class_map` names "hound", no class of the dataset. Known: "aeroplane"'),
        ({"dogs": 1}, r'no class of the dataset. Did you mean "dog"'),
        ({"dog": -1}, r'`class_map\["dog"\]` must be the place of an output .* got -1'),
        (
            {"dog": [151, 152]},
            r"got \[151, 152\]. A class for which the model has several outputs has no single",
        ),
        ({"dog": 99999999999}, r'`class_map\["dog"\]` is output 99999999999, and no model has so many'),
        ({"dog": 1, "cat": 1}, "`class_map` gives output 1 to two classes"),
    ],
)
def test_a_class_map_that_says_nothing_clear(class_map: Any, message: str, roots: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=message):
        module_of("voc2012", roots, class_map=class_map).setup("test")


def test_a_model_with_other_outputs_is_refused(roots: dict[str, Path]) -> None:
    module = module_of("voc2012", roots)
    module.check_outputs(20)
    with pytest.raises(InputError, match=r"has 1000 outputs, and Voc2012 has 20 classes: .*`class_map=\{"):
        module.check_outputs(1000)
    mapped = module_of("voc2012", roots, class_map={"dog": 207})
    mapped.check_outputs(1000)
    with pytest.raises(InputError, match=r"names output 207, and the model has 200 \(0 to 199\)"):
        mapped.check_outputs(200)


# ------------------------------------------------------------------------------------------- under a Trainer


class _Classifier:
    """Reads a batch by the package's adapter, as any module may read it by its keys."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
        )
        nn.init.uniform_(self.network[4].weight, 0.1, 0.6)
        self.seen: list[tuple[str, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        samples = as_saliency_batch(batch)
        assert samples.names is not None and samples.labels is not None
        self.seen += zip(samples.names, samples.labels.tolist(), strict=True)
        self.log("loss", nn.functional.cross_entropy(self.network(samples.images), samples.labels))

    test_step = validation_step


class Classifier(_Classifier, pytorch_lightning.LightningModule):
    """For `pytorch_lightning`."""


class LightningClassifier(_Classifier, lightning.pytorch.LightningModule):
    """For `lightning.pytorch`."""


def classifier_of(package: ModuleType, classes: int) -> Any:
    return Classifier(classes) if package is pytorch_lightning else LightningClassifier(classes)


@pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`")
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
@pytest.mark.parametrize("name", WRITERS)
def test_a_trainer_of_either_package_tests_on_it(
    name: str, package: ModuleType, roots: dict[str, Path], tmp_path: Path
) -> None:
    module = module_of(name, roots, batch_size=3)
    assert isinstance(module, package.LightningDataModule)
    model = classifier_of(package, module.num_classes)
    trainer = toy_trainer(tmp_path, package=package)
    (result,) = trainer.test(model, datamodule=module, verbose=False)
    assert result["loss"] > 0
    rows = module.dataset
    assert model.seen == [(rows[index]["name"], rows[index]["label"]) for index in range(len(rows))]


@pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`")
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
@pytest.mark.parametrize("name", WRITERS)
def test_a_monitor_looks_at_it(
    name: str, package: ModuleType, roots: dict[str, Path], tmp_path: Path
) -> None:
    module = module_of(name, roots, batch_size=3)
    monitor = SaliencyMonitor(
        num_samples=4, on_error="raise", normalize=module.normalize, class_names=module.class_names
    )
    trainer = toy_trainer(tmp_path, monitor, package=package)
    trainer.validate(classifier_of(package, module.num_classes), datamodule=module, verbose=False)
    (look,) = monitor.history
    assert 0 < look["energy"] <= 1
    assert monitor.last_record is not None
