"""The configuration of a run: what keys there are, what they mean, and what is wrong with a set of them.

Knows nothing of Hydra; `lbrun.cli` composes, and hands plain dicts over.
"""

from lbrun.config.load import config_hash, load_settings
from lbrun.config.schema import LoadgenValues, RunSettings

__all__ = ["LoadgenValues", "RunSettings", "config_hash", "load_settings"]
