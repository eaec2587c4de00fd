"""kill -9 at random moments: nothing is lost, nothing is half-written, and little is computed twice."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import pytest
from fault_functions import deadly
from faults_child import POINTS
from faults_processes import HERE, Child, cli, is_alive, kill, run_cli, spawned, standing_ray, wait_until
from faults_tables import (
    CALLS_A_SECOND,
    COLUMN,
    Subject,
    Watcher,
    append,
    assert_complete,
    assert_untouched,
    make,
    redone,
    unreferenced,
)

ROWS = 20_000
SEED = int(os.environ.get("FAULTS_SEED", "1"))  # of the moments at which the processes are killed
PUBLISHED = {"between two files": range(5), "between the files and the commit": [5]}  # not referenced when the client died
SHAPES = pytest.mark.parametrize("fragments", [10, 1], ids=["ten fragments", "one huge fragment"])


def backfill(subject: Subject, cluster: str = "local") -> list[str]:
    return ["backfill", str(subject.database), "t", COLUMN, "--cluster", cluster]


def at_a_random_moment(subject: Subject, child: Child, name: str) -> int:
    """Wait for a number of calls between 0.4 and 0.85 of all; the pid that made the last one."""
    calls = int(ROWS * random.Random(f"{SEED} {name}").uniform(0.4, 0.85))
    wait_until(lambda: subject.call_count() >= calls, f"{calls} calls", child=child)
    return int(subject.calls()[-1, 1])


def report(what: str, subject: Subject, count: int, limit: int) -> None:
    print(f"{what}: {count} of {subject.rows} calls made twice, at most {limit} allowed")
    assert count <= limit


@SHAPES
def test_a_worker_that_is_killed_is_replaced_and_the_job_goes_on(tmp_path: Path, fragments: int) -> None:
    subject = make(tmp_path, ROWS, fragments)
    with Watcher(subject), spawned(cli(*backfill(subject), "--json"), tmp_path) as child:
        worker = at_a_random_moment(subject, child, f"worker {fragments}")
        assert worker != child.pid
        kill(worker)
        result = child.result()
    assert result["rows_done"] == ROWS
    assert len(set(subject.calls()[:, 1])) >= 2
    assert_complete(subject)
    report(f"worker killed, {fragments} fragments", subject, redone(subject), CALLS_A_SECOND)


def test_a_driver_that_is_killed_leaves_its_ray_and_the_next_one_goes_on(tmp_path: Path) -> None:
    subject = make(tmp_path, ROWS, 10)
    with standing_ray(tmp_path) as env, Watcher(subject):
        with spawned(cli(*backfill(subject)), tmp_path, env) as child:
            worker = at_a_random_moment(subject, child, "driver")
            assert worker != child.pid
            child.kill()
        assert_untouched(subject)
        result = run_cli(tmp_path, *backfill(subject), env=env)
    assert result["rows_done"] == ROWS
    assert result["rows_resumed"] > 0
    assert_complete(subject)
    report("driver killed", subject, redone(subject), 2 * CALLS_A_SECOND)


@SHAPES
def test_a_client_that_is_killed_with_its_ray_is_taken_up(tmp_path: Path, fragments: int) -> None:
    subject = make(tmp_path, ROWS, fragments)
    with Watcher(subject):
        with spawned(cli(*backfill(subject)), tmp_path) as child:
            worker = at_a_random_moment(subject, child, f"client {fragments}")
            child.kill_tree()
            assert not is_alive(worker)
        assert_untouched(subject)
        result = run_cli(tmp_path, *backfill(subject))
    assert result["rows_done"] == ROWS
    assert result["rows_resumed"] > 0
    assert_complete(subject)
    report(f"client killed, {fragments} fragments", subject, redone(subject), 2 * CALLS_A_SECOND)


@SHAPES
def test_an_inline_client_that_is_killed_is_taken_up(tmp_path: Path, fragments: int) -> None:
    subject = make(tmp_path, ROWS, fragments)
    with Watcher(subject):
        with spawned(cli(*backfill(subject, "inline")), tmp_path) as child:
            assert at_a_random_moment(subject, child, f"inline {fragments}") == child.pid
            child.kill()
        assert_untouched(subject)
        result = run_cli(tmp_path, *backfill(subject, "inline"))
    assert result["rows_done"] == ROWS
    assert_complete(subject)
    report(f"inline client killed, {fragments} fragments", subject, redone(subject), CALLS_A_SECOND)


def test_a_worker_killed_while_it_joins_parts_loses_nothing(tmp_path: Path) -> None:
    subject = make(tmp_path, 4000, 1)
    once = tmp_path / "killed"
    with Watcher(subject):
        result = run_cli(tmp_path, *backfill(subject), env={"FAULTS_KILL_AT_JOIN": str(once)})
    assert once.exists()
    assert result["rows_done"] == 4000
    assert_complete(subject)
    assert redone(subject) == 0


@pytest.mark.parametrize("point", POINTS)
def test_a_client_killed_in_its_commit_computes_nothing_again(tmp_path: Path, point: str) -> None:
    subject = make(tmp_path, 2000, 5)
    with Watcher(subject):
        with spawned([sys.executable, str(HERE / "faults_child.py"), str(subject.database), COLUMN, point], tmp_path) as child:
            assert child.wait() == -signal.SIGKILL, child.text()
        committed = point in ("after the commit", "in the middle of the clean-up")
        if not committed:
            assert_untouched(subject)
        assert len(unreferenced(subject)) in PUBLISHED.get(point, [0])
        result = run_cli(tmp_path, *backfill(subject, "inline"))
    assert result["rows_done"] == (0 if committed else 2000)
    assert redone(subject) == 0
    if committed:  # nothing was to do, so what was staged stays until there is
        append(subject, 10)
        assert run_cli(tmp_path, *backfill(subject, "inline"))["rows_done"] == 10
    assert_complete(subject, published_twice=not committed, versions=5 if committed else 3)


def test_a_row_that_kills_its_worker_ends_the_job_by_name_and_finished_work_is_kept(tmp_path: Path) -> None:
    subject = make(tmp_path, ROWS, 10, deadly)
    switch = tmp_path / "calls.log.kill"
    row = 50 + 100 * random.Random(f"{SEED} deadly").randrange(120, 160)
    switch.write_text(str(row))
    with Watcher(subject):
        with spawned(cli(*backfill(subject)), tmp_path) as child:
            assert child.wait() == 1, child.text()
        told = [line for line in child.text().splitlines() if line.startswith("runner: out: WorkerDied")]
        assert len(told) == 1, child.text()
        assert f"row {row % 2000} of fragment {row // 2000} (_rowaddr = {(row // 2000 << 32) | row % 2000})" in told[0]
        assert told[0].endswith("the worker died: exit code 137 (SIGKILL)")
        assert "Traceback" not in child.text()
        assert_untouched(subject)
        assert unreferenced(subject) == set()
        switch.unlink()
        result = run_cli(tmp_path, *backfill(subject))
    assert result["rows_done"] == ROWS
    assert result["rows_resumed"] >= ROWS // 2
    assert_complete(subject)
    report("deadly row", subject, redone(subject), 4 * CALLS_A_SECOND)  # three workers died, the others were stopped with the job
