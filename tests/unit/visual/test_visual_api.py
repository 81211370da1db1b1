"""The room's public names."""

from lightning_gcam import visual


def test_every_public_name_exists_and_is_explained():
    assert visual.__all__ == sorted(visual.__all__, key=lambda name: (name[0].islower(), name))
    for name in visual.__all__:
        assert getattr(visual, name).__doc__


def test_the_public_names_are_these():
    assert set(visual.__all__) == {
        "Figure",
        "Normalize",
        "PanelTexts",
        "check_colormap",
        "check_normalize",
        "check_scale",
        "colormap",
        "dim",
        "mark_peaks",
        "outline",
        "overlay",
        "overlay_change",
        "render_grid",
        "render_row",
        "shown_channels",
        "to_display",
    }
