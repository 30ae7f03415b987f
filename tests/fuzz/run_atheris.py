"""Fuzzes one target with atheris: ``python run_atheris.py TARGET [options of libFuzzer] FOLDERS``."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["lbrun"]):
    from fuzz_targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
