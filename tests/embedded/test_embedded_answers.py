"""What the simulated model says: deterministic, within its limits, and valid where a schema asks for it."""

from __future__ import annotations

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbrun.embedded.answers import AnswerModel, count_tokens, prompt_key, split_text
from lbrun.embedded.images import ImageError, decode_data_uri, image_size
from lbrun.embedded.schema import fitting_json

EOS = 128009
MODEL = AnswerModel(mean_tokens=73, vocab_size=128256, eos_id=EOS)
keys = st.binary(min_size=16, max_size=16)


@given(prompt=st.binary(), seed=st.integers(), asked=st.none() | st.integers())
def test_the_same_prompt_and_seeds_give_the_same_answer(prompt, seed, asked):
    first, second = (MODEL.answer(prompt_key(prompt, seed, asked), 128) for _ in range(2))
    assert first == second


def test_prompts_and_seeds_make_a_difference():
    answers = {
        tuple(MODEL.answer(prompt_key(prompt, seed, asked), 128).ids)
        for prompt in (b"a", b"b")
        for seed in (0, 1)
        for asked in (None, 42)
    }
    assert len(answers) == 8


@given(key=keys, max_tokens=st.integers(1, 500), data=st.data())
def test_lengths_respect_the_limits_and_say_why_they_end(key, max_tokens, data):
    min_tokens = data.draw(st.integers(0, max_tokens))
    answer = MODEL.answer(key, max_tokens, min_tokens)
    assert max(1, min_tokens) <= len(answer) <= max_tokens
    assert (answer.ids[-1] == EOS) == (answer.finish_reason == "stop")
    assert EOS not in answer.ids[:-1]
    assert len(answer.pieces) == len(answer.ids)
    assert all(0 <= token < 128256 for token in answer.ids)
    assert answer.text.isprintable()
    assert answer.text == answer.text.strip()


@given(key=keys, max_tokens=st.integers(1, 500))
def test_ignore_eos_gives_exactly_max_tokens(key, max_tokens):
    answer = MODEL.answer(key, max_tokens, ignore_eos=True)
    assert (len(answer), answer.finish_reason) == (max_tokens, "length")


@given(key=keys, short=st.integers(1, 100), more=st.integers(0, 100))
def test_a_lower_limit_gives_the_beginning_of_the_longer_answer(key, short, more):
    longer = MODEL.answer(key, short + more, ignore_eos=True)
    assert list(longer.ids[:short]) == list(MODEL.answer(key, short, ignore_eos=True).ids)


def test_lengths_have_the_configured_mean():
    lengths = [MODEL.length(prompt_key(str(i).encode())) for i in range(4000)]
    assert statistics.mean(lengths) == pytest.approx(73, rel=0.03)
    assert statistics.stdev(lengths) == pytest.approx(73 / 2, rel=0.1)


@given(st.text())
def test_text_is_counted_as_it_is_cut(text):
    assert count_tokens(text) == len(split_text(text))
    assert "".join(split_text(text)) == text


@given(key=keys, vocab=st.integers(2, 300))
def test_small_vocabularies_work(key, vocab):
    answer = AnswerModel(20, vocab, vocab - 1).answer(key, 30)
    assert all(0 <= token < vocab for token in answer.ids)


PRODUCT = {
    "type": "object",
    "properties": {
        "category": {"type": "string", "enum": ["A > B", "C"]},
        "brand": {"anyOf": [{"type": "string", "maxLength": 10}, {"type": "null"}]},
        "is_secondhand": {"type": "boolean"},
        "price": {"type": "number", "minimum": 5},
        "sizes": {"type": "array", "items": {"$ref": "#/$defs/size"}, "minItems": 2},
    },
    "$defs": {"size": {"type": "integer", "exclusiveMinimum": 3}},
    "required": ["category"],
}


@given(keys)
def test_guided_answers_fit_their_schema(key):
    document = json.loads(fitting_json(PRODUCT, key))
    assert list(document) == list(PRODUCT["properties"])
    assert document["category"] in ("A > B", "C")
    assert len(document["brand"]) <= 10
    assert isinstance(document["is_secondhand"], bool)
    assert document["price"] >= 5
    assert len(document["sizes"]) == 2
    assert min(document["sizes"]) > 3
    assert fitting_json(PRODUCT, key) == json.dumps(document, ensure_ascii=False, separators=(",", ":"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 20) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(
    st.recursive(
        st.sampled_from([{"type": t} for t in ("string", "integer", "boolean", "null", "number")]),
        lambda inner: (
            st.builds(lambda i: {"type": "array", "items": i}, inner)
            | st.builds(
                lambda p: {"type": "object", "properties": p}, st.dictionaries(st.text(max_size=5), inner)
            )
            | st.builds(lambda a: {"anyOf": a}, st.lists(inner, min_size=1, max_size=3))
        ),
    )
)
def test_any_schema_gives_valid_json(schema):
    json.loads(fitting_json(schema, b"k" * 16))


def test_a_recursive_schema_ends():
    schema = {"$ref": "#/$defs/node", "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}}
    json.loads(fitting_json(schema, b"k" * 16))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_image_headers(data):
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"GIF89a", b"RIFF0000WEBPVP8 "):
        try:
            width, height = image_size(start + data)
        except ImageError:
            continue
        assert width > 0
        assert height > 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_sizes_of_real_images_are_read(kind):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (96, 64), "red").save(file, kind)
    assert image_size(file.getvalue()) == (96, 64)


def test_what_is_no_base64_is_refused():
    with pytest.raises(ImageError, match="Non-base64"):
        decode_data_uri("data:image/png;base64,@@@@")
