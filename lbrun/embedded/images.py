"""Images in chat messages: a data URI is decoded and its header read, no pixel is touched."""

from __future__ import annotations

import binascii
import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # SOF0 to SOF15, without DHT, JPG, DAC
_PIXELS_PER_TOKEN = 32  # Qwen3-VL: patches of 16 pixels, merged two by two


class ImageError(Exception):
    """The image cannot be used; the text says why, as PIL or the base64 decoder would."""


def decode_data_uri(uri: str) -> bytes:
    """The bytes of a base64 data URI. Raises ImageError."""
    _, _, data = uri.partition(";base64,")
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError):
        raise ImageError("Non-base64 digit found") from None


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels of a PNG, JPEG, GIF or WebP. Raises ImageError."""
    size = None
    if data.startswith(_PNG):
        size = _png_size(data)
    elif data.startswith(b"\xff\xd8"):
        size = _jpeg_size(data)
    elif data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        size = struct.unpack_from("<HH", data, 6)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        size = _webp_size(data)
    if size is None or 0 in size:
        raise ImageError("cannot identify image file <_io.BytesIO object>")
    return size


def image_tokens(width: int, height: int) -> int:
    """How many prompt tokens an image takes."""
    return max(1, width // _PIXELS_PER_TOKEN) * max(1, height // _PIXELS_PER_TOKEN)


def _png_size(data: bytes) -> tuple[int, int]:
    if len(data) < 24 or _PNG_END not in data[-32:]:
        raise ImageError("image file is truncated")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            if b"\xff\xd9" not in data[at:]:
                raise ImageError("image file is truncated")
            return width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    raise ImageError("image file is truncated")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if len(data) < 30:
        raise ImageError("image file is truncated")
    if kind == b"VP8X":
        return (
            1 + int.from_bytes(data[24:27], "little"),
            1 + int.from_bytes(data[27:30], "little"),
        )
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None
