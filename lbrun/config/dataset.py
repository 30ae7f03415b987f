"""The section ``dataset``: which samples are asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lbrun.config.base import FilePath, Integer, Names, Section


class ColumnNames(Section):
    """Names of columns to look for, the first match wins; null: the official data sets' names."""

    token_ids: Names | None = Field(default=None, min_length=1, description="the prompt as token ids")
    text: Names | None = Field(default=None, min_length=1, description="the prompt as text")
    messages: Names | None = Field(default=None, min_length=1, description="ready-made chat messages")
    image: Names | None = Field(default=None, min_length=1, description="a product's image")
    title: Names | None = Field(default=None, min_length=1, description="a product's title")
    description: Names | None = Field(default=None, min_length=1, description="a product's description")
    categories: Names | None = Field(
        default=None, min_length=1, description="a product's possible categories"
    )

    def given(self) -> dict[str, tuple[str, ...]]:
        """The roles whose names are set, for the reader of the data set."""
        return {role: names for role, names in self if names is not None}


class DatasetSettings(Section):
    """The file that samples are read from."""

    path: FilePath | None = Field(
        default=None, description="the data file; null: the model's bundled sample data"
    )
    accuracy_path: FilePath | None = Field(
        default=None, description="the data file for mode=accuracy; null: the same as dataset.path"
    )
    file_format: Literal["auto", "json", "jsonl", "csv", "parquet", "pickle"] = Field(
        default="auto", description="the file's format; auto: by its name"
    )
    columns: ColumnNames = Field(default_factory=ColumnNames)
    max_samples: Integer | None = Field(
        default=None, ge=1, description="read at most so many rows; null: all"
    )
