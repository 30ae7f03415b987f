"""What the simulated model says: a pure function of prompt and seed.

Token ids come from a hash of both, so that every server of a pool, and every restart, gives the same
answer; a shorter `max_tokens` gives a prefix of the longer answer. Text is one common word per token.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lbrun.embedded.words import WORDS

_N_WORDS = len(WORDS)
_CHARACTERS_PER_TOKEN = 4  # of English text, for the tokenizers of the benchmarks' models


@dataclass(frozen=True)
class Answer:
    """One answer. ids: with the end-of-answer token where `finish_reason` is ``stop``.

    pieces: each token's text; it may be empty. eos_id: which id ends an answer.
    """

    ids: Sequence[int]
    pieces: Sequence[str]
    finish_reason: str
    eos_id: int

    @cached_property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    def __len__(self) -> int:
        return len(self.ids)


def prompt_key(prompt: bytes, *seeds: int | None) -> bytes:
    """What an answer is derived from: 16 bytes that depend on every byte of the prompt and on the seeds."""
    salt = ",".join("" if seed is None else str(seed) for seed in seeds)
    return hashlib.blake2b(prompt, digest_size=16, key=salt.encode()[:64]).digest()


def luck(key: bytes) -> float:
    """A number in [0, 1) for the prompt."""
    return int.from_bytes(key[8:12], "little") / 2.0**32


class AnswerModel:
    """Draws answers. Lengths follow an Erlang distribution (k = 4), which has one hump and a long tail,
    like the summaries of the benchmark's data."""

    def __init__(self, mean_tokens: float, vocab_size: int, eos_id: int) -> None:
        self._mean, self._vocab, self._eos = mean_tokens, vocab_size, eos_id
        # ordinary ids stay below the end token where that leaves any: special tokens are kept at the top
        self._ordinary = eos_id if eos_id > 1 else vocab_size

    def length(self, key: bytes) -> int:
        """How many tokens the model would say of itself, the end token included; at least 1."""
        draws = struct.unpack("<4H", key[:8])
        total = -sum(math.log((draw + 0.5) / 65536) for draw in draws)
        return max(1, round(self._mean * total / len(draws)))

    def answer(self, key: bytes, max_tokens: int, min_tokens: int = 0, ignore_eos: bool = False) -> Answer:
        """The answer for a prompt's key. max_tokens must be 1 or more, and not below min_tokens."""
        n_wanted = max_tokens if ignore_eos else max(self.length(key), min_tokens, 1)
        stops = not ignore_eos and n_wanted <= max_tokens
        n = min(n_wanted, max_tokens)
        ids = self._ids(key, n)
        pieces = [" " + WORDS[i % _N_WORDS] for i in ids]
        pieces[0] = pieces[0][1:]
        if stops:
            ids[-1], pieces[-1] = self._eos, ""
        return Answer(ids, pieces, "stop" if stops else "length", self._eos)

    def answer_text(self, text: str, max_tokens: int) -> Answer:
        """An answer of given text (guided decoding), cut into tokens, and by max_tokens."""
        pieces = split_text(text)
        ids = self.ids_of(pieces)
        if len(pieces) < max_tokens:
            return Answer([*ids, self._eos], [*pieces, ""], "stop", self._eos)
        return Answer(ids[:max_tokens], pieces[:max_tokens], "length", self._eos)

    def ids_of(self, pieces: Sequence[str]) -> list[int]:
        """Stable ids for pieces of text."""
        return [
            int.from_bytes(hashlib.blake2b(p.encode("utf-8", "replace"), digest_size=8).digest(), "little")
            % self._ordinary
            for p in pieces
        ]

    def text_of(self, ids: Sequence[int]) -> str:
        """The text that these ids have in an answer."""
        return " ".join(WORDS[i % _N_WORDS] for i in ids if i != self._eos)

    def _ids(self, key: bytes, n: int) -> list[int]:
        stream = hashlib.shake_128(key).digest(4 * n)  # a longer digest begins with the shorter one
        ordinary = self._ordinary
        return [word % ordinary for word in struct.unpack(f"<{n}I", stream)]


def split_text(text: str) -> list[str]:
    """Text cut into what stands for tokens."""
    return [text[i : i + _CHARACTERS_PER_TOKEN] for i in range(0, len(text), _CHARACTERS_PER_TOKEN)]


def count_tokens(text: str) -> int:
    """How many tokens `split_text` makes."""
    return -(-len(text) // _CHARACTERS_PER_TOKEN)
