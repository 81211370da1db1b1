"""`lightning-gcam evaluate`: small trees in the owners' formats from end to end, its models, its errors and codes."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam.cli import main
from lightning_gcam.cli.evaluation_run import Explained, build_model, without_prefix
from lightning_gcam.evaluation import EvaluationResult, read_result
from tests.support.toys import Toy, listening
from tests.support.trees import write_coco, write_imagenet, write_voc

QUICK = ["--image-size", "48", "--methods", "guidance_cam,grad_cam", "--scores", "energy", "pointing_game"]
RANDOM = pytest.mark.filterwarnings("ignore:.*has random weights")


class Small(Toy):
    """A LightningModule of one's own, of which `trainer.test` would not take the data."""

    def __init__(self, channels: int = 8, classes: int = 20) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(
            nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.network(images))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        raise AssertionError("the command runs no step of the module")

    def on_test_start(self) -> None:
        raise AssertionError("nor its hooks")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trees")
    write_voc(root / "voc2012")
    write_coco(root / "coco2014")
    write_imagenet(root / "imagenet")
    return root


def evaluate(trees: Path, out: Path, dataset: str = "voc2012", *options: str) -> int:
    return main(["evaluate", dataset, "--root", str(trees / dataset), "-o", str(out), *QUICK, *options])


def own(path: Path, classes: int = 20) -> list[str]:
    """The arguments for a checkpoint of `Small`, as a training leaves it."""
    torch.manual_seed(2)
    module = Small(5, classes)
    state = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save({**state, "pytorch-lightning_version": "2.6.0"}, path)
    return ["--module", "tests.integration.cli.test_evaluate_command.Small", "--checkpoint", str(path)]


# ------------------------------------------------------------------------------------------------ end to end


