"""What a server counts and sends is held to what it was asked for, in every format, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lbrun.attempt import Answer, BadAnswer, FailureKind
from lbrun.formats import FormatOptions, make_format
from lbrun.formats.bounds import INT32_END, INT32_MAX, Bounds, asked_tokens
from lbrun.formats.json_format import JsonFormat
from lbrun.formats.options import Backend

NAMES = ("completions", "chat", "sglang_generate")
MAX_TOKENS, VOCABULARY = 4, 100
BEYOND = (MAX_TOKENS + 1, 1000, 2**31, 2**63 - 1, 2**63, 10**30, -1, -(2**63), -(10**30))


def make(name: str, **more: Any) -> JsonFormat:
    options: dict[str, Any] = {"sampling": {"max_tokens": MAX_TOKENS}, "vocab_size": VOCABULARY}
    options |= {"payload": "token_ids", **more}
    backend: Backend = "sglang" if name == "sglang_generate" else "vllm"
    return make_format(name, FormatOptions(model="m", backend=backend, **options))


def whole(name: str, ids: list[int], n: int | None = None, n_prompt: int = 5) -> bytes:
    n = len(ids) if n is None else n
    if name == "sglang_generate":
        meta = {"completion_tokens": n, "prompt_tokens": n_prompt, "finish_reason": {"type": "stop"}}
        return json.dumps({"text": "a", "output_ids": ids, "meta_info": meta}).encode()
    said = {"message": {"role": "assistant", "content": "a"}} if name == "chat" else {"text": "a"}
    choice = {"index": 0, "finish_reason": "stop", "token_ids": ids, **said}
    return json.dumps(
        {"choices": [choice], "usage": {"completion_tokens": n, "prompt_tokens": n_prompt}}
    ).encode()


def streamed(name: str, ids: list[int], n: int | None = None, n_prompt: int = 5) -> bytes:
    """One event with all tokens, and the end mark."""
    body = whole(name, ids, n, n_prompt).replace(b'"message"', b'"delta"')
    return b"data: " + body + b"\n\ndata: [DONE]\n\n"


def read(name: str, body: bytes, stream: bool, **more: Any) -> Answer:
    fmt = make(name, stream=stream, **more)
    if not stream:
        return fmt.decode(body)
    decoder = fmt.stream_decoder()
    decoder.feed(body)
    return decoder.finish()


def failure(name: str, body: bytes, stream: bool, **more: Any) -> BadAnswer:
    with pytest.raises(BadAnswer) as caught:
        read(name, body, stream, **more)
    return caught.value


def build(stream: bool) -> Any:
    return streamed if stream else whole


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", NAMES)
class TestEveryFormat:
    def test_as_many_tokens_as_were_asked_for_are_fine(self, name: str, stream: bool) -> None:
        answer = read(name, build(stream)(name, [1, 2, 3, VOCABULARY - 1]), stream)
        assert answer.n_tokens == MAX_TOKENS

    @pytest.mark.parametrize("n", BEYOND)
    def test_a_count_beyond_the_limit_is_implausible(self, name: str, stream: bool, n: int) -> None:
        bad = failure(name, build(stream)(name, [1, 2], n), stream, payload="none")
        assert bad.kind is FailureKind.IMPLAUSIBLE
        assert len(bad.message) < 200

    @pytest.mark.parametrize("n_prompt", [-1, 2**31, 2**63, 10**30, -(10**30)])
    def test_a_prompt_count_that_cannot_be_is_implausible(
        self, name: str, stream: bool, n_prompt: int
    ) -> None:
        bad = failure(name, build(stream)(name, [1, 2], n_prompt=n_prompt), stream)
        assert bad.kind is FailureKind.IMPLAUSIBLE

    @pytest.mark.parametrize("wrong", [VOCABULARY, -1, 2**31, 2**63, 10**30])
    @pytest.mark.parametrize("at", [0, 1])
    def test_an_id_outside_the_vocabulary_is_implausible(
        self, name: str, stream: bool, wrong: int, at: int
    ) -> None:
        ids = [1, 2]
        ids[at] = wrong
        assert failure(name, build(stream)(name, ids), stream).kind is FailureKind.IMPLAUSIBLE

    def test_more_ids_than_were_asked_for_are_implausible(self, name: str, stream: bool) -> None:
        bad = failure(name, build(stream)(name, [1] * 50), stream)
        assert bad.kind is FailureKind.IMPLAUSIBLE

    @pytest.mark.parametrize("n", ["1e400", "NaN", "true", '"3"', "2.5", "9" * 5000])
    def test_a_count_that_is_no_number_is_malformed(self, name: str, stream: bool, n: str) -> None:
        body = build(stream)(name, [1, 2], 77).replace(b"77", n.encode())
        assert failure(name, body, stream).kind in (FailureKind.MALFORMED, FailureKind.IMPLAUSIBLE)


def test_where_nothing_is_known_int32_is_the_bound() -> None:
    bounds = Bounds()
    bounds.check_counts(INT32_MAX, INT32_MAX)
    bounds.check_ids([0, INT32_END - 1])
    with pytest.raises(BadAnswer):
        bounds.check_ids([INT32_END])
    with pytest.raises(BadAnswer):
        bounds.check_counts(INT32_MAX + 1, 0)


@pytest.mark.parametrize(
    ("bodies", "asked"),
    [
        ([{}], INT32_MAX),
        ([{"max_tokens": 8}], 8),
        ([{"max_tokens": 8}, {"max_completion_tokens": 9}], 9),
        ([{"max_tokens": 8}, {}, {"max_new_tokens": 3}], 3),
        ([{"max_tokens": None}], INT32_MAX),
        ([{"max_tokens": 10**30}], INT32_MAX),
    ],
)
def test_the_limit_is_what_the_request_says(bodies: list[dict[str, Any]], asked: int) -> None:
    assert asked_tokens(*bodies) == asked
