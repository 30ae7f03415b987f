"""What ``--help`` shows. The groups are read from ``conf/``; nothing heavy is imported."""

from __future__ import annotations

from pathlib import Path

from lbrun.cli.conf_dir import CONF_DIR, group_options

_TEXT = """\
lbrun runs an MLPerf LoadGen test over a pool of inference servers: it balances the load, survives servers
that fail, and leaves a result that can be trusted.

  python -m lbrun [-m] [--config-dir DIR] [group=option ...] [key=value ...]

Without arguments: a short trial on three embedded servers, with the sample data that comes with lbrun.

Groups: write group=option
{groups}

The keys people change most (all of them: docs/configuration.md)
  servers.urls=[URL,...]        the servers; replaces the embedded ones
  servers.backend=vllm          what they run: vllm, sglang, openai
  servers.api_key_env=NAME      the environment variable that holds the API key
  servers.max_in_flight=256     requests at each server at a time; null: unlimited
  dataset.path=FILE             your data: JSON, JSONL, CSV, Parquet, pickle
  scenario.target_qps=20        queries per second to offer
  scenario.min_duration_s=60    the test lasts at least so long, in seconds
  scenario.min_query_count=500  queries at least; offline: samples
  mode=accuracy                 log each answer of the whole data set; performance is the default
  rules=trial                   short durations and counts, for real servers; mlperf: the official ones

Examples (keep the single quotes: brackets and stars mean something to shells)
  python -m lbrun 'servers.urls=[http://a:8000,http://b:8000]' dataset.path=./cnn_eval.json
  python -m lbrun model=gpt_oss_120b servers=sglang_x3
  python -m lbrun scenario=server scenario.target_qps=20 strategy=least_outstanding
  python -m lbrun mode=accuracy
  python -m lbrun -m 'strategy=round_robin,random' 'scenario=offline,server'

Flags
  -m, --multirun                every combination of the values given as a,b, one run after another
  -cd, --config-dir DIR         a folder with groups of your own: DIR/servers/mypool.yaml, servers=mypool
  -c, --cfg job                 show the configuration and stop; --resolve, --package KEY
  -i, --info                    show where the configuration comes from
  -sc, --shell-completion       eval "$(lbrun -sc install=bash)"
  --version, -h, --help

Exit status: 0 VALID, 3 INVALID (LoadGen's rules not met), 1 FAILED, 2 a mistake in the command or the
configuration, 130 interrupted. Of a sweep: the worst of its jobs.

Documentation: README.md and docs/. Results: outputs/, or hydra.run.dir=DIR.
"""

_ORDER = ("model", "servers", "scenario", "strategy", "experiment")
_WIDTH = 100


def help_text(config_dir: Path | None = None) -> str:
    """The text, with the groups of the user's own folder among the rest."""
    groups = group_options()
    if config_dir is not None:
        for group, options in group_options(config_dir).items():
            groups[group] = [*groups.get(group, []), *options]
    names = [*_ORDER, *(name for name in groups if name not in _ORDER)]
    return _TEXT.format(groups="\n".join(_line(name, groups[name]) for name in names if name in groups))


def _line(group: str, options: list[str]) -> str:
    default = _default(group)
    shown = [option for option in options if option != default]
    first = [f"{default} (default)"] if default in options else []
    lines, line = [], f"  {group:<12}"
    for word in (*first, *shown):
        if len(line) + len(word) > _WIDTH:
            lines.append(line)
            line = " " * 14
        line += f"{word}  "
    return "\n".join([*lines, line]).rstrip()


def _default(group: str) -> str:
    """The option that the defaults list of ``conf/config.yaml`` names; "" for none."""
    for line in (CONF_DIR / "config.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"  - {group}:"):
            return line.partition(":")[2].partition("#")[0].strip()
    return ""
