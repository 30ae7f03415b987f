"""Secrets are masked in every usual encoding, whole and in parts, and ordinary text is left alone."""

from __future__ import annotations

import base64
import html
import json
import pickle
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lbrun.redaction import MASK, Redactor, Secret

KEY = "sk-Kan4ry/AbCd&EfGh+IjKlMnOp=QrSt'UvWx\"Yz0123456789"
PLAIN_KEY = "Kan4ryAbCdEfGhIjKlMnOpQrStUvWxYz0123456789"
SYMBOLS = 'p@$"/\\&%+=!'


def _each(pattern: str) -> Callable[[str], str]:
    return lambda text: "".join(pattern % ord(c) for c in text)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "upper case": str.upper,
    "lower case": str.lower,
    "swapped case": str.swapcase,
    "JSON": json.dumps,
    "JSON of PHP": lambda k: json.dumps(k).replace("/", "\\/"),
    "JSON of Go": lambda k: json.dumps(k).replace("&", "\\u0026").replace("'", "\\u0027"),
    "JSON in JSON": lambda k: json.dumps(json.dumps(k).replace("&", "\\u0026").replace("/", "\\/")),
    "JSON in JSON in JSON": lambda k: json.dumps(json.dumps(json.dumps(k))),
    "all characters as \\u": _each("\\u%04x"),
    "all characters as \\U": _each("\\U%08X"),
    "all characters as \\u{}": _each("\\u{%x}"),
    "all characters as \\\\u, in capitals": lambda k: json.dumps(_each("\\u%04X")(k)),
    "all characters as \\x": _each("\\x%02x"),
    "all characters in octal": _each("\\%03o"),
    "Python's repr": repr,
    "Python's repr of bytes": lambda k: repr(k.encode()),
    "repr of a repr": lambda k: repr(repr(k)),
    "percent": lambda k: urllib.parse.quote(k),
    "percent, no safe characters": lambda k: urllib.parse.quote(k, safe=""),
    "percent, a form": urllib.parse.quote_plus,
    "all characters as percent": _each("%%%02X"),
    "all characters as percent, small": _each("%%%02x"),
    "percent twice": lambda k: urllib.parse.quote(urllib.parse.quote(k, safe=""), safe=""),
    "JavaScript's escape": _each("%%u%04x"),
    "HTML": html.escape,
    "HTML, slashes too": lambda k: html.escape(k).replace("/", "&#x2F;").replace("=", "&#61;"),
    "all characters as HTML": _each("&#x%x;"),
    "all characters as HTML, decimal": _each("&#%d;"),
    "HTML in HTML": lambda k: html.escape(html.escape(k)),
    "hex": lambda k: k.encode().hex(),
    "hex, capitals": lambda k: k.encode().hex().upper(),
    "hex, blanks": lambda k: k.encode().hex(" "),
    "hex, colons": lambda k: k.encode().hex(":"),
    "bytes in decimal": lambda k: str(list(k.encode())),
    "base64": lambda k: base64.b64encode(k.encode()).decode(),
    "base64, urlsafe": lambda k: base64.urlsafe_b64encode(k.encode()).decode(),
    "base64, unpadded": lambda k: base64.b64encode(k.encode()).decode().rstrip("="),
    "base64 of basic auth": lambda k: base64.b64encode(b"user:" + k.encode()).decode(),
    "base64 behind one byte": lambda k: base64.b64encode(b"u" + k.encode()).decode(),
    "base64 within more": lambda k: base64.b64encode(b"ab" + k.encode() + b"cd").decode(),
    "base64 in lines": lambda k: base64.encodebytes((k + "!").encode() * 3).decode(),
    "base64 in lines, in JSON": lambda k: json.dumps(base64.encodebytes(k.encode() * 3).decode()),
    "base64 in a URL": lambda k: urllib.parse.quote(base64.b64encode(k.encode()).decode(), safe=""),
    "blanks between": " ".join,
    "zero bytes between": "\0".join,
    "zero-width blanks between": "\u200b".join,
    "wrapped": lambda k: k[:10] + "\n   " + k[10:],
    "wrapped as in quoted-printable": lambda k: k[:10] + "=\r\n" + k[10:],
}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("key", [KEY, PLAIN_KEY])
def test_a_key_is_masked_in_every_encoding(name: str, key: str) -> None:
    said = ENCODINGS[name](key)
    redactor = Redactor([Secret("Authorization", key)])
    for before, after in (("", ""), ("bad key: ", " (id 17)"), ('{"error":{"message":"', '"}}')):
        masked = redactor.redact(before + said + after)
        assert MASK in masked
        assert not _leaks(said, masked), masked
        assert masked.startswith(before.rstrip("\"'"))
        assert redactor.redact(masked) == masked


def _leaks(said: str, masked: str, n: int = 6) -> list[str]:
    """Parts of what was said that are still there, besides quotes and backslashes."""
    parts = {said[i : i + n] for i in range(len(said) - n + 1)}
    return [part for part in parts if part in masked and any(map(str.isalnum, part))]


@pytest.mark.parametrize("name", [n for n in ENCODINGS if not n.startswith(("blanks", "zero", "wrapped"))])
def test_a_secret_of_symbols_is_masked_where_it_is_whole(name: str) -> None:
    said = ENCODINGS[name](SYMBOLS)
    masked = Redactor([Secret("X-Odd", SYMBOLS)]).redact(f"refused: {said}; sorry")
    assert masked.startswith("refused: ")
    assert masked.endswith("; sorry")
    assert not _leaks(said, masked), masked


_alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~+/=&%"


