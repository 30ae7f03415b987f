"""Writes docs/configuration.md from the schema: ``python scripts/make_docs.py``.

``--check`` writes nothing, and ends with status 1 where the file is out of date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lbrun.cli.conf_dir import group_options
from lbrun.config.keys import Key, all_keys

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"

INTRODUCTION = """\
# Configuration

<!-- Written by scripts/make_docs.py from lbrun/config. Change the schema there, and run the script. -->

Every key can be given on the command line as `key=value`. Put single quotes around whatever has brackets,
braces, stars or spaces in it. What is not given comes from the groups in `conf/`:

{groups}

Later wins: `conf/config.yaml`, then the groups, then `experiment`, then the command line.
`python -m lbrun --cfg job` shows what they make together, and starts nothing.

A null means that the value is decided elsewhere, as the key's description says. The defaults below are those
of the schema; a group may set others (`--cfg job` shows them).

## Recipes

Your own servers:

    python -m lbrun 'servers.urls=[http://a:8000,http://b:8000]'

Your own groups, in a folder of yours (`DIR/servers/mypool.yaml`, after `conf/servers/template.yaml`). A file
that has the name of one of lbrun's own would not be read, so it is refused:

    python -m lbrun --config-dir DIR servers=mypool

Values from the environment, for everything that is not secret:

    python -m lbrun 'servers.served_model=${{oc.env:MODEL_NAME}}'

A secret, by the name of its variable. The value itself never enters the configuration, a file or a message:

    python -m lbrun servers=mypool servers.api_key_env=MY_API_KEY
    python -m lbrun servers=mypool +servers.headers_env.X-Gateway-Token=MY_GATEWAY_TOKEN

A strategy of your own, from a package that you name as allowed:

    python -m lbrun strategy.name=mine strategy._target_=my_package.Mine 'allowed_packages=[lbrun,my_package]'

Several runs, every combination, one after another in this process; a job that fails does not stop the others.
All of them are checked before the first begins. Given an existing folder, jobs that are finished are not run
again:

    python -m lbrun -m 'strategy=round_robin,random' 'scenario=offline,server' hydra.sweep.dir=outputs/night

Where a run is written:

    python -m lbrun hydra.run.dir=outputs/my_run

## Official and trial runs

`rules=mlperf` leaves LoadGen's durations, counts, limits and seeds to MLPerf's own mlperf.conf, wherever the
key under `scenario` is null. `rules=trial` puts the values of `scenario.trial` in place of those nulls. A run
is called *official* when no rule is relaxed, and a trial lists those that are: embedded servers, sample data,
shorter durations, fewer samples, looser limits, other seeds, other sampling, a prompt of one's own.
`scenario.user_conf` names a LoadGen user.conf of your own, whose keys win over those here.

## Keys
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the file is up to date")
    arguments = parser.parse_args(argv)
    text = document()
    if not arguments.check:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{TARGET} is out of date; run python scripts/make_docs.py\n")
    return 1


def document() -> str:
    groups = "\n".join(
        f"- `{name}`: " + ", ".join(f"`{option}`" for option in options)
        for name, options in group_options().items()
    )
    return INTRODUCTION.format(groups=groups) + "\n".join(_sections()) + "\n"


def _sections() -> Iterator[str]:
    """A table for each section; keys outside of any come first."""
    keys = list(all_keys().values())
    plain = [key for key in keys if not key.section]
    yield from _table([key for key in plain if "." not in key.name])
    for section in (key for key in keys if key.section):
        yield f"\n### {section.name}\n\n{section.meaning}"
        yield ""
        yield from _table([key for key in plain if key.name.rpartition(".")[0] == section.name])


def _table(keys: list[Key]) -> Iterator[str]:
    if not keys:
        return
    yield "| Key | Type | Default | Bounds | Unit | Meaning |"
    yield "|---|---|---|---|---|---|"
    for key in keys:
        kind = key.type.replace("|", "\\|")
        yield f"| `{key.name}` | {kind} | {_default(key)} | {key.bounds} | {key.unit} | {key.meaning} |"


def _default(key: Key) -> str:
    if key.required:
        return "*set by the group*"
    return f"`{_yaml(key.default)}`"


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, str) and "\n" in value:
        return '"' + value.replace("\n", "\\n") + '"'
    return str(value) if value != {} else "{}"


if __name__ == "__main__":
    sys.exit(main())
