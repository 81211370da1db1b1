"""The rule of the alarm: on which looks it alerts, and its message."""

from __future__ import annotations

import json
import re

import pytest

from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import Evidence, Reliance, Thresholds, judge, message_of, plain_of
from lightning_gcam.shortcuts.detector import KINDS
from lightning_gcam.shortcuts.results import wilson_interval

CHANCE = 0.1
CORNER = {"energy": 0.2, "energy_chance": 0.1, "suspect_lift": 5.6, "blank_rate": 0.0}
OBJECT = {"energy": 0.81, "energy_chance": 0.1, "suspect_lift": 0.7, "blank_rate": 0.0}


def reliance(n: int = 16, chance: float = CHANCE, **accuracies: float) -> Reliance:
    """Accuracies by name; `accuracy`, `background_only` and so on."""
    names = {name: name if name == "accuracy" else f"{name}_accuracy" for name in accuracies}
    return Reliance(
        {
            names[name]: Measurement(value, n, 0, 0, 0, wilson_interval(round(value * n), n))
            for name, value in accuracies.items()
        },
        chance,
    )


def looks(*each: Reliance, scores=CORNER) -> list[Evidence]:
    return [Evidence(10 * (index + 1), index, one, scores) for index, one in enumerate(each)]


SHORTCUT = reliance(accuracy=1.0, background_only=0.9375, object_only=0.125)
HONEST = reliance(accuracy=1.0, background_only=0.125, object_only=0.9375, suspect_swap=1.0)


# ------------------------------------------------------------------------------------------------ the rule


def test_one_look_is_not_enough_and_two_are():
    assert judge(looks(SHORTCUT)) is None
    assert judge([]) is None
    found = judge(looks(SHORTCUT, SHORTCUT))
    assert (found.kinds, found.saliency, found.looks) == (KINDS[:1], "agrees", 2)
    assert found.evidence.step == 20
    assert judge(looks(SHORTCUT), looks_in_a_row=1).looks == 1


def test_the_looks_have_to_follow_each_other():
    assert judge(looks(SHORTCUT, HONEST, SHORTCUT)) is None
    assert judge(looks(HONEST, SHORTCUT, SHORTCUT)) is not None
    assert judge(looks(SHORTCUT, SHORTCUT, HONEST)) is None


def test_both_looks_have_to_show_the_same():
    dies = reliance(accuracy=1.0, suspect_swap=0.0)
    assert judge(looks(SHORTCUT, dies)) is None
    assert judge(looks(dies, dies)).kinds == KINDS[1:]
    both = reliance(accuracy=1.0, background_only=1.0, suspect_swap=0.0)
    assert judge(looks(both, both)).kinds == KINDS
    assert judge(looks(both, dies)).kinds == KINDS[1:]


@pytest.mark.parametrize(
    "quiet",
    [
        HONEST,
        Reliance({}, CHANCE),
        reliance(accuracy=1.0),
        reliance(accuracy=0.1875, background_only=0.1875),  # accuracy itself is not clearly above chance
        reliance(accuracy=1.0, background_only=0.3125),  # 0.236 of what lies above chance
        reliance(n=4, accuracy=1.0, background_only=0.5, chance=0.25),  # too few samples to tell
        reliance(accuracy=0.9375, suspect_swap=0.6875),
        reliance(accuracy=0.75, suspect_swap=0.375),  # more than half is gone, but the intervals meet
    ],
    ids=[
        "honest",
        "nothing measured",
        "no check",
        "at chance",
        "little survives",
        "few samples",
        "little dies",
        "unsure",
    ],
)
def test_where_it_keeps_silent(quiet):
    assert judge(looks(quiet, quiet)) is None


def test_a_check_without_a_sample_says_nothing():
    accuracy = Measurement(1.0, 16, 0, 0, 0, wilson_interval(16, 16))
    nothing = Measurement(float("nan"), 0, 0, 0, 16, None)
    measured = Reliance(
        {"accuracy": accuracy, "background_only_accuracy": nothing, "suspect_swap_accuracy": nothing}, CHANCE
    )
    assert judge(looks(measured, measured)) is None


def test_thresholds_move_the_rule():
    half = reliance(accuracy=1.0, background_only=0.625)
    assert judge(looks(half, half)) is not None
    assert judge(looks(half, half), Thresholds(survives=0.7)) is None
    dying = reliance(accuracy=1.0, suspect_swap=0.4375)
    assert judge(looks(dying, dying)) is not None
    assert judge(looks(dying, dying), Thresholds(dies=0.7)) is None


