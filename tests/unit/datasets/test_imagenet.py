"""ImageNet: one class an image, the same rows from each of its layouts, boxes from the localization task's XMLs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lightning_gcam.datasets import ImageNet
from lightning_gcam.datasets.imagenet import IMAGENET_LAYOUT, wnids_of
from lightning_gcam.utils.errors import InputError
from tests.support.trees import IMAGENET_CLASSES, IMAGENET_SCENES, write_imagenet

SIZE = 20
LAYOUTS = ("folders", "flat", "kaggle")
NAMES = ("tench", "sea snake", "crane (n02012849)", "crane (n03126707)", "alp")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {layout: write_imagenet(tmp_path_factory.mktemp(layout), layout=layout) for layout in LAYOUTS}


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """A tree of a layout, which a test may break."""
    return lambda layout: write_imagenet(tmp_path / layout, layout=layout)


@pytest.mark.parametrize("layout", ["flat", "kaggle"])
def test_labels_are_places_among_the_wnids_in_their_order(layout: str, roots: dict[str, Path]) -> None:
    module = ImageNet(roots[layout])
    assert module.class_names == NAMES
    assert [sample["label"] for sample in (module.dataset[index] for index in range(4))] == [1, 0, 4, 1]


def test_folders_without_a_list_are_counted_themselves(roots: dict[str, Path]) -> None:
    module = ImageNet(roots["folders"])
    assert module.class_names == ("n01440764", "n01751748", "n09193705")
    assert [module.dataset[index]["label"] for index in range(4)] == [1, 0, 2, 1]


@pytest.mark.parametrize("list_of", ["flat", "kaggle"])
def test_folders_with_a_list_are_counted_by_it(list_of: str, own: Any, roots: dict[str, Path]) -> None:
    root = own("folders")
    for path in roots[list_of].iterdir():
        if path.name.startswith(("LOC_", "ILSVRC2012_devkit")):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, root / path.name)
    module = ImageNet(root)
    assert module.class_names == NAMES
    assert [module.dataset[index]["label"] for index in range(4)] == [1, 0, 4, 1]


def test_rows_are_in_the_order_of_the_names_in_every_layout(roots: dict[str, Path]) -> None:
    for root in roots.values():
        rows = ImageNet(root, image_size=SIZE).dataset
        assert [rows[index]["name"] for index in range(4)] == [scene.name for scene in IMAGENET_SCENES]


def test_every_layout_delivers_the_same(roots: dict[str, Path]) -> None:
    first, *others = (ImageNet(root, image_size=SIZE).dataset for root in roots.values())
    for other in others:
        for index in range(4):
            assert other[index]["image"].equal(first[index]["image"])
            assert other[index]["boxes"].equal(first[index]["boxes"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_by_hand(layout: str, roots: dict[str, Path]) -> None:
    rows = ImageNet(roots[layout], image_size=SIZE).dataset
    torch.testing.assert_close(rows[0]["boxes"], torch.tensor([[10 / 3, 4.0, 22 / 3, 10.0]]))
    torch.testing.assert_close(rows[1]["boxes"], torch.tensor([[0.0, 0.0, 20.0, 20.0]]))
    expected = torch.tensor([[4 / 3, 2.0, 16 / 3, 8.0], [10.0, 10.0, 18.0, 18.0]])
    torch.testing.assert_close(rows[2]["boxes"], expected)
    assert not {"mask", "void"} & rows[0].keys()


def test_a_box_ends_with_the_image(own: Any) -> None:
    """Some of the owner's are a pixel too wide."""
    root = own("flat")
    path = root / "val/ILSVRC2012_val_00000002.xml"
    path.write_text(path.read_text().replace("<xmax>59</xmax>", "<xmax>60</xmax>"))
    torch.testing.assert_close(
        ImageNet(root, image_size=SIZE).dataset[1]["boxes"], torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    )


def test_a_box_of_another_class_is_not_the_rows(own: Any) -> None:
    root = own("flat")
    path = root / "val/ILSVRC2012_val_00000003.xml"
    path.write_text(path.read_text().replace("<name>n09193705", "<name>n01440764", 1))
    torch.testing.assert_close(
        ImageNet(root, image_size=SIZE).dataset[2]["boxes"], torch.tensor([[10.0, 10.0, 18.0, 18.0]])
    )


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_pictures_become_rgb(mode: str, own: Any) -> None:
    root = own("flat")
    path = root / "val/ILSVRC2012_val_00000001.JPEG"
    Image.open(path).convert(mode).save(path, format="JPEG")
    assert ImageNet(root, image_size=SIZE).dataset[0]["image"].shape == (3, SIZE, SIZE)


