from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import lance
import pyarrow as pa
import pytest

from runner import connect, udf
from runner.backfill.plan import BackfillPlan
from runner.backfill.selection import ColumnState
from runner.backfill.tasks import tasks
from runner.backfill.work import FragmentWork
from runner.table import Table

Tasks = Sequence[tuple[FragmentWork, ...]]


def works(*sizes: int) -> list[FragmentWork]:
    return [FragmentWork(n, ("label",), ColumnState(None, None), size, f"folder{n}") for n, size in enumerate(sizes)]


def rows_of(task: tuple[FragmentWork, ...]) -> int:
    return sum(work.rows for work in task)


def every_row_once(planned: Tasks, given: Sequence[FragmentWork]) -> bool:
    found: Counter[tuple[int, int]] = Counter()
    for work in (work for task in planned for work in task):
        start, stop = work.span or (0, work.rows)
        assert stop - start == work.rows
        found.update((work.fragment_id, row) for row in range(start, stop))
    return found == Counter((work.fragment_id, row) for work in given for row in range(work.rows))


def busiest(planned: Tasks, workers: int) -> int:
    """Rows of the busiest worker when idle workers take the next task."""
    loads = [0] * workers
    for task in planned:
        loads[loads.index(min(loads))] += rows_of(task)
    return max(loads)


def test_a_thousand_small_fragments_become_a_few_tasks_smaller_and_smaller() -> None:
    given = works(*[100] * 1000)
    planned = tasks(given, 4)
    assert every_row_once(planned, given)
    sizes = [rows_of(task) for task in planned]
    assert len(sizes) < 50
    assert sizes == sorted(sizes, reverse=True)
    assert 25_000 / 4 < sizes[0] < 25_000 / 2
    assert max(sizes[-16:]) <= 0.05 * 25_000
    assert all(work.span is None for task in planned for work in task)
    assert busiest(planned, 4) <= 1.15 * 25_000


def test_bundles_leave_work_for_workers_that_come_later() -> None:
    given = works(*[100] * 1000)
    planned = tasks(given, 1, 20)
    assert every_row_once(planned, given)
    assert len(planned) > 100
    assert rows_of(planned[0]) <= 100_000 / 20 / 2
    assert busiest(planned, 20) <= 1.15 * 100_000 / 20
    assert all(work.span is None for task in planned for work in task)


def test_one_huge_fragment_uses_every_worker() -> None:
    given = works(100_000)
    planned = tasks(given, 8)
    assert every_row_once(planned, given)
    assert len(planned) >= 8
    assert all(work.span is not None for task in planned for work in task)
    assert busiest(planned, 8) <= 1.15 * 100_000 / 8


def test_one_huge_fragment_among_small_ones_is_split_alone() -> None:
    given = works(50, 90_000, 50, 50)
    planned = tasks(given, 4)
    assert every_row_once(planned, given)
    assert {work.fragment_id for task in planned for work in task if work.span} == {1}
    assert busiest(planned, 4) <= 1.15 * 90_150 / 4


def test_even_fragments_are_not_split() -> None:
    planned = tasks(works(*[1000] * 8), 4)
    assert [work.span for task in planned for work in task] == [None] * 8


def test_one_worker_splits_nothing() -> None:
    given = works(100_000, 5, 0, 20)
    planned = tasks(given, 1)
    assert every_row_once(planned, given)
    assert all(work.span is None for task in planned for work in task)


def test_a_fragment_of_one_row_is_not_split() -> None:
    (task,) = tasks(works(1), 16)
    assert [(work.rows, work.span) for work in task] == [(1, None)]


def test_nothing_to_do_is_no_task() -> None:
    assert list(tasks([], 4)) == []


def test_the_largest_task_comes_first() -> None:
    planned = tasks(works(10, 4000, 3000, 2000, 3000, 20, 4000, 10), 2)
    assert rows_of(planned[0]) == max(rows_of(task) for task in planned)
    assert rows_of(planned[-1]) == min(rows_of(task) for task in planned)


@pytest.mark.parametrize("seed", range(60))
def test_every_row_is_in_exactly_one_task_and_no_worker_has_much_more_than_its_share(seed: int) -> None:
    generator = random.Random(seed)
    most = generator.choice([1, 3, 50, 2000])
    given = works(*(generator.randint(1, most) for _ in range(generator.choice([1, 2, 5, 40]))))
    workers = generator.choice([1, 2, 3, 8, 64])
    planned = tasks(given, workers)
    assert every_row_once(planned, given)
    assert all(planned)
    share = sum(work.rows for work in given) / workers
    assert workers == 1 or busiest(planned, workers) <= 1.5 * share + 1


