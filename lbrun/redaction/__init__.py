"""Takes secrets out of text: what a server or a library says, before it is kept or shown."""

from __future__ import annotations

from lbrun.redaction.redactor import MASK, Redactor
from lbrun.redaction.secret import Secret

__all__ = ["MASK", "Redactor", "Secret"]
