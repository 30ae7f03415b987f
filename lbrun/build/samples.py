"""A run's data: which samples it reads, and the request body of each."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lbrun.build.formats import known_vocab_size, request_format
from lbrun.build.policies import n_workers
from lbrun.config import RunSettings
from lbrun.datasets import DatasetSpec, InputKind, bundled, default_columns, read_samples
from lbrun.errors import ConfigError, DatasetError
from lbrun.formats.api import RequestFormat
from lbrun.workers import SharedBodies

_EXPECTED_OUTPUT_TOKENS = 256
"""What an answer is taken to cost the balancer in tokens, unless max_tokens is less."""
_CHARS_PER_TOKEN = 4
_FIRST_TOKENS = 4
"""Output tokens of the request that tries a server before the test."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The dataset, ready to be sent. bodies[i], costs[i]: of sample i. request_format: how answers are read.
    first_body: a short request like them, to try the servers with before the test. prompt_lengths: in tokens,
    where prompts are sent as token ids and servers therefore count just as many; None otherwise.
    """

    bodies: Sequence[bytes | memoryview]
    costs: list[int]
    request_format: RequestFormat
    first_body: bytes
    prompt_lengths: Sequence[int] | None


def prepare_samples(settings: RunSettings) -> Prepared:
    """Read the dataset and encode every body. Raises DatasetError, naming file, row and column."""
    fmt, first = request_format(settings), request_format(settings, _FIRST_TOKENS)
    spec = dataset_spec(settings, fmt.name)
    limit = settings.effective_sampling.get("max_tokens") or _EXPECTED_OUTPUT_TOKENS
    sends_ids = spec.kind is InputKind.TOKEN_IDS
    output_tokens = min(int(limit), _EXPECTED_OUTPUT_TOKENS)
    costs: list[int] = []
    lengths = array("I")
    first_bodies: list[bytes] = []

    def encoded() -> Iterator[bytes]:
        for sample in read_samples(spec):
            try:
                if not first_bodies:
                    first_bodies.append(first.encode(sample))
                body = fmt.encode(sample)
            except ValueError as error:
                raise DatasetError(str(error), path=spec.path, row=sample.index) from None
            input_tokens = sample.n_input_tokens or len(sample.text or "") // _CHARS_PER_TOKEN
            costs.append(input_tokens + output_tokens)
            if sends_ids:
                lengths.append(sample.n_input_tokens)
            yield body

    # worker processes read the bodies from shared memory; one process keeps them as they are
    bodies = SharedBodies.store(encoded()) if n_workers(settings) else list(encoded())
    return Prepared(bodies, costs, fmt, first_bodies[0], lengths if sends_ids else None)


def dataset_spec(settings: RunSettings, format_name: str) -> DatasetSpec:
    """Which samples the run reads, and which of their columns."""
    dataset, model = settings.dataset, settings.model
    path = dataset.path
    if settings.mode == "accuracy" and dataset.accuracy_path is not None:
        path = dataset.accuracy_path
    if path is None:
        if model.bundled_data is None:
            raise ConfigError("dataset.path: this model has no bundled data; name a data file")
        path = bundled(model.bundled_data)
    kind = _input_kind(settings, format_name)
    return DatasetSpec(
        path=path,
        kind=kind,
        columns={**default_columns(kind), **dataset.columns.given()},
        file_format=dataset.file_format,
        limit=dataset.max_samples,
        vocab_size=known_vocab_size(settings),
        categories_as_list=model.chat.categories == "list",
    )


def ids_are_unchecked(settings: RunSettings, fmt: RequestFormat) -> bool:
    """Token ids are sent, and nothing has told how large the vocabulary is."""
    spec = dataset_spec(settings, fmt.name)
    return spec.kind is InputKind.TOKEN_IDS and spec.vocab_size is None


def _input_kind(settings: RunSettings, format_name: str) -> InputKind:
    if format_name == "chat":
        return InputKind(settings.model.chat.input)
    return InputKind(settings.model.prompt)
