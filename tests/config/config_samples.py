"""A small configuration that is right, for tests to spoil."""

from __future__ import annotations

import copy
from typing import Any

MINIMAL: dict[str, Any] = {
    "model": {
        "name": "llama3.1-8b",
        "mlperf_name": "llama3_1-8b",
        "mlperf_name_interactive": "llama3_1-8b-interactive",
        "hf_id": "meta-llama/Llama-3.1-8B-Instruct",
        "formats": {"vllm": "completions", "sglang": "completions", "openai": "completions"},
        "bundled_data": "llama3_1_8b",
        "sampling": {
            "temperature": 0,
            "top_p": 1,
            "top_k": 1,
            "seed": 42,
            "max_tokens": 128,
            "min_tokens": 1,
        },
    },
    "servers": {"urls": ["http://a:8000", "http://b:8000"]},
    "scenario": {"name": "offline", "loadgen": "Offline"},
}


def changed(**values: Any) -> dict[str, Any]:
    """MINIMAL with dotted keys set; ``__`` stands for the dot."""
    raw = copy.deepcopy(MINIMAL)
    for key, value in values.items():
        *sections, last = key.split("__")
        node = raw
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return raw
