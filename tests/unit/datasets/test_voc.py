"""VOC 2012: rows, masks and boxes by hand; what is difficult, in both of its meanings; what is missing or broken."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightning_gcam.datasets import Voc2012
from lightning_gcam.datasets.detection import VOC_CLASSES
from lightning_gcam.utils.errors import InputError
from tests.support.trees import VOC_NAMES, VOC_SCENES, Scene, Thing, write_voc

SIZE = 20
"""From 40 x 60: a delivered pixel (row j, column i) has its centre on pixel (2j + 1, 3i + 1) of the file."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A tree that a test may break."""
    return Path(shutil.copytree(root, tmp_path / "own"))


def rectangle(top: int, left: int, bottom: int, right: int) -> Tensor:
    """True in these rows and columns, the ends left out."""
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_row_for_each_class_that_counts(root: Path) -> None:
    rows = Voc2012(root, image_size=SIZE).dataset
    found = [(rows[index]["name"], VOC_CLASSES[rows[index]["label"]]) for index in range(len(rows))]
    assert found == [
        ("2007_000033", "dog"),
        ("2007_000033", "person"),
        ("2007_000042", "cat"),
        ("2007_000123", "aeroplane"),
    ]


def test_masks_are_the_class_without_its_void_band(root: Path) -> None:
    rows = Voc2012(root, image_size=SIZE).dataset
    assert rows[0]["mask"].equal(rectangle(4, 4, 9, 7))  # the dog's pixels: rows 9 to 18, columns 11 to 20
    assert rows[1]["mask"].equal(rectangle(2, 10, 17, 18))  # the person's: rows 5 to 34, columns 31 to 52


def test_the_void_band_is_told_and_is_no_object(root: Path) -> None:
    sample = Voc2012(root, image_size=SIZE).dataset[0]
    dog = rectangle(4, 3, 10, 4) | rectangle(9, 3, 10, 7)  # of its band row 19 and column 10 are seen
    person = rectangle(17, 10, 18, 18)  # of its band row 35 is
    assert sample["void"].equal(dog | person)
    assert not (sample["void"] & sample["mask"]).any()


def test_boxes_are_edges_in_pixels_of_the_delivered_image(root: Path) -> None:
    rows = Voc2012(root, image_size=SIZE).dataset
    torch.testing.assert_close(rows[0]["boxes"], torch.tensor([[10 / 3, 4.0, 22 / 3, 10.0]]))
    torch.testing.assert_close(rows[1]["boxes"], torch.tensor([[10.0, 2.0, 18.0, 18.0]]))
    torch.testing.assert_close(rows[3]["boxes"], torch.tensor([[0.0, 0.0, 20.0, 20.0]]))


def test_an_object_marked_as_difficult_is_neither_in_the_mask_nor_in_the_boxes(root: Path) -> None:
    sample = Voc2012(root, image_size=SIZE).dataset[2]  # a cat, and a second one so marked
    assert sample["mask"].equal(rectangle(2, 2, 7, 5))
    assert len(sample["boxes"]) == 1
    assert sample["void"][10:16, 13:17].all()


def test_with_boxes_alone_void_is_the_box_of_what_is_ignored(root: Path) -> None:
    rows = Voc2012(root, image_size=SIZE, annotation="boxes").dataset
    sample = rows[2]
    assert "mask" not in sample
    assert len(sample["boxes"]) == 1
    assert sample["void"].equal(rectangle(10, 13, 16, 17))  # rows 20 to 31, columns 40 to 51
    assert not rows[0]["void"].any()


def test_what_counts_lies_over_what_is_ignored(tmp_path: Path) -> None:
    things = [Thing("cat", (0, 0, 30, 40)), Thing("cat", (0, 0, 60, 40), difficult=True)]
    write_voc(tmp_path, [Scene("2007_000001", things)])
    sample = Voc2012(tmp_path, image_size=SIZE, annotation="boxes").dataset[0]
    assert sample["void"].equal(rectangle(0, 10, 20, 20))


