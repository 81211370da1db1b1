"""The arguments of `lightning-gcam evaluate`; the evaluation itself is in `evaluation_run.py`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_gcam.cli.report import whole

DATASETS = ("voc2012", "coco2014", "imagenet")
_DESCRIPTION = """\
Compare saliency methods by their scores over a published dataset: same images, same layer, same targets for all.

The table is printed and written to --output as scores.csv and evaluation.json (with n, intervals, versions, seed and
this command). A second table holds the causal checks: what the predictions follow where images borrow it from others.
What was interrupted goes on where it stopped when the same command is given again.
"""
_EXAMPLES = """\
examples:
  lightning-gcam evaluate imagenet --root data/imagenet --model resnet50 --weights DEFAULT --limit 500
  lightning-gcam evaluate voc2012 --root data --model vgg16 --weights voc_vgg16.pth \\
      --methods guidance_cam grad_cam layer_cam --scores pointing_game energy iou average_drop
  lightning-gcam evaluate coco2014 --root data/coco --module my_package.MyModule --checkpoint last.ckpt
"""


def add_evaluate(commands: Any, run: Callable[[argparse.Namespace], Path | None]) -> None:
    """Add the command `evaluate` to the parser.

    Args:
        commands: the parser's commands.
        run: carries the command out, and gives the path of the table, in the process that writes it.
    """
    parser = commands.add_parser(
        "evaluate",
        help="a table of saliency methods and scores over a published dataset",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("dataset", choices=DATASETS, metavar="DATASET", help=", ".join(DATASETS))
    _add_data(parser.add_argument_group("the data"))
    _add_model(parser.add_argument_group("the model"))
    _add_table(parser.add_argument_group("what is compared"))
    _add_run(parser.add_argument_group("the run"))


def names(text: str) -> list[str]:
    """Names, also several with commas between them.

    Raises:
        ArgumentTypeError: where there is none.

    Example:
        >>> names("grad_cam,layer_cam")
        ['grad_cam', 'layer_cam']
    """
    found = [word for word in text.split(",") if word]
    if not found:
        raise argparse.ArgumentTypeError(f'must be a name, but it is "{text}"')
    return found


def side(text: str) -> int:
    """A number of pixels, from 1 to 16384.

    Raises:
        ArgumentTypeError: what is less or more.

    Example:
        >>> side("224")
        224
    """
    return _between(text, 1, 16_384)


def seed(text: str) -> int:
    """A seed, as numpy takes it.

    Raises:
        ArgumentTypeError: what it does not take.

    Example:
        >>> seed("0")
        0
    """
    return _between(text, 0, 2**32 - 1)


def _between(text: str, least: int, most: int) -> int:
    number = int(text)
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"must be from {least} to {most}, but it is {number}")
    return number


def targets(text: str) -> str | int:
    """A word or the number of a class.

    Example:
        >>> targets("label"), targets("3")
        ('label', 3)
    """
    if text in ("label", "predicted"):
        return text
    if not text.isdigit():
        raise argparse.ArgumentTypeError(
            f'must be "label", "predicted" or a class from 0, but it is "{text}"'
        )
    return int(text)


def _add_data(group: Any) -> None:
    group.add_argument(
        "--root", type=Path, required=True, help="the folder with the files as their owner publishes them"
    )
    group.add_argument(
        "--limit", type=whole, help="the first so many images of the owner's list; all otherwise"
    )
    group.add_argument(
        "--subset",
        choices=("all", "difficult"),
        default="all",
        help="the pointing game's difficult rows alone",
    )
    group.add_argument(
        "--annotation",
        choices=("masks", "boxes", "labels"),
        help="of voc2012 masks (where it is left out) or boxes; of imagenet boxes (where it is left out) or labels",
    )
    group.add_argument(
        "--class-map",
        type=Path,
        metavar="JSON",
        help="a file {class name: output}, for a model with other outputs than the dataset has classes",
    )
    group.add_argument("--image-size", type=side, default=224, help="side of the square images (224)")
    group.add_argument("--batch-size", type=whole, default=16, help="(16)")
    group.add_argument("--num-workers", type=int, default=0, help="processes that read (0)")


def _add_model(group: Any) -> None:
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="a name of torchvision's or timm's; timm:NAME where both have it")
    which.add_argument("--module", metavar="PACKAGE.CLASS", help="a LightningModule of your own")
    group.add_argument(
        "--weights",
        help="DEFAULT for the library's own, the name of some of them, or a file; random otherwise",
    )
    group.add_argument(
        "--outputs",
        type=whole,
        help="of a --model that is random or from a file; one for each class otherwise",
    )
    group.add_argument("--checkpoint", type=Path, help="a Lightning checkpoint, of --module or of --model")


def _add_table(group: Any) -> None:
    group.add_argument(
        "--methods",
        nargs="+",
        type=names,
        default=[["guidance_cam", "grad_cam", "grad_cam_plus_plus", "xgrad_cam", "layer_cam", "hires_cam"]],
        help="names; the six that share one pass otherwise",
    )
    group.add_argument(
        "--scores", nargs="+", type=names, help="names; those that need no further forward otherwise"
    )
    group.add_argument(
        "--checks",
        nargs="*",
        type=names,
        metavar="CHECK",
        help="what the model relies on: names; all that the annotation allows otherwise, none where no name follows",
    )
    group.add_argument(
        "--check-samples", type=whole, default=64, help="the checks are made on so many samples of all (64)"
    )
    group.add_argument(
        "--target-layer", nargs="+", type=names, metavar="LAYER", help="found where it is left out"
    )
    group.add_argument("--fuse", choices=("product", "mean"), help="one map of several layers' maps")
    group.add_argument(
        "--multi-label",
        action="store_true",
        help="each output has a sigmoid of its own, in scores that ask for a probability; a softmax otherwise",
    )
    group.add_argument(
        "--targets", type=targets, default="label", help="label (the class of the row), predicted, or a class"
    )


def _add_run(group: Any) -> None:
    group.add_argument("-o", "--output", type=Path, help="a directory; evaluations/DATASET-MODEL otherwise")
    group.add_argument("-f", "--force", action="store_true", help="write over a table that is there")
    group.add_argument("--no-resume", action="store_true", help="begin again, whatever is done already")
    group.add_argument("--seed", type=seed, default=0, help="(0)")
    group.add_argument("--accelerator", default="auto", help="as in the Trainer (auto)")
    group.add_argument("--devices", type=whole, default=1, help="how many share the work (1)")
    group.add_argument("--precision", default="32-true", help="as in the Trainer (32-true)")
    group.add_argument("--chunk-size", type=whole, help="samples that go through at once; a batch otherwise")
