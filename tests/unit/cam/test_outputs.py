"""Several tensors in a model's output: the logits by their name, else by what is computed from what, else refused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam import find_target_layer
from lightning_gcam.cam.forward import logits_of
from lightning_gcam.cam.outputs import (
    LOGIT_NAMES,
    SeveralHeadsError,
    find_logits,
    find_raw_logits,
    has_graph,
)
from lightning_gcam.utils.errors import InputError
from tests.support.nets import CLASSES, cnn, pictures
from tests.support.toys import listening

WIDTH = 16


class TwoHeads(nn.Module):
    """Features `(N, 9, 6, 5)`, an embedding `(N, 16)`, logits `(N, 5)` of the embedding, and a projection beside it."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self.net = cnn("flat")
        self.embed = nn.Linear(9 * 30, WIDTH)
        self.classify = nn.Linear(WIDTH, CLASSES)
        self.project = nn.Linear(9 * 30, 7)
        self.beside = nn.Linear(9 * 30, CLASSES)
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        features = self.net.features(images)
        embedding = self.embed(features.flatten(1)).tanh()
        logits, projected = self.classify(embedding), self.project(features.flatten(1))
        parts = {"features": features, "embedding": embedding, "logits": logits, "projected": projected}
        return self.answer(**parts, beside=self.beside(features.flatten(1)))


def two_heads(answer: Callable[..., Any]) -> nn.Module:
    torch.manual_seed(3)
    return TwoHeads(answer).eval()


@dataclass
class Answer:
    y_hat: Tensor
    features: Tensor


class NamedAnswer(NamedTuple):
    embedding: Tensor
    preds: Tensor


def name(*names: str) -> Callable[..., Any]:
    """The tensors of these names, in order."""
    return lambda **found: tuple(found[each] for each in names)


FOUND: dict[str, Callable[..., Any]] = {
    "features, logits": name("features", "logits"),
    "logits, features": name("logits", "features"),
    "logits, embedding": name("logits", "embedding"),
    "embedding, logits": name("embedding", "logits"),
    "embedding, logits, features": name("embedding", "logits", "features"),
    "logits and their probabilities": lambda *, logits, **_: (logits, logits.softmax(dim=1)),
    "probabilities, logits": lambda *, logits, **_: [logits.log_softmax(dim=1), logits],
    "logits twice": lambda *, logits, **_: (logits, logits),
    "a detached embedding of another path": lambda *, logits, projected, **_: (projected.detach(), logits),
    "dict of unknown names": lambda *, logits, embedding, **_: {"z": embedding, "c": logits},
    "dict with a known name": lambda *, logits, projected, **_: {"z": projected, "scores": logits},
    "dataclass": lambda *, logits, features, **_: Answer(logits, features),
    "named tuple": lambda *, logits, projected, **_: NamedAnswer(projected, logits),
    "object": lambda *, logits, projected, **_: SimpleNamespace(other=projected, class_logits=logits),
}


@pytest.mark.parametrize("how", FOUND)
@pytest.mark.parametrize("layer", [None, "net.features", "net.features.0"])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_logits_are_found_among_several_outputs(how: str, layer: str | None, frozen: bool) -> None:
    model = two_heads(FOUND[how]).requires_grad_(not frozen)
    expected = two_heads(lambda *, logits, **_: logits)
    found = attribute(model, pictures(), methods=["guidance_cam", "layer_cam"], target_layer=layer)
    alone = attribute(expected, pictures(), methods=["guidance_cam", "layer_cam"], target_layer=layer)
    assert found.target_layer == alone.target_layer
    assert torch.equal(found.logits, alone.logits)
    assert torch.equal(found.maps["layer_cam"], alone.maps["layer_cam"])
    assert alone.peaks["layer_cam"].max() > 0


@pytest.mark.parametrize("how", FOUND)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_plain_forward_reads_the_same_logits(how: str, frozen: bool) -> None:
    model = two_heads(FOUND[how]).requires_grad_(not frozen)
    expected = two_heads(lambda *, logits, **_: logits)(pictures()).detach()
    with torch.no_grad():
        found = logits_of(model, pictures())
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "logits, projection": (name("logits", "projected"), "[0]"),
    "projection, logits": (name("projected", "logits"), "[1]"),
    "a second head as wide": (name("logits", "beside"), "[0]"),
    "embedding, logits, a second head": (name("embedding", "logits", "beside"), "[1]"),
    "dict": (lambda *, logits, projected, **_: {"z": projected, "c": logits}, '["c"]'),
    "object": (lambda *, logits, projected, **_: SimpleNamespace(z=projected, c=logits), ".c"),
    "with a single number": (lambda *, logits, projected, **_: (projected[:, 0], logits), "[1]"),
}


