"""Parsers of what servers say, for any bytes: no crash, no hang, no wrong success, bounded memory.

``pytest -m fuzz`` has atheris look for a minute a parser (``LBRUN_FUZZ_S``); Hypothesis looks always.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_seeds import WORDS, answers, seeds
from fuzz_targets import N_CHOICES, TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

FUZZ_S = int(os.environ.get("LBRUN_FUZZ_S", "60"))
BODIES = st.deferred(lambda: st.sampled_from([body for _, body in answers()]))
HEADS = st.deferred(lambda: st.sampled_from([head for head, _ in answers()]))
PIECES = st.one_of(st.sampled_from(WORDS), st.binary(max_size=12), BODIES, HEADS)


@st.composite
def said(draw: st.DrawFn) -> bytes:
    """Words of the protocols, captured answers and junk, in any order, with a bit of it spoiled."""
    data = bytearray(b"".join(draw(st.lists(PIECES, max_size=8))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 40))] = draw(st.binary(max_size=3))
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS)
def test_what_real_servers_have_said_is_read_as_it_must_be(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=300, deadline=None)
@given(choices=st.binary(min_size=N_CHOICES, max_size=N_CHOICES), data=said())
def test_any_bytes_are_read_as_they_must_be(target: str, choices: bytes, data: bytes) -> None:
    TARGETS[target](choices + data)


@pytest.mark.fuzz
@pytest.mark.timeout(FUZZ_S * 3 + 120)
@pytest.mark.parametrize("target", TARGETS)
def test_atheris_finds_nothing(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="needs atheris: pip install -e '.[test,fuzz]'")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for n, seed in enumerate(seeds(target)):
        (corpus / f"{n}").write_bytes(seed)
    words = tmp_path / "words.dict"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in WORDS))
    script = Path(__file__).parent / "run_atheris.py"
    done = subprocess.run(
        [
            sys.executable, script, target, f"-max_total_time={FUZZ_S}", "-timeout=10", "-rss_limit_mb=2048",
            "-max_len=16384", f"-dict={words}", f"-artifact_prefix={tmp_path}/", corpus,
        ],
        capture_output=True, text=True, errors="replace", cwd=script.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
