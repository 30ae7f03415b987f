"""Token ids are held against what a server, or a tokenizer, says of its vocabulary."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lbrun.balance.models import ModelInfo
from lbrun.datasets import DatasetSpec, InputKind, default_columns
from lbrun.errors import DatasetError
from lbrun.run.vocabulary import check_vocabulary
from lbrun.tokenizer import local_tokenizer

URLS = ["http://a:1", "http://b:2"]
SILENT = ModelInfo(("tiny",))


def says(n: int) -> ModelInfo:
    return ModelInfo(("tiny",), vocab_size=n)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text('{"tok_input": [1, 2]}\n{"tok_input": [5, 599, 6]}\n')
    return path


def spec(path: Path, vocab_size: int | None = None) -> DatasetSpec:
    kind = InputKind.TOKEN_IDS
    return DatasetSpec(path=path, kind=kind, columns=default_columns(kind), vocab_size=vocab_size)


@pytest.mark.parametrize("models", [{0: says(512), 1: says(900)}, {0: SILENT, 1: says(512)}])
def test_an_id_beyond_the_smallest_vocabulary_is_named_with_the_server_that_told(
    data: Path, models: Mapping[int, ModelInfo]
) -> None:
    url = URLS[[info.vocab_size for info in models.values()].index(512)]
    with pytest.raises(DatasetError) as raised:
        check_vocabulary(spec(data, 1000), URLS, models)
    assert str(raised.value) == (
        f"{data}, row 1, column 'tok_input': token 1 is 599, beyond the vocabulary of 512 that {url} says "
        "its model has"
    )


@pytest.mark.parametrize("models", [{}, {0: SILENT}, {0: says(600), 1: says(10**6)}])
def test_ids_that_fit_and_servers_that_do_not_tell_are_fine(
    data: Path, models: Mapping[int, ModelInfo]
) -> None:
    check_vocabulary(spec(data), URLS, models)


def test_data_that_was_checked_against_a_smaller_vocabulary_is_not_read_again(tmp_path: Path) -> None:
    check_vocabulary(spec(tmp_path / "gone", 600), URLS, {0: says(600)})


def test_a_tokenizer_tells_its_vocabulary_with_special_tokens_and_gaps(tmp_path: Path) -> None:
    tokenizers: Any = pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    made.add_special_tokens(["<end>"])
    made.save(str(path))
    ids = json.loads(path.read_text())["added_tokens"][0]["id"]
    tokenizer = local_tokenizer(path)
    assert tokenizer is not None
    assert tokenizer.vocab_size == max(7, ids) + 1
