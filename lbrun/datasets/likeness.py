"""What a data file that cannot be read seems to be, by its first bytes."""

from __future__ import annotations

from pathlib import Path

_SIGNATURES = (
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "gzip-compressed; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it first"),
    (b"BZh", "bzip2-compressed; unpack it first"),
    (b"\xfd7zXZ", "xz-compressed; unpack it first"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data: fetch it with `git lfs pull`"),
    (b"<!DOCTYPE", "an HTML page, perhaps an error message of the download"),
    (b"<html", "an HTML page, perhaps an error message of the download"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"\xff\xfe", "UTF-16 text; save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text; save it as UTF-8"),
)


def likeness(path: Path) -> str:
    """A clause on what an unreadable file seems to be instead, or nothing; for the end of a message."""
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    found = next((what for signature, what in _SIGNATURES if head.startswith(signature)), None)
    return f" (it looks like {found})" if found else ""
