"""A notebook shows the very pixels."""

import numpy as np
import pytest

from lightning_gcam.utils.errors import InputError
from lightning_gcam.visual import Figure
from tests.support.toys import decoded

PIXELS = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


def test_the_png_has_every_pixel():
    assert np.array_equal(decoded(Figure(PIXELS)._repr_png_()), PIXELS)


def test_ipython_shows_the_png_and_names_it_where_it_cannot():
    formatters = pytest.importorskip("IPython.core.formatters")
    shown, _ = formatters.DisplayFormatter().format(Figure(PIXELS))
    assert np.array_equal(decoded(shown["image/png"]), PIXELS)
    assert shown["text/plain"] == "Figure(7 x 5 pixels)"


def test_it_is_written_in_the_format_that_the_path_names(tmp_path):
    path = Figure(PIXELS).save(tmp_path / "new" / "look.PNG")
    assert np.array_equal(decoded(path), PIXELS)
    assert Figure(PIXELS).save(str(tmp_path / "look.jpg")).read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize("name", ["look", "look.doc"])
def test_a_path_without_a_format_is_refused_before_anything_is_made(tmp_path, name):
    with pytest.raises(InputError, match=r'`path` ".*look.*" has no ending .* Give "look.png"'):
        Figure(PIXELS).save(tmp_path / "new" / name)
    assert not (tmp_path / "new").exists()
