import io

import numpy as np
import PIL.Image
import pytest

from headshare_hf.data import CorruptImageError
from headshare_hf.data.decoding import decode_image, decode_row


def test_bytes_and_file_give_the_same_pixels(tmp_path, pixels, png):
    content = png(pixels(0))
    (tmp_path / "x.png").write_bytes(content)
    for entry in ({"bytes": content, "path": None}, {"bytes": None, "path": str(tmp_path / "x.png")}):
        assert np.array_equal(np.asarray(decode_image(entry)), pixels(0))


def test_exif_orientation_is_applied(pixels):
    buffer, exif = io.BytesIO(), PIL.Image.Exif()
    exif[0x0112] = 3  # upside down
    PIL.Image.fromarray(pixels(0)).save(buffer, "PNG", exif=exif)
    image = decode_image({"bytes": buffer.getvalue(), "path": None})
    assert np.array_equal(np.asarray(image), pixels(0)[::-1, ::-1])


@pytest.mark.parametrize("kind", ["none", "exif", "xmp"])
def test_orientation_of_a_jpeg(kind, pixels):
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    options = {"none": {}, "exif": {"exif": exif}, "xmp": {"xmp": xmp}}[kind]
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels(0)).save(buffer, "JPEG", **options)
    with PIL.Image.open(buffer) as image:
        expected = np.asarray(image if kind == "none" else image.rotate(180))
    assert np.array_equal(np.asarray(decode_image({"bytes": buffer.getvalue(), "path": None})), expected)


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_corrupt_image_names_split_row_and_file(damage, pixels, png):
    content = {"cut": png(pixels(0))[:-200], "text": b"no image at all", "empty": b""}[damage]
    with pytest.raises(CorruptImageError, match=r"row 7 of split 'test' \(file cat/7.png\) cannot be decoded"):
        decode_row({"bytes": content, "path": "cat/7.png"}, "test", 7)


def test_missing_file_is_named():
    with pytest.raises(CorruptImageError, match=r"file no/such.png\) cannot be decoded.*skip_corrupt=True"):
        decode_row({"bytes": None, "path": "no/such.png"}, "train", 0)


@pytest.mark.parametrize("entry", [None, {"bytes": None, "path": None}])
def test_missing_image_is_named(entry):
    with pytest.raises(CorruptImageError, match="row 3 of split 'train' has no image"):
        decode_row(entry, "train", 3)


def test_sixteen_bits_are_refused():
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(buffer, "PNG")
    with pytest.raises(CorruptImageError, match="mode I;16 has more than 8 bits per channel"):
        decode_row({"bytes": buffer.getvalue(), "path": "x.png"}, "train", 0)
