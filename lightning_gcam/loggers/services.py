"""The backends of Comet, Aim, Neptune, LitLogger and ClearML, which are known by what their experiment can do."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from lightning_gcam.loggers.disk import run_all
from lightning_gcam.loggers.mlflow import as_csv
from lightning_gcam.loggers.registry import Backend, Pixels, Rows, has, register_backend
from lightning_gcam.pipeline.record import SaliencyRecord
from lightning_gcam.utils.files import safe_path


@dataclass(frozen=True)
class Service:
    """How the `experiment` of a logger takes pictures, texts and tables, each under a tag and with its step.

    Args:
        methods: what the experiment has, by which it is known: the class of its logger may be anybody's.
        picture: called with the experiment, the tag, the picture and the step.
        text: called with the experiment, the tag, the text and the step.
        table: called with the experiment, the tag, the rows (one at least) and the step.
    """

    methods: tuple[str, ...]
    picture: Callable[[Any, str, Image.Image, int], object]
    text: Callable[[Any, str, str, int], object]
    table: Callable[[Any, str, Rows, int], object]

    def backend(self) -> Backend:
        """Return the backend for all loggers whose `experiment` has the methods."""
        return Backend(
            log_look=self.log_look,
            log_alert=self.log_alert,
            log_table=self.log_table,
            takes_look=self.serves,
            takes_alert=self.serves,
            takes_table=self.serves,
            log_picture=self.log_picture,
        )

    def serves(self, logger: Any) -> bool:
        """Return whether the `experiment` of a logger has the methods."""
        return has(*(f"experiment.{name}" for name in self.methods))(logger)

    def log_look(self, logger: Any, record: SaliencyRecord) -> None:
        """Log the pictures of a look, and the table of its scores."""
        tag = f"{record.stamp.log_prefix}/measurements"
        steps = [partial(self.log_picture, logger, *each, record.step) for each in record.pictures.items()]
        run_all([*steps, partial(self.log_table, logger, tag, record.table, record.step)])

    def log_picture(self, logger: Any, tag: str, picture: Pixels, step: int) -> None:
        """Log a picture `(height, width, 3)`, uint8."""
        self.picture(logger.experiment, safe_path(tag), Image.fromarray(picture), step)

    def log_alert(self, logger: Any, alert: Mapping[str, Any]) -> None:
        """Log the message of an alert as a text."""
        tag = safe_path(f"{alert['log_prefix']}/alarm")
        self.text(logger.experiment, tag, alert["message"], alert["step"])

    def log_table(self, logger: Any, tag: str, rows: Rows, step: int) -> None:
        """Log a table, where it has rows; a value that is None is left empty."""
        shown = [{name: "" if value is None else value for name, value in row.items()} for row in rows]
        if shown:
            self.table(logger.experiment, safe_path(tag), shown, step)


def _picture_to_comet(experiment: Any, tag: str, picture: Image.Image, step: int) -> None:
    # None is all that an experiment says which takes nothing any more, or never did
    if experiment.log_image(picture, name=tag, step=step) is None:
        raise RuntimeError(
            "Comet took no picture: its experiment is disabled, or has ended. `CometLogger(online=False)` "
            "disables it (https://github.com/Lightning-AI/pytorch-lightning/issues/21617). To log offline, leave "
            "`online` out and set the environment variable COMET_START_ONLINE=0."
        )


def _text_to_comet(experiment: Any, tag: str, text: str, step: int) -> None:
    """Log a text sample of the step, and the last one's first line under *Other*, by which runs are searched."""
    experiment.log_text(text, step=step, metadata={"tag": tag})
    experiment.log_other(tag, text.partition("\n")[0])


def _table_to_comet(experiment: Any, tag: str, rows: Rows, step: int) -> None:
    experiment.log_asset_data(as_csv(rows), name=f"{tag}-step={step:08d}.csv", step=step)


def _picture_to_aim(run: Any, tag: str, picture: Image.Image, step: int) -> None:
    from aim import Image as AimImage  # type: ignore[import-not-found,unused-ignore]

    run.track(AimImage(picture, format="png"), name=tag, step=step)


def _text_to_aim(run: Any, tag: str, text: str, step: int) -> None:
    from aim import Text

    run.track(Text(text), name=tag, step=step)


