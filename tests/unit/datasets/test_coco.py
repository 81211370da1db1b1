"""COCO 2014: instances united, crowds neither object nor background, the owner's ids as labels from 0."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_gcam.datasets import Coco2014
from lightning_gcam.utils.errors import InputError
from tests.support.trees import COCO_CATEGORIES, Scene, Thing, write_coco

SIZE = 20
"""From 40 x 60: a delivered pixel (row j, column i) has its centre on pixel (2j + 1, 3i + 1) of the file."""
PERSON, CAT, DOG = 0, 1, 2
INSTANCES = "annotations/instances_val2014.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A tree that a test may break."""
    return Path(shutil.copytree(root, tmp_path / "own"))


def rectangle(top: int, left: int, bottom: int, right: int) -> Tensor:
    """True in these rows and columns, the ends left out."""
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_row_for_each_class_with_an_instance_in_the_order_of_the_ids(root: Path) -> None:
    module = Coco2014(root)
    rows = [(module.source.name(row.image), row.label) for row in module.dataset.rows]
    assert rows == [
        ("COCO_val2014_000000000042", PERSON),
        ("COCO_val2014_000000000042", DOG),
        ("COCO_val2014_000000000073", CAT),  # of persons there is only a crowd
        ("COCO_val2014_000000000074", PERSON),
    ]


def test_labels_are_places_among_the_categories_in_the_order_of_their_ids(own: Path) -> None:
    module = Coco2014(own)
    assert module.class_names == ("person", "cat", "dog")
    assert module.num_classes == len(COCO_CATEGORIES)
    content = json.loads((own / INSTANCES).read_text())
    content["categories"].reverse()
    (own / INSTANCES).write_text(json.dumps(content))
    assert Coco2014(own).class_names == ("person", "cat", "dog")


def test_the_instances_of_a_class_are_united(root: Path) -> None:
    sample = Coco2014(root, image_size=SIZE).dataset[2]
    assert sample["mask"].equal(rectangle(2, 1, 8, 5) | rectangle(10, 10, 16, 14))
    expected = torch.tensor([[4 / 3, 2.0, 16 / 3, 8.0], [10.0, 10.0, 14.0, 16.0]])
    torch.testing.assert_close(sample["boxes"], expected)
    assert not sample["void"].any()


def test_a_crowd_is_neither_object_nor_background(root: Path) -> None:
    sample = Coco2014(root, image_size=SIZE).dataset[3]  # a person in columns 6 to 25, a crowd from 20 to 59
    assert sample["mask"].equal(rectangle(5, 2, 15, 9))
    assert sample["void"].equal(rectangle(5, 9, 15, 20))
    torch.testing.assert_close(sample["boxes"], torch.tensor([[2.0, 5.0, 26 / 3, 15.0]]))


def test_the_difficult_subset(root: Path) -> None:
    rows = Coco2014(root).dataset.rows
    # The dog covers 0.06 beside a person with 0.32. The cats have no company but a crowd.
    assert [row.difficult for row in rows] == [False, True, False, False]
    assert len(Coco2014(root, subset="difficult").dataset) == 1


def test_a_crowd_in_compressed_run_lengths(own: Path) -> None:
    from pycocotools import mask as coder

    content = json.loads((own / INSTANCES).read_text())
    for each in content["annotations"]:
        if each["iscrowd"]:
            packed = coder.frPyObjects(each["segmentation"], 40, 60)
            each["segmentation"] = {"counts": packed["counts"].decode(), "size": packed["size"]}
    before = Coco2014(own, image_size=SIZE).dataset[3]["void"]
    (own / INSTANCES).write_text(json.dumps(content))
    assert Coco2014(own, image_size=SIZE).dataset[3]["void"].equal(before)


def test_an_instance_without_a_pixel_gives_no_row(tmp_path: Path) -> None:
    write_coco(
        tmp_path,
        [Scene("COCO_val2014_000000000001", [Thing("cat", (5, 5, 5, 5)), Thing("dog", (0, 0, 9, 9))])],
    )
    assert [row.label for row in Coco2014(tmp_path).dataset.rows] == [DOG]


def test_reading_is_silent(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Coco2014(root).setup()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("missing", ["val2014", INSTANCES])
def test_a_missing_file_is_named_with_where_to_get_it(missing: str, own: Path) -> None:
    (own / missing).rename(own / "elsewhere")
    with pytest.raises(InputError) as caught:
        Coco2014(own)
    assert f'`root` "{own}" holds no "{missing}".' in str(caught.value)
    assert f"\n    val2014/COCO_val2014_<number>.jpg\n    {INSTANCES}\n" in str(caught.value)
    assert "val2014.zip and annotations_trainval2014.zip from their owner, https://cocodataset.org" in str(
        caught.value
    )


def test_a_picture_that_is_not_there(own: Path) -> None:
    (own / "val2014/COCO_val2014_000000000042.jpg").unlink()
    with pytest.raises(InputError, match=rf'42.jpg" is not there, and {INSTANCES} names it'):
        Coco2014(own).dataset[0]


def without_categories(text: str) -> str:
    return json.dumps({key: value for key, value in json.loads(text).items() if key != "categories"})


def with_a_height(height: Any) -> Any:
    def spoil(text: str) -> str:
        content = json.loads(text)
        content["images"][0]["height"] = height
        return json.dumps(content)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:200],
        without_categories,
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: text.replace('"images": [', '"images": [3, ', 1),
        with_a_height(0),
        with_a_height(-1),
        with_a_height(10**12),
        with_a_height(None),
    ],
)
def test_instances_in_another_form(spoil: Any, own: Path) -> None:
    path = own / INSTANCES
    path.write_text(spoil(path.read_text()))
    with pytest.raises(InputError, match=r'instances_val2014.json" cannot be read as a file of "coco2014"'):
        Coco2014(own).setup()


def test_a_category_that_is_not_listed(tmp_path: Path) -> None:
    write_coco(tmp_path)
    path = tmp_path / INSTANCES
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 99
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r'instances_val2014.json" cannot .* category 99 is not among its'):
        Coco2014(tmp_path).setup()


def test_without_pycocotools_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(
        InputError, match=r"pycocotools, which is not installed. Install `lightning-gcam\[data"
    ):
        Coco2014(root)
