"""Where the configuration groups are, and what is in them."""

from __future__ import annotations

from pathlib import Path

from lbrun.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent.parent

CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""``conf/`` of the checkout, or the copy that a wheel carries inside the package. One absolute path works
for both and for an editable install, unlike paths relative to the package or ``pkg://``."""


def group_options(conf_dir: Path = CONF_DIR) -> dict[str, list[str]]:
    """The groups of a configuration folder, by their names, each with its options."""
    found: dict[str, list[str]] = {}
    for file in sorted(conf_dir.rglob("*.yaml")):
        group = file.parent.relative_to(conf_dir).as_posix()
        if group != ".":
            found.setdefault(group, []).append(file.stem)
    return found


def check_own_groups(own: Path) -> None:
    """Refuse what Hydra would pass over in silence in a user's folder. Raises ConfigError."""
    problems = []
    for file in sorted(own.rglob("*.yml")):
        problems.append(f"--config-dir: {file} would not be read; rename it to {file.stem}.yaml")
    for file in sorted(own.rglob("*.yaml")):
        try:
            file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            problems.append(f"--config-dir: {file} cannot be read: {why}; correct or remove it")
            continue
        name = file.relative_to(own)
        if (CONF_DIR / name).is_file() and not (CONF_DIR / name).samefile(file):
            problems.append(
                f"--config-dir: {file} would not be read: lbrun has its own {name.with_suffix('')}; rename it"
            )
    if problems:
        raise ConfigError(problems)
