"""Fixtures of the command line's tests."""

from cli_runner import lbrun, recorder

__all__ = ["lbrun", "recorder"]