def test_the_pointing_games_difficult_subset_is_not_vocs_flag(root: Path) -> None:
    rows = Voc2012(root, image_size=SIZE).dataset.rows
    # The dog covers 0.06 and stands beside a person, who covers 0.32. The cat covers 0.06 and is alone.
    assert [row.difficult for row in rows] == [True, False, False, False]
    subset = Voc2012(root, image_size=SIZE, subset="difficult").dataset
    assert [(row.image, VOC_CLASSES[row.label]) for row in subset.rows] == [(0, "dog")]


@pytest.mark.parametrize(("right", "is_difficult"), [(30, False), (29, True)])
def test_a_quarter_of_the_image_is_not_small(right: int, is_difficult: bool, tmp_path: Path) -> None:
    things = [
        Thing("dog", (0, 0, 15, 20)),
        Thing("dog", (15, 0, right, 20)),
        Thing("person", (30, 0, 60, 40)),
    ]
    write_voc(tmp_path, [Scene("2007_000001", things)])  # 600 of 2,400 pixels, in two boxes
    assert Voc2012(tmp_path).dataset.rows[0].difficult is is_difficult


def test_classes_are_the_devkits_and_the_segmentations_numbers(root: Path) -> None:
    module = Voc2012(root)
    assert module.class_names == VOC_NAMES
    assert module.num_classes == 20
    with Image.open(root / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png") as picture:
        assert picture.mode == "P"
        numbers = np.unique(np.array(picture))
    assert numbers.tolist() == [0, 12, 15, 255]


def test_another_list(tmp_path: Path) -> None:
    write_voc(tmp_path, VOC_SCENES[:1], image_set="train")
    assert len(Voc2012(tmp_path, image_set="train").dataset) == 2
    with pytest.raises(InputError, match=r'holds no "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"'):
        Voc2012(tmp_path)


def test_what_older_annotations_look_like(own: Path) -> None:
    """Corners with a fraction, parts in an object, and nobody asked whether it is difficult."""
    path = own / "VOCdevkit/VOC2012/Annotations/2007_000123.xml"
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    text = path.read_text().replace("<xmin>1</xmin>", "<xmin>7.0000000000000001</xmin>")
    path.write_text(
        text.replace("<difficult>0</difficult>", "").replace("</bndbox>\n", f"</bndbox>\n{part}{part}\n", 1)
    )
    sample = Voc2012(own, image_size=SIZE, annotation="boxes").dataset[3]
    torch.testing.assert_close(sample["boxes"], torch.tensor([[2.0, 0.0, 20.0, 20.0]]))


MISSING = ["JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation/val.txt"]


@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_folder_is_named_with_where_to_get_it(missing: str, own: Path) -> None:
    path = own / "VOCdevkit/VOC2012" / missing
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(InputError) as caught:
        Voc2012(own)
    assert f'`root` "{own}" holds no "VOCdevkit/VOC2012/{missing}".' in str(caught.value)
    assert "VOCtrainval_11-May-2012.tar from its owner, http://host.robots.ox.ac.uk" in str(caught.value)
    for each in ("JPEGImages/<name>.jpg", "SegmentationClass/<name>.png", "ImageSets/Segmentation/val.txt"):
        assert f"\n    VOCdevkit/VOC2012/{each}\n" in str(caught.value)


def test_boxes_need_no_segmentation(own: Path) -> None:
    shutil.rmtree(own / "VOCdevkit/VOC2012/SegmentationClass")
    shutil.rmtree(own / "VOCdevkit/VOC2012/ImageSets/Segmentation")
    assert len(Voc2012(own, annotation="boxes").dataset) == 4


@pytest.mark.parametrize("inside", ["VOCdevkit", "VOCdevkit/VOC2012", "VOCdevkit/VOC2012/JPEGImages"])
def test_a_folder_inside_of_the_right_one_is_told(inside: str, root: Path) -> None:
    with pytest.raises(InputError, match=rf'"{root}" does: give that one'):
        Voc2012(root / inside)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'`root` ".*nowhere" is no folder(.|\n)*VOCdevkit'):
        Voc2012(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "missing",
    ["JPEGImages/2007_000033.jpg", "SegmentationClass/2007_000033.png", "Annotations/2007_000033.xml"],
)
def test_a_file_that_the_list_names_and_that_is_not_there(missing: str, own: Path) -> None:
    (own / "VOCdevkit/VOC2012" / missing).unlink()
    with pytest.raises(
        InputError, match=rf'{missing}" is not there, and ImageSets/Segmentation/val.txt names'
    ):
        Voc2012(own).dataset[0]


