"""What Hydra's own settings would import and call: nothing but Hydra, its plugins, and Python's logging.

Hydra makes objects of whatever `hydra.callbacks` names, and hands its logging settings to Python, which calls
what stands at ``()`` there. A group from elsewhere (``--config-dir``) could run any code by that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_IMPORTED_FROM = {
    "_target_": ("hydra.", "hydra_plugins."),
    "class": ("logging.",),
    "()": ("logging.",),
}


def foreign_code(hydra: Any) -> list[str]:
    """The problems of a composed ``hydra`` section, given as plain containers."""
    return [
        f"{key}: {value!r} is code that lbrun does not run; leave it out (strategies of your own: "
        "strategy._target_ and allowed_packages)"
        for key, value in _foreign(hydra, "hydra")
    ]


def _foreign(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, value in node.items():
            inner = f"{key}.{name}"
            if name in _IMPORTED_FROM and isinstance(value, str):
                if not value.startswith(_IMPORTED_FROM[name]):
                    yield inner, value
            else:
                yield from _foreign(value, inner)
    elif isinstance(node, list):
        for n, value in enumerate(node):
            yield from _foreign(value, f"{key}[{n}]")
    elif isinstance(node, str) and node.startswith("ext://") and not node.startswith("ext://sys.std"):
        yield key, node
