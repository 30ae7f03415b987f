"""Which column of a file holds what: the official names, and the choice among those that a file has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from lbrun.datasets.api import InputKind
from lbrun.errors import DatasetError

_SHOWN_COLUMNS = 20

# Names of the MLPerf data sets first: cnn_eval.json (tok_input, input), gpt-oss-120b's Parquet
# (input_tokens, text_input), Shopify/product-catalogue (product_*, potential_product_categories).
_DEFAULTS: Mapping[InputKind, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        InputKind.TOKEN_IDS: MappingProxyType(
            {"token_ids": ("tok_input", "input_tokens", "token_ids", "input_ids")}
        ),
        InputKind.TEXT: MappingProxyType({"text": ("input", "text_input", "prompt", "text")}),
        InputKind.MESSAGES: MappingProxyType({"messages": ("messages",)}),
        InputKind.PRODUCT: MappingProxyType(
            {
                "image": ("product_image", "image"),
                "title": ("product_title",),
                "description": ("product_description",),
                "categories": ("potential_product_categories",),
            }
        ),
    }
)


def default_columns(kind: InputKind) -> Mapping[str, tuple[str, ...]]:
    """The roles that samples of this kind have, each with the official column names, best first."""
    return _DEFAULTS[kind]


def choose_columns(
    path: Path, kind: InputKind, wanted: Mapping[str, tuple[str, ...]], present: Sequence[str]
) -> dict[str, str]:
    """Find the column of each role: the first of its names that the file has.

    wanted: role -> names, as in `DatasetSpec.columns`. Roles that the kind does not have are passed over.
    A product's text field with no names at all is left out of its samples; every other role must be found.
    Raises DatasetError with the columns that there are and the key that chooses another.
    """
    chosen: dict[str, str] = {}
    for role, official in _DEFAULTS[kind].items():
        names = wanted.get(role, official)
        if not names and kind is InputKind.PRODUCT and role != "image":
            continue
        found = next((name for name in names if name in present), None)
        if found is None:
            looked_for = " or ".join(map(repr, names)) or "no name at all"
            raise DatasetError(
                f"has no column for {role}: looked for {looked_for}, the file has {_listed(present)}; "
                f"name the right one in dataset.columns.{role}",
                path=path,
            )
        if present.count(found) > 1:
            raise DatasetError("there is more than one column of this name", path=path, column=found)
        chosen[role] = found
    return chosen


def _listed(columns: Sequence[str]) -> str:
    if not columns:
        return "no columns"
    shown = ", ".join(map(repr, columns[:_SHOWN_COLUMNS]))
    rest = len(columns) - _SHOWN_COLUMNS
    return f"{shown} and {rest} more" if rest > 0 else shown