@pytest.mark.parametrize("wrong", [{"survives": 0}, {"dies": 1.1}, {"energy": "half"}, {"suspect_lift": -1}])
def test_thresholds_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` of `thresholds` must be"):
        Thresholds(**wrong)


@pytest.mark.parametrize(
    ("kinds", "scores", "expected"),
    [
        (KINDS[:1], CORNER, "agrees"),
        (KINDS[:1], OBJECT, "is blind"),
        (KINDS[1:], {"suspect_lift": 3.0}, "agrees"),
        (KINDS[1:], OBJECT, "is blind"),
        (KINDS[:1], {"energy": 0.2, "energy_chance": 0.05}, "is blind"),  # little, but four times chance
        (KINDS[:1], {"suspect_lift": 3.0}, "is not there"),
        (KINDS[:1], {"blank_rate": 1.0}, "is blind"),
        (KINDS[:1], {}, "is not there"),
    ],
)
def test_what_the_saliency_says_beside_it(kinds, scores, expected):
    values = {KINDS[0]: {"background_only": 1.0}, KINDS[1]: {"suspect_swap": 0.0}}
    measured = reliance(
        accuracy=1.0, **{name: value for kind in kinds for name, value in values[kind].items()}
    )
    found = judge(looks(measured, measured, scores=scores))
    assert (found.kinds, found.saliency) == (kinds, expected)


def test_evidence_comes_back_from_json():
    evidence = looks(SHORTCUT)[0]
    assert Evidence.from_plain(json.loads(json.dumps(evidence.to_plain()))) == evidence


# ----------------------------------------------------------------------------------------------- the words


def test_the_words_hold_what_was_measured():
    words = message_of(judge(looks(SHORTCUT, SHORTCUT)))
    assert words.startswith("2 looks in a row, the last at step 20 (epoch 1). ")
    assert "Accuracy on the fixed samples is 1.00 [0.81, 1.00], n = 16, chance 0.10; " in words
    assert (
        "with the object removed it is 0.94 [0.72, 0.99], n = 16 (93% of what lies above chance is left)"
        in words
    )
    assert "with only the object left it is 0.12" in words
    assert "consistent with reliance on evidence outside of the object." in words
    assert (
        "The saliency agrees: 0.20 of it lies on the object (chance 0.10); in the suspect region it is 5.6"
        in words
    )
    assert "What to try next: look at the overlays" in words


def test_no_share_is_named_where_a_change_made_it_better():
    measured = reliance(accuracy=0.9375, background_only=0.9375, object_only=1.0)
    words = message_of(judge(looks(measured, measured)))
    assert "with the object removed it is 0.94 [0.72, 0.99], n = 16 (100% of what" in words
    assert re.search(r"with only the object left it is 1\.00 \[[^]]*\], n = 16[.;]", words)


def test_the_words_where_the_saliency_is_blind():
    tint = reliance(accuracy=1.0, background_only=1.0)
    on_object = message_of(judge(looks(tint, tint, scores=OBJECT)))
    assert "The saliency does not show it: 0.81 of it lies on the object" in on_object
    assert "What to try next: look for what covers the object as well" in on_object
    assert "every map is blank" in message_of(judge(looks(tint, tint, scores={"blank_rate": 1.0})))
    assert "No score of the saliency" in message_of(judge(looks(tint, tint, scores={})))


def test_both_kinds_in_words():
    both = reliance(accuracy=1.0, background_only=1.0, suspect_swap=0.0)
    words = message_of(judge(looks(both, both)))
    assert "reliance on evidence outside of the object and on the suspect region." in words
    assert "with the suspect region of another class it is 0.00 [0.00, 0.19], n = 16 (0% of what" in words


@pytest.mark.parametrize("scores", [CORNER, OBJECT, {"blank_rate": 1.0}, {}])
def test_no_verdict_is_ever_spoken(scores):
    both = reliance(accuracy=1.0, background_only=1.0, object_only=0.0, background_swap=0.1, suspect_swap=0.0)
    words = message_of(judge(looks(both, both, scores=scores)))
    assert not re.search(
        r"detect|safe|no shortcut|\bshortcut|✓|✔|✅|proof|proves|\bis wrong", words, re.IGNORECASE
    )


def test_a_finding_as_plain_numbers():
    plain = plain_of(judge(looks(SHORTCUT, SHORTCUT)))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert {
        "step": 20,
        "epoch": 1,
        "background_only_accuracy": 0.9375,
        "accuracy_chance": 0.1,
    }.items() <= plain.items()
    assert {
        "accuracy_n": 16,
        "energy": 0.2,
        "suspect_lift": 5.6,
        "saliency": "agrees",
    }.items() <= plain.items()
    assert plain["accuracy_interval"] == pytest.approx([0.806, 1.0], abs=1e-3)
    assert plain["message"] == message_of(judge(looks(SHORTCUT, SHORTCUT)))
