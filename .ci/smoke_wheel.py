"""Try a built wheel as a stranger would: in an environment with its runtime dependencies and nothing else.

    python .ci/smoke_wheel.py UV DIST

makes the environment with the program UV, installs the one wheel in the folder DIST, and runs `smoke()` of this
file there, from an empty folder, so that the checkout cannot be imported by accident.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def main(uv: str, dist: str) -> None:
    wheels = sorted(Path(dist).resolve().glob("*.whl"))
    if len(wheels) != 1 or not list(Path(dist).glob("*.tar.gz")):
        sys.exit(
            f"expected one wheel and one sdist in {dist}, found {[path.name for path in Path(dist).iterdir()]}"
        )
    check_contents(wheels[0])

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        clean, empty = Path(folder, "venv"), Path(folder, "empty")
        python = clean / "bin" / "python"
        empty.mkdir()
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(clean)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), str(wheels[0])], check=True)
        subprocess.run([str(python), "-I", str(Path(__file__).resolve()), "smoke"], cwd=empty, check=True)
    print(f"{wheels[0].name} works in a clean environment")


def check_contents(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    (about,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert not (relative := re.findall(r"\]\((?!https?:|#)[^)]+\)", about)), f"broken on PyPI: {relative}"
    assert about.count("\nProject-URL: ") == 5
    assert "lightning_gcam/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    strangers = {name.split("/")[0] for name in names if ".dist-info/" not in name} - {"lightning_gcam"}
    assert not strangers, f"the wheel also installs {sorted(strangers)}"


def smoke() -> None:
    from importlib import metadata, resources

    import pytorch_lightning as pl
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    import lightning_gcam
    from lightning_gcam import SaliencyMonitor, attribute
    from lightning_gcam.utils.errors import InputError

    assert Path(lightning_gcam.__file__).is_relative_to(sys.prefix), lightning_gcam.__file__
    assert resources.files("lightning_gcam").joinpath("py.typed").is_file()
    assert metadata.version("lightning-gcam") == lightning_gcam.__version__

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)]
            self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *pooled)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.net(images)

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
            self.log("val_loss", self.training_step(batch, index))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    images, labels = torch.rand(8, 3, 16, 16), torch.arange(8) % 2
    masks = torch.zeros(8, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True

    saliency = attribute(Net(), images).maps["guidance_cam"]
    assert saliency.shape == (8, 16, 16), saliency.shape
    assert 0 <= saliency.min() <= saliency.max() <= 1

    monitor = SaliencyMonitor(methods=["guidance_cam", "score_cam"], num_samples=4, on_error="raise")
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[monitor], **options)
    train = DataLoader(TensorDataset(images, labels), batch_size=4)
    validation = DataLoader(TensorDataset(images, labels, masks), batch_size=4)
    trainer.fit(Net(), train, validation)
    assert monitor.last_record is not None
    assert monitor.history
    assert monitor.directory is not None and (monitor.directory / "report.html").stat().st_size > 10_000
    assert not importlib.util.find_spec("captum"), "an extra"
    refused = ""
    try:
        attribute(Net(), images, methods="occlusion")
    except InputError as error:
        refused = str(error)
    assert "lightning-gcam[captum]" in refused
    command = Path(sys.executable).with_name("lightning-gcam")
    subprocess.run([command, "report", str(monitor.directory), "--force"], check=True)
    subprocess.run([command, "evaluate", "--help"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if sys.argv[1:] == ["smoke"]:
        smoke()
    else:
        main(*sys.argv[1:])
