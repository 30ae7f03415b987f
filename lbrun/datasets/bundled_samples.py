"""The samples that come with lbrun, for trials without any download."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from functools import cache
from importlib import resources
from pathlib import Path

_FILES = {
    "llama3_1_8b": "llama3_1_8b_sample.json",
    "gpt_oss_120b": "gpt_oss_120b_sample.parquet",
    "qwen3vl": "qwen3vl_sample.parquet",
}


@cache
def bundled(name: str) -> Path:
    """The file with the bundled samples of a model, in the format of that model's official data set.

    name: llama3_1_8b, gpt_oss_120b or qwen3vl. The texts and images were made for lbrun (see
    ``lbrun/data/README.md``); figures measured with them are trials, never MLPerf results.
    Raises ValueError for any other name.
    """
    if name not in _FILES:
        raise ValueError(f"no bundled samples for {name!r}; there are {', '.join(_FILES)}")
    resource = resources.files("lbrun").joinpath("data", _FILES[name])
    if isinstance(resource, Path):
        return resource
    # lbrun is imported from an archive: the file is unpacked, and removed when the process ends
    keep = ExitStack()
    atexit.register(keep.close)
    return keep.enter_context(resources.as_file(resource))
