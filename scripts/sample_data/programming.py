"""Programming tasks with examples that a reference solution has computed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple


class _Task(NamedTuple):
    title: str
    story: str
    input_format: str
    output_format: str
    constraints: str
    idea: str
    make: Callable[[random.Random], list[list[int]]]  # lines of numbers
    solve: Callable[[list[list[int]]], int]


def programming_task(rng: random.Random) -> tuple[str, str, str]:
    """A task's statement, what a hidden test expects, and an outline of a solution."""
    task = rng.choice(_TASKS)
    sizes = rng.randint(2, 5)
    examples = [task.make(rng) for _ in range(sizes)]
    hidden = task.make(rng)
    shown = "\n\n".join(
        f"Sample Input {number}\n\n{_lines(example)}\n\nSample Output {number}\n\n{task.solve(example)}"
        for number, example in enumerate(examples, 1)
    )
    statement = (
        "You are given a programming problem. Write a complete Python program that reads from standard input "
        "and writes to standard output, and that passes all tests within the limits. Enclose the program in "
        f"a fenced code block and write nothing after it.\n\nProblem: "
        f"{task.title}\n\n{task.story}\n\nInput\n\nThe input is given from standard input in the following "
        f"format. "
        f"{task.input_format}\n\nOutput\n\n{task.output_format}\n\nConstraints\n\n{task.constraints}\n- All "
        f"values in the input are integers.\n- The time limit is {rng.choice((2, 3, 4))} seconds and the "
        f"memory limit is 1024 megabytes.\n\n{shown}\n\nNote\n\nIn the first sample the answer is "
        f"{task.solve(examples[0])}. {task.story.rsplit('. ', 1)[-1]} Mind the limits: trying every "
        "possibility is too slow for the largest tests, and answers may exceed 32 bits in other languages."
    )
    return (
        statement,
        str(task.solve(hidden)),
        f"{task.idea} For the hidden test this gives {task.solve(hidden)}.",
    )


def _lines(case: list[list[int]]) -> str:
    return "\n".join(" ".join(map(str, line)) for line in case)


def _window_case(rng: random.Random) -> list[list[int]]:
    n = rng.randint(8, 40)
    return [[n, rng.randint(20, 300)], [rng.randint(1, 60) for _ in range(n)]]


def _longest_window(case: list[list[int]]) -> int:
    limit, values = case[0][1], case[1]
    best = start = total = 0
    for end, value in enumerate(values):
        total += value
        while total > limit:
            total -= values[start]
            start += 1
        best = max(best, end - start + 1)
    return best


def _grid_case(rng: random.Random) -> list[list[int]]:
    height, width = rng.randint(4, 9), rng.randint(4, 9)
    grid = [[int(rng.random() < 0.28) for _ in range(width)] for _ in range(height)]
    grid[0][0] = grid[-1][-1] = 0
    return [[height, width], *grid]


def _shortest_walk(case: list[list[int]]) -> int:
    height, width = case[0]
    grid = case[1:]
    distance = {(0, 0): 0}
    frontier = [(0, 0)]
    for row, column in frontier:  # grows while it is walked through
        for r, c in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if 0 <= r < height and 0 <= c < width and not grid[r][c] and (r, c) not in distance:
                distance[r, c] = distance[row, column] + 1
                frontier.append((r, c))
    return distance.get((height - 1, width - 1), -1)


def _interval_case(rng: random.Random) -> list[list[int]]:
    n = rng.randint(5, 16)
    starts = [rng.randint(0, 900) for _ in range(n)]
    return [[n], *([start, start + rng.randint(5, 160)] for start in starts)]


def _most_at_once(case: list[list[int]]) -> int:
    events = sorted([(start, 1) for start, _ in case[1:]] + [(end, -1) for _, end in case[1:]])
    most = now = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def _coin_case(rng: random.Random) -> list[list[int]]:
    coins = sorted(rng.sample(range(2, 40), rng.randint(3, 8)))
    return [[len(coins), rng.randint(60, 400)], coins]


def _coin_ways(case: list[list[int]]) -> int:
    amount = case[0][1]
    ways = [1] + [0] * amount
    for coin in case[1]:
        for total in range(coin, amount + 1):
            ways[total] += ways[total - coin]
    return ways[amount] % 1_000_000_007


def _stairs_case(rng: random.Random) -> list[list[int]]:
    n = rng.randint(10, 45)
    return [[n], [rng.randint(1, 999) for _ in range(n)]]


