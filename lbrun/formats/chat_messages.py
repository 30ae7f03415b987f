"""The messages of a chat request: ready-made ones, plain text, or a product with its image."""

from __future__ import annotations

import re
from binascii import b2a_base64

import msgspec

from lbrun.datasets.api import Image, Sample
from lbrun.formats.options import ChatOptions

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_MIME = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)


class MessageWriter:
    """Writes the ``messages`` of a request as JSON.

    Three kinds of sample, in this order: ready-made messages go out as they are, after the system message
    if one is set; a product's fields fill the template, next to its image; a text is the user's message.
    """

    def __init__(self, options: ChatOptions) -> None:
        self._template = options.user_template
        self._image_first = options.image_position == "before"
        self._system = b""
        if options.system is not None:
            self._system = msgspec.json.encode({"role": "system", "content": options.system})

    def messages(self, sample: Sample) -> bytes:
        """The messages as a JSON array. Raises ValueError for a sample that gives none."""
        if sample.messages is not None:
            if not self._system:
                return sample.messages
            rest = sample.messages.strip().removeprefix(b"[").lstrip()
            return b"[" + self._system + (b"," if rest != b"]" else b"") + rest
        if sample.fields or sample.image is not None:
            content = self._product(sample)
        elif sample.text is not None:
            content = msgspec.json.encode(sample.text)
        else:
            raise ValueError(f"sample {sample.index} has no messages, product fields or text")
        user = b'{"role":"user","content":' + content + b"}"
        return b"[" + (self._system + b"," if self._system else b"") + user + b"]"

    def _product(self, sample: Sample) -> bytes:
        """The content of the user's message for a product."""
        if self._template is None:
            raise ValueError(f"sample {sample.index} is a product, and no prompt template is set")
        text = msgspec.json.encode(fill_template(self._template, sample))
        if sample.image is None:
            return text
        parts = [b'{"type":"text","text":' + text + b"}", _image_part(sample.image, sample.index)]
        if self._image_first:
            parts.reverse()
        return b"[" + b",".join(parts) + b"]"


def fill_template(template: str, sample: Sample) -> str:
    """The template with the sample's fields in place of ``{role}``.

    Raises ValueError for a role that the sample does not have. Braces around anything else stay.
    """

    def field(match: re.Match[str]) -> str:
        try:
            return sample.fields[match[1]]
        except KeyError:
            known = ", ".join(f"{{{name}}}" for name in sample.fields)
            raise ValueError(f"the prompt template asks for {match[0]}; a sample has {known}") from None

    return _PLACEHOLDER.sub(field, template)


def _image_part(image: Image, index: int) -> bytes:
    """The image as a data URI with its file's own bytes: MLPerf forbids to re-encode or resize them."""
    if not _MIME.fullmatch(image.mime):
        raise ValueError(f"sample {index}: {image.mime!r} is no media type")
    uri = b"data:" + image.mime.encode() + b";base64," + b2a_base64(image.data, newline=False)
    return b'{"type":"image_url","image_url":{"url":"' + uri + b'"}}'