@RANDOM
@pytest.mark.parametrize("dataset", ["voc2012", "coco2014", "imagenet"])
def test_each_dataset_from_end_to_end(
    dataset: str, trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(trees, tmp_path / "out", dataset, "--model", "mobilenet_v3_small", "--seed", "3") == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == str(tmp_path / "out" / "scores.csv")
    assert "pointing_game" in said and "95% interval" in said
    result = read_result(tmp_path / "out")
    assert {(row.method, row.score) for row in result.rows} >= {
        (method, score)
        for method in ("guidance_cam", "grad_cam", "centre")
        for score in ("energy", "pointing_game")
    }
    assert result.facts.samples > 2
    assert all(row.n + row.left_out == result.facts.samples for row in result.rows)
    about = {"dataset": dataset, "model": "mobilenet_v3_small", "probabilities": "softmax"}
    assert result.facts.about == about
    assert result.facts.seed == 3
    assert result.facts.forwards == 1.0


def test_a_module_of_ones_own_with_its_checkpoint(trees: Path, tmp_path: Path) -> None:
    options = own(tmp_path / "last.ckpt")
    assert evaluate(trees, tmp_path / "out", "voc2012", *options, "--target-layer", "network.1") == 0
    result = read_result(tmp_path / "out")
    assert result.facts.target_layer == "model.network.1"
    assert result == again(trees, tmp_path, *options, "--target-layer", "network.1", expected=result)


def again(trees: Path, tmp_path: Path, *options: str, expected: EvaluationResult) -> EvaluationResult:
    """A second time: the very same numbers; what tells of time and place aside."""
    assert evaluate(trees, tmp_path / "again", "voc2012", *options) == 0
    found = read_result(tmp_path / "again")
    return EvaluationResult(found.rows, expected.facts, found.reliance)


def test_methods_that_ask_the_model_again_and_a_sigmoid_for_each_class(trees: Path, tmp_path: Path) -> None:
    methods = ["score_cam", "occlusion", "random"]
    options = [*own(tmp_path / "last.ckpt"), "--limit", "1", "--scores", "energy", "average_drop"]
    options += ["--methods", *methods, "--target-layer", "network.1"]
    assert evaluate(trees, tmp_path / "one", "voc2012", *options) == 0
    assert evaluate(trees, tmp_path / "each", "voc2012", *options, "--multi-label") == 0
    one, each = read_result(tmp_path / "one"), read_result(tmp_path / "each")
    assert [row.method for row in one.rows if row.score == "energy"][:3] == methods
    assert one.facts.forwards > 1 + 5 + 169
    assert (one.facts.about["probabilities"], each.facts.about["probabilities"]) == ("softmax", "sigmoid")
    assert one.row("score_cam", "energy") == each.row("score_cam", "energy")
    assert one.row("score_cam", "average_drop").value != each.row("score_cam", "average_drop").value


def test_the_numbers_are_those_of_the_callback(trees: Path, tmp_path: Path) -> None:
    """By hand: the same module, data and Trainer."""
    import pytorch_lightning

    from lightning_gcam import SaliencyEvaluation
    from lightning_gcam.datasets import dataset_module

    options = own(tmp_path / "last.ckpt")
    assert evaluate(trees, tmp_path / "out", "voc2012", *options) == 0
    module = Small.load_from_checkpoint(tmp_path / "last.ckpt")
    evaluation = SaliencyEvaluation(
        methods=["guidance_cam", "grad_cam"],
        scores=["energy", "pointing_game"],
        directory=tmp_path / "by hand",
    )
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu",
        callbacks=[evaluation],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    data = dataset_module("voc2012", trees / "voc2012", image_size=48)
    trainer.test(Explained(module), datamodule=data, verbose=False)
    assert evaluation.result is not None
    assert evaluation.result.rows == read_result(tmp_path / "out").rows


@RANDOM
def test_the_checks_are_printed_and_can_be_chosen(
    trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", "squeezenet1_1"]
    chosen = [*options, "--checks", "border", "background_only_accuracy", "--check-samples", "3"]
    assert evaluate(trees, tmp_path / "some", "voc2012", *chosen) == 0
    said = capsys.readouterr().out
    assert "border_follow_rate" in said and "measured on 3 of the samples" in said
    result = read_result(tmp_path / "some")
    assert {"border_follow_rate", "background_only_accuracy"} < set(result.checks)
    assert {each.n + each.left_out for each in result.checks.values()} == {3}
    assert evaluate(trees, tmp_path / "none", "voc2012", *options, "--checks") == 0
    assert read_result(tmp_path / "none").checks == {}
    assert "what the model relies on" not in capsys.readouterr().out


def test_the_limit_is_of_images(trees: Path, tmp_path: Path) -> None:
    assert evaluate(trees, tmp_path / "out", "voc2012", *own(tmp_path / "c.ckpt"), "--limit", "1") == 0
    assert read_result(tmp_path / "out").facts.samples == 2, "two classes in the first image"


# ------------------------------------------------------------------------------------------------ the model


def test_weights_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(4)
    trained = squeezenet1_1(num_classes=7)
    state = trained.state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": {f"net.{name}": each for name, each in state.items()}}, tmp_path / "last.ckpt")
    images = torch.rand(1, 3, 48, 48)
    expected = trained.eval()(images)
    for how in ({"weights": str(tmp_path / "plain.pth")}, {"checkpoint": tmp_path / "last.ckpt"}):
        model = build_model("squeezenet1_1", None, outputs=7, **how).eval()  # type: ignore[arg-type]
        assert torch.equal(model(images), expected)


@RANDOM
def test_a_model_of_timm(tmp_path: Path) -> None:
    model = build_model("timm:resnet10t", None, outputs=6)
    assert model(torch.rand(1, 3, 64, 64)).shape == (1, 6)
    assert type(model.model).__module__.startswith("timm.")


def test_without_weights_it_is_said() -> None:
    with pytest.warns(UserWarning, match="`--model squeezenet1_1` has random weights"):
        build_model("squeezenet1_1", None, outputs=3)


def test_images_are_normalized_as_the_model_was_trained() -> None:
    """(x - m) / s becomes (x - 0.5) / 0.25, for x of 0.7."""
    model = Explained(nn.Identity(), ((0.5,) * 3, (0.25,) * 3))
    model.renormalize(((0.4, 0.4, 0.4), (0.2, 0.2, 0.2)))
    given = torch.full((1, 3, 2, 2), (0.7 - 0.4) / 0.2)
    assert model(given).allclose(torch.full((1, 3, 2, 2), (0.7 - 0.5) / 0.25))
    model = Explained(nn.Identity(), None)
    model.renormalize(((0.4, 0.4, 0.4), (0.2, 0.2, 0.2)))
    assert torch.equal(model(given), given)


def test_a_prefix_of_a_training_is_taken_away() -> None:
    own_names = {"conv.weight": torch.zeros(1), "conv.bias": torch.zeros(1)}
    state = {
        "model.net.conv.weight": torch.ones(1),
        "model.net.conv.bias": torch.ones(1),
        "loss.w": torch.ones(1),
    }
    assert list(without_prefix(state, own_names)) == ["conv.weight", "conv.bias"]


# ------------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "resnet18", "--methods", "grad_can"], '"grad_can"'),
        (["--model", "resnet18", "--scores", "energi"], '"energi"'),
        (["--model", "resnet18", "--scores", "drift"], "drift"),
        (["--model", "resnet18", "--checks", "frame"], '"frame" is not a check'),
        (["--model", "resnet18", "--targets", "mine"], "--targets"),
        (["--model", "resnet18", "--limit", "0"], "--limit"),
        (["--model", "resnet18", "--fuse", "mean"], "`fuse`"),
        (["--model", "resnet18", "--module", "a.B"], "not allowed with"),
        (["--model", "resnet18", "--scores", ","], "--scores: must be a name"),
        (["--model", "resnet18", "--image-size", "99999999"], "must be from 1 to 16384"),
        (["--model", "resnet18", "--seed", "-1"], "must be from 0 to 4294967295"),
        ([], "--model"),
    ],
)
def test_wrong_arguments_end_with_2(
    options: list[str], words: str, trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "voc2012", "--root", str(trees / "voc2012"), "-o", str(tmp_path / "out"), *options])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


