"""Filling templates: ``{word}`` is drawn from a list of choices, or taken from what a story has fixed."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

_SLOT = re.compile(r"\{(\w+)\}")


def fill(
    template: str, rng: random.Random, fixed: Mapping[str, str], choices: Mapping[str, Sequence[str]]
) -> str:
    """Replace every slot of a sentence; ``{n_5_90}`` is a number from 5 to 90."""

    def draw(match: re.Match[str]) -> str:
        slot = match[1]
        if slot in fixed:
            return fixed[slot]
        if slot.startswith("n_"):
            low, high = map(int, slot.split("_")[1:])
            return f"{rng.randint(low, high):,}"
        return rng.choice(choices[slot])

    text = _SLOT.sub(draw, template)
    return text[0].upper() + text[1:]