@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.parametrize("layer", [None, "net.features"])
def test_what_cannot_be_told_apart_is_refused_with_a_forward_that_works(how: str, layer: str | None) -> None:
    answer, place = REFUSED[how]
    model = two_heads(answer)
    with pytest.raises(InputError, match="Say which with `forward=`, for example") as refused:
        find_target_layer(model, pictures())
    message = str(refused.value)
    assert f"{CLASSES}) float32" in message
    line = message.splitlines()[-1].strip()
    assert line == f"forward=lambda model, images: model(images){place}"
    pasted: dict[str, Any] = eval(f"dict({line})")
    expected = two_heads(lambda *, logits, **_: logits)
    found = attribute(model, pictures(), target_layer=layer, **pasted)
    assert torch.equal(found.maps["guidance_cam"], attribute(expected, pictures()).maps["guidance_cam"])


@pytest.mark.parametrize("how", REFUSED)
@pytest.mark.parametrize("layer", [None, "net.features"])
def test_of_several_heads_one_is_explained_by_its_name(how: str, layer: str | None) -> None:
    answer, place = REFUSED[how]
    model, name = two_heads(answer), place.strip('.[]"')
    found = attribute(model, pictures(), head=name, methods=["guidance_cam", "layer_cam"], target_layer=layer)
    alone = attribute(
        two_heads(lambda *, logits, **_: logits),
        pictures(),
        methods=["guidance_cam", "layer_cam"],
        target_layer=layer,
    )
    assert found.target_layer == alone.target_layer
    assert torch.equal(found.logits, alone.logits)
    assert torch.equal(found.maps["layer_cam"], alone.maps["layer_cam"])


