"""Files that visitors give, as images that every image processor takes."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from demo_errors import DemoError
from PIL import Image, ImageOps, UnidentifiedImageError


_THUMBNAIL = 160
# Image processors that bring the shorter edge to a size make the other one of a thin image as long as memory goes.
_MOST_SLENDER = 20
# Pillow reads many more, some of them by starting other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_MODES = {
    "1": "black and white",
    "L": "grayscale",
    "LA": "grayscale with transparency",
    "P": "a palette",
    "RGBA": "RGB with transparency",
}


@dataclass(frozen=True)
class Picture:
    """
    An image of a visitor.

    Attributes:
        name (`str`): Of the file.
        image (`PIL.Image.Image`): In the mode RGB.
        note (`str`): Size, and whether it was converted.
    """

    name: str
    image: Image.Image
    note: str


def open_picture(path: str | Path) -> Picture:
    """
    Reads an image of any size and mode. What is transparent becomes white, as in this package's image processor.

    Raises:
        DemoError: It is no image, or is damaged or too large; names the file.
    """
    name = Path(path).name
    try:
        with Image.open(path, formats=_FORMATS) as file:
            mode = file.mode
            upright = ImageOps.exif_transpose(file)
            image = _to_rgb(upright)
    except UnidentifiedImageError as error:
        raise DemoError(f"{name} is not an image. Give a PNG, JPEG, WebP, GIF, BMP or TIFF file.") from error
    except Image.DecompressionBombError as error:
        raise DemoError(f"{name} has too many pixels; make it smaller.") from error
    # Pillow reports damage by any of them, depending on the format, and the other images are to keep their answers.
    except Exception as error:
        raise DemoError(f"{name} is damaged and cannot be read: {error}") from error
    size = f"{image.width} × {image.height} pixels"
    if max(image.size) > _MOST_SLENDER * min(image.size):
        raise DemoError(f"{name} has {size}, which is too thin; give an image of at most {_MOST_SLENDER} to 1.")
    return Picture(name, image, size if mode == "RGB" else f"{size}, converted from {_MODES.get(mode, mode)} to RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Numbers in [0, 255], [0, 65535] or, as floating point, [0, 1], whichever range they need, to 8 bits."""
    top = float(pixels.max())
    is_unit = pixels.dtype.kind == "f" and top <= 1
    scale = 255 if is_unit else 1 if top <= 255 and pixels.dtype.itemsize > 2 else 255 / 65535
    return np.clip(np.rint(pixels * scale), 0, 255).astype(np.uint8)


def data_uri(image: Image.Image) -> str:
    """A small PNG of an image for a page. Tiny images are enlarged without smoothing."""
    factor = _THUMBNAIL / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BICUBIC).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
