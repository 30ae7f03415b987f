"""News articles with summaries, in the manner of a regional newsroom. All places and people are invented."""

from __future__ import annotations

import random
from collections.abc import Iterator

from sample_data.grammar import fill
from sample_data.news_topics import CHOICES, GENERAL, HIGHLIGHTS, TOPICS, Topic
from sample_data.tokens import pieces

_FIRST = (
    "Marta", "Joel", "Ines", "Tobias", "Amara", "Petra", "Luis", "Hanna", "Samir", "Greta", "Owen", "Yuki",
    "Daniel", "Noor", "Elena", "Victor", "Salma", "Henrik", "Clara", "Rafael", "Mei", "Anton",
    "Ruth", "Idris",
)  # fmt: skip
_LAST = (
    "Halloran", "Okafor", "Lindqvist", "Marchetti", "Dubrow", "Sandoval", "Keller", "Tanaka", "Abara",
    "Novak", "Whitfield", "Castellan", "Rahimi", "Ostrander", "Pell", "Varga", "Moreau", "Ashdown",
    "Bergstrom", "Quill",
)  # fmt: skip
_CITY = (
    "Harrow Bay", "Eastmere", "Colden Falls", "Port Verity", "Millbrook Heights", "Saint Orin", "Larkfield",
    "Tarn Valley", "Westhaven", "Old Quarry", "Brackwater", "Redstone Crossing", "Ferris Point", "Holm Ridge",
)  # fmt: skip
_REGION = (
    "the northern counties",
    "the lake district",
    "the coastal region",
    "the upper valley",
    "the border counties",
)


def article(rng: random.Random, n_tokens: int) -> tuple[str, str]:
    """An article of about so many tokens, and its summary.

    One story, told from lede to outlook; where a long article has used up what there is to say about it, it
    goes on with what else happened in the region, as agencies' round-ups do.
    """
    topics = rng.sample(TOPICS, len(TOPICS))
    paragraphs: list[str] = []
    summary = ""
    n_written = 0
    for topic in topics:
        fixed = _cast(rng)
        if not summary:
            summary = _summary(rng, topic, fixed)
        elif n_written < n_tokens:
            paragraphs.append(fill("Elsewhere in {region}, attention turned to {city}.", rng, fixed, CHOICES))
        for paragraph in _story(rng, topic, fixed):
            if n_written >= n_tokens:
                return "\n".join(paragraphs), summary
            paragraphs.append(paragraph)
            n_written += len(pieces(paragraph)) + 1
    return "\n".join(paragraphs), summary


def _story(rng: random.Random, topic: Topic, fixed: dict[str, str]) -> Iterator[str]:
    yield f"{fixed['city'].upper()} - " + fill(rng.choice(topic.ledes), rng, fixed, CHOICES)
    sentences = rng.sample(topic.body, len(topic.body))
    general = rng.sample(GENERAL, len(GENERAL))
    # what is special to the topic comes first, and thins out towards the end
    mixed: list[str] = []
    while sentences or general:
        source = sentences if sentences and (not general or rng.random() < 0.6) else general
        mixed.append(source.pop())
    while mixed:
        size = min(len(mixed), rng.randint(1, 3))
        yield " ".join(fill(mixed.pop(0), rng, fixed, CHOICES) for _ in range(size))


def _summary(rng: random.Random, topic: Topic, fixed: dict[str, str]) -> str:
    templates = [
        *topic.highlights[: rng.choice((3, 4, 5))],
        *rng.sample(HIGHLIGHTS, rng.choice((0, 1, 1, 1, 2, 2))),
    ]
    return "\n".join(fill(template, rng, fixed, CHOICES) for template in templates)


def _cast(rng: random.Random) -> dict[str, str]:
    last = rng.sample(_LAST, 4)
    first = rng.sample(_FIRST, 4)
    return {
        "city": rng.choice(_CITY),
        "region": rng.choice(_REGION),
        "official": f"{first[0]} {last[0]}",
        "official_last": last[0],
        "expert": f"{first[1]} {last[1]}",
        "expert_last": last[1],
        "resident": f"{first[2]} {last[2]}",
        "resident_last": last[2],
        "critic": f"{first[3]} {last[3]}",
        "critic_last": last[3],
        "amount": f"{rng.randint(3, 480)} million",
        "count": str(rng.randint(12, 640)),
        "years": str(rng.randint(2, 25)),
    }
