"""Data sets of the benchmarks, made up."""

from __future__ import annotations

import json
import random
from pathlib import Path

from lbrun.datasets.api import Sample
from lbrun.formats import FormatOptions, make_format

OFFICIAL_SAMPLES = 13_368
_OFFICIAL_IDS = 780
_OFFICIAL_TEXT = 3_500
_WORDS = ("server", "request", "token", "answer", "the", "of", "stream", "a", "measured", "queue", "and")


def small(folder: Path) -> Path:
    """1,000 samples of 170 token ids: a request body of about 1 KB."""
    path = folder / "small.json"
    path.write_text(json.dumps([{"input": "x", "tok_input": [1234] * 170, "output": ""}] * 1000))
    return path


def official_shape(folder: Path) -> tuple[Path, float]:
    """As many samples as MLPerf's llama3.1-8b has, of its mean size: 780 token ids and 3.5 KB of text each.

    Returns the file, and the megabytes of the request bodies that come of it.
    """
    draw = random.Random(1)
    path = folder / "official_shape.json"
    encode = make_format("completions", FormatOptions(model="bench", backend="vllm")).encode
    samples, body_bytes = [], 0
    for _ in range(OFFICIAL_SAMPLES):
        text = " ".join(draw.choices(_WORDS, k=_OFFICIAL_TEXT // 5))[:_OFFICIAL_TEXT]
        ids = draw.choices(range(1000, 128_000), k=_OFFICIAL_IDS)
        samples.append({"input": text, "tok_input": ids, "output": text[:300]})
        body_bytes += len(encode(Sample(0, token_ids=json.dumps(ids, separators=(",", ":")).encode())))
    path.write_text(json.dumps(samples))
    return path, body_bytes / 1e6
