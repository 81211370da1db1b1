"""A checkpoint that cannot be used, or that holds looks of another kind: the run begins afresh, and says so once."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import ModelCheckpoint

from lightning_gcam import SaliencyBatch, SaliencyMonitor, ShortcutAlarm
from lightning_gcam.callbacks.resuming import CheckpointState
from lightning_gcam.utils.errors import InputError
from tests.support.toys import (
    LIGHTNING_SAYS,
    Toy,
    steps_of,
    toy_loader,
    toy_network,
    toy_samples,
    toy_trainer,
)

pytestmark = [*LIGHTNING_SAYS, pytest.mark.filterwarnings("ignore:.*training goes on without it")]

AFRESH = "Going on with the looks of the checkpoint"


def monitor(**options: Any) -> SaliencyMonitor:
    return SaliencyMonitor(**{"num_samples": 8, "checks": [], "scores": ["energy", "drift"], **options})


def run(
    root: Path, *callbacks: Any, resume: Path | None = None, module: Any = None
) -> tuple[Path, list[str]]:
    """The checkpoint of a run of two epochs, or of one that goes on to the third; and what was warned of."""
    epochs = 2 if resume is None else 3
    checkpoint = ModelCheckpoint(root / f"until_{epochs}", filename="last")
    trainer = toy_trainer(root, *callbacks, checkpoint, enable_checkpointing=True, max_epochs=epochs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        trainer.fit(module or Toy(), toy_loader(32), toy_loader(), ckpt_path=resume)
    assert trainer.state.finished
    said = [str(each.message) for each in caught]
    return Path(checkpoint.best_model_path), [each for each in said if "afresh" in each]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two looks, at steps 3 and 7."""
    torch.manual_seed(0)
    return run(tmp_path_factory.mktemp("saved"), monitor(), ShortcutAlarm())[0]


def rewritten(
    root: Path, saved: Path, change: Callable[[dict[str, Any]], Any], kind: str = "Monitor"
) -> Path:
    """The checkpoint with another state of a callback."""
    whole = torch.load(saved, weights_only=True)
    (key,) = [each for each in whole["callbacks"] if kind in each]
    state = whole["callbacks"][key]
    returned = change(state)
    whole["callbacks"][key] = state if returned is None else returned
    path = root / "changed.ckpt"
    torch.save(whole, path)
    return path


