"""The contenders of `saliency_cost.py`: the same maps, each library used the way its own documentation shows.

Every function takes a `Scene` and gives maps at the images' size, `(N, H, W)` each, or `(N, D, H, W)` of volumes. A
library is imported where it is used, so that a process that measures one library's memory holds only that one. MONAI is
no dependency of the benchmarks: its rows are measured where it is installed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor, nn

SIX_METHODS = ["guidance_cam", "grad_cam", "grad_cam_plus_plus", "xgrad_cam", "layer_cam", "hires_cam"]
GRAD_CAM_FIVE = ["GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM"]
OURS = ["lightning_gcam.pipeline.attribution"]
TORCHCAM_FOUR = ["GradCAM", "GradCAMpp", "XGradCAM", "LayerCAM"]


class Scene(NamedTuple):
    """What every contender explains: one model, one batch, one class for each sample, one layer."""

    model: nn.Module
    images: Tensor
    targets: Tensor
    layer: str


class Contender(NamedTuple):
    """One row of the table.

    Args:
        label: as the table names it.
        maps: how many maps a sample it gives.
        modules: what it imports, so that this can be done before memory is measured.
        run: from a scene to maps, each `(N, H, W)` at the images' size.
    """

    label: str
    maps: int
    modules: list[str]
    run: Callable[[Scene], list[Tensor]]

    @property
    def is_installed(self) -> bool:
        """Whether all that it imports is there."""
        return all(find_spec(module.partition(".")[0]) is not None for module in self.modules)


def set_scene(model: str, batch: int, size: int, layer: str) -> Scene:
    """A torchvision model with random weights in eval mode, random images, and the classes it predicts for them."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    network = get_model(model, weights=None).eval()
    images = torch.randn(batch, 3, size, size)
    with torch.no_grad():  # a predicted class has evidence for it, so that no map comes out blank
        targets = network(images).argmax(dim=1)
    return Scene(network, images, targets, layer)


