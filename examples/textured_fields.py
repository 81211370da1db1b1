"""Fields of brick, grass or gravel on bare ground, as from the air, with the exact region of each.

The materials are grey photographs that come inside scikit-image's wheel (no download), CC0, here tinted: red brick,
green grass, bluish gravel.
"""

from typing import NamedTuple

import skimage.data
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

MATERIALS = ["brick", "grass", "gravel"]
TINTS = [[0.9, 0.5, 0.4], [0.5, 0.9, 0.4], [0.6, 0.7, 0.9]]  # of the materials, as red, green and blue
CANVAS = 64  # pixels a side
FIELD = 24  # pixels a side of a field


class Scenes(NamedTuple):
    """Images `(N, 3, H, W)` in [0, 1], the materials in each `(N, 3)` bool, and regions `(N, H, W)` long.

    In `regions` 0 is bare ground and k + 1 is the field of material k.
    """

    images: Tensor
    present: Tensor
    regions: Tensor

    @property
    def labels(self) -> Tensor:
        """The material of each scene with one field `(N,)`."""
        return self.present.int().argmax(dim=1)


def draw_scenes(size: int, seed: int, *, validation: bool = False, several: bool = False) -> Scenes:
    """Draw `size` scenes: one field each, or with `several` any of the three, each in a quarter of its own.

    Training takes the upper half of each photograph, validation the lower one: no pixel is in both.
    """
    generator = torch.Generator().manual_seed(seed)
    photographs = load_photographs().tensor_split(2, dim=2)[int(validation)]
    images = bare_ground(size, generator)
    regions = torch.zeros(size, CANVAS, CANVAS, dtype=torch.long)
    present = one_material_each(size, generator)
    if several:
        present |= torch.rand(size, len(MATERIALS), generator=generator) < 0.5
    for image, region, here in zip(images, regions, present, strict=True):
        quarters = torch.randperm(4, generator=generator).tolist()
        for quarter, material in zip(quarters, here.nonzero()[:, 0].tolist(), strict=False):
            put_field(image, region, quarter, material, photographs[material], generator)
    return Scenes(images, present, regions)


def load_photographs() -> Tensor:
    """The three tinted photographs `(3, 3, 256, 256)`: material, colour, rows, columns."""
    pictures = torch.stack([torch.tensor(getattr(skimage.data, name)()) for name in MATERIALS])
    return avg_pool2d(pictures[:, None] / 255, 2) * torch.tensor(TINTS)[:, :, None, None]


def bare_ground(size: int, generator: torch.Generator) -> Tensor:
    """Smooth grey hills with a little noise `(size, 3, CANVAS, CANVAS)`."""
    hills = torch.rand(size, 1, 6, 6, generator=generator)
    smooth = interpolate(hills, size=(CANVAS, CANVAS), mode="bicubic", align_corners=True)
    noise = torch.randn(size, 3, CANVAS, CANVAS, generator=generator)
    return (0.2 + 0.4 * smooth + 0.03 * noise).clamp(0, 1)


def one_material_each(size: int, generator: torch.Generator) -> Tensor:
    """One material for each scene, all equally often: `(size, 3)` bool, in random order."""
    order = torch.randperm(size, generator=generator) % len(MATERIALS)
    return order[:, None] == torch.arange(len(MATERIALS))


def put_field(
    image: Tensor, region: Tensor, quarter: int, material: int, photograph: Tensor, generator: torch.Generator
) -> None:
    """Cut a field out of the photograph and put it into one quarter of the image, at a random place."""
    room = torch.tensor([CANVAS // 2, CANVAS // 2, *photograph.shape[1:]]) - FIELD
    down, right, top, left = (torch.rand(4, generator=generator) * (room + 1)).int().tolist()
    row, column = CANVAS // 2 * (quarter // 2) + down, CANVAS // 2 * (quarter % 2) + right
    cut = photograph[:, top : top + FIELD, left : left + FIELD]
    image[:, row : row + FIELD, column : column + FIELD] = cut
    region[row : row + FIELD, column : column + FIELD] = material + 1
