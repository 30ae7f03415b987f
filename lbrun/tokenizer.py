"""A local tokenizer, for servers that return text where MLPerf wants token ids."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lbrun.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LocalTokenizer:
    """Text to token ids by a ``tokenizer.json``, without special tokens.

    Picklable by its path, so that each worker process loads its own.
    """

    path: Path

    def __call__(self, text: str) -> list[int]:
        """Encode a text."""
        return list(_load(self.path).encode(text, add_special_tokens=False).ids)

    @property
    def vocab_size(self) -> int:
        """One more than the greatest id that it knows, special tokens among them."""
        return max(_load(self.path).get_vocab(with_added_tokens=True).values(), default=-1) + 1


def local_tokenizer(path: Path | None) -> LocalTokenizer | None:
    """The tokenizer at that path, None for none. Raises ConfigError where it cannot be loaded."""
    if path is None:
        return None
    _load(path)
    return LocalTokenizer(path)


@cache
def _load(path: Path) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ConfigError(
            "model.tokenizer: needs the package tokenizers; pip install 'lbrun[tokenizer]'"
        ) from None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        raise ConfigError(f"model.tokenizer: {path} is not a tokenizer.json: {error}") from None