@RANDOM
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "resnet81"], "\"resnet81\" is no model of torchvision's or timm's. Did you mean"),
        (["--model", "keras:resnet18"], '"keras" is no library'),
        (["--model", "squeezenet1_1", "--weights", "NEWEST"], '"NEWEST" is neither a file nor weights'),
        (["--model", "squeezenet1_1", "--checkpoint", "no.ckpt"], '"no.ckpt" is no file'),
        (["--model", "squeezenet1_1", "--outputs", "7"], "The model has 7 outputs"),
        (["--module", "no_such_package.Module"], "cannot be imported"),
        (["--module", "tests.support.toys.Recast"], "is no LightningModule"),
        (
            ["--module", "tests.integration.cli.test_evaluate_command.Small", "--weights", "a.pth"],
            "belongs to `--model`",
        ),
        (["--model", "squeezenet1_1", "--target-layer", "layer9"], "layer9"),
        (["--model", "squeezenet1_1", "--class-map", "no.json"], "no.json"),
        (["--model", "squeezenet1_1", "--root", "no/such/folder"], "no/such/folder"),
        (["--module", "..x"], '"..x" is no path of a class'),
        (["--module", "a..B"], '"a..B" is no path of a class'),
        (["--model", "squeezenet1_1", "--outputs", "99999999999"], "99999999999 outputs could not be made"),
        (["--model", "squeezenet1_1", "--accelerator", "abacus"], '`--accelerator` "abacus"'),
        (["--model", "squeezenet1_1", "--precision", "7"], '`--precision` "7" cannot be used here'),
    ],
)
def test_what_cannot_be_used_is_a_sentence_and_a_1(
    options: list[str], words: str, trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(trees, tmp_path / "out", "voc2012", *options) == 1
    error = capsys.readouterr().err
    assert words in error and "lightning-gcam evaluate: " in error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"é": 1}'.encode("latin1"), "is not in UTF-8"),
        ('{"dog": 1}'.encode("utf16"), "is not in UTF-8"),
        (b'{"dog": 99999999999}', "is output 99999999999, and no model has so many"),
        (b'{"dog": ' + b"9" * 5000 + b"}", "is no JSON"),
        (b"[" * 100_000, "is nested too deep"),
        (b"[1]", "must hold {class name: output}"),
    ],
)
def test_a_class_map_that_cannot_be_used(
    content: bytes, words: str, trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "map.json").write_bytes(content)
    options = ["--model", "squeezenet1_1", "--class-map", str(tmp_path / "map.json")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has random weights")
        assert evaluate(trees, tmp_path / "out", "voc2012", *options) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "words"),
    [("def (", "SyntaxError"), ("1/0", "ZeroDivisionError"), ("raise SystemExit(3)", "SystemExit: 3")],
)
def test_a_module_whose_file_breaks_is_told(
    source: str,
    words: str,
    trees: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "their_broken_file.py").write_text(source)
    assert evaluate(trees, tmp_path / "out", "voc2012", "--module", "their_broken_file.Net") == 1
    error = capsys.readouterr().err
    assert words in error and '"their_broken_file.Net" cannot be imported' in error