@given(
    st.text(_alphabet, min_size=12, max_size=60),
    st.sampled_from(sorted(ENCODINGS)),
    st.text(" abc.,:;(){}\"'", max_size=20),
    st.text(" abc.,:;(){}\"'", max_size=20),
)
@example(KEY, "JSON in JSON", 'x "', '"')
def test_any_key_is_masked_whatever_stands_around_it(key: str, name: str, before: str, after: str) -> None:
    letters = "".join(c for c in key.lower() if c.isascii() and c.isalnum())
    assume(len(set(letters)) >= 10)  # no word of the text around it, by any chance
    assume("%" not in key or name == "plain")  # what is an escape itself is ambiguous when it is undone
    said = ENCODINGS[name](key)
    masked = Redactor([Secret("X", key)]).redact(before + said + after)
    assert said not in masked
    plain = "".join(c for c in masked.lower() if c.isascii() and c.isalnum())
    assert letters not in plain


@given(st.integers(0, 30), st.integers(8, 30))
def test_a_part_of_eight_letters_and_digits_is_masked(start: int, length: int) -> None:
    part = PLAIN_KEY[start : start + length]
    assume(len(part) >= 8)
    redactor = Redactor([Secret("Authorization", PLAIN_KEY)])
    masked = redactor.redact(f"this is wrong: {part}")
    assert masked.startswith("this is ")
    assert masked.endswith(MASK)
    encoded = base64.b64encode(part.encode()).decode().rstrip("=")
    if len(part) >= 11:
        assert encoded[4:-4] not in redactor.redact(f"no such key: {encoded}")


def test_the_beginning_of_a_key_is_masked_where_a_text_was_cut() -> None:
    redactor = Redactor([Secret("Authorization", KEY)])
    assert redactor.redact("no credit for sk-Kan") == f"no credit for {MASK}"
    assert redactor.redact("no credit for sk-Ka") == "no credit for sk-Ka"  # 5 characters


def test_parts_of_a_value_are_secrets_too() -> None:
    pair = base64.b64encode(b"admin:hunter2").decode()
    redactor = Redactor(
        [
            Secret("X-Gateway", "Bearer tok-99"),
            Secret("Cookie", "session=cook77; theme=dark"),
            Secret("Proxy", "Basic " + pair),
        ]
    )
    said = "tok-99; cook77; hunter2; " + pair
    assert redactor.redact(said) == f"{MASK}; {MASK}; {MASK}; {MASK}"
    assert redactor.redact("Bearer token of the session is dark") == "Bearer token of the session is dark"


def test_ordinary_text_is_left_alone() -> None:
    secrets = [
        Secret("X-Tenant", "prod-internal-gateway"),
        Secret("X-Number", "48392012"),
        Secret("X-Plan", "default"),
        Secret("X-Colour", "blue"),
        Secret("Authorization", "EMPTY"),
    ]
    redactor = Redactor(secrets)
    for text in (
        "HTTP 500 Internal Server Error: the gateway is gone",
        "1,048,392,012 tokens, 483920123 or 248392012 of them; 4839 2012",
        "the default sky is blue, the queue EMPTY",
        '{"default": 1, "colour": "blue"}',
    ):
        assert redactor.redact(text) == text
    assert redactor.redact("order 48392012.") == f"order {MASK}."
    assert redactor.redact("tenant prod-internal-gateway") == f"tenant {MASK}"
    assert redactor.too_short() == ["X-Colour"]


def test_a_value_that_is_ordinary_text_is_masked_beside_its_name() -> None:
    redactor = Redactor([Secret("X-Colour", "blue"), Secret("Authorization", "EMPTY")])
    assert redactor.redact("X-Colour: blue, sky: blue") == f"X-Colour: {MASK}, sky: blue"
    assert redactor.redact('{"x-colour":"blue"}') == f'{{"x-colour":"{MASK}"}}'
    assert redactor.redact("(b'x-colour', b'blue')") == f"(b'x-colour', b'{MASK}')"
    assert redactor.redact("authorization: Bearer EMPTY!") == f"authorization: Bearer {MASK}!"


def test_documents_keep_their_keys_numbers_and_trusted_strings() -> None:
    redactor = Redactor([Secret("X", "gpu-cluster-7")], trusted=["http://gpu-cluster-7:8000"])
    document = {
        "gpu-cluster-7": 7,
        "url": "http://gpu-cluster-7:8000",
        "said": ["not gpu-cluster-7", None, 1.5, True],
    }
    assert redactor.redact_all(document) == {
        "gpu-cluster-7": 7,
        "url": "http://gpu-cluster-7:8000",
        "said": [f"not {MASK}", None, 1.5, True],
    }


def test_a_redactor_shows_no_secret_and_can_be_pickled() -> None:
    redactor = Redactor([Secret("X", KEY)])
    redactor.redact(f"something {KEY}")
    assert "Kan4ry" not in repr(redactor)
    assert "Kan4ry" not in repr(Secret("X", KEY))
    again = pickle.loads(pickle.dumps(redactor))
    assert again == redactor
    assert again.redact(KEY) == MASK


@given(st.text(max_size=200))
@example("\\" * 300 + "u{ffffff}" + "%" * 300 + "&#x110000;&#99999999;&" + "\ud800")
def test_any_text_can_be_redacted(text: str) -> None:
    assert Redactor([Secret("X", KEY), Secret("Y", SYMBOLS), Secret("Z", "ab")]).redact(text) is not None


def test_without_secrets_nothing_is_changed() -> None:
    assert Redactor().redact(KEY) == KEY
    assert Redactor([Secret("X", "")]).redact(KEY) == KEY
