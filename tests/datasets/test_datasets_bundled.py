"""The bundled samples: enough of them, in the official formats, of realistic lengths, made by the script."""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from dataset_files import read
from PIL import Image as Pillow

from lbrun.datasets import InputKind, bundled

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_data.py"
LLAMA, GPT_OSS, QWEN = bundled("llama3_1_8b"), bundled("gpt_oss_120b"), bundled("qwen3vl")


@pytest.fixture(scope="module")
def made_again(tmp_path_factory: Any) -> Path:
    """A folder in which the script has made the samples once more."""
    out: Path = tmp_path_factory.mktemp("made")
    subprocess.run([sys.executable, SCRIPT, "--out", out], check=True, timeout=110, stdout=subprocess.DEVNULL)
    return out


def test_together_they_stay_below_10_megabytes() -> None:
    assert sum(path.stat().st_size for path in (LLAMA, GPT_OSS, QWEN)) < 10_000_000


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(
        ValueError, match="no bundled samples for 'gpt2'; there are llama3_1_8b, gpt_oss_120b"
    ):
        bundled("gpt2")


def test_the_llama_samples_are_in_the_format_of_cnn_eval_with_its_lengths() -> None:
    records = json.loads(LLAMA.read_text(encoding="utf-8"))
    assert all(list(record) == ["input", "tok_input", "output"] for record in records)
    samples = read(LLAMA, vocab_size=128_256)
    lengths = sorted(sample.n_input_tokens for sample in samples)
    assert len(samples) >= 200
    assert 740 < statistics.mean(lengths) < 820
    assert statistics.median(lengths) < statistics.mean(lengths)  # skewed to the right
    assert 180 <= lengths[0] < 300
    assert 2_000 < lengths[-1] <= 2_500
    assert len(read(LLAMA, InputKind.TEXT)) == len(samples)


def test_the_gpt_oss_samples_have_the_official_columns_and_three_data_sets() -> None:
    table = pq.read_table(GPT_OSS)
    assert table.column_names == ["input_tokens", "text_input", "dataset", "ground_truth", "ref_output"]
    assert set(table["dataset"].to_pylist()) == {"aime25", "gpqa_diamond", "livecodebench_v6"}
    samples = read(GPT_OSS, vocab_size=201_088)
    assert len(samples) >= 200
    assert 250 < statistics.mean(sample.n_input_tokens for sample in samples) < 1_000
    assert len(read(GPT_OSS, InputKind.TEXT)) == len(samples)


def test_the_qwen_samples_have_real_images_and_the_right_category_among_the_candidates() -> None:
    samples = read(QWEN, InputKind.PRODUCT)
    assert len(samples) >= 200
    assert {sample.image.mime for sample in samples if sample.image} == {"image/png", "image/jpeg"}
    sizes = set()
    for sample in samples[::8]:
        assert sample.image is not None
        with Pillow.open(io.BytesIO(sample.image.data)) as image:
            image.load()
            sizes.add(image.size)
    assert len(sizes) > 5
    for row in pq.read_table(QWEN).drop_columns("product_image").to_pylist():
        assert row["ground_truth_category"] in row["potential_product_categories"]


def test_the_script_makes_the_texts_that_are_bundled(made_again: Path) -> None:
    """Byte for byte for JSON; Parquet by value, since its bytes depend on the writer's version."""
    assert (made_again / LLAMA.name).read_bytes() == LLAMA.read_bytes()
    assert pq.read_table(made_again / GPT_OSS.name).equals(pq.read_table(GPT_OSS))
    texts = [column for column in pq.read_schema(QWEN).names if column != "product_image"]
    assert pq.read_table(made_again / QWEN.name, columns=texts).equals(pq.read_table(QWEN, columns=texts))
