"""Settings to objects: the one room that knows all parts.

Everything below sees plain values and small frozen settings of its own; nothing below sees the configuration.
"""

from lbrun.build.formats import left_out
from lbrun.build.loadgen import loadgen_settings
from lbrun.build.notes import notes, secret_notes
from lbrun.build.parts import Parts, make_parts
from lbrun.build.policies import retry_policy
from lbrun.build.samples import dataset_spec, prepare_samples

__all__ = [
    "Parts",
    "dataset_spec",
    "left_out",
    "loadgen_settings",
    "make_parts",
    "notes",
    "prepare_samples",
    "retry_policy",
    "secret_notes",
]
