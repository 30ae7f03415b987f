"""Writing small data files and reading them back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from lbrun.datasets import DatasetSpec, InputKind, Sample, default_columns, read_samples

CAPTURES = Path(__file__).parent.parent / "captures" / "pandas"


def read(path: Path, kind: InputKind = InputKind.TOKEN_IDS, **spec: Any) -> list[Sample]:
    """All samples of a file, with the default columns unless `columns` says otherwise."""
    spec.setdefault("columns", default_columns(kind))
    return list(read_samples(DatasetSpec(path=path, kind=kind, **spec)))


def ids_of(samples: list[Sample]) -> list[bytes | None]:
    """The token ids of each sample, as they will be sent."""
    return [sample.token_ids for sample in samples]


def picture(file_format: str, size: tuple[int, int] = (8, 6)) -> bytes:
    """A small image file of a format that Pillow writes."""
    file = io.BytesIO()
    Pillow.new("RGB", size, (200, 30, 40)).save(file, file_format)
    return file.getvalue()
