"""URLs and headers: what is folded, what is refused, and that no secret shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lbrun
from lbrun.errors import ConfigError
from lbrun.transport import make_endpoint

PATH = "/v1/completions"


@pytest.mark.parametrize(
    ("url", "request_line", "host", "shown"),
    [
        ("http://a:8000", "/v1/completions", "a:8000", "http://a:8000"),
        ("http://a:8000/", "/v1/completions", "a:8000", "http://a:8000"),
        ("http://a:8000/v1", "/v1/completions", "a:8000", "http://a:8000"),
        ("http://a:8000/v1/", "/v1/completions", "a:8000", "http://a:8000"),
        ("http://a/pool/3", "/pool/3/v1/completions", "a", "http://a/pool/3"),
        ("http://a/pool/v1", "/pool/v1/completions", "a", "http://a/pool"),
        ("https://a.example", "/v1/completions", "a.example", "https://a.example"),
        ("https://a.example:443", "/v1/completions", "a.example", "https://a.example"),
        ("https://a.example:80", "/v1/completions", "a.example:80", "https://a.example:80"),
        ("http://[::1]:9", "/v1/completions", "[::1]:9", "http://[::1]:9"),
        ("HTTP://A:1", "/v1/completions", "a:1", "http://a:1"),
    ],
)
def test_base_url_becomes_request_line_and_host(url: str, request_line: str, host: str, shown: str) -> None:
    endpoint = make_endpoint(url, PATH)
    assert (
        endpoint.head
        == (
            f"POST {request_line} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lbrun/{lbrun.__version__}\r\n"
            "Accept: application/json, text/event-stream\r\nAccept-Encoding: identity\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
    )
    assert endpoint.url == shown


def test_address_is_split_for_connecting() -> None:
    endpoint = make_endpoint("https://[fe80::1]/x", PATH)
    assert (endpoint.host, endpoint.port, endpoint.tls) == ("fe80::1", 443, True)


@pytest.mark.parametrize(
    "url",
    [
        "a:8000",
        "localhost",
        "ftp://a",
        "http://",
        "http://:80",
        "http://a:port",
        "http://a:99999",
        "http://a:0",
        "http://a?x=1",
        "http://a#f",
        "http://a/?",
        "http://a b",
        "http://a\r\nX: y",
        "http://a\x00",
        "http://ä.example",
        "http://a/ä",
        "http://a/\\",
        "http://a,http://b",
        "http://[::1",
        "http://[fe80::1%25eth0]",
        "http://-a",
        'http://a/"',
        "",
    ],
)
def test_what_is_no_base_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ConfigError, match=r"servers.urls: .*write one like http://127.0.0.1:8000"):
        make_endpoint(url, PATH)


@pytest.mark.parametrize(
    "url", ["http://me:canary@a", "http://canary@a:1/x", "me:canary@a:80", "//x:canary@a"]
)
def test_credentials_in_a_url_are_refused_without_quoting_them(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_endpoint(url, PATH)
    assert "canary" not in str(raised.value)


@pytest.mark.parametrize("path", ["v1", "", "/a b", "/a\r\n", "/ä", "/a?b"])
def test_path_that_would_break_the_request_line_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="no path"):
        make_endpoint("http://a", path)


def test_headers_and_key_are_sent() -> None:
    headers = {"X-Team": " llm ", "user-agent": "mine", "X-Note": "caf\u00e9"}
    head = make_endpoint("http://a", PATH, headers=headers, api_key="k-123456").head
    assert b"\r\nAuthorization: Bearer k-123456\r\n" in head
    assert b"\r\nX-Team: llm\r\n" in head
    assert b"\r\nX-Note: caf\xe9\r\n" in head
    assert b"\r\nuser-agent: mine\r\n" in head
    assert b"lbrun/" not in head
    assert head.endswith(b"\r\nContent-Length: ")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nX-Evil: 1"},
        {"X-A": "b\nc"},
        {"X-A": "b\x00"},
        {"X-A": "snow\u2603man"},
        {"X-A\r\nX-Evil": "1"},
        {"X A": "1"},
        {"X-A:": "1"},
        {"": "1"},
        {"Content-Length": "0"},
        {"transfer-encoding": "chunked"},
        {"HOST": "b"},
        {"Connection": "close"},
        {"Accept-Encoding": "gzip"},
        {"X-A": "1", "x-a": "2"},
    ],
)
def test_headers_that_could_smuggle_or_break_the_framing_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"servers\.headers"):
        make_endpoint("http://a", PATH, headers=headers)


@pytest.mark.parametrize("key", ["", "sk 1", "sk\r\nX: y", "sk\x00", "schl\u00fcssel"])
def test_key_that_is_none_is_refused_without_quoting_it(key: str) -> None:
    with pytest.raises(ConfigError, match=r"servers\.api_key_env") as raised:
        make_endpoint("http://a", PATH, api_key=key)
    assert not key or key not in str(raised.value)


def test_all_problems_of_headers_are_told_together() -> None:
    with pytest.raises(ConfigError) as raised:
        make_endpoint("http://a", PATH, headers={"X A": "", "Host": "b", "Authorization": "c"}, api_key="a b")
    assert len(raised.value.problems) == 4


def test_secrets_show_neither_in_repr_nor_in_redacted_text() -> None:
    headers = {"X-Api-Key": "canary-two", "Cookie": "session=canary-three"}
    endpoint = make_endpoint("http://a", PATH, headers=headers, api_key="canary-one")
    assert "canary" not in repr(endpoint)
    said = "you sent canary-one, canary-two and session=canary-three"
    assert endpoint.redact(said) == "you sent ***, *** and ***"


def test_a_secret_that_a_message_was_cut_in_is_none_the_less_one() -> None:
    endpoint = make_endpoint("http://a", PATH, api_key="canary-one")
    assert endpoint.redact("no credit for canary-o") == "no credit for ***"
    assert endpoint.redact("'canary-o' canary-one (canary)") == "'***' *** (***)"


def test_bearer_token_given_as_a_header_is_a_secret_too() -> None:
    endpoint = make_endpoint("http://a", PATH, headers={"Authorization": "Bearer canary-one"})
    assert endpoint.redact("the key canary-one is unknown") == "the key *** is unknown"


@given(st.text(max_size=30), st.dictionaries(st.text(max_size=8), st.text(max_size=12), max_size=3))
def test_no_input_can_add_a_line_to_the_head(tail: str, headers: dict[str, str]) -> None:
    try:
        head = make_endpoint("http://a" + tail, PATH, headers=headers).head
    except ConfigError:
        return
    n_own = {"user-agent", "accept", "content-type"} - {name.lower() for name in headers}
    assert head.count(b"\r\n") == 4 + len(n_own) - 1 + len(headers)
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n")