def _picture_to_neptune(run: Any, tag: str, picture: Image.Image, step: int) -> None:
    from neptune.types import File  # type: ignore[import-not-found,unused-ignore]

    run[tag].append(File.as_image(picture), step=step)


def _file_to_neptune(run: Any, tag: str, content: str, step: int, extension: str = "txt") -> None:
    """Upload a file of the step: a series of texts would cut each at 1000 characters."""
    from neptune.types import File

    run[f"{tag}/step={step:08d}"].upload(File.from_content(content, extension=extension))


def _table_to_neptune(run: Any, tag: str, rows: Rows, step: int) -> None:
    _file_to_neptune(run, tag, as_csv(rows), step, "csv")


def _picture_to_lit(experiment: Any, tag: str, picture: Image.Image, step: int) -> None:
    from litlogger import Image as LitImage  # type: ignore[import-not-found,unused-ignore]

    experiment[tag].append(LitImage(picture), step=step)


def _text_to_lit(experiment: Any, tag: str, text: str, step: int) -> None:
    from litlogger import Text

    experiment[tag].append(Text(text), step=step)


def _clearml(experiment: Any) -> Any:
    """Return ClearML's logger: people's own Lightning loggers have it or its task as their `experiment`."""
    return experiment.get_logger() if has("get_logger")(experiment) else experiment


def _picture_to_clearml(experiment: Any, tag: str, picture: Image.Image, step: int) -> None:
    """Report a picture among the debug samples, as a PNG: a JPEG of ClearML's own would smear small maps."""
    png = io.BytesIO()
    picture.save(png, format="png", compress_level=2)
    png.seek(0)  # it is read from where it stands
    _report_to_clearml(experiment, tag, png, "png", step)


def _text_to_clearml(experiment: Any, tag: str, text: str, step: int) -> None:
    """Report a text among the debug samples, where it has a step, and in the console."""
    _report_to_clearml(experiment, tag, io.StringIO(text), "txt", step)
    _clearml(experiment).report_text(f"Step {step}: {text}", print_console=False)


def _report_to_clearml(
    experiment: Any, tag: str, stream: io.BytesIO | io.StringIO, extension: str, step: int
) -> None:
    """Report a debug sample, and keep each: by default ClearML keeps the last 100 of a tag."""
    _clearml(experiment).report_media(
        *_title(tag), iteration=step, stream=stream, file_extension=extension, max_history=-1
    )


def _table_to_clearml(experiment: Any, tag: str, rows: Rows, step: int) -> None:
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    _clearml(experiment).report_table(*_title(tag), iteration=step, table_plot=cells)


def _title(tag: str) -> tuple[str, str]:
    """Split a tag into ClearML's title and series, as ClearML does with TensorBoard's."""
    title, _, series = tag.partition("/")
    return title, series or title


def _as_markdown(text: Callable[[Any, str, str, int], object]) -> Callable[[Any, str, Rows, int], object]:
    """Return a function that logs a table as a text in Markdown."""

    def table(experiment: Any, tag: str, rows: Rows, step: int) -> None:
        # at use: it is registered after these, to be tried before
        from lightning_gcam.loggers.tensorboard import markdown

        text(experiment, tag, markdown(rows), step)

    return table


COMET = Service(("log_image", "log_asset_data"), _picture_to_comet, _text_to_comet, _table_to_comet)
AIM = Service(("track",), _picture_to_aim, _text_to_aim, _as_markdown(_text_to_aim))
NEPTUNE = Service(
    ("__getitem__", "get_root_object"), _picture_to_neptune, _file_to_neptune, _table_to_neptune
)
LIT = Service(("__getitem__", "log_media"), _picture_to_lit, _text_to_lit, _as_markdown(_text_to_lit))
CLEARML_TASK = Service(
    ("get_logger", "upload_artifact"), _picture_to_clearml, _text_to_clearml, _table_to_clearml
)
CLEARML_LOGGER = Service(
    ("report_image", "report_media"), _picture_to_clearml, _text_to_clearml, _table_to_clearml
)

for _each in (COMET, AIM, NEPTUNE, LIT, CLEARML_TASK, CLEARML_LOGGER):
    register_backend(_each.backend())
