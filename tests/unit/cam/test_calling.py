"""How a model is called: as it is, by a keyword, through its only part; and what is said where that cannot be."""

from __future__ import annotations

import gc
import re
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_gcam import SaliencyBatch, attribute
from lightning_gcam.callbacks.distributed import _standing_in
from lightning_gcam.cam import find_target_layer
from lightning_gcam.cam.calling import (
    BoundForward,
    WrappedForward,
    bound_to,
    call_model,
    forward_at,
    inputs_taken,
)
from lightning_gcam.utils.errors import InputError
from tests.support.nets import bits, cnn, pictures
from tests.support.toys import listening


class Holder(nn.Module):
    """Parts, and no forward."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def same_as_the_network(model: nn.Module, layer: str, **options: Any) -> None:
    """The maps are those of the network by itself; the layer has its name in the whole."""
    found = attribute(model, pictures(), methods=["guidance_cam", "grad_cam"], **options)
    expected = attribute(cnn("flat"), pictures(), methods=["guidance_cam", "grad_cam"])
    assert found.target_layer == layer
    assert expected.target_layer == layer.rpartition("net.")[2]
    assert bits(found.maps["guidance_cam"]) == bits(expected.maps["guidance_cam"])
    assert torch.equal(found.logits, expected.logits)
    assert expected.peaks["guidance_cam"].min() > 0


def test_the_only_part_with_parameters_stands_in_for_a_forward() -> None:
    same_as_the_network(Holder(loss=nn.CrossEntropyLoss(), net=cnn("flat")), "net.features")


def test_a_part_in_a_part() -> None:
    same_as_the_network(Holder(outer=nn.ModuleDict({"net": cnn("flat")})), "outer.net.features")


def test_it_is_said_once_for_each_model_and_keeps_none_alive() -> None:
    model = Holder(net=cnn("flat"))
    with listening() as said:
        for _ in range(3):
            attribute(model, pictures())
        attribute(cnn("flat"), pictures())
    (line,) = [each for each in said if "forward" in each]
    assert line.startswith("Holder has no `forward` of its own: its only part with parameters")
    assert "as `module.net(images)`" in line
    with listening() as said:
        attribute(Holder(net=cnn("flat")), pictures())
    assert sum("has no `forward`" in each for each in said) == 1
    held = weakref.ref(model)
    del model
    gc.collect()
    assert held() is None


def test_one_that_is_compiled() -> None:
    same_as_the_network(torch.compile(Holder(net=cnn("flat")), backend="eager"), "_orig_mod.net.features")


class Keywords(nn.Module):
    """Hands on whatever it is given by name."""

    def __init__(self, main: str | None, of_part: str | None = None) -> None:
        super().__init__()
        self.net = cnn("flat")
        self.seen: list[str] = []
        if main is not None:
            self.main_input_name = main
        if of_part is not None:
            self.net.main_input_name = of_part

    def forward(self, **inputs: Tensor) -> Tensor:
        self.seen += list(inputs)
        (images,) = inputs.values()
        return self.net(images)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((None,), "pixel_values"),
        (("pictures",), "pictures"),
        ((None, "pictures"), "pictures"),
        (("own", "of_part"), "own"),
    ],
)
def test_keywords_get_the_main_input(names: tuple[Any, ...], expected: str) -> None:
    model = Keywords(*names)
    call_model(model, pictures(), None)
    assert model.seen == [expected]
    same_as_the_network(Keywords(*names), "net.features")


class NamedKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = cnn("flat")

    def forward(self, *, labels: Tensor | None = None, view: Tensor) -> Tensor:
        assert labels is None
        return self.net(view)


class NamedMain(NamedKeyword):
    def forward(self, *, scale: float = 1.0, pixel_values: Tensor, **others: Any) -> Tensor:  # type: ignore[override]
        assert not others
        return self.net(pixel_values * scale)


@pytest.mark.parametrize("kind", [NamedKeyword, NamedMain])
def test_a_keyword_that_is_needed_is_the_images(kind: type[nn.Module]) -> None:
    same_as_the_network(kind(), "net.features")


class TextFirst(NamedKeyword):
    def forward(self, input_ids: Tensor | None = None, pixel_values: Tensor | None = None) -> Tensor:  # type: ignore[override]
        assert input_ids is None
        return self.net(pixel_values)


def test_pixel_values_are_the_images_also_behind_a_text() -> None:
    same_as_the_network(TextFirst(), "net.features")


class Anything(NamedKeyword):
    def forward(self, *inputs: Any, **options: Any) -> Tensor:  # type: ignore[override]
        assert not options
        return self.net(*inputs)


def test_one_that_takes_anything_gets_the_images_in_the_first_place() -> None:
    same_as_the_network(Anything(), "net.features")


# ------------------------------------------------------------------------------------------------ what is refused


def refused(model: nn.Module, *words: str, **options: Any) -> str:
    """The last line of the message: code to copy."""
    with pytest.raises(InputError) as error:
        find_target_layer(model, pictures(), **options)
    for each in words:
        assert re.search(each, str(error.value)), str(error.value)
    return str(error.value).splitlines()[-1].strip()


def test_no_forward_and_several_parts() -> None:
    net = cnn("flat")
    code = refused(
        Holder(backbone=net.features, loss=nn.MSELoss(), head=net.head),
        r"^Holder has no `forward` of its own, and 2 parts with parameters \(backbone, head\): pass `forward=`",
    )
    assert code == "forward=lambda module, images: module.head(module.backbone(images))"
    model = Holder(backbone=net.features, head=net.head)
    found = attribute(model, pictures(), **eval(f"dict({code})"))
    assert bits(found.maps["guidance_cam"]) == bits(attribute(net, pictures()).maps["guidance_cam"])


def test_no_forward_and_two_networks() -> None:
    code = refused(Holder(student=cnn(), teacher=cnn()), "2 parts with parameters")
    assert code == "forward=lambda module, images: module.student(images)"


def test_no_forward_and_nothing_else() -> None:
    refused(Holder(), "^Holder has no `forward` of its own: pass `forward=`")


class TakesBatch(nn.Module):
    """Its forward takes the whole batch, as `read` does."""

    def __init__(self, read: Any) -> None:
        super().__init__()
        self.net = cnn("flat")
        self.read = read

    def forward(self, batch: Any) -> Tensor:
        return self.net(self.read(batch))


def unpacked(batch: Any) -> Tensor:
    images, _ = batch
    return images


NOT_A_TUPLE = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")


@NOT_A_TUPLE
@pytest.mark.parametrize(
    ("read", "error"),
    [
        (lambda batch: batch["image"], "IndexError"),
        (lambda batch: batch.pixel_values, "AttributeError: .*no attribute 'pixel_values'"),
        (lambda batch: dict(**batch)["image"], "TypeError: .*must be a mapping"),
        (unpacked, "ValueError: not enough values to unpack"),
        (lambda batch: batch[0], "ValueError: expected 4D input"),
    ],
)
def test_a_forward_that_takes_the_batch(read: Any, error: str) -> None:
    code = refused(
        TakesBatch(read),
        r"^TakesBatch was called with images \(1, 3, 12, 10\) float32, as `module\(images\)`, which raised "
        + error,
        "anything but the images alone, pass `forward=`",
    )
    assert code == "forward=lambda module, images: module.net(images)"
    same_as_the_network(TakesBatch(read), "net.features", **eval(f"dict({code})"))


@NOT_A_TUPLE
def test_a_forward_that_takes_the_batch_to_several_parts_is_given_one() -> None:
    class ToSeveral(TakesBatch):
        def forward(self, batch: Any) -> Tensor:
            return super().forward(batch) + self.bias(torch.zeros(1, 1))

    model = ToSeveral(lambda batch: batch["image"])
    model.bias = nn.Linear(1, 5, bias=False)
    code = refused(model, "as `module\\(images\\)`, which raised IndexError")
    assert code == 'forward=lambda module, images: module({"image": images})'
    same_as_the_network(model, "net.features", **eval(f"dict({code})"))


@NOT_A_TUPLE
@pytest.mark.parametrize(
    ("read", "code"),
    [
        (lambda batch: batch["img"], 'module({"img": images})'),
        (lambda batch: batch["x"], 'module({"x": images})'),
        (unpacked, "module((images, None))"),
    ],
)
def test_a_batch_is_shown_as_the_forward_takes_it(read: Any, code: str) -> None:
    """Of several ways the one that works is shown, not the likeliest."""

    class ToSeveral(TakesBatch):
        def forward(self, batch: Any) -> Tensor:
            return self.net(self.read(batch)) + self.scale(torch.zeros(1, 1))

    model = ToSeveral(read)
    model.scale = nn.Linear(1, 5, bias=False)
    shown = refused(model, r"as `module\(images\)`, which raised")
    assert shown == f"forward=lambda module, images: {code}"
    same_as_the_network(model, "net.features", **eval(f"dict({shown})"))


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = cnn("flat")

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.permute(0, 3, 1, 2)) * torch.ones(5)


def test_a_forward_of_images_with_their_channels_last() -> None:
    class Named(ChannelsLast):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)

        def named_children(self) -> Any:
            return iter([("first", self.first), ("second", self.second)])

    code = refused(Named(), "which raised RuntimeError: .*to have 3 channels")
    assert code == "forward=lambda module, images: module(images.permute(0, 2, 3, 1))"
    same_as_the_network(Named(), "net.features", **eval(f"dict({code})"))


class Generator(nn.Module):
    def __init__(self, *others: nn.Module) -> None:
        super().__init__()
        self.net = nn.Linear(7, 12)
        for index, each in enumerate(others):
            setattr(self, f"other{index}", each)

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(latent)


@pytest.mark.parametrize(
    "others", [(), (nn.Conv2d(3, 4, 3),), (nn.Flatten(),)], ids=["none", "features", "nothing"]
)
def test_without_a_way_that_works_no_code_is_shown(others: tuple[nn.Module, ...]) -> None:
    """A convolution gives numbers at every position, which are its features and no logits."""
    with pytest.raises(
        InputError, match="which raised RuntimeError: .*shapes cannot be multiplied"
    ) as caught:
        find_target_layer(Generator(*others), pictures())
    assert str(caught.value).endswith("none that was tried gives a look, docs/guides/model.md has some.")
    assert "lambda" not in str(caught.value)


def test_trying_leaves_the_model_and_the_random_streams_alone() -> None:
    class Counts(Generator):
        def __init__(self) -> None:
            super().__init__(nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 4, 3)))
            self.calls = 0

        def forward(self, latent: Tensor) -> Tensor:
            self.calls += 1
            return self.net(latent + torch.rand(1))

    model = Counts().train()
    before, stream = {name: each.clone() for name, each in model.state_dict().items()}, torch.get_rng_state()
    with pytest.raises(InputError, match="none that was tried"):
        find_target_layer(model, pictures())
    assert model.calls == 0 and all(each.training for each in model.modules())
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)
    assert not any(each._forward_hooks for each in model.modules())
    assert all(each.grad is None for each in model.parameters())


def test_whole_numbers_that_floats_would_not_help_are_shown_no_conversion() -> None:
    class Embeds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            return self.conv(images)

    with pytest.raises(InputError, match="Convert them as your training does, in an `adapter=`") as caught:
        call_model(Embeds(), torch.zeros(2, 3, 4, 4, dtype=torch.uint8), None)
    assert "255" not in str(caught.value)


def test_a_batch_for_which_there_is_no_memory_is_no_wrong_batch() -> None:
    def exhausted(batch: Any) -> Tensor:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="^CUDA out of memory$"):
        find_target_layer(TakesBatch(exhausted), pictures())


class TakesTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = cnn(), cnn()

    def forward(self, images: Tensor, metadata: Tensor) -> Tensor:
        return self.first(images) + self.second(images)


def test_a_forward_that_takes_more() -> None:
    refused(TakesTwo(), "which raised TypeError: .*missing 1 required positional argument: 'metadata'")


@NOT_A_TUPLE
def test_what_was_tried_is_not_what_is_proposed() -> None:
    model = Holder(net=TakesBatch(lambda batch: batch["image"]))
    code = refused(model, r"^Holder was called .* as `module.net\(images\)`, which raised IndexError")
    assert code == 'forward=lambda module, images: module.net({"image": images})'
    same_as_the_network(model, "net.net.features", **eval(f"dict({code})"))


def test_a_forward_of_the_users_own_that_fails() -> None:
    refused(
        cnn(),
        r"^`forward` failed on Cnn and images \(1, 3, 12, 10\) float32: AttributeError: .*'modle'.*"
        r"It is called as `forward\(module, images\)`",
        forward=lambda module, images: module.modle(images),
    )


class Broken(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.conv, self.error = nn.Conv2d(3, 4, 3), error

    def forward(self, images: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("DefaultCPUAllocator: not enough memory"),
        ValueError("Input image size (12*10) does not fit the model"),
        NotImplementedError("The operator 'aten::x' is not implemented for this device"),
        AssertionError("height"),
    ],
)
def test_what_has_another_cause_passes_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error), match=re.escape(str(error))) as raised:
        find_target_layer(Broken(error), pictures())
    assert raised.value is error


def test_what_fails_later_has_another_cause() -> None:
    model = cnn()
    find_target_layer(model, pictures())
    model.register_forward_pre_hook(lambda module, inputs: {}["a tensor"])
    with pytest.raises(KeyError, match="a tensor"):
        find_target_layer(model, pictures())


def test_our_own_error_passes_as_it_is() -> None:
    error = InputError("a model that looks at itself")
    with pytest.raises(InputError, match="looks at itself") as raised:
        find_target_layer(Broken(error), pictures())
    assert raised.value is error


# ------------------------------------------------------------------------- the samples' other inputs


class WithColumns(nn.Module):
    def forward(self, images, columns, weight=1.0, labels=None):
        assert labels is None  # with it, many a forward gives a loss
        return images.mean(dim=(2, 3)) + columns * weight


COLUMNS = torch.tensor([[10.0], [20.0], [30.0]])


@pytest.mark.parametrize(
    "inputs",
    [
        {"columns": COLUMNS, "labels": torch.zeros(3)},
        {"labels": torch.zeros(3), "columns": COLUMNS},
        {"1": COLUMNS, "2": torch.zeros(3)},
        {"tabular": COLUMNS, "labels": torch.zeros(3)},
    ],
)
def test_other_inputs_go_by_name_and_then_by_order(inputs):
    bound = bound_to(None, inputs)
    images = torch.zeros(3, 1, 2, 2)
    assert call_model(WithColumns(), images, bound).tolist() == [[10.0], [20.0], [30.0]]
    assert call_model(WithColumns(), images[:2], forward_at(bound, [2, 0])).tolist() == [[30.0], [10.0]]
    assert call_model(WithColumns(), images[:1], forward_at(bound, torch.tensor([1]))).tolist() == [[20.0]]
    assert call_model(WithColumns(), images[:2], forward_at(bound, slice(1, 3))).tolist() == [[20.0], [30.0]]


def test_an_optional_input_is_handed_over_by_its_name():
    bound = bound_to(None, {"columns": COLUMNS, "weight": torch.tensor([[1.0], [2.0], [3.0]])})
    assert call_model(WithColumns(), torch.zeros(3, 1, 2, 2), bound).tolist() == [[10.0], [40.0], [90.0]]


class WithLoss(nn.Module):
    """Gives its loss in the place of logits where it has something to compare them with."""

    def forward(self, images, category=None, label_ids=None, y_true=None, seg=None, idx=None, bbox=None):
        if any(each is not None for each in (category, label_ids, y_true, seg, idx)):
            return torch.tensor(0.5)
        return images.flatten(1).sum(dim=1, keepdim=True) + (0 if bbox is None else bbox)


@pytest.mark.parametrize("name", ["category", "label_ids", "y_true", "seg", "idx"])
def test_annotation_stays_out_under_every_name_that_it_is_read_by(name):
    bound = bound_to(None, {name: torch.tensor([1, 0, 2]), "bbox": COLUMNS[:, :1]})
    assert call_model(WithLoss(), torch.ones(3, 1, 2, 2), bound).tolist() == (4 + COLUMNS[:, :1]).tolist()
    assert inputs_taken(WithLoss(), None, [name]) == []


class TakesTheirPlace(nn.Module):
    """Its images have no name to be called by."""

    def forward(self, images, /, age):
        return images.flatten(1).sum(dim=1) + age


def test_beside_images_without_a_name_an_input_goes_by_its_own():
    bound = bound_to(None, {"age": torch.tensor([1.0, 2.0])})
    assert call_model(TakesTheirPlace(), torch.ones(2, 1, 2, 2), bound).tolist() == [5.0, 6.0]


class TableAndFloats(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.table = cnn("flat"), nn.Linear(2, 5)

    def forward(self, images, columns):
        return self.net(images) + self.table(columns)


@pytest.mark.parametrize("forward", [None, lambda module, images, inputs: module(images, inputs["columns"])])
def test_whole_numbers_beside_a_table_are_said_to_be_taken_as_floats(forward):
    images = (255 * pictures(3)).abs().clamp(0, 255).to(torch.uint8)
    with pytest.raises(InputError, match=re.escape("as with `images.float() / 255`")):
        call_model(TableAndFloats(), images, bound_to(forward, {"columns": torch.zeros(3, 2)}))


def test_a_failed_call_names_what_was_handed_over_and_what_there_was():
    bound = bound_to(None, {"columns": torch.zeros(3, 7), "site": torch.zeros(3)})
    with pytest.raises(InputError) as raised:
        call_model(TableAndFloats(), pictures(3), bound)
    called = (
        "as `module(images, columns=inputs['columns'])` (of the batch there are also 'columns', 'site'), "
    )
    assert called in str(raised.value)
    assert "anything but these, pass `forward=`" in str(raised.value)


def test_through_a_wrapper_a_forward_of_three_arguments_is_given_no_inputs():
    model = nn.Identity()
    with _standing_in(model, lambda module, images, inputs: (module(images) + 1, inputs)):
        found, inputs = model(torch.zeros(2))
    assert found.tolist() == [1.0, 1.0] and inputs == {}


def test_samples_are_repeated_for_another_number_of_images():
    bound = bound_to(None, {"columns": COLUMNS})
    found = call_model(WithColumns(), torch.zeros(4, 1, 2, 2), bound)
    assert found.flatten().tolist() == [10.0, 20.0, 30.0, 10.0]


def test_a_forward_of_three_arguments_is_given_the_inputs_of_its_samples():
    def forward(model, images, inputs):
        return model(images, inputs["columns"][:, :1]), inputs["text"]

    bound = forward_at(bound_to(forward, {"columns": COLUMNS, "text": ["a", "b", "c"]}), [2])
    found, text = call_model(WithColumns(), torch.zeros(1, 1, 2, 2), bound)
    assert found.tolist() == [[30.0]] and text == ["c"]


class WithTokens(nn.Module):
    """Takes what a tokenizer gives: a dict of tensors."""

    def __init__(self):
        super().__init__()
        self.net = cnn()

    def forward(self, images, tokens):
        weight = (tokens["ids"] * tokens["attention"]["mask"]).sum(dim=1, keepdim=True)
        return self.net(images) * weight


def test_inputs_in_a_dict_have_the_rows_of_their_samples():
    ids = torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]])
    tokens = {"ids": ids, "attention": {"mask": torch.tensor([[1, 1, 0], [1, 1, 0]])}, "text": ["a", "b"]}
    model, images = WithTokens().eval(), pictures(2)
    plain = model.net(images).detach()
    bound = bound_to(None, {"tokens": tokens})
    assert torch.equal(call_model(model, images, bound), plain * torch.tensor([[3.0], [7.0]]))
    assert torch.equal(call_model(model, images[:1], forward_at(bound, [1])), model.net(images[:1]) * 7)
    three = call_model(model, images[[0, 0, 0]], bound)
    torch.testing.assert_close(three, plain[[0, 0, 0]] * torch.tensor([[3.0], [7.0], [3.0]]))
    found = attribute(
        model, SaliencyBatch(images, inputs={"tokens": tokens}), methods=["grad_cam", "score_cam"]
    )
    torch.testing.assert_close(found.logits, plain * torch.tensor([[3.0], [7.0]]))


def test_a_forward_of_three_arguments_without_other_inputs_is_given_none():
    assert call_model(nn.Identity(), torch.zeros(1, 1, 2, 2), lambda model, images, inputs: inputs) == {}


def test_videos_whose_frames_come_first():
    seen = []
    bound = bound_to(lambda model, images: seen.append(images.shape), None, frames_first=True)
    call_model(nn.Identity(), torch.zeros(2, 3, 5, 4, 4), bound)
    assert seen == [(2, 5, 3, 4, 4)]


@pytest.mark.parametrize(
    ("forward", "taken"),
    [
        (None, ["2"]),
        (lambda model, images: images, []),
        (lambda model, images, inputs: images, ["2", "labels"]),
        (WrappedForward(None), ["2"]),
    ],
)
def test_which_inputs_are_taken(forward, taken):
    assert inputs_taken(WithColumns(), forward, ["2", "labels"]) == taken


def test_nothing_is_bound_where_there_is_nothing_to_bind():
    assert bound_to(None, None) is None
    assert bound_to(None, {}) is None
    bound = bound_to(None, {"columns": COLUMNS})
    assert bound_to(bound, {"columns": COLUMNS[:1]}) is bound
    wrapped = bound_to(WrappedForward(None), {"columns": COLUMNS})
    assert isinstance(wrapped.forward, BoundForward)