@pytest.mark.parametrize("how", REFUSED)
def test_the_first_head_is_explained_where_none_is_named_and_this_is_said(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_gcam.utils.lightning_compat._LOGGED", set())
    model = two_heads(REFUSED[how][0])
    with pytest.raises(SeveralHeadsError) as several:
        find_target_layer(model, pictures())
    first, *others = several.value.shapes
    with listening() as said:
        found = attribute(model, pictures())
        assert torch.equal(attribute(model, pictures()).logits, found.logits)
    assert torch.equal(found.logits, attribute(model, pictures(), head=first).logits)
    (message,) = said
    assert f'`head="{first}"`. For another one pass `head="{others[-1]}"`' in message


def test_an_embedding_of_which_others_are_computed_is_no_head() -> None:
    model = two_heads(REFUSED["embedding, logits, a second head"][0])
    with pytest.raises(SeveralHeadsError) as several:
        find_target_layer(model, pictures())
    assert list(several.value.shapes) == ["1", "2"]


def test_without_a_graph_several_outputs_are_refused_and_shown() -> None:
    wide, narrow = torch.zeros(2, 8), torch.zeros(2, 3)
    with pytest.raises(InputError, match=r"returns \(2, 8\) float32 and \(2, 3\) float32, of which none"):
        find_raw_logits((wide, narrow), batch_size=2)
    with pytest.raises(InputError, match=r"returns \(2, 3\) float32 and \(2, 3\) float32, of which none"):
        find_raw_logits((narrow, torch.zeros(2, 3)), batch_size=2)
    assert find_raw_logits((narrow, narrow), batch_size=2) is narrow
    assert find_raw_logits({"y_hat": narrow, "z": wide}, batch_size=2) is narrow


@pytest.mark.parametrize("better", range(len(LOGIT_NAMES) - 1))
def test_of_two_names_the_surer_one_is_taken(better: int) -> None:
    one, other = torch.zeros(2, 3), torch.zeros(2, 3)
    output = {LOGIT_NAMES[better + 1]: other, LOGIT_NAMES[better]: one}
    assert find_raw_logits(output, batch_size=2) is one
    assert find_raw_logits(SimpleNamespace(**output), batch_size=2) is one


def test_a_name_on_something_else_is_passed_over() -> None:
    logits = torch.zeros(2, 3)
    output = {"out": torch.zeros(5, 3), "scores": torch.zeros(2, 3, dtype=torch.long), "preds": logits}
    assert find_raw_logits(output, batch_size=2) is logits


def test_an_embedding_that_is_a_leaf_is_seen_behind_the_logits() -> None:
    embedding = torch.ones(2, 8, requires_grad=True)
    logits = nn.Linear(8, 3)(embedding)
    assert find_raw_logits((embedding, logits), batch_size=2) is logits


class AllFrozen(TwoHeads):
    def forward(self, images: Tensor) -> Any:
        with torch.no_grad():
            return super().forward(images)


class FrozenFeatures(TwoHeads):
    """What is returned has no graph until the forward is repeated with the graph on from the start."""

    def forward(self, images: Tensor) -> Any:
        with torch.no_grad():
            features = self.net.features(images)
        embedding = self.embed(features.flatten(1)).tanh()
        return embedding, self.classify(embedding)


@pytest.mark.parametrize("kind", [AllFrozen, FrozenFeatures])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_users_own_no_grad_does_not_hide_what_is_computed_from_what(kind: Any, frozen: bool) -> None:
    torch.manual_seed(3)
    model = kind(FOUND["embedding, logits"]).eval().requires_grad_(not frozen)
    found = attribute(model, pictures(), target_layer="net.features")
    expected = attribute(two_heads(FOUND["embedding, logits"]), pictures(), target_layer="net.features")
    torch.testing.assert_close(found.maps["guidance_cam"], expected.maps["guidance_cam"])
    assert torch.equal(found.logits, expected.logits)


# ------------------------------------------------------------------------------------------------ dense heads


def test_dense_logits_are_known_by_their_four_dimensions() -> None:
    dense = torch.randn(2, 3, 8, 6)
    assert find_raw_logits(OrderedDict(out=dense, aux=dense * 0), batch_size=2) is dense
    with pytest.raises(
        InputError, match=r"2 maps of one width and one size. Say which .*\n.*model\(images\)\[1\]"
    ):
        find_raw_logits((dense, dense * 0), batch_size=2)  # a graph shows which is the main head
    assert find_raw_logits((dense[:, :, ::2, ::2], dense), batch_size=2) is dense
    torch.testing.assert_close(find_logits(dense, batch_size=2), dense[:, :, :2, :1].mean(dim=(2, 3)))


def test_a_map_of_one_position_is_no_dense_head() -> None:
    logits = torch.randn(2, 3, 1, 1)
    assert torch.equal(find_raw_logits(logits, batch_size=2), logits[:, :, 0, 0])


def test_one_number_a_class_goes_before_a_map_a_class() -> None:
    logits = torch.zeros(2, 3)
    assert find_raw_logits([torch.zeros(2, 3, 4, 4), logits], batch_size=2) is logits


def test_has_graph() -> None:
    live = torch.zeros(2, 3, requires_grad=True)
    assert has_graph({"a": torch.zeros(2), "b": live}) and has_graph(SimpleNamespace(logits=live))
    assert not has_graph((torch.zeros(2, 3), "text", None)) and not has_graph(None)


@pytest.mark.parametrize("name", ["segmenter", "classifier"])
def test_outputs_of_transformers(name: str) -> None:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    if name == "segmenter":
        logits, kind = torch.randn(2, 3, 4, 4), outputs.SemanticSegmenterOutput
    else:
        logits, kind = torch.randn(2, 3), outputs.ImageClassifierOutput
    output = kind(loss=torch.tensor(1.0), logits=logits, hidden_states=(torch.zeros(2, 8, 4, 4),))
    assert find_raw_logits(output, batch_size=2) is logits


def test_the_layer_is_found_behind_an_output_of_several() -> None:
    model = two_heads(FOUND["logits, embedding"])
    assert find_target_layer(model, pictures()).name == "net.features"


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ({"heads": {"main": torch.zeros(2, 5)}}, '["heads"]["main"]'),
        (("name", {"a": torch.zeros(2, 5)}), '[1]["a"]'),
        ({"heads": ({"b": "word", 3: torch.zeros(2, 5)}, None)}, '["heads"][0][3]'),
    ],
)
def test_the_code_that_is_shown_takes_the_logits_out_of_the_output(output: Any, code: str) -> None:
    with pytest.raises(InputError, match="holds no logits") as caught:
        find_raw_logits(output, batch_size=2)
    shown = str(caught.value).splitlines()[-1].strip()
    assert shown == f"forward=lambda model, images: model(images){code}"
    forward = eval(shown.removeprefix("forward="))
    assert find_raw_logits(forward(lambda images: output, None), batch_size=2).shape == (2, 5)


@pytest.mark.parametrize(
    ("output", "section"),
    [
        ([{"boxes": torch.zeros(1, 4), "scores": torch.zeros(1)}], "#detection-models"),
        ([{"scores": torch.zeros(2)}, {"scores": torch.zeros(2)}], "#detection-models"),
        (torch.zeros(2, 5, 7), ""),
        (torch.zeros(2, dtype=torch.long), "#quantized-and-detached-models"),
        ("text", ""),
    ],
)
def test_an_output_that_no_code_helps_leads_to_a_recipe(output: Any, section: str) -> None:
    with pytest.raises(
        InputError, match=f"no part of this output would do, see docs/guides/model.md{section}\\."
    ) as caught:
        find_raw_logits(output, batch_size=len(output) if section != "" else 2)
    assert "lambda" not in str(caught.value)
