"""Datasets: from a data file to samples.

from lbrun.datasets import DatasetSpec, InputKind, bundled, default_columns, read_samples

kind = InputKind.TOKEN_IDS
spec = DatasetSpec(path=bundled("llama3_1_8b"), kind=kind, columns=default_columns(kind))
samples = list(read_samples(spec))
"""

from lbrun.datasets.api import DatasetSpec, Image, InputKind, Sample
from lbrun.datasets.bundled import bundled
from lbrun.datasets.columns import default_columns
from lbrun.datasets.reader import read_samples

__all__ = ["DatasetSpec", "Image", "InputKind", "Sample", "bundled", "default_columns", "read_samples"]