def set_in(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(state: dict[str, Any]) -> None:
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = to

    return change


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no history": (lambda state: state.pop("history") and None, '`state` has no "history"'),
    "no samples": (
        lambda state: state["fixed_batch"].pop("samples") and None,
        '`fixed_batch` has no "samples"',
    ),
    "one more": (set_in("colour", to=1), '`state` has "colour", which is not known'),
    "one more of the samples": (set_in("fixed_batch", "samples", "tint", to=1), '`samples` has "tint"'),
    "a list": (lambda state: [1, 2], "`state` should be a dict; got list"),
    "history of another type": (set_in("history", to={"step": 1}), "`history` should be a list"),
    "rows of another type": (
        set_in("history", to=[{"step": "one", "epoch": 0}]),
        "should be rows of numbers",
    ),
    "a layer of another type": (set_in("target_layer", to=5), "`target_layer` should be a name"),
    "images of another type": (
        set_in("fixed_batch", "samples", "images", to=[1]),
        "`samples` cannot be read",
    ),
    "positions too few": (set_in("fixed_batch", "positions", to=[0]), "a whole number for each sample"),
    "memory of another type": (set_in("memory", "maps", to=[]), "`maps` should be a dict; got list"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_state_that_cannot_be_used_begins_afresh(tmp_path: Path, saved: Path, how: str) -> None:
    change, words = BROKEN[how]
    after = monitor()

    _, said = run(tmp_path, after, resume=rewritten(tmp_path, saved, change))

    assert len(said) == 1
    assert AFRESH in said[0]
    assert "begins afresh" in said[0]
    assert words in said[0]
    assert steps_of(after.history) == [11]
    assert len(after.last_record.batch) == 8
    assert "drift" not in after.history[0], "there is no look before it"


def test_an_error_where_that_is_asked_for(tmp_path: Path, saved: Path) -> None:
    changed = rewritten(tmp_path, saved, BROKEN["no history"][0])
    with pytest.raises(InputError, match='`state` has no "history"'):
        run(tmp_path, monitor(on_error="raise"), resume=changed)


def test_an_alarm_whose_state_cannot_be_used_begins_afresh(tmp_path: Path, saved: Path) -> None:
    for number, (change, words) in enumerate(
        [
            (
                set_in("watches", to={"saliency": {"recent": [1], "told": []}}),
                '`watches` of "saliency" cannot be read',
            ),
            (lambda state: {"watches": state["watches"]}, '`state` has no "alerts"'),
        ]
    ):
        alarm = ShortcutAlarm()
        root = tmp_path / str(number)
        root.mkdir()
        _, said = run(root, monitor(), alarm, resume=rewritten(root, saved, change, "Alarm"))
        assert len(said) == 1
        assert words in said[0]
        assert alarm.alerts == []


@st.composite
def changes(draw: st.DrawFn) -> list[Any]:
    """Where to change a state, and to what."""
    return [draw(st.integers(0, 10**6)), draw(st.sampled_from(["drop", "add", "type"])), draw(ANYTHING)]


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@given(st.lists(changes(), min_size=1, max_size=3))
@settings(max_examples=40)
def test_whatever_is_in_it_a_state_is_read_whole_or_refused(edits: list[list[Any]]) -> None:
    state = copy.deepcopy(STATE)
    for where, how, value in edits:
        nodes = [node for node in _nodes(state) if node]
        node = nodes[where % len(nodes)]
        key = sorted(node)[where % len(node)]
        if how == "drop":
            del node[key]
        else:
            node[key if how == "type" else "further"] = value
    try:
        kept = CheckpointState.of(state)
    except InputError:
        return
    after = monitor()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is not compared
        after._resume(kept)  # nothing is left that raises
    if after._collection.fixed.is_closed:
        assert len(after._collection.fixed.samples) in (0, 2)
    after.state_dict()


def _nodes(state: Any) -> list[dict[str, Any]]:
    if not isinstance(state, dict):
        return []
    return [state, *(node for each in state.values() for node in _nodes(each))]


STATE: dict[str, Any] = {
    "fixed_batch": {
        "samples": SaliencyBatch(*toy_samples(2)).state_dict(),
        "positions": [0, 1],
        "chunk": 2,
        "passed_over": [0, 0],
    },
    "target_layer": "network.5",
    "history": [{"step": 3, "epoch": 0, "energy": 0.5}],
    "settings": dict(monitor()._settings),
    "memory": {"maps": {"first": {}}, "confidence": 0.5, "step": 3, "tops": {"grad_cam": 1.0}},
}


# ------------------------------------------------------------------------------------ looks of another kind

OTHERS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "num_samples": ({"num_samples": 4}, "`num_samples` was 8 and is 4", False),
    "selection": ({"selection": [3, 1]}, "`selection` was 'balanced' and is [3, 1]", False),
    "methods": ({"methods": "layer_cam"}, "`methods` was ['guidance_cam'] and is ['layer_cam']", True),
    "targets": ({"targets": "predicted"}, "`targets` was 'label' and is 'predicted'", True),
    "target_layer": (
        {"target_layer": "network.2"},
        "`target_layer` was ['network.5'] and is 'network.2'",
        True,
    ),
    "batch": ({"batch": SaliencyBatch(*toy_samples(3, seed=4))}, "`batch` was None and is 'given'", False),
}


@pytest.mark.parametrize("what", OTHERS)
def test_looks_that_cannot_be_compared_are_not_continued(tmp_path: Path, saved: Path, what: str) -> None:
    options, words, keeps_samples = OTHERS[what]
    after = monitor(**options)

    _, said = run(tmp_path, after, resume=saved)

    assert len(said) == 1
    assert words in said[0]
    assert ("Its history is not used" in said[0]) == keeps_samples
    assert steps_of(after.history) == [11]
    expected = {"num_samples": 4, "selection": 2, "batch": 3}.get(what, 8)
    assert len(after.last_record.batch) == expected
    if what == "selection":
        assert torch.equal(after.last_record.batch.images, toy_samples(24)[0][[3, 1]])


def test_other_samples_by_hand_do_not_go_on(tmp_path: Path) -> None:
    path, _ = run(tmp_path, monitor(batch=SaliencyBatch(*toy_samples(3))))
    after = monitor(batch=SaliencyBatch(*toy_samples(3, seed=4)))

    _, said = run(tmp_path, after, resume=path)

    assert len(said) == 1
    assert "`batch` holds other samples" in said[0]
    assert steps_of(after.history) == [11]


def test_the_same_samples_by_hand_go_on(tmp_path: Path) -> None:
    given_by_hand = SaliencyBatch(*toy_samples(3))
    path, _ = run(tmp_path, monitor(batch=given_by_hand))
    after = monitor(batch=SaliencyBatch(*toy_samples(3)))

    _, said = run(tmp_path, after, resume=path)

    assert said == []
    assert steps_of(after.history) == [3, 7, 11]


def test_a_layer_that_is_gone_is_searched_anew(tmp_path: Path, saved: Path) -> None:
    changed = rewritten(tmp_path, saved, set_in("target_layer", to="body.7.gone"))
    after = monitor()

    _, said = run(tmp_path, after, resume=changed)

    (told,) = said
    assert "The layer of the checkpoint (body.7.gone) cannot be looked at in this model" in told
    assert 'the looks are at "network.5"' in told
    assert after.last_record.attribution.target_layer == "network.5"
    assert steps_of(after.history) == [11]


def test_a_layer_of_a_checkpoint_is_not_one_that_was_named(tmp_path: Path, saved: Path) -> None:
    """In the next run, on another model, the layer is searched again."""
    after = monitor()
    run(tmp_path, after, resume=saved)
    assert after.target_layer is None

    other = Toy(
        torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), *list(toy_network()[6:8]), torch.nn.Linear(4, 4)
        )
    )
    toy_trainer(tmp_path, after, max_epochs=1).fit(other, toy_loader(32), toy_loader())

    assert after.last_record.attribution.target_layer == "network.1"
