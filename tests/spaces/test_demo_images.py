"""Files of visitors: any size and mode, and those that are no images."""

import base64
import io

import numpy as np
import PIL.Image
import pytest
from demo_errors import DemoError
from demo_images import data_uri, open_picture

from headshare_hf import HeadShareImageProcessor


def _saved(folder, image, name="image.png"):
    image.save(folder / name)
    return open_picture(folder / name)


def test_rgb_stays_as_it_is(pictures):
    picture = open_picture(pictures / "noise.png")
    assert picture.name == "noise.png" and picture.note == "56 × 40 pixels"
    assert np.array_equal(picture.image, PIL.Image.open(pictures / "noise.png"))


@pytest.mark.parametrize(
    "mode, words",
    [
        ("L", "grayscale"),
        ("P", "a palette"),
        ("1", "black and white"),
        ("LA", "grayscale with transparency"),
        ("RGBA", "RGB with transparency"),
    ],
)
def test_other_modes_are_converted_as_the_image_processor_does(tmp_path, pictures, mode, words):
    image = PIL.Image.open(pictures / "noise.png").convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(PIL.Image.linear_gradient("L").resize(image.size))
    picture = _saved(tmp_path, image)
    assert picture.note == f"56 × 40 pixels, converted from {words} to RGB"
    processor = HeadShareImageProcessor(size={"height": 40, "width": 56})
    ours, direct = (processor(given, return_tensors="pt")["pixel_values"] for given in (picture.image, image))
    assert ours.equal(direct)


def test_what_is_transparent_becomes_white(tmp_path):
    picture = _saved(tmp_path, PIL.Image.new("RGBA", (3, 2), (10, 20, 30, 0)))
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)


def test_print_colors_are_converted(tmp_path):
    picture = _saved(tmp_path, PIL.Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "ink.tif")
    assert picture.note.endswith("converted from CMYK to RGB") and picture.image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "values, expected",
    [
        (np.array([[0, 32896, 65535]], dtype=np.uint16), [0, 128, 255]),
        (np.array([[0, 128, 65535]], dtype=np.int32), [0, 0, 255]),
        (np.array([[0, 128, 255]], dtype=np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], dtype=np.float32), [0, 128, 255]),
    ],
)
def test_more_than_eight_bits_are_scaled(tmp_path, values, expected):
    picture = _saved(tmp_path, PIL.Image.fromarray(values), "deep.tif")
    assert [picture.image.getpixel((x, 0)) for x in range(3)] == [(value,) * 3 for value in expected]


def test_a_photograph_is_turned_upright(tmp_path):
    image = PIL.Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_picture(tmp_path / "turned.jpg").image.size == (4, 6)


def test_files_that_are_no_images_are_named(tmp_path, pictures, monkeypatch):
    with pytest.raises(DemoError, match="notes.png is not an image. Give a PNG"):
        open_picture(pictures / "notes.png")
    (tmp_path / "cut.png").write_bytes((pictures / "noise.png").read_bytes()[:2000])
    with pytest.raises(DemoError, match="cut.png is damaged and cannot be read"):
        open_picture(tmp_path / "cut.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DemoError, match="noise.png has too many pixels"):
        open_picture(pictures / "noise.png")


@pytest.mark.parametrize("size", [(1, 1000), (1000, 1), (210, 10)])
def test_images_that_are_too_thin_are_named(size, tmp_path):
    shown = f"thin.png has {size[0]} × {size[1]} pixels, which is too thin; give an image of at most 20 to 1"
    with pytest.raises(DemoError, match=shown):
        _saved(tmp_path, PIL.Image.new("RGB", size), "thin.png")
    assert _saved(tmp_path, PIL.Image.new("RGB", (200, 10))).image.size == (200, 10)


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "EPS"])
def test_other_formats_are_not_opened(kind, tmp_path):
    PIL.Image.new("RGB", (16, 16)).save(tmp_path / "image.bin", kind)
    with pytest.raises(DemoError, match="image.bin is not an image. Give a PNG"):
        open_picture(tmp_path / "image.bin")


def test_no_damage_ends_in_another_error(pictures, monkeypatch):
    def broken(image):
        raise ZeroDivisionError("of the decoder")

    monkeypatch.setattr("demo_images._to_rgb", broken)
    with pytest.raises(DemoError, match="noise.png is damaged and cannot be read: of the decoder"):
        open_picture(pictures / "noise.png")


@pytest.mark.parametrize("size, expected", [((20, 10), (160, 80)), ((400, 1), (160, 1))])
def test_pictures_of_the_page_are_small(size, expected):
    header, _, content = data_uri(PIL.Image.new("RGB", size)).partition(",")
    assert header == "data:image/png;base64"
    assert PIL.Image.open(io.BytesIO(base64.b64decode(content))).size == expected
