"""Reading one cell, whatever file format it comes from: token ids, texts, chat messages, categories."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np

from lbrun.datasets.table import Cell

INT32_END = 2**31  # LoadGen's payloads and every server's token ids are int32

JSON_ERRORS = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding JSON raises; the last for brackets within brackets, some thousands deep."""

_SHOWN_CHARACTERS = 40
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class CellError(ValueError):
    """A cell's value cannot be used; the message goes on after file, row and column."""


def plain(cell: Cell) -> Any:
    """The cell as a Python object; JSON that is still raw is decoded.

    Raises CellError for a missing value: null, NaN, or a key that the row does not have.
    """
    value = _or_none(cell)
    if value is None:
        raise CellError("has no value")
    return value


def _or_none(cell: Cell) -> Any:
    if isinstance(cell, msgspec.Raw):
        cell = _decoded(cell)
    if isinstance(cell, float) and math.isnan(cell):  # how pandas writes a missing value
        return None
    return cell


class TokenIdReader:
    """Reads a prompt's token ids, and checks every one of them.

    vocab_size: ids must be smaller; None: any int32 will do.
    """

    def __init__(self, vocab_size: int | None = None) -> None:
        self._end = min(vocab_size or INT32_END, INT32_END)
        self._ids_type = list[Annotated[int, msgspec.Meta(ge=0, lt=self._end)]]
        self._decode = msgspec.json.Decoder(self._ids_type).decode

    def __call__(self, cell: Cell) -> tuple[bytes, int]:
        """The ids as a compact JSON array, and how many they are.

        Takes a list, a NumPy array, or JSON text of a list (as CSV has it).
        Raises CellError, naming the id's position where one is wrong.
        """
        ids: list[int]
        try:
            if isinstance(cell, np.ndarray):
                ids = self._from_array(cell)
            elif isinstance(cell, msgspec.Raw | str | bytes):
                ids = self._decode(cell)
            elif isinstance(cell, list | tuple):
                ids = msgspec.convert(cell, self._ids_type)
            else:  # among them sets, whose order is nobody's prompt
                raise CellError(self._trouble(cell))
        except JSON_ERRORS as error:
            raise CellError(self._trouble(cell)) from error
        if not ids:
            raise CellError("has no tokens")
        return _encode(ids), len(ids)

    def _from_array(self, ids: np.ndarray) -> list[int]:
        if ids.ndim == 1 and ids.dtype.kind in "iu":
            if ids.size and (ids.min() < 0 or ids.max() >= self._end):
                raise CellError(self._trouble(ids))
            plain_ids: list[int] = ids.tolist()
            return plain_ids
        if ids.ndim == 1 and not ids.size:
            return []
        return msgspec.convert(ids.tolist(), self._ids_type)

    def _trouble(self, cell: Cell) -> str:
        """Look again, slowly, to say what is wrong."""
        if isinstance(cell, str | bytes):
            try:
                cell = _decode_any(cell)
            except JSON_ERRORS:
                return f"is {_shown(cell)}, not a list of token ids like [1, 2, 3]"
        ids = plain(cell)
        if isinstance(ids, np.ndarray):
            ids = ids.tolist()
        if not isinstance(ids, list | tuple):
            return f"is {_shown(ids)}, not a list of token ids"
        for position, token_id in enumerate(ids):
            if type(token_id) is not int:
                return f"token {position} is {_shown(token_id)}, not an integer"
            if token_id < 0:
                return f"token {position} is {token_id}, and token ids are not negative"
            if token_id >= self._end:
                bound = "int32" if self._end == INT32_END else f"the vocabulary of {self._end}"
                return f"token {position} is {token_id}, beyond {bound}"
        return "is not a list of token ids"


