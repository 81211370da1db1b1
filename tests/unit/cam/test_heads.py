"""Heads of a model with several: found by their names or places, and labels assigned to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Size, Tensor, nn

from lightning_gcam import attribute
from lightning_gcam.cam.calling import BoundForward, forward_at
from lightning_gcam.cam.heads import (
    HeadForward,
    HeadPlan,
    assign_labels,
    find_heads,
    first_head,
    names_of_heads,
)
from lightning_gcam.utils.errors import InputError
from tests.support.nets import pictures
from tests.support.toys import listening

AGES, SEXES = torch.tensor([31.5, 70.0, 8.25, 44.0]), torch.tensor([0, 1, 1, 0])
FINDINGS = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])


class Two(nn.Module):
    """Features, an age `(N, 1)` and logits of two classes `(N, 2)` of them, returned as `answer` makes it."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.age, self.sex = nn.Linear(4, 1), nn.Linear(4, 2)
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        features = self.body(images[:, :2])
        return self.answer(features, self.age(features), self.sex(features))


class Answer(NamedTuple):
    age: Tensor
    sex: Tensor


OUTPUTS: dict[str, tuple[Callable[..., Any], dict[str, Size]]] = {
    "dict": (lambda _, age, sex: {"age": age, "sex": sex}, {"age": Size([1]), "sex": Size([2])}),
    "tuple": (lambda _, age, sex: (age, sex), {"0": Size([1]), "1": Size([2])}),
    "named tuple": (lambda _, age, sex: Answer(age, sex), {"age": Size([1]), "sex": Size([2])}),
    "numbers": (lambda _, age, sex: {0: age[:, 0], 1: sex}, {"0": Size([1]), "1": Size([2])}),
    "features first": (lambda *parts: parts, {"1": Size([1]), "2": Size([2])}),
    "a loss beside": (
        lambda _, age, sex: {"loss": age.sum(), "age": age, "sex": sex},
        {"age": Size([1]), "sex": Size([2])},
    ),
    "one tensor": (lambda _, age, sex: sex, {}),
    "one with features": (lambda features, age, sex: (features, sex), {}),
    "logits by name": (lambda _, age, sex: {"age": age, "logits": sex}, {}),
}


@pytest.mark.parametrize("how", OUTPUTS)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("n", [2, 4])
def test_the_heads_of_an_output(how: str, frozen: bool, n: int) -> None:
    answer, expected = OUTPUTS[how]
    model = Two(answer).requires_grad_(not frozen)
    with torch.no_grad():
        assert find_heads(model, pictures(n)[:, :2]) == expected


def test_heads_that_are_named_like_labels_are_heads_whatever_their_names() -> None:
    model = Two(lambda _, age, sex: {"age": age, "logits": sex})
    assert list(find_heads(model, pictures()[:, :2], labelled=["age", "label"])) == ["age", "logits"]
    assert find_heads(model, pictures()[:, :2], labelled=["label", "view"]) == {}


def test_a_number_that_was_squeezed_of_the_only_sample_is_a_head_by_its_name() -> None:
    model = Two(lambda _, age, sex: {"age": age.squeeze(), "sex": sex})
    assert find_heads(model, pictures(1)[:, :2], labelled=["age", "sex"]) == {
        "age": Size([1]),
        "sex": Size([2]),
    }
    assert attribute(model, pictures(1)[:, :2], head="age").logits.shape == (1, 1)


def test_the_given_heads_come_first() -> None:
    model = Two(OUTPUTS["dict"][0])
    assert list(find_heads(model, pictures()[:, :2], given=["sex"])) == ["sex", "age"]
    features = Two(OUTPUTS["features first"][0])
    assert list(find_heads(features, pictures()[:, :2], given=["0"])) == ["0", "1", "2"]


def test_an_unknown_head_is_refused_with_the_names_there_are() -> None:
    model = Two(OUTPUTS["dict"][0])
    with pytest.raises(InputError, match='`head` "sx" is not known. Did you mean "sex"?'):
        attribute(model, pictures()[:, :2], head="sx")
    with pytest.raises(InputError, match='`head` "view" is not known. Known: "age", "sex".'):
        find_heads(model, pictures()[:, :2], given=["age", "view"])
    with pytest.raises(InputError, match='`head` "sex" is none of this model, whose output has no parts'):
        attribute(Two(OUTPUTS["one tensor"][0]), pictures()[:, :2], head="sex")


@pytest.mark.parametrize("head", [3, [], [1], ["sex", None], {"sex": 1}])
def test_what_is_no_name_is_refused(head: Any) -> None:
    with pytest.raises(InputError, match="`head` must be the name of"):
        names_of_heads(head)
    with pytest.raises(InputError, match="`head` must be the name of one head"):
        attribute(Two(OUTPUTS["dict"][0]), pictures()[:, :2], head=head)


def test_a_head_of_several_heads_is_refused_by_attribute() -> None:
    with pytest.raises(InputError, match="Give one at a time"):
        attribute(Two(OUTPUTS["dict"][0]), pictures()[:, :2], head=["age", "sex"])  # type: ignore[arg-type]


def test_the_forward_of_a_head_is_at_the_samples_of_the_inner_one() -> None:
    class Shifted(nn.Module):
        def forward(self, images: Tensor, shift: Tensor) -> dict[str, Tensor]:
            return {"plain": images.mean(dim=(2, 3)), "shifted": images.mean(dim=(2, 3)) + shift[:, None]}

    forward = HeadForward(BoundForward(None, {"shift": torch.tensor([1.0, 2.0, 3.0])}), "shifted")
    at = forward_at(forward, [2])
    assert isinstance(at, HeadForward)
    assert at(Shifted(), torch.zeros(1, 2, 4, 4)).tolist() == [[3.0, 3.0]]


