"""The rule of the alarm: on which looks it alerts, and its message."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import (
    Evidence,
    Reliance,
    Thresholds,
    judge,
)
from lightning_gcam.shortcuts.detector import KINDS, follow_excess, judged_by, kinds_of, unchecked_of
from lightning_gcam.shortcuts.message import headline_of
from lightning_gcam.shortcuts.shares import wilson_interval

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


def exchanged(
    rate: float = 0.94,
    chance: float = 0.02,
    same: float | None = 0.03,
    name: str = "border",
    *,
    accuracy: float = 1.0,
    guess: float = CHANCE,
    n: int = 64,
    mates: int = 64,
    **others: tuple[float, float, float],
) -> Reliance:
    """What an exchange measured: the follow rate, its chance, and that of the same edit within a class."""
    found = {"accuracy": share(accuracy, n)}
    for each, (follows, before, within) in {name: (rate, chance, same), **others}.items():
        found[f"{each}_swap_accuracy"] = share(1 - follows, n)
        found[f"{each}_follow_rate"], found[f"{each}_follow_chance"] = share(follows, n), share(before, n)
        if within is not None:
            found[f"{each}_same_class_accuracy"] = share(1 - within, mates)
            found[f"{each}_same_class_follow_rate"] = share(within, mates)
    return Reliance(found, guess)


def share(value: float, n: int) -> Measurement:
    return Measurement(value if n else float("nan"), n, 0, 0, 64 - n, wilson_interval(round(value * n), n))


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
        reliance(accuracy=1.0, background_only=0.5),  # 0.444 of what lies above chance
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
    half = reliance(accuracy=1.0, background_only=0.6875)  # 0.65 of what lies above chance
    assert judge(looks(half, half)) is not None
    assert judge(looks(half, half), Thresholds(survives=0.7)) is None
    dying = reliance(accuracy=1.0, suspect_swap=0.4375)
    assert judge(looks(dying, dying)) is not None
    assert judge(looks(dying, dying), Thresholds(dies=0.7)) is None


def test_what_a_trusted_network_keeps_has_to_be_exceeded_clearly():
    half = reliance(n=64, accuracy=1.0, background_only=0.625)  # 0.58 of what lies above chance
    assert judge(looks(half, half), Thresholds(survives=0.5, trusted_share=0.38)) is not None
    assert judge(looks(half, half), Thresholds(survives=0.5, trusted_share=0.5)) is None
    assert judge(looks(half, half), Thresholds(survives=0.6, trusted_share=0.38)) is None
    few = reliance(n=16, accuracy=1.0, background_only=0.625)
    assert judge(looks(few, few), Thresholds(survives=0.5)) is not None
    assert judge(looks(few, few), Thresholds(survives=0.5, trusted_share=0.38)) is None


def test_the_more_looks_there_were_the_more_is_asked_of_one():
    """The same 6 of 16 at two looks in a row: the first two, and the last two of a hundred."""
    measured, low = reliance(accuracy=0.625, background_only=0.375), Thresholds(survives=0.25)
    assert judge(looks(measured, measured), low) is not None
    assert judge(looks(measured, measured), low, looks_so_far=100) is None
    assert judge(looks(*[reliance(accuracy=1.0)] * 98, measured, measured), low) is None
    never_above = reliance(accuracy=0.125)
    assert judge(looks(*[never_above] * 98, measured, measured), low) is not None, "these could show nothing"
    assert (
        kinds_of(measured, low, looks_so_far=2) == KINDS[:1]
        and kinds_of(measured, low, looks_so_far=100) == ()
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"survives": 0},
        {"dies": 1.1},
        {"energy": "half"},
        {"suspect_lift": -1},
        {"follows": True},
        {"trusted_share": 1},
    ],
)
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


@pytest.mark.parametrize(
    ("chance", "interval", "expected"),
    [
        (0.1, (0.5, 0.7), "is blind"),
        (0.1, (0.25, 0.4), "is unclear"),  # more than chance, but hardly
        (0.1, (0.15, 0.25), "agrees"),  # most of it lies outside
        (0.56, (0.5, 0.62), "agrees"),  # a large object: a map that lies anywhere
        (0.56, (0.6, 0.8), "is unclear"),
        (0.56, (0.7, 0.8), "is blind"),
    ],
)
def test_the_energy_is_compared_with_its_chance_by_its_interval(chance, interval, expected):
    scores = {"energy": sum(interval) / 2, "energy_chance": chance}
    shown = [
        replace(each, intervals={"energy": interval}) for each in looks(SHORTCUT, SHORTCUT, scores=scores)
    ]
    assert judge(shown).saliency == expected


def test_an_energy_without_its_chance_is_compared_with_none():
    assert judge(looks(SHORTCUT, SHORTCUT, scores={"energy": 0.2})).saliency == "agrees"
    assert judge(looks(SHORTCUT, SHORTCUT, scores={"energy": 0.3})).saliency == "is blind"


def test_evidence_comes_back_from_json():
    evidence = replace(looks(SHORTCUT)[0], intervals={"energy": (0.1, 0.3)})
    assert Evidence.from_plain(json.loads(json.dumps(evidence.to_plain()))) == evidence


def test_evidence_of_earlier_versions_is_read_without_intervals():
    plain = looks(SHORTCUT)[0].to_plain()
    del plain["intervals"]
    assert Evidence.from_plain(plain) == looks(SHORTCUT)[0]


# --------------------------------------------------------------------------------------- what is not checked


def test_a_finding_names_what_no_check_could_show():
    found = judge(looks(SHORTCUT, SHORTCUT))
    assert found.unchecked == unchecked_of(SHORTCUT)
    assert found.unchecked == (
        "the properties color, spectrum, texture, border, salient_region",
        "cues on the object itself",
    )


@pytest.mark.parametrize(
    ("measured", "background"),
    [
        (
            reliance(accuracy=1.0, suspect_swap=1.0),
            "the background, and marks at any place: they take masks or boxes",
        ),
        (
            replace(reliance(accuracy=1.0, background_only=1.0), object_chance=1.0),
            "the background: the samples with an object are of one class",
        ),
        (
            Reliance({"accuracy": share(1.0, 64), "background_only_accuracy": share(0.0, 0)}, CHANCE),
            "the background: no object leaves enough of the picture",
        ),
    ],
    ids=["a suspect region only", "one class", "objects that fill the image"],
)
def test_where_the_background_is_not_checked_the_reason_is_said(measured, background):
    assert unchecked_of(measured)[0] == background
    assert unchecked_of(measured)[-1] == "cues on the object itself"


def test_of_the_object_only_what_is_exchanged_is_checked():
    measured = exchanged(color=(0.0, 0.0, 0.0), texture=(0.0, 0.0, 0.0), salient_region=(0.0, 0.0, 0.0))
    assert unchecked_of(measured)[1:] == (
        "the property spectrum",
        "cues on the object itself beyond its color, texture",
    )


# ----------------------------------------------------------------------------------------- without masks


def test_a_followed_property_is_a_kind_of_its_own():
    found = judge(looks(exchanged(), exchanged(), scores={}))
    assert (found.kinds, found.properties) == (("follows the border",), ("border",))
    assert (found.saliency, found.looks) == ("is not judged", 2)
    assert judge(looks(exchanged())) is None
    assert judge(looks(exchanged(), exchanged(name="texture"))) is None
    assert judge(looks(exchanged(), exchanged(rate=0.02), exchanged())) is None


@pytest.mark.parametrize(
    "quiet",
    [
        exchanged(rate=0.02),
        exchanged(rate=0.15),  # the intervals meet
        exchanged(rate=0.94, chance=0.8),
        exchanged(rate=0.5, same=0.4),  # the edit alone does nearly the same
        exchanged(rate=0.94, same=0.5, mates=2),  # too few samples of one class to know that
        exchanged(accuracy=0.125),  # accuracy itself is not clearly above chance
        exchanged(n=8, mates=8, rate=0.5, chance=0.0, same=0.0),
        exchanged(name="object"),
        exchanged(same=None, guess=0.5),
        exchanged(n=0, mates=0),
        reliance(accuracy=1.0),  # the checks wait
    ],
    ids=[
        "kept",
        "hardly",
        "as before",
        "as within a class",
        "few mates",
        "at chance",
        "few samples",
        "the object",
        "two classes without a control",
        "no sample",
        "waiting",
    ],
)
def test_where_nothing_is_said_to_be_followed(quiet):
    assert judge(looks(quiet, quiet)) is None


def test_it_is_the_larger_control_that_counts():
    assert follow_excess(exchanged(rate=0.5, chance=0.1, same=0.3)) == {"border": pytest.approx(0.2)}
    assert follow_excess(exchanged(rate=0.5, chance=0.3, same=0.1)) == {"border": pytest.approx(0.2)}
    assert follow_excess(exchanged(rate=0.5, chance=0.1, same=None)) == {"border": pytest.approx(0.4)}
    assert follow_excess(reliance(accuracy=1.0)) == {}
    measured = exchanged(rate=0.5, chance=0.05, same=0.1)
    assert kinds_of(measured, Thresholds(follows=0.39)) == ("follows the border",)
    assert kinds_of(measured, Thresholds(follows=0.41)) == ()


def test_two_classes_are_judged_by_the_control_within_a_class():
    """There what is not kept follows: 0.6 of the predictions, and as many where the donor is of the own class."""
    broken = exchanged(rate=0.6, chance=0.02, same=0.6, guess=0.5)
    followed = exchanged(rate=0.94, chance=0.02, same=0.05, guess=0.5)
    assert judge(looks(broken, broken)) is None
    assert judge(looks(followed, followed)).properties == ("border",)
    unknown = exchanged(rate=0.94, same=None, guess=0.5)
    assert judged_by(unknown) == () and judge(looks(unknown, unknown)) is None
    several = exchanged(
        rate=0.94, same=None, guess=0.25
    )  # four classes, a sample each: what fails need not follow
    assert judged_by(several) == ("border",) and judge(looks(several, several)) is not None


@pytest.mark.parametrize(
    ("guess", "rate", "is_named"), [(0.5, 0.6, 0), (0.5, 0.75, 1), (0.25, 0.3, 0), (0.25, 0.4, 1)]
)
def test_a_guess_is_no_following(guess, rate, is_named):
    """An edit that takes away what tells the class leaves a guess, which is the donor's class in a share `guess`."""
    measured = exchanged(rate=rate, chance=0.02, same=0.02, guess=guess)
    assert len(kinds_of(measured)) == is_named
    several = exchanged(
        rate=rate, chance=0.02, same=0.02, guess=0.9, accuracy=1.0
    )  # of marks, or of a rare class
    assert len(kinds_of(several)) == (rate == 0.75)