def set_volume_scene(batch: int, size: int) -> Scene:
    """Torchvision's 3-D resnet18 with random weights, and random volumes of `size` / 2 slices."""
    from torchvision.models.video import r3d_18

    torch.manual_seed(0)
    network = r3d_18(weights=None).eval()
    images = torch.randn(batch, 3, size // 2, size, size)
    with torch.no_grad():
        targets = network(images).argmax(dim=1)
    return Scene(network, images, targets, "layer4")


def forward(scene: Scene) -> list[Tensor]:
    """The unit: what looking at the batch without any map costs."""
    with torch.no_grad():
        scene.model(scene.images)
    return []


def forward_backward(scene: Scene) -> list[Tensor]:
    """What a training step costs without its optimizer: gradients of all parameters."""
    scene.model(scene.images).gather(1, scene.targets[:, None]).sum().backward()
    return []


def ours(scene: Scene, methods: list[str]) -> list[Tensor]:
    """Any number of methods from one call."""
    from lightning_gcam import attribute

    attribution = attribute(
        scene.model, scene.images, scene.targets, methods=methods, target_layer=scene.layer
    )
    return list(attribution.maps.values())


def grad_cam(scene: Scene, methods: list[str]) -> list[Tensor]:
    """pytorch-grad-cam, one method after the other."""
    return [grad_cam_once(scene, method) for method in methods]


def grad_cam_once(scene: Scene, method: str) -> Tensor:
    """One class of pytorch-grad-cam; it brings its maps to the images' size itself."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layers = [scene.model.get_submodule(scene.layer)]
    targets = [ClassifierOutputTarget(int(target)) for target in scene.targets]
    with getattr(pytorch_grad_cam, method)(model=scene.model, target_layers=layers) as explainer:
        return torch.from_numpy(explainer(input_tensor=scene.images, targets=targets))


def torchcam(scene: Scene, methods: list[str]) -> list[Tensor]:
    """torch-cam, one method after the other (its Grad-CAM++ lacks a division: only its cost is compared)."""
    return [torchcam_once(scene, method) for method in methods]


def torchcam_once(scene: Scene, method: str) -> Tensor:
    """One class of torch-cam."""
    import torchcam.methods

    with getattr(torchcam.methods, method)(scene.model, scene.layer) as extractor:
        scores = scene.model(scene.images)
        return to_image_size(extractor(scene.targets.tolist(), scores)[0], scene)


def captum(scene: Scene) -> list[Tensor]:
    """Captum's Grad-CAM."""
    from captum.attr import LayerGradCam

    explainer = LayerGradCam(scene.model, scene.model.get_submodule(scene.layer))
    maps = explainer.attribute(scene.images, target=scene.targets, relu_attributions=True)
    return [to_image_size(maps[:, 0].detach(), scene)]


def monai(scene: Scene) -> list[Tensor]:
    """MONAI's Grad-CAM, of the classes that the model predicts; it brings its maps to the images' size itself.

    A class for each sample cannot be given, and in a batch every map is of the sum of all samples' predicted classes:
    only its cost is compared.
    """
    from monai.visualize import GradCAM

    with added_hooks_removed(scene.model.get_submodule(scene.layer)):
        explainer = GradCAM(nn_module=scene.model, target_layers=scene.layer)
        return [torch.as_tensor(explainer(x=scene.images))[:, 0].detach()]


@contextmanager
def added_hooks_removed(layer: nn.Module) -> Iterator[None]:
    """Remove the hooks that a library sets on a layer and leaves there; they would slow the next contender down."""
    tables = [vars(layer)[name] for name in ("_forward_hooks", "_backward_hooks")]
    before = [set(table) for table in tables]
    try:
        yield
    finally:
        for table, keys in zip(tables, before, strict=True):
            for key in set(table) - keys:
                del table[key]


def to_image_size(maps: Tensor, scene: Scene) -> Tensor:
    """From `(N, h, w)` to `(N, H, W)`, or of volumes, for the libraries that leave this to their user."""
    size, mode = scene.images.shape[2:], "bilinear" if scene.images.ndim == 4 else "trilinear"
    return nn.functional.interpolate(maps[:, None], size=size, mode=mode, align_corners=False)[:, 0]


CONTENDERS = {
    "forward": Contender("plain forward, no maps", 0, [], forward),
    "forward_backward": Contender("forward and backward, no maps", 0, [], forward_backward),
    "ours_one": Contender(
        "**lightning-gcam**, one map",
        1,
        OURS,
        lambda scene: ours(scene, SIX_METHODS[:1]),
    ),
    "ours_six": Contender(
        "**lightning-gcam**, six maps",
        6,
        OURS,
        lambda scene: ours(scene, SIX_METHODS),
    ),
    "torchcam_one": Contender(
        "torchcam, one map", 1, ["torchcam.methods"], lambda scene: torchcam(scene, TORCHCAM_FOUR[:1])
    ),
    "torchcam_four": Contender(
        "torchcam, four in turn", 4, ["torchcam.methods"], lambda scene: torchcam(scene, TORCHCAM_FOUR)
    ),
    "captum_one": Contender("captum, one map", 1, ["captum.attr"], captum),
    "grad_cam_one": Contender(
        "grad-cam, one map", 1, ["pytorch_grad_cam"], lambda scene: grad_cam(scene, GRAD_CAM_FIVE[:1])
    ),
    "grad_cam_five": Contender(
        "grad-cam, five in turn", 5, ["pytorch_grad_cam"], lambda scene: grad_cam(scene, GRAD_CAM_FIVE)
    ),
    "monai_one": Contender("MONAI, one map", 1, ["monai.visualize"], monai),
}
VOLUMES = {
    "volume_forward": Contender("plain forward, no maps", 0, [], forward),
    "volume_forward_backward": Contender("forward and backward, no maps", 0, [], forward_backward),
    "volume_ours": Contender(
        "**lightning-gcam**, one map",
        1,
        OURS,
        lambda scene: ours(scene, ["grad_cam"]),
    ),
    "volume_torchcam": Contender(
        "torchcam, one map", 1, ["torchcam.methods"], lambda scene: torchcam(scene, TORCHCAM_FOUR[:1])
    ),
    "volume_captum": Contender("captum, one map", 1, ["captum.attr"], captum),
    "volume_grad_cam": Contender(
        "grad-cam, one map", 1, ["pytorch_grad_cam"], lambda scene: grad_cam(scene, GRAD_CAM_FIVE[:1])
    ),
    "volume_monai": Contender("MONAI, one map", 1, ["monai.visualize"], monai),
}
"""The same on volumes `(N, C, D, H, W)`; who refuses them is said in the table."""
