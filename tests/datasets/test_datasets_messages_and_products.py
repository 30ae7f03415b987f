"""Chat messages, images and the text fields of products."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_files import picture, read

from lbrun.datasets import InputKind, default_columns
from lbrun.datasets.cells import CellError, read_messages
from lbrun.datasets.images import read_image
from lbrun.errors import DatasetError

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "naïve?"}], "name": "x"},
]
COMPACT = (
    '[{"role":"system","content":"Be brief."},'
    '{"role":"user","content":[{"type":"text","text":"naïve?"}],"name":"x"}]'
).encode()


def test_messages_come_out_compact_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"messages": MESSAGES}], indent=4))
    assert [sample.messages for sample in read(path, InputKind.MESSAGES)] == [COMPACT]


def test_messages_may_stand_in_a_csv_cell_as_json(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('messages\n"' + json.dumps(MESSAGES).replace('"', '""') + '"\n')
    assert [sample.messages for sample in read(path, InputKind.MESSAGES)] == [COMPACT]


def test_the_nulls_by_which_arrow_fills_up_structs_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    rows = [[{"role": "user", "content": "a", "name": None}, {"role": "user", "content": "b", "name": "x"}]]
    pq.write_table(pa.table({"messages": rows}), path)
    (sample,) = read(path, InputKind.MESSAGES)
    assert json.loads(sample.messages or b"") == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b", "name": "x"},
    ]


def test_a_message_with_tool_calls_needs_no_content() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    assert json.loads(read_messages([call]))[0]["tool_calls"] == [{"id": "1"}]


_endless: list[Any] = []
_endless.append(_endless)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "has no messages"),
        (None, "has no value"),
        ({"role": "user"}, "is an object, not a list of messages"),
        ("Hello", "is 'Hello', not a JSON list of messages"),
        (["Hello"], "message 0 is 'Hello', not an object"),
        ([{"content": "a"}], "message 0 has no role"),
        ([{"role": "", "content": "a"}], "message 0 has no role"),
        ([{"role": "user"}], "message 0 has no content"),
        ([{"role": "user", "content": 3}], "message 0 has no content"),
        ([{"role": "user", "content": []}], "its content is a list, but not one of parts"),
        ([{"role": "user", "content": ["a"]}], "its content is a list, but not one of parts"),
        ([{"role": "user", "content": "a", "x": {1, 2}.__iter__()}], "cannot be written as JSON"),
        ([{"role": "user", "content": "\ud800"}], "cannot be written as JSON"),
        (_endless, "holds itself"),
    ],
)
def test_what_is_no_list_of_messages_is_refused(value: Any, told: str) -> None:
    with pytest.raises(CellError, match=told):
        read_messages(value)


@pytest.mark.parametrize(
    ("file_format", "mime"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif")],
)
def test_an_image_keeps_its_bytes_and_has_the_mime_type_of_what_it_is(file_format: str, mime: str) -> None:
    data = picture(file_format)
    encoded = base64.b64encode(data).decode()
    for cell in (
        data,
        bytearray(data),
        {"bytes": data, "path": "wrong.bmp"},
        {"bytes": encoded, "path": None},
        encoded,
        encoded[:20] + "\n" + encoded[20:],
        f"data:image/bmp;base64,{encoded}",
    ):
        image = read_image(cell)
        assert (image.data, image.mime) == (data, mime)


def test_a_camera_jpeg_with_further_pictures_is_a_jpeg() -> None:
    from io import BytesIO

    from PIL import Image as Pillow

    file = BytesIO()
    small = Pillow.new("RGB", (4, 4))
    small.save(file, "MPO", save_all=True, append_images=[small])
    assert read_image(file.getvalue()).mime == "image/jpeg"


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (b"", "an image without a byte"),
        (b"no image at all", "is not a PNG, JPEG, WebP or GIF image: its header is unknown"),
        (picture("BMP"), "is not a PNG, JPEG, WebP or GIF image"),
        (picture("PNG")[:50], "is not a PNG, JPEG, WebP or GIF image"),
        (picture("PNG")[:-30] + bytes(30), "is not a PNG, JPEG, WebP or GIF image"),
        ({"bytes": None, "path": "a.png"}, r"does not hold the image's bytes \(path: 'a.png'\)"),
        ({"path": None}, "does not hold the image's bytes"),
        (None, "has no value"),
        (17, "is int, not an image"),
        ("https://example.com/a.png", "is a URL"),
        ("data:image/png,abc", "a data URI without base64"),
        ("not base64!", "is not base64"),
    ],
)
def test_what_is_no_image_is_refused(cell: Any, told: str) -> None:
    with pytest.raises(CellError, match=told):
        read_image(cell)


def _products(**changes: Any) -> list[dict[str, Any]]:
    row = {
        "product_image": {"bytes": picture("PNG"), "path": "0.png"},
        "product_title": "Mug",
        "product_description": "Holds tea.",
        "potential_product_categories": ["Home > Mugs", "Toys"],
        "ground_truth_brand": "Tresk",
    }
    return [row, {**row, **changes}]


def _write_products(folder: Path, **changes: Any) -> Path:
    path = folder / "data.parquet"
    pq.write_table(pa.Table.from_pylist(_products(**changes)), path)
    return path


def test_a_product_has_its_image_and_the_text_fields_of_the_prompt(tmp_path: Path) -> None:
    (sample, _) = read(_write_products(tmp_path), InputKind.PRODUCT)
    assert sample.image is not None
    assert (sample.image.data, sample.image.mime) == (picture("PNG"), "image/png")
    assert sample.fields == {
        "title": "Mug",
        "description": "Holds tea.",
        "categories": "Home > Mugs\nToys",
    }


@pytest.mark.parametrize("nothing", ["", None])
def test_a_product_may_do_without_a_description(tmp_path: Path, nothing: str | None) -> None:
    samples = read(_write_products(tmp_path, product_description=nothing), InputKind.PRODUCT)
    assert samples[1].fields["description"] == ""


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("product_title", "", "is empty"),
        ("product_title", None, "has no value"),
        ("product_image", None, "has no value"),
        ("product_image", {"bytes": b"x", "path": ""}, "its header is unknown"),
        ("potential_product_categories", [], "has no categories"),
        ("potential_product_categories", ["a", None], "category 1 is null, not a text"),
        ("potential_product_categories", ["a", " "], "category 1 is ' ', not a text"),
    ],
)
def test_a_wrong_value_of_a_product_is_named(tmp_path: Path, column: str, value: Any, told: str) -> None:
    with pytest.raises(DatasetError, match=f"row 1, column '{column}': .*{told}"):
        read(_write_products(tmp_path, **{column: value}), InputKind.PRODUCT)


def test_categories_can_be_written_as_python_writes_a_list(tmp_path: Path) -> None:
    path = _write_products(tmp_path, potential_product_categories=["Kids' > Toys"])
    samples = read(path, InputKind.PRODUCT, categories_as_list=True)
    assert [sample.fields["categories"] for sample in samples] == [
        "['Home > Mugs', 'Toys']",
        '["Kids\' > Toys"]',
    ]


def test_categories_in_one_text_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    row = _products()[0] | {
        "product_image": base64.b64encode(picture("GIF")).decode(),
        "potential_product_categories": "Home, Toys",
    }
    path.write_text(json.dumps(row))
    (sample,) = read(path, InputKind.PRODUCT)
    assert sample.fields["categories"] == "Home, Toys"


def test_a_text_field_without_a_name_is_left_out_but_not_the_image(tmp_path: Path) -> None:
    columns = {**default_columns(InputKind.PRODUCT), "description": ()}
    samples = read(_write_products(tmp_path), InputKind.PRODUCT, columns=columns)
    assert set(samples[0].fields) == {"title", "categories"}
    with pytest.raises(DatasetError, match="has no column for image: looked for no name at all"):
        read(_write_products(tmp_path), InputKind.PRODUCT, columns={**columns, "image": ()})


def test_categories_may_be_an_array_as_pandas_has_them() -> None:
    from lbrun.datasets.cells import read_categories

    assert read_categories(np.array(["a > b", "c"], dtype=object)) == "a > b\nc"
