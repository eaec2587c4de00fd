from __future__ import annotations

import dataclasses

import pytest

from runner.backfill.losses import MAX_CAREFUL_LOSSES, Losses
from runner.backfill.selection import ColumnState
from runner.backfill.work import FragmentWork
from runner.errors import WorkerLost

WORK = FragmentWork(3, ("y",), ColumnState(None, None), rows=1000, folder="staging/t/y/3-abc")


def test_it_runs_elsewhere_then_with_care_then_in_halves() -> None:
    losses = Losses()
    assert not losses.has(WORK)
    again = losses.successors(WORK, "died")
    assert again == [dataclasses.replace(WORK, has_parts=True)]
    assert losses.has(WORK)
    careful = losses.successors(again[0], "died")
    assert careful == [dataclasses.replace(WORK, has_parts=True, careful=True)]
    halves = losses.successors(careful[0], "died")
    assert [(work.span, work.rows, work.careful, work.has_parts) for work in halves] == [
        ((0, 500), 500, True, True),
        ((500, 1000), 500, True, True),
    ]


@pytest.mark.parametrize("killer", [0, 1, 499, 500, 998, 999])
def test_halves_lead_to_the_row_in_so_many_deaths(killer: int) -> None:
    losses, waiting, deaths = Losses(), [WORK], 0
    done: list[tuple[int, int]] = []
    while waiting:
        work = waiting.pop()
        start, stop = work.span or (0, work.rows)
        if work.cause is not None:
            assert ((start, stop), work.cause) == ((killer, killer + 1), "exit 9")
        elif start <= killer < stop:
            deaths += 1
            waiting += losses.successors(work, "exit 9")
            continue
        done.append((start, stop))
    assert [row for start, stop in sorted(done) for row in range(start, stop)] == list(range(1000))
    assert deaths <= 2 + 10 + 2


def test_a_row_that_is_alone_is_tried_once_more_before_it_is_blamed() -> None:
    losses = Losses()
    work = dataclasses.replace(WORK, span=(7, 8), rows=1, careful=True)
    (again,) = losses.successors(work, "first")
    assert again == dataclasses.replace(work, has_parts=True)
    (blamed,) = losses.successors(again, "second")
    assert (blamed.span, blamed.cause) == ((7, 8), "second")


def test_a_work_of_one_row_that_is_no_span_becomes_one() -> None:
    losses = Losses()
    (again,) = losses.successors(dataclasses.replace(WORK, rows=1, careful=True), "first")
    assert again.span == (0, 1)


def test_joining_is_tried_three_times() -> None:
    losses = Losses()
    join = dataclasses.replace(WORK, join=True)
    assert (
        losses.successors(join, "no memory") == losses.successors(join, "no memory") == [dataclasses.replace(join, has_parts=True)]
    )
    with pytest.raises(WorkerLost, match=r"fragment 3: the worker died 3 times on it; the last time: no memory. Finished work"):
        losses.successors(join, "no memory")


def test_where_everything_dies_there_is_an_end() -> None:
    deaths: list[FragmentWork] = []

    def run() -> None:
        losses, waiting = Losses(), [WORK]
        while waiting:
            deaths.append(waiting.pop(0))
            waiting += losses.successors(deaths[-1], "always")

    with pytest.raises(WorkerLost, match="the worker died 61 times on it"):
        run()
    assert len(deaths) == 2 + MAX_CAREFUL_LOSSES + 1
