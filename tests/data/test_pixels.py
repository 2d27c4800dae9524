import PIL.Image
import pytest
import torch
from transformers import EfficientNetImageProcessor, MobileViTImageProcessor

from headshare_hf.data.pixels import prepare_images, working_size
from headshare_hf.models.image_processing_headshare import HeadShareImageProcessor


class _Slow(HeadShareImageProcessor):
    """Counts the calls that no short cut was taken for."""

    calls = 0

    def __call__(self, *args, **kwargs):
        type(self).calls += 1
        return super().__call__(*args, **kwargs)


def _expected(images, processor):
    return processor(images, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_images_of_the_right_size_are_only_stacked(order, pixels, monkeypatch):
    processor = _Slow(size={"height": 24, "width": 20}, channel_order=order)
    images = [PIL.Image.fromarray(pixels(number, 24, 20)) for number in range(5)]
    expected = _expected(images, processor)
    monkeypatch.setattr(_Slow, "calls", 0)
    found = prepare_images(images, processor)
    assert _Slow.calls == 0 and torch.equal(found, expected)
    assert found.dtype == torch.uint8 and found.is_contiguous()


@pytest.mark.parametrize("change", ["size", "mode", "transparency", "gray", "crop"])
def test_all_others_go_through_the_processor(change, pixels, monkeypatch):
    images = [PIL.Image.fromarray(pixels(number, 24, 20)) for number in range(5)]
    options = {}
    if change == "size":
        images[3] = images[3].resize((24, 20))
    elif change == "mode":
        images[3] = images[3].convert("P")
    elif change == "transparency":
        images[3].info["transparency"] = tuple(pixels(3, 24, 20)[0, 0])
    elif change == "gray":
        options = {"image_mean": [0.5], "image_std": [0.5]}
    else:
        options = {"crop_size": {"height": 24, "width": 20}, "do_center_crop": True}
    processor = _Slow(size={"height": 24, "width": 20}, **options)
    expected = _expected(images, processor)
    monkeypatch.setattr(_Slow, "calls", 0)
    assert torch.equal(prepare_images(images, processor), expected) and _Slow.calls == 1


@pytest.mark.parametrize(
    ("processor", "field"),
    [
        (EfficientNetImageProcessor(), "include_top"),
        (EfficientNetImageProcessor(include_top=False, rescale_offset=True), "rescale_offset"),
        (MobileViTImageProcessor(), "do_flip_channel_order"),
    ],
)
def test_steps_that_batches_are_not_prepared_with_are_refused(processor, field):
    with pytest.raises(ValueError, match=f"{type(processor).__name__} has `{field}`, .*use a HeadShareImageProcessor"):
        working_size(processor)
    assert working_size(EfficientNetImageProcessor(include_top=False)) == (346, 346)