def _longest_increasing(case: list[list[int]]) -> int:
    lengths: list[int] = []
    for index, value in enumerate(case[1]):
        lengths.append(1 + max((lengths[i] for i in range(index) if case[1][i] < value), default=0))
    return max(lengths)


_TASKS = (
    _Task(
        "Conveyor Belt",
        "Parcels lie on a conveyor belt in a fixed order, and the weight of each is known. A trolley takes "
        "parcels that lie next to each other, as many as it can carry, but not beyond its load limit. It can "
        "be filled only once, starting from any parcel, and neither the order nor a single parcel in between "
        "may be changed. Find the largest number of consecutive parcels whose total weight does not exceed "
        "the limit.",
        "The first line has two integers N and S, the number of parcels and the load limit. The second line "
        "has N integers, the weights of the parcels in their order on the belt.",
        "Print one integer, the largest number of consecutive parcels that the trolley can carry. If it "
        "cannot carry even one parcel, print 0.",
        "- 1 <= N <= 200000\n- 1 <= S <= 1000000000\n- Each weight is between 1 and 1000000000.",
        "Two pointers: move the right end, and the left end as long as the sum is too large. Each moves N "
        "times at most.",
        _window_case,
        _longest_window,
    ),
    _Task(
        "Night Watch",
        "A night guard walks through a warehouse that is laid out as a grid of H rows and W columns. Some "
        "cells are blocked by shelves. In one step she goes from a cell to one of the four cells that share "
        "a side with it, unless it is blocked or outside. She starts in the upper left corner and wants to "
        "reach the exit in the lower right corner. Find the smallest number of steps that brings her there.",
        "The first line has two integers H and W. Each of the next H lines has W integers, 1 for a blocked "
        "cell and 0 for a free one. Both corners are free.",
        "Print the smallest number of steps. If the exit cannot be reached, print -1.",
        "- 2 <= H, W <= 1000\n- Every cell is 0 or 1.",
        "Breadth-first search from the start gives the distance of every cell that can be reached.",
        _grid_case,
        _shortest_walk,
    ),
    _Task(
        "Charging Stations",
        "A depot runs electric buses. For each bus the timetable says when it arrives and when it leaves, in "
        "minutes after midnight, and in between it has to be connected to a charging station of its own. A "
        "station that a bus leaves can be used at once by a bus that arrives in the same minute. Stations "
        "are expensive, so the depot wants no more than it needs. Find the smallest number of stations with "
        "which every bus can be charged.",
        "The first line has an integer N, the number of buses. Each of the next N lines has two integers A "
        "and B, the minutes of arrival and of departure.",
        "Print one integer, the smallest number of charging stations.",
        "- 1 <= N <= 200000\n- 0 <= A < B <= 1000000000",
        "Sort arrivals and departures together, departures first at equal times, and keep count of the buses "
        "present.",
        _interval_case,
        _most_at_once,
    ),
    _Task(
        "Vending Machine",
        "A vending machine gives change in coins of K different values and has any number of each. The "
        "maintenance crew wants to know how varied its behavior can be. Two ways of giving change are the "
        "same if they use the same number of coins of every value; the order in which coins fall does not "
        "matter. Find the number of ways to give change for the amount T, modulo 1000000007.",
        "The first line has two integers K and T. The second line has K distinct integers, the values of the "
        "coins in increasing order.",
        "Print the number of ways modulo 1000000007.",
        "- 1 <= K <= 100\n- 1 <= T <= 100000\n- Each value is between 1 and 100000.",
        "Take the coins one after the other and count, for every total, the ways with the coins seen so far.",
        _coin_case,
        _coin_ways,
    ),
    _Task(
        "Mountain Huts",
        "A hiking club plans a tour along a ridge with N huts, which are passed in a fixed order. The "
        "altitude of every hut is known. The club sleeps in some of the huts, and since members complain "
        "about going down with heavy packs, each hut it sleeps in must be strictly higher than the one of "
        "the night before. Find the largest number of nights that such a tour can have.",
        "The first line has an integer N. The second line has N integers, the altitudes in the order along "
        "the ridge.",
        "Print one integer, the largest number of nights.",
        "- 1 <= N <= 200000\n- Each altitude is between 1 and 1000000000.",
        "Keep, for each length, the lowest altitude at which a tour of this length can end, and search it by "
        "bisection.",
        _stairs_case,
        _longest_increasing,
    ),
)