def test_the_one_that_is_followed_the_most_is_named_first():
    tint = exchanged(name="spectrum", rate=0.74, color=(0.46, 0.0, 0.0), texture=(0.02, 0.0, 0.0))
    assert judge(looks(tint, tint)).properties == ("spectrum", "color")
    less = exchanged(name="spectrum", rate=0.7, color=(0.74, 0.0, 0.0))
    assert judge(looks(tint, less)).properties == ("color", "spectrum")


def test_the_spectrum_has_to_be_followed_by_more_than_any_other():
    followed = exchanged(name="spectrum", rate=0.5, border=(0.5, 0.0, 0.0))
    assert kinds_of(followed) == ("follows the border",)
    assert kinds_of(followed, Thresholds(follows=0.1)) == ("follows the border",)


def test_with_a_trusted_share_the_background_counts_where_the_class_survives_as_well():
    followed = exchanged(name="background", rate=0.74, n=64)
    assert kinds_of(followed) == ("follows the background",)
    trusting = Thresholds(trusted_share=0.38)
    assert kinds_of(followed, trusting) == ()
    kept = reliance(n=64, accuracy=1.0, background_only=0.95)
    both = replace(followed, measurements={**followed.measurements, **kept.measurements})
    assert kinds_of(both, trusting) == ("survives without the object", "follows the background")


def test_with_masks_both_kinds_of_evidence_count():
    measured = exchanged()
    measured.measurements["background_only_accuracy"] = share(0.9, 64)
    found = judge(looks(measured, measured))
    assert found.kinds == (KINDS[0], "follows the border")
    assert found.saliency == "agrees"


def test_a_region_that_dies_and_is_followed_is_named_once():
    measured = exchanged(name="suspect", rate=0.95)
    found = judge(looks(measured, measured))
    assert found.kinds == (KINDS[1], "follows the suspect")
    assert headline_of(found) == "predictions follow the suspect region"
