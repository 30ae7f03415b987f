"""Stand-ins for token ids: the same piece of text has the same id, and texts have realistic lengths.

No tokenizer of the models may be bundled, so the ids mean nothing to a model: a server that gets them reads
noise of the right length. Pieces are cut as byte-pair tokenizers tend to: a word with the space before it,
long words in several parts, digits in groups of three, punctuation apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

_PIECE = re.compile(r" ?[A-Za-z]+| ?\d{1,3}| ?[^\sA-Za-z\d]|\s+")
_WHOLE_WORD = 9  # characters with the space; a longer word is cut into parts
_PART = 6


def pieces(text: str) -> list[str]:
    """Cut a text into pieces; joined they are the text again."""
    cut: list[str] = []
    for match in _PIECE.finditer(text):
        piece = match[0]
        if len(piece) <= _WHOLE_WORD:
            cut.append(piece)
        else:
            cut.extend(piece[start : start + _PART] for start in range(0, len(piece), _PART))
    return cut


def token_ids(text: str, n_ids: int, special: Mapping[str, int] | None = None) -> list[int]:
    """An id below n_ids for every piece: the first 8 bytes of its BLAKE2b hash, modulo n_ids.

    special: control tokens, which stay whole and have the ids given here.
    """
    if not special:
        return [_id(piece, n_ids) for piece in pieces(text)]
    ids: list[int] = []
    for part in re.split(f"({'|'.join(map(re.escape, special))})", text):
        ids.extend([special[part]] if part in special else [_id(piece, n_ids) for piece in pieces(part)])
    return ids


def _id(piece: str, n_ids: int) -> int:
    return int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=8).digest(), "big") % n_ids