def test_labels_alone_need_no_boxes(own: Any) -> None:
    root = own("folders")
    shutil.rmtree(root / "ILSVRC2012_bbox_val_v3")
    with pytest.raises(
        InputError, match=r'holds no "ILSVRC2012_bbox_val_v3/val/(.|\n)*Get .*bbox_val_v3.tgz'
    ):
        ImageNet(root)
    sample = ImageNet(root, annotation="labels").dataset[0]
    assert "boxes" not in sample
    assert sample["label"] == 1


def test_there_is_no_difficult_subset(roots: dict[str, Path]) -> None:
    assert not any(row.difficult for row in ImageNet(roots["flat"]).dataset.rows)
    with pytest.raises(InputError, match=r'`subset="difficult"` asks for another class in the image'):
        ImageNet(roots["flat"], subset="difficult")


def test_a_missing_folder_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ImageNet(tmp_path)
    assert f'`root` "{tmp_path}" holds no "val" or "ILSVRC/Data/CLS-LOC/val".' in str(caught.value)
    assert "https://image-net.org/challenges/LSVRC/2012" in str(caught.value)
    assert "https://www.kaggle.com/c/imagenet-object-localization-challenge" in str(caught.value)
    assert "\n    val/<wnid>/ILSVRC2012_val_<number>.JPEG" in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "wanted"),
    [
        (
            "ILSVRC2012_validation_ground_truth.txt",
            '"LOC_val_solution.csv" or "ILSVRC2012_devkit_t12/data/ILSVRC',
        ),
        ("meta.mat", '"ILSVRC2012_devkit_t12/data/meta.mat"'),
    ],
)
def test_a_flat_folder_needs_its_list(missing: str, wanted: str, own: Any) -> None:
    root = own("flat")
    (root / "ILSVRC2012_devkit_t12/data" / missing).unlink()
    with pytest.raises(InputError, match=f"holds no {wanted}"):
        ImageNet(root).setup()


def test_a_missing_annotation(own: Any) -> None:
    root = own("flat")
    (root / "val/ILSVRC2012_val_00000002.xml").unlink()
    rows = ImageNet(root).dataset
    with pytest.raises(InputError, match=r'02.xml" is not there, and the image of that name names it'):
        rows[1]


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("flat", "ILSVRC2012_devkit_t12/data/meta.mat"),
        ("flat", "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"),
        ("kaggle", "LOC_synset_mapping.txt"),
        ("kaggle", "LOC_val_solution.csv"),
    ],
)
def test_a_list_in_another_form(layout: str, file: str, own: Any) -> None:
    root = own(layout)
    (root / file).write_text("something\nelse")
    with pytest.raises(InputError, match=rf'{file}" cannot be read as a file of "imagenet"'):
        ImageNet(root).setup()


def test_a_list_of_other_images(own: Any) -> None:
    kaggle = own("kaggle")
    lines = (kaggle / "LOC_val_solution.csv").read_text().splitlines(keepends=True)
    (kaggle / "LOC_val_solution.csv").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=r'has no line for "ILSVRC2012_val_00000001"'):
        ImageNet(kaggle).setup()
    flat = own("flat")
    truth = flat / "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("2\n4\n3\n")
    with pytest.raises(InputError, match=r'has 3 lines, one for .* none is for "ILSVRC2012_val_00000004"'):
        ImageNet(flat).setup()


def test_a_number_is_the_line_of_its_image(roots: dict[str, Path]) -> None:
    """A part of the images keeps its labels."""
    names = ["ILSVRC2012_val_00000003", "ILSVRC2012_val_00000001"]
    assert wnids_of(roots["flat"], names, IMAGENET_LAYOUT) == ["n09193705", "n01751748"]
    with pytest.raises(InputError, match='none is for "my_picture"'):
        wnids_of(roots["flat"], ["my_picture"], IMAGENET_LAYOUT)


def test_folders_that_are_no_classes_of_the_list(own: Any) -> None:
    root = own("folders")
    (root / "LOC_synset_mapping.txt").write_text("n01440764 tench\nn09193705 alp\n")
    with pytest.raises(
        InputError, match=r'images of "n01751748", which is none of the 2 classes of its list'
    ):
        ImageNet(root).setup()


def test_without_scipy_the_extra_is_named(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(
        InputError, match=r"scipy, which is not installed. Install `lightning-gcam\[datasets\]`"
    ):
        ImageNet(roots["flat"]).setup()
    assert ImageNet(roots["kaggle"]).num_classes == len(IMAGENET_CLASSES)
