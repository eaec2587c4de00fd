from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from runner.backfill.offsets import NONE, Offsets, contains, intersection, minus, union


def offsets(rows: set[int]) -> Offsets:
    return np.array(sorted(rows), np.uint32)


def random_set(generator: random.Random) -> set[int]:
    most = generator.choice([1, 5, 64, 1000, 100_000])
    return {generator.randrange(most) for _ in range(generator.choice([0, 1, 2, 10, 300]))}


@pytest.mark.parametrize(
    ("ours", "pythons"),
    [(minus, set.difference), (intersection, set.intersection), (union, set.union)],
    ids=["minus", "intersection", "union"],
)
def test_two_sets_agree_with_pythons(
    ours: Callable[[Offsets, Offsets], Offsets], pythons: Callable[[set[int], set[int]], set[int]]
) -> None:
    generator = random.Random(20260131)
    for _ in range(400):
        left, right = random_set(generator), random_set(generator)
        if generator.random() < 0.3:
            right |= set(list(left)[: len(left) // 2])
        found = ours(offsets(left), offsets(right))
        assert found.tolist() == sorted(pythons(left, right))
        assert found.dtype == np.uint32


def test_a_union_of_many_agrees_with_pythons() -> None:
    generator = random.Random(7)
    for _ in range(100):
        sets = [random_set(generator) for _ in range(generator.randrange(5))]
        assert union(*map(offsets, sets)).tolist() == sorted(set().union(*sets))


def test_contains_answers_in_the_order_asked() -> None:
    assert contains(offsets({2, 5}), np.array([5, 1, 2, 2], np.uint32)).tolist() == [True, False, True, True]
    assert contains(NONE, offsets({1, 2})).tolist() == [False, False]


@pytest.mark.parametrize("operation", [minus, intersection, union])
def test_operations_leave_their_operands_as_they_are(operation: Callable[[Offsets, Offsets], Offsets]) -> None:
    left, right = offsets({1, 2, 3}), offsets({2, 9})
    operation(left, right)
    assert (left.tolist(), right.tolist()) == ([1, 2, 3], [2, 9])


def test_the_empty_set_cannot_be_written_to() -> None:
    assert (len(NONE), NONE.flags.writeable) == (0, False)


def test_the_largest_offset_of_a_fragment_is_kept() -> None:
    last = (1 << 20) - 1
    assert union(offsets({0}), offsets({last})).tolist() == [0, last]
