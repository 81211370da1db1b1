"""`Figure`: a picture that a notebook shows by itself."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lightning_gcam._errors import InputError


class Figure:
    """A picture that Jupyter shows where it is a cell's last value.

    Args:
        image: `(height, width, 3)`, uint8 RGB.

    Example:
        >>> figure = Figure(np.zeros((4, 6, 3), dtype=np.uint8))
        >>> figure, figure._repr_png_()[1:4]
        (Figure(6 x 4 pixels), b'PNG')
    """

    def __init__(self, image: npt.NDArray[np.uint8]) -> None:
        self.image = image

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Figure({width} x {height} pixels)"

    def _repr_png_(self) -> bytes:
        """What IPython asks for: every pixel of `image`, as a PNG."""
        file = io.BytesIO()
        Image.fromarray(self.image).save(file, format="png")
        return file.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture; the ending of `path` says in which format (`.png` keeps every pixel).

        Returns:
            `path`; its directory is made where it is not there.

        Raises:
            InputError: If Pillow writes no format with that ending.

        Example:
            >>> import tempfile
            >>> Figure(np.zeros((4, 6, 3), dtype=np.uint8)).save(tempfile.mkdtemp() + "/look.png").name
            'look.png'
        """
        target = Path(path)
        if Image.registered_extensions().get(target.suffix.lower()) not in Image.SAVE:
            raise InputError(
                f'`path` "{target}" has no ending that says a picture\'s format. Give "look.png".'
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.image).save(target)
        return target
