"""No request body breaks a backend: it is served, or refused with status 400 or 404."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrun.embedded.backend import Asked
from lbrun.embedded.engine import Engine
from lbrun.embedded.exchange import RefusalError
from lbrun.embedded.latency import LatencyModel
from lbrun.embedded.metrics import ServerMetrics
from lbrun.embedded.settings import ServerSettings
from lbrun.embedded.sglang import SglangBackend
from lbrun.embedded.vllm import VllmBackend

PATHS = [
    (VllmBackend, "/v1/completions"),
    (VllmBackend, "/v1/chat/completions"),
    (SglangBackend, "/v1/completions"),
    (SglangBackend, "/v1/chat/completions"),
    (SglangBackend, "/generate"),
]
FIELDS = """
    model prompt messages max_tokens min_tokens ignore_eos temperature top_p n seed stream stream_options
    return_token_ids response_format guided_json structured_outputs input_ids text sampling_params rid
    max_completion_tokens
""".replace("\n", " ")

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=6) | st.sampled_from(FIELDS.split()), inner, max_size=4)
    ),
    max_leaves=8,
)
schemas = st.fixed_dictionaries({"type": st.just("json_schema"), "json_schema": values})
right = {
    "prompt": st.text(max_size=20) | st.lists(st.integers(-1, 520), max_size=5),
    "text": st.text(max_size=20),
    "messages": st.lists(
        st.fixed_dictionaries({"role": st.text(max_size=5), "content": st.text(max_size=9)}), max_size=2
    ),
}
optional = {
    "input_ids": st.lists(st.integers(-1, 520), max_size=5),
    "max_tokens": st.integers(-1, 420),
    "min_tokens": st.integers(-1, 30),
    "ignore_eos": st.booleans(),
    "temperature": st.floats(-0.1, 2),
    "top_p": st.floats(-0.1, 1.1),
    "seed": st.integers(),
    "stream": st.booleans(),
    "stream_options": st.fixed_dictionaries(
        {"include_usage": st.booleans(), "continuous_usage_stats": st.booleans()}
    ),
    "return_token_ids": st.booleans(),
    "response_format": schemas,
    "sampling_params": st.fixed_dictionaries(
        {}, optional={"max_new_tokens": st.integers(-1, 420), "min_new_tokens": st.integers(-1, 30)}
    ),
    "rid": st.text(max_size=5),
}
plausible = st.fixed_dictionaries(right, optional=optional)
arbitrary = st.dictionaries(st.sampled_from(FIELDS.split()), values, max_size=6)
mixed = st.builds(lambda one, other: {**one, **other}, plausible, arbitrary)


@pytest.fixture(scope="module")
def backends():
    loop = asyncio.new_event_loop()
    made = {}
    for kind in (VllmBackend, SglangBackend):
        name = "vllm" if kind is VllmBackend else "sglang"
        settings = ServerSettings(backend=name, model="tiny", max_model_len=400, vocab_size=512)
        engine = Engine(loop, LatencyModel.of(settings), 4, ServerMetrics(name))
        made[kind] = (kind(settings, engine), engine)
    yield made
    loop.close()


def answer(backends, kind, path, body):
    """Serve a request without waiting; None where it is refused."""
    backend, engine = backends[kind]
    try:
        generation = backend.generations[path](Asked(body, b"application/json"))
    except RefusalError as refusal:
        reply = refusal.reply
        assert reply.status in (200, 400, 404, 500)
        if reply.status != 200:
            json.loads(reply.body)
        return None
    ticket = engine.admit(generation.n_prompt, len(generation.answer), generation.luck)
    json.loads(generation.whole(ticket, engine))
    n = len(generation.answer)
    parts = [generation.opening(), *(generation.tokens(i, i + 1, ticket, engine) for i in range(n))]
    for event in filter(None, [*parts, *generation.closing()[:-1]]):
        json.loads(event.removeprefix(b"data: "))
    engine.release(ticket, "stop", generation.stream)
    return generation


@pytest.mark.parametrize(("kind", "path"), PATHS)
@given(body=plausible | mixed | arbitrary)
def test_any_json_is_served_or_refused(backends, kind, path, body):
    generation = answer(backends, kind, path, json.dumps(body).encode())
    if generation is not None:
        assert 1 <= len(generation.answer) <= 400 - generation.n_prompt


@pytest.mark.parametrize(("kind", "path"), PATHS)
@given(body=st.binary(max_size=60))
def test_any_bytes_are_refused(backends, kind, path, body):
    answer(backends, kind, path, body)


@pytest.mark.parametrize(("kind", "path"), PATHS)
@pytest.mark.parametrize(
    "schema", [{"minItems": 10**30, "type": "array"}, {"type": "string", "minLength": "x"}]
)
def test_odd_schemas_are_served(backends, kind, path, schema):
    body = {
        "prompt": "x",
        "text": "x",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 50,
        "guided_json": schema,
        "sampling_params": {"json_schema": json.dumps(schema), "max_new_tokens": 50},
    }
    assert answer(backends, kind, path, json.dumps(body).encode()) is not None
