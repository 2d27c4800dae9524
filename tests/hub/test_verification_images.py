"""The images that the pipeline `face-verification` takes: every mode reaches the image processor as it is."""

import base64
import http.server
import io
import threading
from functools import partial

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import torch
from toys import resnet
from transformers import ViTImageProcessor

from headshare_hf import HeadShareImageProcessor
from headshare_hf.hub import FaceVerificationPipeline


@pytest.fixture(scope="module")
def pipe():
    return FaceVerificationPipeline(
        model=resnet().headshare.eval(), image_processor=HeadShareImageProcessor(), device="cpu"
    )


def _pixels(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _palette():
    """With one color of its palette transparent."""
    image = PIL.Image.fromarray(_pixels(40, 36)).quantize(16)
    image.info["transparency"] = 3
    return image


FACE = PIL.Image.fromarray(_pixels(48, 32, seed=1))
IMAGES = {
    "L": PIL.Image.fromarray(_pixels(40, 36)[..., 0]),
    "LA": PIL.Image.fromarray(_pixels(40, 36, 2)),
    "P": _palette(),
    "RGBA": PIL.Image.fromarray(_pixels(40, 36, 4)),
    "1": PIL.Image.fromarray(_pixels(40, 36)[..., 0]).convert("1"),
}


def _similarity(images):
    """As the image processor prepares them, written out."""
    pixels = HeadShareImageProcessor()(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        rows = resnet().headshare.eval()(pixels).embeddings.double()
    return float(torch.nn.functional.cosine_similarity(rows[0], rows[1], dim=0))


def _saved(image, folder):
    path = folder / f"{image.mode}.png"
    image.save(path)
    return str(path)


@pytest.mark.parametrize("mode", IMAGES)
def test_two_faces_of_different_size_and_mode_are_prepared_by_the_image_processor(mode, pipe, tmp_path):
    image = IMAGES[mode]
    assert image.mode == mode
    expected = _similarity([image, FACE])
    for first in (image, _saved(image, tmp_path)):
        assert pipe(first, FACE, threshold=0.3)["similarity"] == pytest.approx(expected, abs=1e-6)
    if mode in ("LA", "RGBA"):
        # Transparency becomes white; the colors below it are another image.
        assert _similarity([image.convert("RGB"), FACE]) != pytest.approx(expected, abs=1e-4)


def test_images_of_more_than_eight_bits_are_refused_and_not_clipped(pipe, tmp_path):
    image = PIL.Image.fromarray(np.full((40, 36), 30000, dtype=np.uint16))
    assert image.mode == "I;16"
    for first in (image, _saved(image, tmp_path)):
        with pytest.raises(
            ValueError, match="has mode I;16, more than 8 bits per channel; convert it to 8 bits first"
        ):
            pipe(first, FACE, threshold=0.3)


def test_the_orientation_that_a_camera_wrote_is_applied(pipe, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    FACE.save(tmp_path / "turned.png", exif=exif)
    turned = PIL.Image.open(tmp_path / "turned.png")
    expected = _similarity([PIL.ImageOps.exif_transpose(turned), IMAGES["L"]])
    assert expected != pytest.approx(_similarity([FACE, IMAGES["L"]]), abs=1e-4)
    for first in (turned, str(tmp_path / "turned.png")):
        assert pipe(first, IMAGES["L"], threshold=0.3)["similarity"] == pytest.approx(expected, abs=1e-6)


@pytest.fixture
def site(tmp_path):
    """The address of a web server with the files of `tmp_path`."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_images_of_the_web_and_encoded_ones_keep_their_mode(pipe, site, tmp_path):
    image = IMAGES["RGBA"]
    _saved(image, tmp_path)
    code = base64.b64encode((tmp_path / "RGBA.png").read_bytes()).decode()
    expected = pytest.approx(_similarity([image, FACE]), abs=1e-6)
    for first in (f"{site}/RGBA.png", code, f"data:image/png;base64,{code}"):
        assert pipe(first, FACE, threshold=0.3, timeout=10)["similarity"] == expected


def test_what_is_no_image_is_named(pipe, site, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    for first, message in (
        (str(tmp_path / "notes.txt"), "notes.txt is no image that Pillow reads; give an image file"),
        (f"{site}/notes.txt", f"{site}/notes.txt is no image that Pillow reads; give an image file"),
        (f"{site}/nothing.png", f"{site}/nothing.png could not be fetched .*404.*; download it, and give the file"),
        ("http://127.0.0.1:9/a.png", "http://127.0.0.1:9/a.png could not be fetched"),
        ("nowhere/face.png", "there is no image file nowhere/face.png; give a path, an address"),
        ("AAAA", "there is no image file AAAA; give a path, an address"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe(first, FACE, threshold=0.3)
    with pytest.raises(TypeError, match="an image is a path, an address or a PIL image, and this is a ndarray"):
        pipe(_pixels(8, 8), FACE, threshold=0.3)
    buffer = io.BytesIO()
    FACE.save(buffer, format="PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:500])
    with pytest.raises(ValueError, match=r"cut.png is damaged or cut off \(.*\); save it again"):
        pipe(str(tmp_path / "cut.png"), FACE, threshold=0.3)


def test_other_image_processors_get_rgb_as_from_transformers():
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    pipe = FaceVerificationPipeline(model=resnet().headshare.eval(), image_processor=processor, device="cpu")
    found = pipe(IMAGES["LA"], FACE, threshold=0.3)["similarity"]
    assert found == pytest.approx(pipe(IMAGES["LA"].convert("RGB"), FACE, threshold=0.3)["similarity"], abs=1e-6)


def test_images_that_the_image_processor_leaves_at_different_sizes_are_told():
    processor = HeadShareImageProcessor(do_resize=False)
    pipe = FaceVerificationPipeline(model=resnet().headshare.eval(), image_processor=processor, device="cpu")
    pairs = [(FACE, FACE), (FACE, IMAGES["P"])]
    assert pipe(*pairs[0], threshold=0.3)["similarity"] == pytest.approx(1)
    message = r"different sizes .*, 48 x 32 and 40 x 36 pixels .* batch: its `do_resize` is False; .*or give images of one size"
    for inputs in (pairs[1], pairs):
        with pytest.raises(ValueError, match=message):
            pipe(inputs, threshold=0.3)


def test_a_misspelled_path_with_any_letter_is_named(pipe):
    with pytest.raises(ValueError, match="there is no image file bilder/müller.png"):
        pipe(("bilder/müller.png", "bilder/müller.png"))


def test_an_image_of_too_many_pixels_is_named(pipe, tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    PIL.Image.new("RGB", (64, 64)).save(path)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="large.png has more pixels than Pillow opens"):
        pipe((str(path), str(path)))
