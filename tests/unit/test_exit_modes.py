"""What becomes of cluster and jobs at the end of a context on a cluster: every mode, every outcome. The cluster is pretended."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from infra.errors import InfraError
from runner import ExitMode
from runner.environments.environment import Environment
from runner.errors import BackfillFailed, JobCancelled, RunnerError
from runner.remote import cluster_context
from runner.remote.cluster_context import ClusterContext
from runner.store import Store


class Place:
    """An on-demand cluster that notes whether it was deleted."""

    name, python, platform, is_on_demand = "gpu", "3.11", "linux-x86_64", True

    def __init__(self, refuses: Exception | None = None) -> None:
        self.closed: list[str] = []
        self._refuses = refuses

    def close(self, *, keep: bool) -> bool:
        if self._refuses:
            raise self._refuses
        self.closed.append("kept" if keep else "deleted")
        return not keep

    def removal(self) -> str:
        return "python -m runner clusters down db gpu"

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not asked for here")


class Job:
    """A job that ends as it is told, or runs until it is cancelled."""

    def __init__(self, outcome: BaseException | None = None, *, runs: bool = False) -> None:
        self.job_id = "20260131-1"
        self.waited = 0
        self._outcome, self._runs = outcome, runs

    def done(self) -> bool:
        self.waited += 1
        return not self._runs

    def result(self, timeout: float | None = None) -> None:
        if self._outcome is not None:
            raise self._outcome

    def cancel(self) -> None:
        self._runs, self._outcome = False, JobCancelled("cancelled")


def context_on(place: Place, folder: Path, job: Job, mode: ExitMode = ExitMode.DELETE, **options: Any) -> ClusterContext:
    """A context with one job, as if it had been opened."""
    made = ClusterContext(Store(folder), place, Environment(), on_exit=mode, **options)
    made._where = "Service gpu-head-svc"
    made.track(job)
    return made


DONE = (Job, None, "")
FAILED = (lambda: Job(BackfillFailed("no")), None, "job 20260131-1 failed")
RAISED = (Job, ValueError("of the body"), "the block raised ValueError")
LATE = (lambda: Job(runs=True), None, "job 20260131-1 was not done within wait_timeout (0 s)")


@pytest.mark.parametrize("outcome", [DONE, FAILED, RAISED, LATE], ids=["done", "failed", "raised", "late"])
@pytest.mark.parametrize("mode", list(ExitMode))
def test_each_mode_and_outcome(mode: ExitMode, outcome: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_job, failure, reason = outcome
    job, place = make_job(), Place()
    reason = "on_exit is RETAIN" if mode is ExitMode.RETAIN else reason
    keeps = mode is ExitMode.RETAIN or (mode is ExitMode.RETAIN_ON_FAILURE and bool(reason))

    context_on(place, tmp_path, job, mode, wait_timeout=0 if outcome is LATE else None).close(failure)

    assert place.closed == ["kept" if keeps else "deleted"]
    said = capsys.readouterr().err
    kept = f"cluster gpu is kept ({reason}), at Service gpu-head-svc; `python -m runner clusters down db gpu` removes it"
    assert (kept in said, "cluster gpu is deleted" in said) == (keeps, not keeps)
    assert (job.waited > 0) == (mode is not ExitMode.RETAIN)
    cancelled = mode is ExitMode.DELETE and outcome is LATE
    assert ("cancelling job 20260131-1; finished work is kept" in said) == cancelled
    assert job.done() == (cancelled or outcome is not LATE)  # so that nothing runs on a cluster that is deleted


def test_a_cluster_that_cannot_be_deleted_is_named_with_the_command_that_removes_it(tmp_path: Path) -> None:
    place = Place(InfraError("Kubernetes does not answer"))
    said = r"^cluster gpu may still be there: Kubernetes does not answer; `python -m runner clusters down db gpu` removes it$"
    with pytest.raises(RunnerError, match=said):
        context_on(place, tmp_path, Job()).close()


def interrupted(monkeypatch: pytest.MonkeyPatch, presses: int) -> None:
    """Ctrl-C while jobs are waited for, and again while the context waits for that."""
    calls = iter([KeyboardInterrupt] * (presses - 1))

    def sleep(seconds: float) -> None:
        assert seconds == 3
        if (again := next(calls, None)) is not None:
            raise again

    monkeypatch.setattr(cluster_context.time, "sleep", sleep)


@pytest.mark.parametrize("mode", [ExitMode.DELETE, ExitMode.RETAIN_ON_FAILURE])
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_while_the_end_of_the_block_waits(
    mode: ExitMode, presses: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(monkeypatch, presses)
    place, job = Place(), Job(runs=True)
    context = context_on(place, tmp_path, job, mode)
    monkeypatch.setattr(context._stopped, "wait", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):  # what follows the block must not run
        context.close()
    said = capsys.readouterr().err
    assert f"job 20260131-1 goes on; `python -m runner jobs attach {tmp_path} 20260131-1` follows it" in said
    assert job.done() == (presses == 2)
    assert place.closed == ["deleted" if (presses, mode) == (2, ExitMode.DELETE) else "kept"]
    assert ("`python -m runner clusters down db gpu` removes it" in said) == (place.closed == ["kept"])


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), asyncio.CancelledError()], ids=["Ctrl-C", "cancelled task"])
def test_an_interrupted_block_waits_for_nothing(failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, 1)
    place, job = Place(), Job(runs=True)
    context_on(place, tmp_path, job).close(failure)
    assert (place.closed, job.done()) == (["kept"], False)


def test_a_task_that_is_cancelled_while_its_end_waits(tmp_path: Path) -> None:
    place, job = Place(), Job(runs=True)
    context = context_on(place, tmp_path, job)

    async def work() -> None:
        async with context:
            pass

    async def main() -> None:
        task = asyncio.ensure_future(work())
        while not job.waited:
            await asyncio.sleep(0)
        task.cancel()
        await task

    context.open = lambda: context  # type: ignore[method-assign]
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert (place.closed, job.done()) == (["kept"], False)
