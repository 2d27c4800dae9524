"""Images from paths and addresses, in the mode that their files have."""

import base64
import os
from io import BytesIO
from typing import Any

import PIL.Image
import PIL.ImageOps
from huggingface_hub.utils import httpx


def open_image(image: Any, timeout: float | None = None) -> PIL.Image.Image:
    """
    An image as its file has it, upright. `load_image` of transformers converts it to RGB, which drops the transparency
    and clips what has more than 8 bits; here the image processor decides.

    Args:
        image (`str` or `PIL.Image.Image`): Path, address (`http://`, `https://`), `data:image/...` or its base64, or image.
        timeout (`float`, *optional*): Seconds to wait for an address.

    Raises:
        ValueError: There is no such file, it is no image or damaged, or the address does not give it.
        TypeError: It is of another type.
    """
    if isinstance(image, PIL.Image.Image):
        return PIL.ImageOps.exif_transpose(image)
    if not isinstance(image, str):
        raise TypeError(f"an image is a path, an address or a PIL image, and this is a {type(image).__name__}")
    source, name = _source(image, timeout), image if len(image) < 300 else f"{image[:40]}..."
    try:
        return PIL.ImageOps.exif_transpose(PIL.Image.open(source))
    except PIL.UnidentifiedImageError as error:
        raise ValueError(f"{name} is no image that Pillow reads; give an image file") from error
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"{name} has more pixels than Pillow opens ({error}); make it smaller") from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{name} is damaged or cut off ({error}); save it again") from error


def _source(image: str, timeout: float | None) -> str | BytesIO:
    """What Pillow opens: a path, or the bytes of an image that lies elsewhere."""
    if image.startswith(("http://", "https://")):
        return BytesIO(_fetch(image, timeout))
    if os.path.isfile(image):
        return image
    code = image.partition(",")[2] if image.startswith("data:image/") else image
    try:
        content = base64.b64decode("".join(code.split()), validate=True)
    except ValueError:
        content = b""
    # A misspelled path may be valid base64 too.
    if not content or not (image.startswith("data:image/") or _is_image(content)):
        raise ValueError(f"there is no image file {image[:300]}; give a path, an address, a PIL image or base64")
    return BytesIO(content)


def _is_image(content: bytes) -> bool:
    try:
        PIL.Image.open(BytesIO(content)).close()
    except PIL.Image.DecompressionBombError:
        return True
    except (OSError, SyntaxError):
        return False
    return True


def _fetch(address: str, timeout: float | None) -> bytes:
    try:
        return httpx.get(address, timeout=timeout, follow_redirects=True).raise_for_status().content
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{address} could not be fetched ({reason}); download it, and give the file") from error
