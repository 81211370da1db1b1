"""The rival of `overhead.py`: a Grad-CAM callback as people write it by hand today, around grad-cam and matplotlib.

Written for the comparison, in the pattern of the callbacks that people publish: a `GradCAM` object at the end of each
validation, `eval()` before and `train()` after it, a figure of images beside their overlays to TensorBoard's
`add_figure`. Where habits differ it takes the cheaper one: all samples in one call and in one figure, the predictions
from the same forward, no `tight_layout`. It computes no scores and outlines no object.
"""

from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

TAG = "grad_cam"


class GradCamByHand(Callback):
    """Log Grad-CAM overlays of the first validation samples.

    Args:
        target_layer: a name from `pl_module.named_modules()`.
        num_samples: how many samples of the first validation batch to show.
    """

    def __init__(self, target_layer: str, num_samples: int) -> None:
        self.target_layer = target_layer
        self.num_samples = num_samples

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        images, labels = next(iter(trainer.val_dataloaders))[:2]
        images = images[: self.num_samples].to(pl_module.device)
        labels = labels[: self.num_samples]
        pl_module.eval()
        heatmaps, predicted = explain(pl_module, images, labels, self.target_layer)
        pl_module.train()
        figure = draw(images, heatmaps, labels, predicted)
        log_figure(trainer.logger, figure, trainer.global_step)


def explain(
    model: nn.Module, images: Tensor, labels: Tensor, target_layer: str
) -> tuple[npt.NDArray[np.float32], Tensor]:
    """Grad-CAM of each sample's label `(N, H, W)`, and the predicted classes `(N,)`."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    layer = model.get_submodule(target_layer)
    with torch.enable_grad(), GradCAM(model=model, target_layers=[layer]) as cam:
        heatmaps = cam(input_tensor=images, targets=targets)
        return heatmaps, cam.outputs.argmax(dim=1)


def draw(images: Tensor, heatmaps: npt.NDArray[np.float32], labels: Tensor, predicted: Tensor) -> Any:
    """One figure of all samples: image and overlay side by side, four samples a row."""
    matplotlib.use("agg")  # as wherever there is no screen
    import matplotlib.pyplot as plt

    rows = -(-len(images) // 4)
    figure, axes = plt.subplots(rows, 8, figsize=(16, 2.25 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    parts = zip(axes.reshape(-1, 2), pictures(images), heatmaps, labels, predicted, strict=False)
    for pair, picture, heatmap, label, guess in parts:
        fill(pair, picture, heatmap, f"{int(label)} / {int(guess)}")
    return figure


def draw_each(
    images: Tensor, heatmaps: npt.NDArray[np.float32], labels: Tensor, predicted: Tensor
) -> list[Any]:
    """The other habit: a figure a sample."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figures = []
    for picture, heatmap, label, guess in zip(pictures(images), heatmaps, labels, predicted, strict=True):
        figure, axes = plt.subplots(1, 2)
        fill(axes, picture, heatmap, f"{int(label)} / {int(guess)}")
        for axis in axes:
            axis.axis("off")
        figures.append(figure)
    return figures


def fill(axes: Any, picture: npt.NDArray[np.float32], heatmap: npt.NDArray[np.float32], title: str) -> None:
    """A sample's two panels."""
    from pytorch_grad_cam.utils.image import show_cam_on_image

    axes[0].imshow(picture)
    axes[0].set_title(title)
    axes[1].imshow(show_cam_on_image(picture, heatmap, use_rgb=True))


def pictures(images: Tensor) -> npt.NDArray[np.float32]:
    """`(N, H, W, 3)` in [0, 1]: all images from their lowest value to their highest."""
    shown = (images - images.min()) / (images.max() - images.min())
    return shown.permute(0, 2, 3, 1).cpu().numpy()


def log_figure(logger: Any, figure: Any, step: int, tag: str = TAG) -> None:
    """TensorBoard renders the figure, encodes it and closes it."""
    logger.experiment.add_figure(tag, figure, global_step=step)