def test_the_working_directory_comes_last_and_it_is_said_what_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is called as an installed package does not take its place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    before = list(sys.path)
    (tmp_path / "colorsys.py").write_text("raise AssertionError('not the installed one')")
    source = "import colorsys\nfrom tests.integration.cli.test_evaluate_command import Small\nclass Net(Small): ...\n"
    (tmp_path / "their_net.py").write_text(source)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with listening() as said, pytest.warns(UserWarning, match="`--module their_net.Net` has random weights"):
        build_model(None, "their_net.Net")
    assert sys.path == [*before, str(tmp_path)]
    assert f"`--module` their_net.Net is of {tmp_path / 'their_net.py'}" in said


def test_a_file_that_does_not_fit_is_told(
    trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(num_classes=7).state_dict(), tmp_path / "seven.pth")
    (tmp_path / "text.pth").write_text("no weights")
    for name, words in (
        ("seven.pth", "does not fit squeezenet1_1 with 20 outputs"),
        ("text.pth", "cannot be read"),
    ):
        options = ["--model", "squeezenet1_1", "--weights", str(tmp_path / name)]
        assert evaluate(trees, tmp_path / "out", "voc2012", *options) == 1
        assert words in capsys.readouterr().err


def test_a_table_that_is_there_is_not_written_over(
    trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = own(tmp_path / "c.ckpt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scores.csv").write_text("mine")
    assert evaluate(trees, tmp_path / "out", "voc2012", *options) == 1
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "out" / "scores.csv").read_text() == "mine"
    assert evaluate(trees, tmp_path / "out", "voc2012", *options, "--force") == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["facts"]["samples"] == 4


def test_two_evaluations_do_not_write_into_one_directory(
    trees: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = (
        "import sys, time\nfrom pathlib import Path\nfrom lightning_gcam.loggers.disk import claim_directory\n"
        f"assert claim_directory(Path({str(tmp_path / 'out')!r}))\nprint('has it', flush=True)\ntime.sleep(100)"
    )
    command = [sys.executable, "-c", other]
    options = own(tmp_path / "c.ckpt")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "has it\n"
        try:
            assert evaluate(trees, tmp_path / "out", "voc2012", *options) == 1
        finally:
            process.kill()
    assert 'out" is written to by another evaluation' in capsys.readouterr().err
    assert evaluate(trees, tmp_path / "out", "voc2012", *options) == 0


def test_the_help_names_every_argument_without_loading_a_network() -> None:
    program = (
        "import sys\n"
        "from lightning_gcam.cli import main\n"
        "try:\n    main(['evaluate', '--help'])\n"
        "finally:\n    assert 'torch' not in sys.modules, 'slow'"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for argument in (
        "--root",
        "--model",
        "--weights",
        "--checkpoint",
        "--module",
        "--methods",
        "--scores",
        "--checks",
        "--limit",
    ):
        assert argument in done.stdout
    assert "examples:" in done.stdout
