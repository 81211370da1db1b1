"""A real TensorBoard server on this machine, and the picture in docs/guides/loggers.md made with it, after `make demo`.

python -m tests.support.tensorboard_page runs/demo docs/images/tensorboard.png
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.support.browser import Browser


class Server:
    """TensorBoard on a free port of the loopback; `address` is its page."""

    def __init__(self, directory: Path) -> None:
        command = ["-m", "tensorboard.main", "--logdir", str(directory), "--host", "127.0.0.1", "--port", "0"]
        self._process = subprocess.Popen(
            [sys.executable, *command, "--load_fast=false"], stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        said = []
        for line in self._process.stderr:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                self.address = found[0]
                break
        else:
            raise RuntimeError("".join(said))
        # what it says later must be read, or it waits for a reader
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        with self._process.stderr as stream:  # type: ignore[union-attr]
            stream.read()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        self._listener.join(timeout=20)


IMAGES = """return deep('img')
  .filter((e) => e.src.includes('/individualImage') && e.complete && e.naturalWidth > 0)"""
"""The images that are there and could be decoded."""


def main(run: str, picture: str) -> None:
    """Keep what TensorBoard shows of the images of a run."""
    from PIL import Image

    with (
        tempfile.TemporaryDirectory() as profile,
        Server(Path(run)) as server,
        Browser(Path(profile), size=(1720, 1130)) as browser,
    ):
        browser.open(f"{server.address}#images")
        browser.wait(f"{IMAGES}.length > 0")
        browser.run("deep('paper-checkbox')[0].click()")
        browser.wait("return new Promise((done) => setTimeout(() => done(true), 1500))")
        browser.picture(Path(picture))
    with Image.open(picture) as opened:
        rich = opened.convert("RGB")
        # not the median cut: it changes the hue of the few pixels that are colourful
        few = rich.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
        few.save(picture, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