def read_text(cell: Cell, *, optional: bool = False) -> str:
    """A text that is not empty. optional: a missing or empty one is "".

    Raises CellError for anything else.
    """
    text = _or_none(cell)
    if text is None and optional:
        return ""
    if text is None:
        raise CellError("has no value")
    if not isinstance(text, str):
        raise CellError(f"is {_shown(text)}, not a text")
    if not optional and (not text or text.isspace()):
        raise CellError("is empty")
    return _encodable(text)


def read_categories(cell: Cell, *, as_list: bool = False) -> str:
    """Category paths as one text, a path a line: from a list of paths, or from a text, which stays as it is.

    as_list: as Python writes a list of texts.
    Raises CellError for an empty list, or one with anything but texts in it.
    """
    categories = plain(cell)
    if isinstance(categories, np.ndarray):
        categories = categories.tolist()
    if isinstance(categories, str):
        return read_text(categories)
    if not isinstance(categories, list | tuple):
        raise CellError(f"is {_shown(categories)}, neither a list of categories nor a text")
    if not categories:
        raise CellError("has no categories")
    for position, category in enumerate(categories):
        if not isinstance(category, str) or not category.strip():
            raise CellError(f"category {position} is {_shown(category)}, not a text")
    return _encodable(str(list(categories)) if as_list else "\n".join(categories))


def read_messages(cell: Cell) -> bytes:
    """Chat messages as a compact JSON array.

    Takes a list of ``{"role": ..., "content": ...}``, or JSON text of one. The content is a text or a list of
    parts; only a message with tool calls may do without. Everything else in a message is passed on.
    Raises CellError where they are something else.
    """
    if isinstance(cell, str | bytes):
        try:
            messages = _decode_any(cell)
        except JSON_ERRORS as error:
            raise CellError(f"is {_shown(cell)}, not a JSON list of messages") from error
    elif isinstance(cell, msgspec.Raw):
        messages = plain(cell)
    else:
        try:
            messages = _without_padding(plain(cell))
        except RecursionError as error:
            raise CellError("holds itself") from error
    if not isinstance(messages, list):
        raise CellError(f"is {_shown(messages)}, not a list of messages")
    if not messages:
        raise CellError("has no messages")
    for position, message in enumerate(messages):
        _check_message(position, message)
    try:
        return _encode(messages)
    except (TypeError, ValueError, OverflowError) as error:
        raise CellError(f"cannot be written as JSON: {error}") from error


def _check_message(position: int, message: object) -> None:
    where = f"message {position}"
    if not isinstance(message, dict):
        raise CellError(f"{where} is {_shown(message)}, not an object with role and content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise CellError(f"{where} has no role")
    if content is None and message.get("tool_calls"):
        return
    if isinstance(content, list):
        if not content or not all(isinstance(part, dict) for part in content):
            raise CellError(f"{where}: its content is a list, but not one of parts like {{'type': 'text'}}")
    elif not isinstance(content, str):
        raise CellError(f"{where} has no content")


def _without_padding(value: object) -> object:
    """Arrays as lists, and without the nulls by which Arrow fills up structs of one type."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _without_padding(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_padding(item) for item in value]
    return value


def _encodable(text: str) -> str:
    """The text, if it can be sent: pickles can hold halves of surrogate pairs, which UTF-8 cannot."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise CellError(f"is no proper Unicode: {error.reason} at character {error.start}") from error
    return text


def _decoded(raw: msgspec.Raw) -> object:
    try:
        return _decode_any(raw)
    except JSON_ERRORS as error:
        raise CellError(f"is not JSON: {error}") from error


def _shown(value: object) -> str:
    """A value as the message of an error shows it, in JSON's words and not too long."""
    if value is None or isinstance(value, bool):
        return str(msgspec.json.encode(value), "ascii")
    if isinstance(value, list | tuple | np.ndarray):
        return "a list"
    if isinstance(value, set | frozenset):
        return "a set"
    if isinstance(value, Mapping):
        return "an object"
    told = repr(value)
    return told if len(told) <= _SHOWN_CHARACTERS else told[: _SHOWN_CHARACTERS - 3] + "..."
