"""What all sections of the configuration share: their base class and the types of their values.

A section is frozen, refuses keys it does not know, and says of each key what it means. Units are in the
names (``_s`` seconds, ``_ms`` milliseconds, ``_us`` microseconds, ``_qps`` queries per second, ``_mib``
MiB); `lbrun.config.keys` reads them from there for the documentation and for messages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo
from pydantic_core import PydanticCustomError

BASE_DIR = "base_dir"
"""Key of the validation context: the folder that relative paths of the configuration start from."""

PROBLEM = "lbrun"
"""Error type of messages that are already written for the user: ``what is wrong; what to write``."""


def problem(what: str, instead: str) -> PydanticCustomError:
    """An error for a validator to raise, in the form of `lbrun.errors.ConfigError`'s problems."""
    # The message goes in as a parameter: braces in it are not placeholders.
    return PydanticCustomError(PROBLEM, "{message}", {"message": f"{what}; {instead}"})


class Section(BaseModel):
    """A group of keys. Instances never change; keys that are not declared are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        coerce_numbers_to_str=True,  # a header, a column or a model may be called 3
        validate_by_name=True,
        validate_by_alias=True,
    )


def _refuse_bool(value: Any) -> Any:
    # Python's bool is an int, so that `max_retries_per_server=true` would quietly mean 1.
    if isinstance(value, bool):
        raise problem(f"{str(value).lower()} is not a number", "write a number")
    return value


Integer = Annotated[int, BeforeValidator(_refuse_bool)]
Number = Annotated[float, BeforeValidator(_refuse_bool)]


def _resolve_file(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str | Path):
        return value
    if not str(value):
        raise problem("the path is empty", "name a file, or leave the key at null")
    base = Path((info.context or {}).get(BASE_DIR) or Path.cwd())
    path = (base / Path(value).expanduser()).resolve()
    if path.is_dir():
        raise problem(f"{path} is a folder", "name a file in it")
    if not path.is_file():
        raise problem(f"there is no file {path}", "give the path of an existing file")
    return str(path)  # pydantic makes the Path; from JSON it takes text only


FilePath = Annotated[Path, BeforeValidator(_resolve_file)]
"""An existing file; relative paths start from the folder where lbrun was started."""


def _check_one_line(value: str) -> str:
    if not value.isprintable():
        raise problem("a name may not hold control characters", "write one line of text")
    return value


OneLine = Annotated[str, AfterValidator(_check_one_line)]
"""A name that goes into requests, messages and reports."""


def _wrap_name(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_wrap_name)]
"""One name or a list of names."""