# ------------------------------------------------------------------------------------------------------- labels

ASSIGNED: dict[str, tuple[dict[str, int], dict[str, Tensor], dict[str, str], list[str]]] = {
    "by name": ({"age": 1, "sex": 2}, {"sex": SEXES, "age": AGES}, {"age": "age", "sex": "sex"}, []),
    "by name, but for a word": (
        {"sex_logits": 2, "age_head": 1},
        {"sex_label": SEXES, "target_age": AGES},
        {"sex_logits": "sex_label", "age_head": "target_age"},
        [],
    ),
    "by name though others would fit": ({"a": 5, "b": 5}, {"b": SEXES}, {"b": "b"}, []),
    "by shape": ({"0": 3, "1": 2}, {"": FINDINGS}, {"0": ""}, []),
    "measurements": ({"0": 2, "1": 1}, {"": AGES}, {"1": ""}, []),
    "whole numbers beyond every class": ({"0": 2, "1": 1}, {"": torch.tensor([31, 70, 8])}, {"1": ""}, []),
    "several by shape": (
        {"0": 3, "1": 2, "2": 1},
        {"x": SEXES, "y": AGES, "z": FINDINGS},
        {"0": "z", "1": "x", "2": "y"},
        [],
    ),
    "classes that are all of a head": ({"0": 10, "1": 2}, {"": SEXES}, {"1": ""}, []),
    "classes of either head": ({"0": 10, "1": 7}, {"": SEXES}, {"0": ""}, [""]),
    "the first class alone": ({"0": 1, "1": 3}, {"": torch.tensor([0, 0])}, {"1": ""}, []),
    "floats of two classes": ({"0": 2, "1": 1}, {"": SEXES.float()}, {"1": ""}, []),
    "marks of no head": ({"0": 2, "1": 1}, {"": FINDINGS}, {}, []),
    "two heads alike": ({"0": 2, "1": 2}, {"": SEXES}, {"0": ""}, [""]),
    "by order": ({"0": 2, "1": 2}, {"1": SEXES, "2": SEXES}, {"0": "1", "1": "2"}, []),
    "not by order where that does not fit": (
        {"0": 2, "1": 1},
        {"0": AGES, "1": SEXES},
        {"0": "1", "1": "0"},
        [],
    ),
    "a number of classes that no head has": ({"0": 3, "1": 2}, {"": torch.tensor([0, 8])}, {}, []),
    "unlabelled samples": ({"0": 4, "1": 2}, {"": torch.tensor([-100, 3])}, {"0": ""}, []),
    "none": ({"0": 3, "1": 2}, {}, {}, []),
}


@pytest.mark.parametrize("how", ASSIGNED)
def test_labels_are_assigned(how: str) -> None:
    widths, labels, expected, undecided = ASSIGNED[how]
    shapes = {name: Size([width]) for name, width in widths.items()}
    assert assign_labels(shapes, labels) == (expected, undecided)


@pytest.mark.parametrize(
    ("targets", "chosen", "says"),
    [
        (None, "0", True),
        ("predicted", "0", True),
        (SEXES, "1", False),
        (AGES, "0", False),
        (1, "0", True),  # of a single logit, too
        (lambda outputs: outputs[:, 0], "0", True),
        ([0, 1, 1, 0], "1", False),
    ],
)
def test_the_first_head_that_the_targets_fit(
    targets: Any, chosen: str, says: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_gcam.utils.lightning_compat._LOGGED", set())
    with listening() as said:
        assert first_head({"0": Size([1]), "1": Size([2]), "2": Size([5])}, targets) == chosen
    assert bool(said) == says


def test_the_targets_choose_the_head_of_attribute() -> None:
    model = Two(OUTPUTS["tuple"][0])
    assert attribute(
        model, pictures()[:, :2], torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]])
    ).logits.shape == (4, 2)
    assert attribute(model, pictures()[:, :2], AGES).explains == "output"


def test_a_plan_goes_into_a_checkpoint_and_back() -> None:
    plan = HeadPlan(("layer4",), "sex", 2, "sex")
    assert HeadPlan.from_plain(plan.to_plain()) == plan
    for broken in ([], [["layer4"], 3, 2, None], [[4], "sex", 2, None], "layer4"):
        with pytest.raises(InputError, match="`heads` should be lists of layers, name, width and labels"):
            HeadPlan.from_plain(broken)


class Parts(nn.Module):
    """A picture of the images' shape, and heads of some widths beside it."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)
        self.heads = nn.ModuleList(nn.Linear(3, width) for width in widths)

    def forward(self, images: Tensor) -> Any:
        features = self.body(images)
        return features, *(head(features.mean(dim=(2, 3))) for head in self.heads)


def test_beside_a_reconstruction_parts_of_one_width_are_no_heads() -> None:
    images = torch.rand(1, 3, 6, 5)
    assert find_heads(Parts(16, 16), images) == {"0": images.shape[1:]}
    assert find_heads(Parts(16, 16), images, given=["1"])["1"] == Size([16])
    assert find_heads(Parts(4, 2), images) == {
        "1": Size([4]),
        "2": Size([2]),
    }  # a map of classes, and two heads
    assert find_heads(Parts(4), images) == {}
