"""A sample, and what a run needs to be told to read some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class InputKind(StrEnum):
    """What a request format needs of each sample."""

    TOKEN_IDS = "token_ids"  # noqa: S105 - no password
    TEXT = "text"
    MESSAGES = "messages"  # ready-made chat messages
    PRODUCT = "product"  # text fields and one image, for a prompt template


@dataclass(frozen=True, slots=True)
class Image:
    """An image as it stands in the dataset; its bytes are never re-encoded (an MLPerf rule).

    data: the file's bytes. mime: e.g. ``image/png``.
    """

    data: bytes
    mime: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One record of a dataset, only with the parts that its `InputKind` asks for.

    index: row in the file, from 0. token_ids: a compact JSON array, e.g. ``b"[1,2,3]"``.
    messages: a compact JSON array. n_input_tokens: 0 where the file does not tell.
    fields: the text fields of a product, by role (title, description, categories ...).
    """

    index: int
    token_ids: bytes | None = None
    n_input_tokens: int = 0
    text: str | None = None
    messages: bytes | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    image: Image | None = None


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Which samples to read from where.

    path: the data file. file_format: auto, json, jsonl, csv, parquet or pickle (auto: by the name).
    kind: what is read from each row. columns: role -> names to look for, first match wins; roles are
    ``token_ids``, ``text``, ``messages``, ``image``, and for products ``title``, ``description``,
    ``categories``. limit: read at most so many rows. vocab_size: refuse token ids beyond it.
    categories_as_list: write a product's list of categories as Python does, instead of one a line.
    """

    path: Path
    kind: InputKind
    columns: Mapping[str, tuple[str, ...]]
    file_format: str = "auto"
    limit: int | None = None
    vocab_size: int | None = None
    categories_as_list: bool = False
