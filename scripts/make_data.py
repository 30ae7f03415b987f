"""Make the samples that come with lbrun, in the file formats of the official data sets.

    python scripts/make_data.py                 # writes lbrun/data/
    python scripts/make_data.py --out /tmp/x    # writes elsewhere

The texts depend on nothing but the seed. The bytes of images and Parquet files also depend on the versions of
Pillow and pyarrow.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sample_data.news import article
from sample_data.pictures import picture
from sample_data.problems import problem
from sample_data.products import product
from sample_data.tokens import token_ids

N_SAMPLES = 256
SEED = 20250401

# Llama 3's vocabulary has 128,000 pieces of text and 256 control tokens after them.
LLAMA_TEXT_IDS = 128_000
LLAMA_CONTROL = {"<|begin_of_text|>": 128_000}
SUMMARY_PROMPT = (
    "<|begin_of_text|>Read the news article below and write a summary of at most 128 tokens. Give the "
    "summary alone.\n\nArticle:\n{article}\n\nSummary:"
)
MEAN_INPUT_TOKENS = 780
INPUT_TOKENS_SIGMA = 0.52  # of the logarithm: a long tail to the right, as newspapers have it
SHORTEST, LONGEST = 200, 2_360
HALF_A_PARAGRAPH = 22

# gpt-oss's vocabulary has 201,088 ids, of which the control tokens of its chat format are among the last.
GPT_OSS_TEXT_IDS = 199_998
GPT_OSS_CONTROL = {"<|start|>": 200_006, "<|end|>": 200_007, "<|message|>": 200_008}
REASONING_PROMPT = (
    "<|start|>system<|message|>You are a careful problem solver. Work in the analysis channel and put what "
    "the user should read into the final channel.\n\nReasoning: low\n\n# Valid channels: analysis, final. "
    "Channel must be included for every "
    "message.<|end|><|start|>user<|message|>{question}<|end|><|start|>assistant"
)
REASONING_SETS = ("aime25", "gpqa_diamond", "livecodebench_v6", "livecodebench_v6")


def news_records(n_samples: int = N_SAMPLES) -> list[dict[str, Any]]:
    """Records as in cnn_eval.json: the article, the prompt's token ids, the reference summary."""
    rng = random.Random(f"{SEED} news")
    lengths = _log_normal_lengths(rng, n_samples)
    n_prompt = len(token_ids(SUMMARY_PROMPT, LLAMA_TEXT_IDS, LLAMA_CONTROL))
    records = []
    for n_tokens in lengths:
        # an article ends with a whole paragraph, that is half a paragraph later than asked for, on average
        text, summary = article(rng, n_tokens - n_prompt - HALF_A_PARAGRAPH)
        ids = token_ids(SUMMARY_PROMPT.format(article=text), LLAMA_TEXT_IDS, LLAMA_CONTROL)
        records.append({"input": text, "tok_input": ids, "output": summary})
    return records


def _log_normal_lengths(rng: random.Random, n_samples: int) -> list[int]:
    """Numbers of tokens at even steps of the distribution, shuffled: its shape does not hang on luck."""
    mu = math.log(MEAN_INPUT_TOKENS) - INPUT_TOKENS_SIGMA**2 / 2
    normal = NormalDist(mu, INPUT_TOKENS_SIGMA)
    lengths = [math.exp(normal.inv_cdf((step + 0.5) / n_samples)) for step in range(n_samples)]
    rng.shuffle(lengths)
    return [round(min(max(length, SHORTEST), LONGEST)) for length in lengths]


def reasoning_records(n_samples: int = N_SAMPLES) -> list[dict[str, Any]]:
    """Rows as in perf_eval_ref.parquet."""
    rng = random.Random(f"{SEED} reasoning")
    rows = []
    for number in range(n_samples):
        posed = problem(rng, REASONING_SETS[number % len(REASONING_SETS)])
        text = REASONING_PROMPT.format(question=posed.question)
        rows.append(
            {
                "input_tokens": token_ids(text, GPT_OSS_TEXT_IDS, GPT_OSS_CONTROL),
                "text_input": text,
                "dataset": posed.dataset,
                "ground_truth": posed.answer,
                "ref_output": posed.solution,
            }
        )
    return rows


def product_records(n_samples: int = N_SAMPLES) -> list[dict[str, Any]]:
    """Rows as in Shopify/product-catalogue."""
    rng = random.Random(f"{SEED} products")
    rows = []
    for number in range(n_samples):
        ware = product(rng)
        data, extension = picture(rng, ware.shape, ware.color)
        rows.append(
            {
                "product_image": {"bytes": data, "path": f"{number:05}.{extension}"},
                "product_title": ware.title,
                "product_description": ware.description,
                "potential_product_categories": ware.categories,
                "ground_truth_category": ware.category,
                "ground_truth_brand": ware.brand,
                "ground_truth_is_secondhand": ware.is_secondhand,
            }
        )
    return rows


REASONING_SCHEMA = pa.schema(
    [
        ("input_tokens", pa.list_(pa.int32())),
        ("text_input", pa.string()),
        ("dataset", pa.string()),
        ("ground_truth", pa.string()),
        ("ref_output", pa.string()),
    ]
)
PRODUCT_SCHEMA = pa.schema(
    [
        ("product_image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("product_title", pa.string()),
        ("product_description", pa.string()),
        ("potential_product_categories", pa.list_(pa.string())),
        ("ground_truth_category", pa.string()),
        ("ground_truth_brand", pa.string()),
        ("ground_truth_is_secondhand", pa.bool_()),
    ]
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the samples that come with lbrun.")
    default = Path(__file__).parent.parent / "lbrun" / "data"
    parser.add_argument("--out", type=Path, default=default, help="folder to write to (default: %(default)s)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    news = json.dumps(news_records(), ensure_ascii=False)
    (out / "llama3_1_8b_sample.json").write_text(news, encoding="utf-8")
    for name, rows, schema in (
        ("gpt_oss_120b_sample.parquet", reasoning_records(), REASONING_SCHEMA),
        ("qwen3vl_sample.parquet", product_records(), PRODUCT_SCHEMA),
    ):
        table = pa.Table.from_pylist(rows, schema)
        pq.write_table(table, out / name, compression="zstd", row_group_size=64)
    for path in sorted(out.glob("*_sample.*")):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
