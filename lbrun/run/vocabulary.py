"""Token ids against what the servers say of their vocabulary, which is known only once they are ready.

An id outside it ends a real SGLang, and every other server that the sample is retried on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lbrun.balance.models import ModelInfo
from lbrun.datasets import DatasetSpec, InputKind, read_samples
from lbrun.errors import DatasetError


def check_vocabulary(spec: DatasetSpec, urls: Sequence[str], models: Mapping[int, ModelInfo]) -> None:
    """Read the data again if a server's vocabulary is smaller than the one that it was checked against.

    spec: how it was read. models: what the ready servers said, by their index in urls.
    Raises DatasetError for the first id beyond the smallest vocabulary.
    """
    told = {info.vocab_size: urls[server] for server, info in models.items() if info.vocab_size}
    if spec.kind is not InputKind.TOKEN_IDS or not told:
        return
    smallest = min(told)
    if spec.vocab_size is not None and spec.vocab_size <= smallest:
        return
    try:
        for _ in read_samples(replace(spec, vocab_size=smallest)):
            pass
    except DatasetError as error:
        message = f"{error.message} that {told[smallest]} says its model has"
        raise DatasetError(message, path=error.path, row=error.row, column=error.column) from None
