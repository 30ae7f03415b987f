"""The operating system's limit on open files, which is also one on connections."""

from __future__ import annotations

import resource


def raise_descriptor_limit() -> int:
    """Raise the soft limit on open descriptors to the hard one, which needs no privilege.

    Returns the limit that now holds. The usual soft limit of 1,024 would end a run at about 1,000
    requests in flight with EMFILE.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS refuses an infinite one; the old limit still holds
            return soft
    return hard
