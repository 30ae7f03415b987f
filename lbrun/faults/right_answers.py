"""What an embedded server says to each sample when nothing is wrong, worked out without any server.

The way here is the servers' own from a prompt's token ids on; lbrun's request formats and transport have no
part in it, so that an answer that went to the wrong sample, or lost an end, is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lbrun.datasets import DatasetSpec, InputKind, bundled, default_columns, read_samples
from lbrun.embedded.answers import Answer, AnswerModel
from lbrun.embedded.requests import CompletionRequest, drawn_answer, prompt_of_ids
from lbrun.embedded.settings import EmbeddedSettings

_DEFAULT_MAX_TOKENS = 128


def right_answers(config: Mapping[str, Any], servers: EmbeddedSettings) -> Sequence[Answer]:
    """The answers by sample index. config: of ``result.json``. servers: what the pool was told to be."""
    model, dataset = config["model"], config["dataset"]
    path = Path(dataset["path"]) if dataset["path"] else bundled(model["bundled_data"])
    sampling = model["sampling"]
    request = CompletionRequest(seed=sampling["seed"], min_tokens=sampling["min_tokens"])
    answers = AnswerModel(servers.output_tokens_mean, servers.vocab_size, servers.eos_id)
    spec = DatasetSpec(
        path=path,
        kind=InputKind.TOKEN_IDS,
        columns=default_columns(InputKind.TOKEN_IDS),
        limit=dataset["max_samples"],
    )
    found = []
    for sample in read_samples(spec):
        prompt = prompt_of_ids(msgspec.json.decode(sample.token_ids or b"[]"))
        max_tokens = sampling["max_tokens"] or _DEFAULT_MAX_TOKENS
        found.append(drawn_answer(answers, request, prompt, max_tokens, servers.seed)[0])
    return found
