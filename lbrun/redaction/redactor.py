"""Finds secrets in a text, however they are written, and masks them. Pure.

    text ──levels──> undone escapes ──fold──> letters and digits ──grams──> nothing, most of the time
                                                                    │
                        masked text <── spans in the text <── traced levels, exact search

The way along the top costs some microseconds for a message. The rest is for texts that hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from lbrun.redaction.escapes import Traced, levels, traced_levels
from lbrun.redaction.secret import MIN_LENGTH, Form, Kind, Secret, counts, folded, forms

MASK = "***"
_MAX_CACHED, _MAX_CACHED_CHARS = 1_024, 2_000
_BASE64_LIKE = re.compile(r"[A-Za-z0-9_+/=-]")
_KEY_LIKE = re.compile(r"[A-Za-z0-9_-]")
_ALPHABETS: dict[Kind, bytes] = {
    "plain": rb"0-9a-z",
    "symbols": rb"!-~",
    "base64": rb"A-Za-z0-9+/_-",
    "hex": rb"0-9a-f",
    "decimal": rb"0-9",
}
_DIGITS = b"0123456789"

Span = tuple[int, int]


class Redactor:
    """Masks secrets in text. Picklable; two uses of one text cost little more than one.

    What is masked: each secret and each part of it that has 8 letters and digits in a row, in any case,
    escaped, as base64, as bytes in hexadecimal or decimal; also its beginning, from 6 characters on, where a
    text was cut. What is not: values that cannot be told from ordinary text (`Secret.is_ordinary`), except
    beside their header's name.
    """

    def __init__(self, secrets: Iterable[Secret] = (), *, trusted: Iterable[str] = ()) -> None:
        """trusted: strings that `redact_all` leaves as they are, such as the servers' URLs."""
        # a value is not told from its secret: neither by repr nor by an attribute that someone may print
        self._trusted = frozenset(trusted)
        self._secrets = tuple(secret for secret in secrets if secret.value.strip())
        pieces = list(dict.fromkeys(piece for secret in self._secrets for piece in secret.pieces()))
        self._words = {word for secret in self._secrets for word in secret.words()}
        self._whole = {folded(piece) for piece in pieces}
        self._forms = list(dict.fromkeys(form for piece in pieces for form in forms(piece)))
        self._beginnings = [piece for piece in pieces if " " not in piece and not folded(piece).isdigit()]
        self._exact = [_exact(piece) for piece in pieces]
        self._only_exact = [_exact(piece) for piece in pieces if not folded(piece).strip(_DIGITS)]
        self._beside_name = [_beside_name(secret) for secret in self._secrets if secret.is_ordinary]
        by_kind = {kind: [form for form in self._forms if form.kind == kind] for kind in get_args(Kind)}
        self._quick = [_quick(kind, of_kind) for kind, of_kind in by_kind.items() if of_kind]
        self._starts = tuple({piece[:MIN_LENGTH] for piece in self._beginnings})
        self._cache: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._secrets)} secrets>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Redactor) and self._secrets == other._secrets

    def __hash__(self) -> int:
        return hash(self._secrets)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def redact(self, text: str) -> str:
        """The text without secrets. Never raises."""
        if not self._secrets or not text:
            return text
        known = self._cache.get(text)
        if known is None:
            known = self._mask(text) if self._may_hold_one(text) else text
            if len(text) <= _MAX_CACHED_CHARS:
                if len(self._cache) >= _MAX_CACHED:
                    self._cache.clear()
                self._cache[text] = known
        return known

    def redact_all(self, value: Any) -> Any:
        """The same of every string in nested lists and mappings; keys and numbers stay."""
        if isinstance(value, str):
            return value if value in self._trusted else self.redact(value)
        if isinstance(value, Mapping):
            return {key: self.redact_all(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_all(item) for item in value]
        return value

    def holds(self, text: str) -> str | None:
        """The name of a secret whose whole value is in the text as it is; None for none."""
        for secret in self._secrets:
            if not secret.is_ordinary and secret.value.strip() in text:
                return secret.name
        return None

    def holds_in_hex(self, data: bytes) -> str | None:
        """The same of data in upper-case hexadecimal, as LoadGen logs answers."""
        for secret in self._secrets:
            if not secret.is_ordinary and secret.value.strip().encode().hex().upper().encode() in data:
                return secret.name
        return None

    def too_short(self) -> list[str]:
        """The names of secrets that are masked beside their names only, since their values are short."""
        return [secret.name for secret in self._secrets if secret.is_ordinary and not secret.is_common]

    def _may_hold_one(self, text: str) -> bool:
        if any(pattern.search(text) for pattern in self._beside_name):
            return True
        for level in levels(text):
            raw = level.encode("ascii", "ignore")
            for kind, run, grams in self._quick:
                view = folded(level, kind)
                if run.search(raw if kind == "base64" else view) and any(gram in view for gram in grams):
                    return True
            if any(start in level for start in self._starts):
                return True
            if any(pattern.search(level) for pattern in self._only_exact):
                return True
        return False

    def _mask(self, text: str) -> str:
        spans = [match.span("value") for pattern in self._beside_name for match in pattern.finditer(text)]
        for level in traced_levels(text):
            spans += self._exact_spans(level)
            spans += self._folded_spans(level, text)
        out: list[str] = []
        at = 0
        for begin, end in _merged(spans):
            out += (text[at:begin], MASK)
            at = end
        return "".join((*out, text[at:]))

    def _exact_spans(self, level: Traced) -> Iterator[Span]:
        """Whole values as they are, and beginnings of them."""
        text = level.text
        found = [match.span() for pattern in self._exact for match in pattern.finditer(text)]
        for piece in self._beginnings:
            at = text.find(piece[:MIN_LENGTH])
            while at >= 0:
                length = MIN_LENGTH
                while piece[length : length + 1] and text[at + length : at + length + 1] == piece[length]:
                    length += 1
                found.append((at, at + length))
                at = text.find(piece[:MIN_LENGTH], at + length)
        for begin, end in found:
            yield level.starts[begin], level.ends[end - 1]

    def _folded_spans(self, level: Traced, source: str) -> Iterator[Span]:
        """All forms, by letters and digits alone."""
        views: dict[bool, tuple[bytes, list[int]]] = {}
        for form in self._forms:
            has_symbols = form.kind == "symbols"
            if has_symbols not in views:
                places = [i for i, c in enumerate(level.text) if counts(c, form.kind)]
                views[has_symbols] = folded(level.text, form.kind), places
            view, places = views[has_symbols]
            for first, last in _matches(form, view):
                begin, end = level.starts[places[first]], level.ends[places[last - 1]]
                if view[first:last] not in self._whole and self._is_word(source, begin, end):
                    continue
                like = _BASE64_LIKE if form.kind == "base64" else _KEY_LIKE
                while begin and like.match(source[begin - 1]):
                    begin -= 1
                while end < len(source) and like.match(source[end]):
                    end += 1
                yield begin, end

    def _is_word(self, source: str, begin: int, end: int) -> bool:
        """A whole word of the text that is a whole word of the secret too: no part of a key, but language."""
        around = source[max(begin - 1, 0) : begin] + source[end : end + 1]
        return source[begin:end].lower() in self._words and not any(c.isalnum() for c in around)


def _quick(kind: Kind, of_kind: Sequence[Form]) -> tuple[Kind, re.Pattern[bytes], tuple[bytes, ...]]:
    """What to look for first: a run of the form's alphabet that is long enough, then parts of the forms."""
    window = min(form.window for form in of_kind)
    grams = {gram for form in of_kind for gram, _ in form.grams()}
    return kind, re.compile(rb"[%s]{%d}" % (_ALPHABETS[kind], window)), tuple(grams)


def _matches(form: Form, view: bytes) -> Iterator[Span]:
    """Where at least `window` bytes in a row of the form are in the view: as long as they agree."""
    text = form.text
    for gram, offset in form.grams():
        at = view.find(gram)
        while at >= 0:
            left, right = 0, len(gram)
            while left < min(offset, at) and view[at - left - 1] == text[offset - left - 1]:
                left += 1
            while (
                at + right < len(view)
                and offset + right < len(text)
                and view[at + right] == text[offset + right]
            ):
                right += 1
            if left + right >= form.window:
                yield at - left, at + right
            at = view.find(gram, at + (right if left + right >= form.window else 1))


def _exact(piece: str) -> re.Pattern[str]:
    """The value as it is; one of digits alone only where it is the whole number."""
    pattern = re.escape(piece)
    if not any(c.isalpha() for c in piece):
        pattern = rf"(?<![0-9.,]){pattern}(?![0-9])"
    return re.compile(pattern, re.IGNORECASE)


def _beside_name(secret: Secret) -> re.Pattern[str]:
    """``Name: value``, ``"name": "value"``, ``name=value``, also behind ``Bearer``."""
    name, value = re.escape(secret.name), re.escape(secret.value.strip())
    between = r"""\\*["']?\s*[:=,]\s*[b(]*\\*["']?(?:bearer |basic |token )?"""
    return re.compile(rf"{name}{between}(?P<value>{value})(?![A-Za-z0-9])", re.IGNORECASE)


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Spans in order, those that meet as one."""
    begin, end = -1, -1
    for first, last in sorted(spans):
        if first > end:
            if end >= 0:
                yield begin, end
            begin, end = first, last
        else:
            end = max(end, last)
    if end >= 0:
        yield begin, end
