"""What is wrong with the overrides of a command line, said before Hydra sees them.

Hydra reports one mistake at a time, advises ``+`` for a mistyped key, and keeps copies of the command line in
several files. So syntax, unknown keys and pasted secrets are found here, all of them at once, and no
message repeats a value that may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException

from lbrun.config import keys
from lbrun.config.problems import unknown_key
from lbrun.config.urls import LIST_FORM, list_form

_SECRET_WORD = re.compile(r"api[-_]?key|token|secret|passw|credential|authori[sz]ation|bearer|cookie", re.I)
_URL_WITH_USER = re.compile(r"://[^/\s,\]]*@")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|null|\$\{.*\}")
_BY_NAME = (
    "secrets are not written on the command line; put it into an environment variable and write its name: "
    "servers.api_key_env=NAME"
)


def check_overrides(
    overrides: Sequence[str], *, multirun: bool, groups: Collection[str]
) -> tuple[list[str], list[str]]:
    """The problems, and the overrides that have none, so that what these make up can be checked as well.

    groups: names of the groups that can be chosen, built-in and the user's own.
    """
    parser = OverridesParser.create()
    problems: list[str] = []
    good: list[str] = []
    seen: set[str] = set()
    for text in overrides:
        secret = _secret(text)
        found = [secret] if secret else []
        if not found and text.startswith("="):
            found = [_syntax(text)]
        if not found:
            try:
                override = parser.parse_overrides([text])[0]
            except OverrideParseException:
                found = [_syntax(text)]
            else:
                found = list(_problems(override, multirun=multirun, groups=groups))
                name = override.get_key_element().lstrip("+~")
                if name in seen:
                    found.append(f"{name}: it is given twice; give it once")
                seen.add(name)
        problems += found
        if not found:
            good.append(text)
    return list(dict.fromkeys(problems)), good


def _secret(text: str) -> str | None:
    """What to say of an override that looks like a pasted secret; None for all others."""
    key, _, value = text.partition("=")
    name = key.lstrip("+~")
    last = name.rpartition(".")[2]
    if _URL_WITH_USER.search(value):
        return (
            f"{name}: a URL with a user or password is not allowed; leave them out and name the environment "
            "variable that holds the key: servers.api_key_env=NAME"
        )
    if name.startswith(("servers.headers_env", "servers.api_key_env")):
        # A mapping ({...}) is checked name by name with the rest of the configuration, unless it is broken.
        plain = value.strip().strip("'\"")
        if plain and not plain.startswith("{") and not all(_VARIABLE.fullmatch(v) for v in plain.split(",")):
            return (
                f"{name}: this is not the name of an environment variable; put the secret into a variable "
                "and write its name: servers.api_key_env=API_KEY"
            )
        return None
    if name.startswith("servers.headers"):
        named = last if name.startswith("servers.headers.") else value.partition("}")[0]
        if _SECRET_WORD.search(named):
            return f"{name}: {_BY_NAME}, or +servers.headers_env.HEADER=NAME"
        return None
    if _SECRET_WORD.search(last) and not keys.is_known(name) and not name.startswith("hydra"):
        return f"{name}: {_BY_NAME}"
    return None


def _syntax(text: str) -> str:
    key, equals, value = text.partition("=")
    if not equals or not key:
        return f"{text!r}: this is no override; write key=value, e.g. strategy=least_outstanding"
    if key == "servers.urls":
        quoted = "\"servers.urls=['http://[::1]:8000']\""
        return f"{key}: the list cannot be read; write {LIST_FORM}, and unusual URLs in quotes: {quoted}"
    if key != key.strip() or value != value.strip():
        return f"{key.strip()}: no spaces around the =; write {key.strip()}=value"
    if element := re.fullmatch(r"(.+)\[\d+\]", key):
        whole = LIST_FORM if element[1] == "servers.urls" else f"'{element[1]}=[a,b]'"
        return f"{key}: brackets do not reach an element of a list; write the whole list: {whole}"
    if not re.fullmatch(r"[\w./@:+~-]+", key, re.ASCII):
        return f"{key}: this is not a key; see docs/configuration.md for all of them"
    return f"{key}: the value cannot be read; put quotes around it: \"{key}='...'\""


def _problems(override: Override, *, multirun: bool, groups: Collection[str]) -> Iterator[str]:
    key = override.key_or_group
    if override.is_sweep_override() and not (multirun and key != "servers.urls"):
        problem = _several(override, key, multirun=multirun)
        if problem is not None:
            yield problem
            return
    if key == "servers.urls" and override.value() == []:
        # An unset variable in a script, which must not become a run on the group's own servers.
        yield f"{key}: the list is empty; write {LIST_FORM}, or leave the key out for the group's servers"
    if key in ("hydra.run.dir", "hydra.sweep.dir") and override.value() in ("", None):
        yield f"{key}: it is empty; name a folder: {key}=outputs/my_run"
    if key in groups and not override.is_delete():
        yield from _choice(override, key)
    if key.partition(".")[0].partition("/")[0] == "hydra" or key in groups:
        return
    if override.package is not None or "/" in key:
        return  # placed groups are Hydra's matter
    if not keys.is_known(key):
        yield f"{key}: {unknown_key(key)}"


def _choice(override: Override, key: str) -> Iterator[str]:
    """What to say of ``group=...``, which takes the name of one option."""
    value = override.value()
    if "://" in (override.input_line or "") or isinstance(value, dict):
        single = LIST_FORM if key == "servers" else f"{key}.KEY=value"
        yield f"{key}: this chooses a group by its name, and sets no values; write {single}"
    elif value is None:
        yield f"{key}: null chooses nothing; write the name of an option, or leave it out for the default"
    elif isinstance(value, list) and key != "experiment":
        # Hydra would lay them over each other, and run what is neither of them.
        options = ",".join(map(str, value))
        yield f"{key}: only one can be chosen; for one after another write -m {key}={options}"


def _several(override: Override, key: str, *, multirun: bool) -> str | None:
    """What to say of ``key=a,b``; None where a sweep over lists of servers was asked for."""
    value = (override.input_line or "").partition("=")[2]
    if key == "servers.urls":
        if multirun and "[" in value:
            return None
        return f"{key}: several URLs in one string; write a list: {list_form(value)}"
    known = keys.all_keys().get(key)
    if known is not None and known.type.startswith("list"):
        return f"{key}: this is not a list; write '{key}=[{value}]'"
    return f"{key}: {value!r} is more than one value; choose one, or add -m to run them one after another"
