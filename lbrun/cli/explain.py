"""What Hydra and OmegaConf raise, in the user's words: ``key: what is wrong; what to write instead``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException
from yaml import MarkedYAMLError  # type: ignore[import-untyped]

from lbrun.cli.conf_dir import group_options
from lbrun.config import keys
from lbrun.config.problems import near, unknown_key
from lbrun.errors import ConfigError

EXPLAINED = (HydraException, OmegaConfBaseException, MarkedYAMLError)
"""Exceptions of a composition that are the user's mistake."""

_OVERRIDE = re.compile(r"Could not override '([^']+)'")
_APPEND = re.compile(r"Could not append to config\. An item is already at '([^']+)'")
_DELETE = re.compile(r"Could not delete from config\. '([^']+)' does not exist")
_TWICE = re.compile(r"(\S+) appears more than once in the final defaults list")
_ADDED_TWICE = re.compile(r"Multiple values for ([^\s.]+)\.")
_CHOOSE = re.compile(r"You must specify '([^']+)'")
_VARIABLE = re.compile(r"Environment variable '([^']+)' not found")
_FILE = re.compile(r"In '([^']+)': \w+ raised while composing config:\s*(.+)")
_MERGING = re.compile(r"Error merging override \+*([^=\s]+)")


def explain(error: Exception) -> ConfigError:
    """The ConfigError that says the same. Values are not repeated: one of them may be a secret."""
    for cause in _chain(error):
        if isinstance(cause, MarkedYAMLError):
            return ConfigError(_yaml(cause))
    for cause in _chain(error):
        if isinstance(cause, OmegaConfBaseException) and cause.full_key and not _OVERRIDE.search(str(error)):
            return ConfigError(f"{cause.full_key}: {_omegaconf(cause, str(cause.full_key))}")
    if isinstance(error, OverrideParseException):
        key = error.override.partition("=")[0]
        return ConfigError(f"{key}: the value cannot be read; put quotes around it: \"{key}='...'\"")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return ConfigError(_no_option(error))
    return ConfigError(_composition(str(error)))


def _no_option(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = sorted(error.options or ())
    if group in group_options() and not options:
        return f"{group}: there is no {option!r}; choose one of {', '.join(group_options()[group])}"
    if not group or not options:
        known = ", ".join(group_options())
        return f"{group or option}: there is no such group; the groups are {known}"
    return f"{group}: there is no {option!r}; choose one of {', '.join(options)}{near(option, options)}"


def _composition(message: str) -> str:
    if match := _OVERRIDE.search(message):
        key = match[1]
        if "No match in the defaults list" in message:
            return f"{key}: no such group is in use; write +{key}=... to add it"
        return f"{key}: {_not_there(key)}"
    if match := _APPEND.search(message):
        return f"{match[1]}: the key is there already; leave the + out"
    if match := _DELETE.search(message):
        return f"{match[1]}: there is nothing to take out; leave ~{match[1]} out"
    if match := _TWICE.search(message):
        return f"{match[1]}: it is chosen twice; choose once"
    if match := _ADDED_TWICE.search(message):
        return f"{match[1]}: the group is in use already; leave the + out"
    if match := _CHOOSE.search(message):
        return f"{match[1]}: nothing is chosen; write {match[1]}=..."
    if match := _MERGING.search(message):
        return f"{match[1]}: the value does not fit there; see docs/configuration.md"
    if match := _FILE.search(message):
        return f"{match[1]}.yaml: {match[2]}; write lines of the form key: value"
    first = message.strip().splitlines()[0] if message.strip() else "it cannot be composed"
    return f"configuration: {first}"


def _not_there(key: str) -> str:
    for section in (known.name for known in keys.all_keys().values() if known.open):
        if key == section or key.startswith(section + "."):
            return f"it is not set yet; write a + before it: +{key}=..."
    if key.startswith("servers.embedded."):
        return "this pool has no embedded servers; write servers=embedded"
    return unknown_key(key)


def _omegaconf(error: OmegaConfBaseException, name: str) -> str:
    message = str(error).splitlines()[0]
    if match := _VARIABLE.search(message):
        return (
            f"the environment variable {match[1]} is not set; export it, or give a default: "
            f"${{oc.env:{match[1]},default}}"
        )
    if isinstance(error, InterpolationKeyError):
        return f"{message[0].lower()}{message[1:]}; name a key that there is"
    if "index out of range" in message:
        return "the list has no such element; write the whole list: [a,b]"
    if message.startswith("Cannot merge"):
        known = keys.all_keys().get(name)
        if known is not None and known.type.startswith("list"):
            return "these are keys, where a list belongs; write a list: [a,b]"
        return f"this is a list, where keys belong; write them one by one: {name}.KEY=value"
    return f"{message[0].lower()}{message[1:]}; see docs/configuration.md"


def _yaml(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "a YAML file"
    return f"{where}: {error.problem or 'this is not YAML'}; correct the file"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
