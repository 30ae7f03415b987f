"""Reasoning problems with worked solutions whose answers are computed here, so that they are right.

Three kinds, as in the set for gpt-oss-120b: contest mathematics with an integer answer, science questions
with four choices, and programming tasks. All were written for lbrun; none is taken from AIME, GPQA or
LiveCodeBench.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from sample_data.programming import programming_task


class Problem(NamedTuple):
    """A problem, the right answer as its data set writes it, and a worked solution."""

    dataset: str
    question: str
    answer: str
    solution: str


def problem(rng: random.Random, dataset: str) -> Problem:
    """A new problem of aime25, gpqa_diamond or livecodebench_v6."""
    match dataset:
        case "aime25":
            question, value, solution = rng.choice(_CONTEST)(rng)
            question += " Please reason step by step, and put the final integer answer within \\boxed{}."
            return Problem(dataset, question, str(value), f"{solution} The answer is \\boxed{{{value}}}.")
        case "gpqa_diamond":
            return _multiple_choice(rng)
        case _:
            return Problem(dataset, *programming_task(rng))


def _divisible(rng: random.Random) -> tuple[str, int, str]:
    limit, a, b, c = (
        rng.randrange(500, 3000, 25),
        *rng.sample((4, 6, 9, 10, 14, 15, 21, 22), 2),
        rng.choice((5, 7, 11)),
    )
    value = sum(1 for n in range(1, limit + 1) if (n % a == 0 or n % b == 0) and n % c)
    return (
        f"A clockmaker numbers {limit} gears from 1 to {limit}. She paints a gear red if its number is a "
        f"multiple of {a} or of {b}, and then wipes the paint off every gear whose number is a multiple of "
        f"{c}. How many gears are red in the end?",
        value,
        f"Count multiples of {a} and of {b} up to {limit}, take off those counted twice, that is the "
        f"multiples of {math.lcm(a, b)}, and do the same for the numbers that are multiples of {c} as well. "
        f"The difference of the two counts is {value}.",
    )


def _power(rng: random.Random) -> tuple[str, int, str]:
    base, exponent, modulus = (
        rng.randrange(3, 60),
        rng.randrange(100, 3000),
        rng.choice((1000, 997, 625, 840)),
    )
    value = pow(base, exponent, modulus)
    return (
        f"Let $N = {base}^{{{exponent}}}$. A machine prints the digits of $N$ and then divides $N$ by "
        f"{modulus}. Find the remainder of this division.",
        value,
        f"Squaring repeatedly and reducing modulo {modulus} after each step, write {exponent} in binary as "
        f"{exponent:b} and multiply the powers where a digit is 1. This leaves {value}.",
    )


def _paths(rng: random.Random) -> tuple[str, int, str]:
    width, height = rng.randint(4, 8), rng.randint(4, 8)
    x, y = rng.randint(1, width - 1), rng.randint(1, height - 1)
    every = math.comb(width + height, width)
    through = math.comb(x + y, x) * math.comb(width - x + height - y, width - x)
    return (
        f"An ant walks on the lattice from $(0, 0)$ to $({width}, {height})$ and moves one unit to the right "
        f"or one unit up in each step. A drop of honey at $({x}, {y})$ would trap it. How many of its paths "
        "avoid the drop?",
        every - through,
        f"There are {every} paths in all. Those through the drop are the paths to it times the paths from "
        f"it, that is {through}. Subtracting leaves {every - through}.",
    )


def _seats(rng: random.Random) -> tuple[str, int, str]:
    seats, guests = rng.randint(12, 22), rng.randint(3, 6)
    value = math.comb(seats - guests + 1, guests)
    return (
        f"In a row of {seats} seats, {guests} are to be reserved so that no two reserved seats are next to "
        f"each other. In how many ways can the reserved seats be chosen?",
        value,
        f"Set the {seats - guests} free seats in a row. They leave {seats - guests + 1} gaps, the ends "
        f"included, and each gap takes at most one reserved seat, so the count is a binomial coefficient, "
        f"{value}.",
    )


def _dice(rng: random.Random) -> tuple[str, int, str]:
    sides, total = rng.choice((6, 8, 10)), 0
    total = rng.randint(sides, 2 * sides + 4)
    good = sum(1 for i in range(sides) for j in range(sides) for k in range(sides) if i + j + k + 3 == total)
    divisor = math.gcd(good, sides**3)
    value = (good + sides**3) // divisor
    return (
        f"Three fair dice with {sides} sides each, numbered from 1 to {sides}, are rolled. The probability "
        f"that the sum is {total} is $m/n$ with coprime positive integers $m$ and $n$. Find $m + n$.",
        value,
        f"Of the {sides**3} equally likely outcomes, {good} have the sum {total}. Cancelling {divisor} gives "
        f"the fraction in lowest terms, whose numerator and denominator add up to {value}.",
    )


def _recurrence(rng: random.Random) -> tuple[str, int, str]:
    p, q, first, second = (rng.randint(1, 9) for _ in range(4))
    index = rng.randint(30, 90)
    terms = [first, second]
    while len(terms) < index:
        terms.append((p * terms[-1] + q * terms[-2]) % 1000)
    return (
        f"A sequence is defined by $a_1 = {first}$, $a_2 = {second}$ and $a_{{k+2}} = {p} a_{{k+1}} + {q} "
        f"a_k$ for all $k \\ge 1$. Find the remainder when $a_{{{index}}}$ is divided by 1000.",
        terms[-1],
        f"Only the last three digits matter. Carrying them through the recurrence up to term {index} gives "
        f"{terms[-1]}.",
    )


_CONTEST = (_divisible, _power, _paths, _seats, _dice, _recurrence)


def _multiple_choice(rng: random.Random) -> Problem:
    question, value, unit, solution = rng.choice(_SCIENCE)(rng)
    factors = rng.sample((0.25, 0.5, 0.63, 1.41, 1.78, 2.0, 3.14, 4.0, 10.0), 3)
    choices = [value, *(value * factor for factor in factors)]
    rng.shuffle(choices)
    letter = "ABCD"[choices.index(value)]
    listed = "\n".join(f"{name}) {choice:.3g} {unit}" for name, choice in zip("ABCD", choices, strict=True))
    return Problem(
        "gpqa_diamond",
        f"{question}\n\n{listed}\n\nExplain your reasoning, weigh each of the four choices, and end with the "
        "line "
        '"Answer: X", where X is one of A, B, C and D.',
        letter,
        f"{solution} This is {value:.3g} {unit}.\n\nAnswer: {letter}",
    )


def _decay(rng: random.Random) -> tuple[str, float, str, str]:
    half_life, start, hours = rng.randint(2, 40), rng.randint(50, 900), rng.randint(5, 120)
    return (
        "A laboratory prepares a radioactive tracer for imaging. The tracer has a single decay channel, its "
        f"daughter is stable, and the sample is kept in a closed vial from which nothing escapes. The "
        f"half-life is {half_life} hours and the activity at preparation is {start} megabecquerel. A courier "
        f"is delayed, and the vial is opened {hours} hours after preparation. Which activity should the "
        f"detector show, if it is calibrated correctly and dead time can be neglected?",
        start * 0.5 ** (hours / half_life),
        "MBq",
        f"The activity halves every {half_life} hours, so after {hours} hours it has fallen by the factor "
        f"2^(-{hours}/{half_life}).",
    )


def _buffer(rng: random.Random) -> tuple[str, float, str, str]:
    pk, acid, base = rng.choice((3.75, 4.76, 6.35, 7.2, 9.25)), rng.randint(5, 90), rng.randint(5, 90)
    return (
        f"A buffer is made from a weak acid with a pKa of {pk} and its sodium salt. The student weighs in "
        f"{acid} millimoles of the acid and {base} millimoles of the salt and fills up to half a liter with "
        f"water that has been boiled to drive out carbon dioxide. Activity coefficients may be taken as one, "
        f"and the dissociation of water does not matter at these concentrations. Which pH will a well "
        "calibrated electrode show?",
        pk + math.log10(base / acid),
        "",
        f"By the Henderson-Hasselbalch equation pH = pKa + log10([A-]/[HA]) = {pk} + log10({base}/{acid}); "
        f"the volume cancels.",
    )


def _dilation(rng: random.Random) -> tuple[str, float, str, str]:
    percent, light_years = rng.choice((60, 80, 90, 95, 98, 99)), rng.randint(4, 40)
    beta = percent / 100
    return (
        f"A probe passes the Earth at {percent} percent of the speed of light on its way to a star that is "
        f"at rest relative to the Earth, {light_years} light years away in the Earth's frame. Its clock and "
        f"a clock on the Earth are both set to zero at the moment of passing. Acceleration phases play no "
        f"part, and gravity may be neglected throughout. How much time will the probe's own clock show when "
        "it reaches the star?",
        light_years / beta * math.sqrt(1 - beta**2),
        "years",
        f"In the Earth's frame the journey takes {light_years}/{beta} years. The moving clock is slow by the "
        f"factor sqrt(1 - {beta}^2).",
    )


def _hardy_weinberg(rng: random.Random) -> tuple[str, float, str, str]:
    affected = rng.choice((400, 900, 1600, 2500, 4900, 10000))
    q = 1 / math.sqrt(affected)
    return (
        "In a large population that mates at random, a recessive disorder caused by a single autosomal locus "
        f"with two alleles is seen in one of {affected:,} newborn children. Neither selection nor migration "
        f"has acted for many generations, mutation is rare, and carriers show no symptoms at all. A "
        f"geneticist picks one healthy-looking adult at random from the whole population, without knowing "
        f"the family history. What is the frequency of carriers in the population from which this adult is "
        "drawn?",
        2 * q * (1 - q),
        "",
        f"In equilibrium q^2 = 1/{affected}, so q = {q:.4g}, and the frequency of carriers is 2q(1 - q).",
    )


def _lens(rng: random.Random) -> tuple[str, float, str, str]:
    focal, distance = rng.randint(5, 30), rng.randint(35, 150)
    return (
        f"A thin converging lens with a focal length of {focal} centimeters stands {distance} centimeters "
        f"from a small lamp on the optical axis. Behind the lens a screen is moved along the axis until the "
        f"image of the filament is sharp. The lens is corrected for color, and rays may be treated as "
        f"paraxial. At which distance from the lens is the screen then?",
        1 / (1 / focal - 1 / distance),
        "cm",
        f"The lens equation 1/f = 1/g + 1/b with f = {focal} cm and g = {distance} cm is solved for b.",
    )


_SCIENCE = (_decay, _buffer, _dilation, _hardy_weinberg, _lens)
