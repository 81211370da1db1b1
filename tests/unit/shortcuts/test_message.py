"""The alarm's message: its headline, its numbers, what was not checked, and what to try."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from lightning_gcam.metrics import Measurement
from lightning_gcam.shortcuts import (
    Reliance,
    available_properties,
    judge,
    message_of,
    plain_of,
    register_property,
)
from lightning_gcam.shortcuts.detector import KINDS
from lightning_gcam.shortcuts.exchange import property_of, unregister_property
from lightning_gcam.shortcuts.message import (
    advice_of,
    headline_of,
    markdown_of,
    parts_of_markdown,
    rows_of,
)
from tests.unit.shortcuts.test_detector import (
    CHANCE,
    CORNER,
    OBJECT,
    SHORTCUT,
    exchanged,
    looks,
    reliance,
    share,
)

VERDICTS = r"detect|safe|no shortcut|\bshortcut|✓|✔|✅|proof|proves|\bis wrong"
BOTH = reliance(accuracy=1.0, background_only=1.0, object_only=0.0, background_swap=0.1, suspect_swap=0.0)


def finding(measured=SHORTCUT, scores=None):
    return judge(looks(measured, measured, **({} if scores is None else {"scores": scores})))


# -------------------------------------------------------------------------------------------- the headline


@pytest.mark.parametrize(
    ("measured", "headline"),
    [
        (exchanged(), "predictions follow the border"),
        (SHORTCUT, "the class survives without the object"),
        (BOTH, "the class survives without the object; accuracy falls with the suspect region exchanged"),
        (
            exchanged(name="color", border=(0.5, 0.0, 0.0), texture=(0.4, 0.0, 0.0)),
            "predictions follow the colours, the border and the texture",
        ),
        (
            exchanged(
                border=(0.6, 0.0, 0.0),
                texture=(0.5, 0.0, 0.0),
                color=(0.4, 0.0, 0.0),
                background=(0.7, 0.0, 0.0),
            ),
            "predictions follow the background, the border, the texture and 1 more",
        ),
    ],
)
def test_the_headline_is_what_was_found(measured, headline):
    assert headline_of(finding(measured)) == headline
    assert message_of(finding(measured)).splitlines()[0] == headline


def test_the_suspect_region_is_named_also_where_more_than_three_properties_are_followed():
    rates = {"border": 0.9, "texture": 0.8, "suspect": 0.7}
    measured = exchanged(name="color", **{name: (rate, 0.0, 0.0) for name, rate in rates.items()})
    measured.measurements["suspect_swap_accuracy"] = share(0.1, 64)
    assert headline_of(finding(measured)) == (
        "predictions follow the colours, the border, the texture and 1 more; "
        "accuracy falls with the suspect region exchanged"
    )


def test_what_is_followed_and_survives_stands_in_one_headline():
    measured = exchanged()
    measured.measurements["background_only_accuracy"] = share(0.9, 64)
    assert headline_of(finding(measured)) == (
        "predictions follow the border; the class survives without the object"
    )


# -------------------------------------------------------------------------------------------- the numbers


def test_one_number_a_line():
    assert message_of(finding(exchanged(), scores={})).splitlines() == [
        "predictions follow the border",
        "  2 looks in a row, the last at step 20 (epoch 1)",
        "  accuracy                            1.00 [0.94, 1.00]  n = 64  chance 0.10",
        "  predictions that follow the border  0.94 [0.85, 0.98]  n = 64  chance 0.03",
        *(f"  not checked: {each}" for each in finding(exchanged()).unchecked),
        "  try: for the border, crop the images (of signals the ends), or look for tags, frames and rulers at their "
        "edges",
        "  try: remove or exchange it, and validate on images without it",
    ]


def test_the_chance_of_a_follow_rate_is_the_larger_of_its_controls():
    rows = {
        row["what"]: row
        for row in rows_of(finding(exchanged(color=(0.5, 0.0, 0.0), texture=(0.48, 0.1, 0.05))))
    }
    assert rows["predictions that follow the border"]["chance"] == pytest.approx(0.03, abs=0.005)
    assert rows["predictions that follow the colours"]["chance"] == 0.0
    assert rows["predictions that follow the texture"]["chance"] == pytest.approx(0.1, abs=0.01)


def test_the_share_that_is_left_has_a_row_where_it_is_the_evidence():
    rows = {row["what"]: row["value"] for row in rows_of(finding())}
    assert rows["accuracy without the object"] == 0.9375
    assert rows["share left of the accuracy above chance"] == pytest.approx(0.93, abs=0.005)
    better = reliance(accuracy=0.9375, background_only=1.0, object_only=1.0)
    assert [row["value"] for row in rows_of(finding(better)) if row["what"].startswith("share left")] == [1.0]
    assert not any(row["what"].startswith("share left") for row in rows_of(finding(exchanged())))


def test_where_fewer_samples_have_an_object_their_accuracy_stands_beside():
    measured = reliance(accuracy=1.0, background_only=0.9)
    measured.measurements["background_only_accuracy_before"] = share(0.95, 20)
    measured = replace(measured, object_chance=0.3)
    rows = {row["what"]: row for row in rows_of(finding(measured))}
    of_these = rows["accuracy of those with an object"]
    assert (of_these["value"], of_these["n"], of_these["chance"]) == (0.95, 20, 0.3)
    assert rows["accuracy"]["chance"] == CHANCE


def test_the_room_beside_the_object_has_a_row():
    measured = reliance(accuracy=1.0, background_only=0.9375)
    measured.measurements["background_share"] = Measurement(0.4, 16, 0, 0, 0, None)
    (row,) = [
        row for row in rows_of(finding(measured)) if row["what"] == "share of the image beside the object"
    ]
    assert (row["value"], row["n"], row["interval"], row["chance"]) == (0.4, 16, None, None)


def test_the_saliency_has_its_rows():
    rows = {row["what"]: row for row in rows_of(finding(scores=CORNER))}
    assert (rows["saliency on the object"]["value"], rows["saliency on the object"]["chance"]) == (0.2, 0.1)
    assert rows["saliency in the suspect region, over its area"]["value"] == 5.6
    blank = finding(scores={"blank_rate": 1.0})
    assert [row["value"] for row in rows_of(blank) if "blank" in row["what"]] == [1.0]
    assert not any("saliency" in row["what"] for row in rows_of(finding(scores={})))


def test_the_interval_of_the_energy_stands_beside_it():
    shown = [replace(each, intervals={"energy": (0.15, 0.25)}) for each in looks(SHORTCUT, SHORTCUT)]
    rows = {row["what"]: row for row in rows_of(judge(shown))}
    assert rows["saliency on the object"]["interval"] == [0.15, 0.25]
    assert re.search(
        r"saliency on the object +0\.20 \[0\.15, 0\.25\] +chance 0\.10", message_of(judge(shown))
    )


def test_every_property_that_is_followed_has_a_row():
    words = message_of(finding(exchanged(color=(0.5, 0.0, 0.0), texture=(0.48, 0.1, 0.05)), scores={}))
    assert [line.split("  ")[1] for line in words.splitlines() if "predictions that" in line] == [
        "predictions that follow the border",
        "predictions that follow the colours",
        "predictions that follow the texture",
    ]


# --------------------------------------------------------------------------------------------- the advice


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (CORNER, "the saliency agrees"),
        (OBJECT, "the saliency is blind to it"),
        ({"blank_rate": 1.0}, "the saliency is blind to it"),
        ({}, "add scores of the saliency"),
    ],
)
def test_the_advice_follows_from_what_the_saliency_shows(scores, words):
    assert sum(words in each for each in advice_of(finding(scores=scores))) == 1


def test_without_an_object_the_advice_is_of_the_suspect_region_alone():
    fails = reliance(accuracy=1.0, suspect_swap=0.0)
    agrees, blind = (advice_of(finding(fails, scores={"suspect_lift": each})) for each in (5.6, 0.7))
    assert agrees[0] == "look at the suspect region in the overlays: the saliency agrees"
    assert not any("object" in each for each in (*agrees, *blind))


def test_where_the_saliency_is_unclear_more_samples_are_advised():
    scores = {"energy": 0.35, "energy_chance": 0.1}
    shown = [
        replace(each, intervals={"energy": (0.25, 0.4)}) for each in looks(SHORTCUT, SHORTCUT, scores=scores)
    ]
    assert any("`num_samples=`" in each and "unclear" in each for each in advice_of(judge(shown)))


def test_what_covers_the_object_is_advised_only_where_nothing_else_was_found():
    tint = reliance(accuracy=1.0, background_only=1.0)
    assert any("such as a tint" in each for each in advice_of(finding(tint, scores=OBJECT)))
    striped = exchanged()
    striped.measurements["background_only_accuracy"] = share(0.9, 64)
    found = finding(striped, scores=OBJECT)
    assert found.saliency == "is blind"
    assert not any("such as a tint" in each for each in advice_of(found))
    assert any(each.startswith("for the border, crop") for each in advice_of(found))


def test_beside_a_followed_property_the_saliency_is_not_judged():
    assert not any("saliency" in each for each in advice_of(finding(exchanged(), scores=OBJECT)))


@pytest.mark.parametrize(
    ("measured", "may_belong"),
    [
        (exchanged(name="color"), True),
        (exchanged(name="background"), True),
        (SHORTCUT, True),
        (exchanged(), False),
        (reliance(accuracy=1.0, suspect_swap=0.0), False),
    ],
)
def test_whether_it_is_legitimate_context_is_left_to_the_reader(measured, may_belong):
    assert any("may be legitimate context" in each for each in advice_of(finding(measured))) == may_belong


@pytest.mark.parametrize("name", sorted({*available_properties()} - {"object"}))
def test_every_property_has_words_and_a_next_step(name):
    words = message_of(finding(exchanged(name=name)))
    remedy = property_of(name).remedy
    assert remedy and f", {remedy}\n" in words
    assert 'the property "' not in words
    assert not re.search(VERDICTS, words, re.IGNORECASE)


def test_a_property_of_the_users_goes_by_its_name():
    register_property("left_half", remedy="flip the images at random")(lambda images, donors: donors)
    try:
        found = finding(exchanged(name="left_half"))
        assert headline_of(found) == 'predictions follow the property "left_half"'
        assert 'try: for the property "left_half", flip the images at random\n' in message_of(found)
    finally:
        unregister_property("left_half")
    assert 'try: for the property "left_half", look at the exchanged images\n' in message_of(found)


@pytest.mark.parametrize("scores", [CORNER, OBJECT, {"blank_rate": 1.0}, {}])
def test_no_verdict_is_ever_spoken(scores):
    assert not re.search(VERDICTS, message_of(finding(BOTH, scores=scores)), re.IGNORECASE)


# --------------------------------------------------------------------------------------- as plain numbers


def test_a_finding_as_plain_numbers():
    plain = plain_of(finding())
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert {
        "step": 20,
        "epoch": 1,
        "background_only_accuracy": 0.9375,
        "accuracy_chance": 0.1,
        "headline": "the class survives without the object",
        "properties": [],
    }.items() <= plain.items()
    assert {
        "accuracy_n": 16,
        "energy": 0.2,
        "suspect_lift": 5.6,
        "saliency": "agrees",
    }.items() <= plain.items()
    assert plain["accuracy_interval"] == pytest.approx([0.806, 1.0], abs=1e-3)
    assert plain["message"] == message_of(finding())
    assert (plain["evidence"], plain["advice"]) == (rows_of(finding()), advice_of(finding()))
    assert plain["unchecked"] == list(finding().unchecked)


def test_a_followed_property_as_plain_numbers():
    measured = exchanged(color=(0.5, 0.0, 0.0))
    plain = plain_of(finding(measured, scores={}))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["properties"] == ["border", "color"]
    assert plain["kinds"] == ["follows the border", "follows the color"]
    for each in ("follow_rate", "follow_chance", "same_class_follow_rate", "swap_accuracy"):
        assert plain[f"border_{each}"] == measured.measurements[f"border_{each}"].value
        assert plain[f"border_{each}_n"] == 64
        assert len(plain[f"border_{each}_interval"]) == 2


# --------------------------------------------------------------------------------------------- as Markdown


@pytest.mark.parametrize("measured", [SHORTCUT, BOTH, exchanged()])
def test_markdown_is_read_back(measured):
    plain = plain_of(finding(measured))
    parts = parts_of_markdown(markdown_of(plain))
    assert parts["headline"] == plain["headline"]
    assert (parts["advice"], parts["unchecked"]) == (plain["advice"], plain["unchecked"])
    assert [row["what"] for row in parts["evidence"]] == [row["what"] for row in plain["evidence"]]
    for read, row in zip(parts["evidence"], plain["evidence"], strict=True):
        assert read["value"] == pytest.approx(row["value"], abs=0.0051)
        assert (read["n"], read["interval"] is None) == (row["n"], row["interval"] is None)


def test_an_alert_of_its_message_alone_is_a_paragraph_a_line():
    assert markdown_of({"message": "one\ntwo"}) == "one\n\ntwo"
    assert parts_of_markdown("one\n\ntwo") == parts_of_markdown("") == {}


def test_rows_that_are_none_are_passed_over():
    text = "### found\n\n| what | value |\n| --- | --- |\n| a | b |\n| accuracy | much | | 3 | 0.1 |"
    assert parts_of_markdown(text)["evidence"] == []


def test_a_kind_of_its_own_without_a_number_has_no_row():
    nothing = Reliance({"accuracy": share(1.0, 16)}, CHANCE)
    found = replace(
        finding(), kinds=KINDS[:1], evidence=replace(finding().evidence, reliance=nothing, scores={})
    )
    assert [row["what"] for row in rows_of(found)] == ["accuracy"]