@udf
def double(n: int) -> int:
    return 2 * n


@udf
def triple(n: int) -> int:
    return 3 * n


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Four fragments of five rows with two columns that nothing has filled."""
    connection = connect(tmp_path / "db")
    lance.write_dataset(pa.table({"n": range(20)}), str(tmp_path / "db/t.lance"), max_rows_per_file=5)
    made = connection.open_table("t")
    made.add_columns({"label": double, "other": triple})
    return made


def counts(plan: BackfillPlan) -> tuple[int, int, int, int, int]:
    return plan.total_rows, plan.rows, plan.valid_rows, plan.stale_rows, plan.fragments


def backfill(table: Table, column: str, **options: object) -> None:
    with table.connection.context(cluster="inline"):
        table.backfill(column, progress=False, **options)  # type: ignore[arg-type]


def test_a_plan_of_a_new_column_is_all_rows(table: Table) -> None:
    plan = table.plan("label")
    assert counts(plan) == (20, 20, 0, 0, 4)
    assert [(work.fragment_id, work.rows, work.offsets) for work in plan.works] == [(n, 5, None) for n in range(4)]
    assert not plan.is_empty


def test_a_plan_after_the_backfill_is_empty_and_after_an_append_the_new_fragment(table: Table) -> None:
    backfill(table, "label")
    assert table.plan("label").is_empty
    assert counts(table.plan("label")) == (20, 0, 20, 0, 0)
    lance.write_dataset(pa.table({"n": [20, 21]}), table.uri, mode="append")
    plan = table.plan("label")
    assert counts(plan) == (22, 2, 20, 0, 1)
    assert [work.fragment_id for work in plan.works] == [4]


def test_deleted_rows_are_not_planned(table: Table) -> None:
    table.to_lance().delete("n < 5 or n = 7")
    assert counts(table.plan("label")) == (14, 14, 0, 0, 3)


def test_where_plans_the_fragments_and_rows_that_match(table: Table) -> None:
    plan = table.plan("label", where="n >= 3 and n < 7")
    assert counts(plan) == (4, 4, 0, 0, 2)
    offsets = {work.fragment_id: work.offsets.tolist() for work in plan.works if work.offsets is not None}
    assert offsets == {0: [3, 4], 1: [0, 1]}


def test_another_function_makes_rows_stale_and_stale_plans_them(table: Table) -> None:
    backfill(table, "label")
    assert counts(table.plan("label", udf=triple)) == (20, 0, 20, 20, 0)
    assert counts(table.plan("label", udf=triple, stale=True)) == (20, 20, 0, 0, 4)
    assert counts(table.plan("label", force=True)) == (20, 20, 0, 0, 4)


def test_a_part_made_by_another_function_is_what_is_stale(table: Table) -> None:
    backfill(table, "label")
    backfill(table, "label", udf=triple, where="n < 3")
    assert counts(table.plan("label", udf=triple)) == (20, 0, 20, 17, 0)
    assert counts(table.plan("label", udf=triple, stale=True)) == (20, 17, 3, 0, 4)


def test_columns_that_need_the_same_rows_share_their_works(table: Table) -> None:
    plan = table.plan(["label", "other"])
    assert [work.columns for work in plan.works] == [("label", "other")] * 4
    assert counts(plan) == (40, 40, 0, 0, 4)


def test_columns_that_need_other_rows_do_not(table: Table) -> None:
    backfill(table, "label", where="n < 5")
    plan = table.plan(["label", "other"])
    found = Counter((work.fragment_id, work.columns) for work in plan.works)
    assert found == Counter([(0, ("other",)), *((n, ("label", "other")) for n in (1, 2, 3))])


def test_staging_folders_change_with_what_the_values_depend_on(table: Table) -> None:
    def folders(plan: BackfillPlan) -> set[str]:
        return {work.folder for work in plan.works}

    before = folders(table.plan("label"))
    assert len(before) == 4
    assert folders(table.plan("label")) == before
    assert folders(table.plan("label", udf=triple)).isdisjoint(before)
    assert folders(table.plan("label", where="n >= 0")).isdisjoint(before)
    backfill(table, "other")
    assert folders(table.plan("label")) == before
    assert folders(table.plan("other", force=True)).isdisjoint(before)


def test_a_description_says_the_figures_of_the_plan(table: Table) -> None:
    backfill(table, "label", where="n < 5")
    text = table.plan("label", udf=triple).describe()
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines == [
        f"backfill of label in t at version {table.to_lance().version}",
        "rows to compute 15 of 20",
        "rows already done 5",
        "fragments 3 of 4",
        "stale 5 rows of an older function version; stale=True computes them",
    ]
