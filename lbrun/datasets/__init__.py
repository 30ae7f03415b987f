"""Datasets: from a data file to samples.

from lbrun.datasets import DatasetSpec, InputKind, bundled, default_columns, read_samples

kind = InputKind.TOKEN_IDS
spec = DatasetSpec(path=bundled("llama3_1_8b"), kind=kind, columns=default_columns(kind))
samples = list(read_samples(spec))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lbrun.datasets.api import DatasetSpec, Image, InputKind, Sample

if TYPE_CHECKING:
    from lbrun.datasets.bundled_samples import bundled
    from lbrun.datasets.columns import default_columns
    from lbrun.datasets.reader import read_samples

__all__ = ["DatasetSpec", "Image", "InputKind", "Sample", "bundled", "default_columns", "read_samples"]

_LAZY = {"bundled": "bundled_samples", "default_columns": "columns", "read_samples": "reader"}


def __getattr__(name: str) -> Any:
    """The readers are imported at their first use: worker processes know samples, and never read a file."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"lbrun.datasets.{_LAZY[name]}"), name)
