"""Reading an image's bytes. They go out as they came in: MLPerf forbids re-encoding and resizing."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from lbrun.datasets.api import Image
from lbrun.datasets.cells import CellError, plain
from lbrun.datasets.table import Cell

# Pillow's word for the format -> MIME type. MPO is what it calls a JPEG with further pictures appended, as
# some cameras write them; for any other reader that is a JPEG.
_MIME = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
_READABLE = ("PNG", "JPEG", "WEBP", "GIF")
_WHITESPACE = dict.fromkeys(map(ord, " \t\r\n"))


def read_image(cell: Cell) -> Image:
    """An image, with the MIME type of what it really is, whatever the file calls it.

    Takes the bytes, Hugging Face's ``{"bytes": ..., "path": ...}``, a data URI, or base64 text.
    The picture is not decoded: its header and, for PNG, its checksums are verified by Pillow.
    Raises CellError for what is no PNG, JPEG, WebP or GIF image.
    """
    data = _bytes_of(plain(cell))
    if not data:
        raise CellError("is an image without a byte")
    return Image(data, _mime_of(data))


def _bytes_of(value: object) -> bytes:
    if isinstance(value, Mapping):
        if value.get("bytes") is None:
            path = value.get("path")
            elsewhere = f" (path: {path!r})" if path else ""
            raise CellError(f"does not hold the image's bytes{elsewhere}; embed them in the data file")
        value = value["bytes"]
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, str):
        return _bytes_of_text(value)
    raise CellError(f"is {type(value).__name__}, not an image: bytes, data URI or base64 text")


def _bytes_of_text(text: str) -> bytes:
    if text.startswith(("http://", "https://", "file:")):
        raise CellError("is a URL; embed the image's bytes in the data file")
    if text.startswith("data:"):
        header, comma, text = text.partition(",")
        if not comma or not header.endswith(";base64"):
            raise CellError("is a data URI without base64 content")
    try:
        return base64.b64decode(text.translate(_WHITESPACE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CellError(f"is not base64: {error}") from error


def _mime_of(data: bytes) -> str:
    try:
        with Pillow.open(io.BytesIO(data), formats=_READABLE) as image:
            image.verify()
            return _MIME[str(image.format)]
    except Exception as error:
        # Pillow's plug-ins raise whatever they stumble over: OSError, SyntaxError, struct.error, ...
        raise CellError(f"is not a PNG, JPEG, WebP or GIF image: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    # UnidentifiedImageError's own words are the address of a buffer
    if isinstance(error, UnidentifiedImageError):
        return "its header is unknown"
    return str(error) or type(error).__name__
