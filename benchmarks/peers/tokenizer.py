"""A tokenizer without any download, for the clients that insist on one: a token for each byte of the text."""

from __future__ import annotations

import json
from pathlib import Path


def write(folder: Path) -> Path:
    """Write tokenizer.json and tokenizer_config.json, as Hugging Face's transformers reads them."""
    folder.mkdir(exist_ok=True)
    # the byte-level alphabet of GPT-2: printable characters stand for themselves, the rest for 256 and up
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    vocabulary = {letter: i for i, letter in enumerate(sorted(letters))} | {"<s>": 256, "</s>": 257}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer: dict[str, object] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