@pytest.mark.parametrize(
    "broken",
    ["JPEGImages/2007_000033.jpg", "SegmentationClass/2007_000033.png", "Annotations/2007_000033.xml"],
)
def test_a_file_that_is_cut_off(broken: str, own: Path) -> None:
    path = own / "VOCdevkit/VOC2012" / broken
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=rf'{broken}" cannot be read as a file of "voc2012".*cut off'):
        Voc2012(own).dataset[0]


def replaced(pattern: str, by: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, by, text)


SPOILED: dict[str, tuple[Callable[[str], str], str]] = {
    "nested deep": (
        lambda _: "<annotation>" + "<a>" * 50_000 + "</a>" * 50_000 + "</annotation>",
        "too deep",
    ),
    "an object nested deep": (replaced("<object>", "<object>" + "<p>" * 9999 + "</p>" * 9999), "too deep"),
    "a width of 0": (replaced(r"<width>\d+", "<width>0"), "would have 40 x 0 pixels"),
    "a height below 0": (replaced(r"<height>\d+", "<height>-5"), "would have -5 x 60 pixels"),
    "a height without end": (replaced(r"<height>\d+", "<height>" + "9" * 12), "would have 999999999999 x 60"),
    "a box from nowhere": (replaced(r"<xmin>[^<]+", "<xmin>nan"), "a box from nan"),
    "a box without end": (replaced(r"<xmax>[^<]+", "<xmax>inf"), "to inf"),
    "a box that ends before it begins": (replaced(r"<xmin>[^<]+", "<xmin>59.5"), "a box from 59.5"),
}


@pytest.mark.parametrize("annotation", ["masks", "boxes"])
@pytest.mark.parametrize("what", SPOILED)
def test_an_annotation_that_no_image_has(what: str, annotation: Any, own: Path) -> None:
    path = own / "VOCdevkit/VOC2012/Annotations/2007_000033.xml"
    spoil, words = SPOILED[what]
    path.write_text(spoil(path.read_text()))
    with pytest.raises(InputError, match=rf'2007_000033.xml" cannot be read .*{words}'):
        Voc2012(own, annotation=annotation).setup()


def test_a_folder_in_the_place_of_an_annotation(own: Path) -> None:
    path = own / "VOCdevkit/VOC2012/Annotations/2007_000033.xml"
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r'2007_000033.xml" cannot be read .*IsADirectoryError'):
        Voc2012(own).setup()


def test_a_picture_of_too_many_pixels(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InputError, match=r'2007_000033.*" cannot be read .*DecompressionBombError'):
        Voc2012(own).dataset[0]


def test_an_annotation_without_a_size(own: Path) -> None:
    path = own / "VOCdevkit/VOC2012/Annotations/2007_000033.xml"
    path.write_text(path.read_text().replace("size>", "extent>"))
    with pytest.raises(InputError, match=r"2007_000033.xml\" cannot be read .*KeyError: 'size'"):
        Voc2012(own).setup()


def test_a_class_that_voc_does_not_have(own: Path) -> None:
    path = own / "VOCdevkit/VOC2012/Annotations/2007_000033.xml"
    path.write_text(path.read_text().replace("<name>dog</name>", "<name>hot dog</name>"))
    with pytest.raises(
        InputError, match=r'names "hot dog", which is no class of VOC 2012. Did you mean "dog"'
    ):
        Voc2012(own).setup()


@pytest.mark.parametrize(
    ("argument", "value"), [("annotation", "mask"), ("image_set", "test"), ("subset", "hard")]
)
def test_words_that_are_no_choice(argument: str, value: str, root: Path) -> None:
    with pytest.raises(InputError, match=rf'`{argument}` must be ".*; got \'{value}\''):
        Voc2012(root, **{argument: value})  # type: ignore[arg-type]
