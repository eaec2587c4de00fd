"""The figures of a job's report, as plain values: a few hundred kilobytes at most, however many tasks there were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from runner.records import JobRecord
from runner.watch.history import CUT_OFF, DONE, OUTCOMES, RUNNING, ErrorKind, History

if TYPE_CHECKING:
    from runner.watch.job_cost import JobCost

MAX_MARKS = 12_000
"""On the timeline: more tasks than these are merged where they lie next to each other on a worker, with the same outcome."""
STRAGGLER = 3.0
MIN_SECONDS = 0.1
"""A task is one if it took so many times the median, and no less than this; Spark's ``spark.speculation.multiplier`` and
``minTaskRuntime``."""
MIN_TASKS = 4  # for a median that says something
MAX_STRAGGLERS = 20
MAX_WORKERS = 2000
BATCH_STEPS = 200
MIN_CALLS = 1e-6  # fewer in a step are what rounding left of none


def report_data(record: JobRecord, history: History | None, cost: JobCost | None = None) -> dict[str, Any]:
    """What the page shows of a job.

    Args:
        history: None of a job of which nothing was recorded.
        cost: None where it is not asked for, or the job ran on no cluster that has a price.
    """
    found = history or History(record.started_at)
    tasks = {name: np.asarray(values) for name, values in found.tasks.items()}
    end = np.where(tasks["end_ms"] < 0, round(found.seconds * 1000), tasks["end_ms"])
    tasks["end_ms"] = np.maximum(end, tasks["start_ms"])
    if record.is_ended or record.state == "LOST":
        tasks["outcome"] = np.where(tasks["outcome"] == RUNNING, CUT_OFF, tasks["outcome"])
    return {
        "job": _job(record),
        "notes": _notes(record, history),
        "cost": cost.to_dict() if cost else None,
        "seconds": found.seconds,
        "began_at": found.began_at,
        "totals": _totals(record, found, tasks),
        "phases": [[phase.name, phase.start, phase.end] for phase in found.phases],
        "outcomes": [[name, int((tasks["outcome"] == number).sum())] for number, name in enumerate(OUTCOMES)],
        "workers": _workers(found, tasks),
        "marks": _marks(tasks),
        "series": {"step": found.step, **found.series},
        "batches": _batches(found, tasks),
        "stragglers": _stragglers(found, tasks),
        "errors": [_error(kind, error) for kind, error in _most(found)],
    }


def _job(record: JobRecord) -> dict[str, Any]:
    names = (
        "job_id", "table", "columns", "functions", "versions", "executor", "cluster", "manifest", "user", "host", "started_at",
        "ended_at", "read_version", "options", "error",
    )  # fmt: skip
    return {"state": record.state, **{name: getattr(record, name) for name in names}}


def _notes(record: JobRecord, history: History | None) -> list[str]:
    """What a reader must know before the figures."""
    notes = []
    if record.state == "LOST":
        notes.append(
            f"This job was cut off: its driver has given no sign of life since {_last(record)}. "
            "The figures are those that it last recorded; the next backfill of the column takes finished work up."
        )
    elif not record.is_ended:
        notes.append(f"This job has not ended. The figures are those recorded by {_last(record)}.")
    elif history is not None and not history.is_ended:
        notes.append("The last seconds of this job are not in the figures: they could not be recorded.")
    if history is None:
        notes.append("Nothing is recorded of this job's tasks: it had none, or it was cut off within its first seconds.")
    return notes


def _last(record: JobRecord) -> str:
    return (record.updated_at or record.started_at).replace("T", " ").replace("+00:00", " UTC")


def _totals(record: JobRecord, history: History, tasks: dict[str, Any]) -> dict[str, Any]:
    done = tasks["outcome"] == DONE
    compute = _compute_seconds(history)
    busy = float((tasks["end_ms"] - tasks["start_ms"]).sum()) / 1000
    return {
        "rows_done": record.rows_done,
        "rows_total": record.rows_total,
        "rows_failed": record.rows_failed,
        "rows_resumed": record.rows_resumed,
        "tasks": len(done),
        "workers": len(history.workers),
        "bytes_read": int(tasks["bytes_read"].sum()),
        "bytes_written": int(tasks["bytes_written"].sum()),
        "calls": int(tasks["calls"].sum()),
        "call_seconds": float(tasks["call_us"].sum()) / 1e6,
        "rows_per_second": float(tasks["rows"].sum()) / compute if compute else 0.0,
        "busy": min(busy / (compute * len(history.workers)), 1.0) if compute and history.workers else 0.0,
        "memory": int(tasks["memory"].max(initial=0)),
        "task_seconds": float(np.median(_seconds(tasks)[done])) if done.any() else 0.0,
    }


def _compute_seconds(history: History) -> float:
    return sum((history.seconds if p.end is None else p.end) - p.start for p in history.phases if p.name == "compute")


def _seconds(tasks: dict[str, Any]) -> Any:
    return (tasks["end_ms"] - tasks["start_ms"]) / 1000


def _workers(history: History, tasks: dict[str, Any]) -> list[list[Any]]:
    """Node, process, tasks, rows, busy seconds and peak memory in bytes of each, in the order of their numbers."""
    count = len(history.workers)
    number = tasks["worker"]
    memory = np.zeros(count, np.int64)
    np.maximum.at(memory, number, tasks["memory"])
    n_tasks = np.bincount(number, minlength=count)
    rows = np.bincount(number, tasks["rows"], count)
    busy = np.bincount(number, _seconds(tasks), count)
    return [
        [node, process, int(n_tasks[i]), int(rows[i]), round(float(busy[i]), 3), int(memory[i])]
        for i, (node, process) in enumerate(history.workers[:MAX_WORKERS])
    ]


def _marks(tasks: dict[str, Any]) -> dict[str, list[int]]:
    """What the timeline draws: each task, or of too many those of one worker, outcome and moment together."""
    shown = {
        name: tasks[name][tasks["worker"] < MAX_WORKERS] for name in ("worker", "start_ms", "end_ms", "outcome", "rows", "failed")
    }
    count = len(shown["worker"])
    width = int(shown["end_ms"].max(initial=0)) + 1
    if count <= MAX_MARKS:
        slot = np.arange(count)
    else:
        per_worker = max(MAX_MARKS // (int(shown["worker"].max()) + 1), 1)
        slot = shown["start_ms"] * per_worker // width
    key = (slot * MAX_WORKERS + shown["worker"]) * len(OUTCOMES) + shown["outcome"]
    _, first, group, sizes = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    start = np.full(len(first), width)
    end = np.zeros(len(first), np.int64)
    np.minimum.at(start, group, shown["start_ms"])
    np.maximum.at(end, group, shown["end_ms"])
    sums = {name: np.bincount(group, shown[name], len(first)).astype(np.int64) for name in ("rows", "failed")}
    same = {name: shown[name][first] for name in ("worker", "outcome")}
    return {name: values.tolist() for name, values in {**same, "start": start, "end": end, "tasks": sizes, **sums}.items()}


def _batches(history: History, tasks: dict[str, Any]) -> dict[str, Any]:
    """Rows in a call of the function, and seconds a call: means over the tasks of each step of time, None where there are none."""
    step = max(history.seconds, 0.001) / BATCH_STEPS
    first, last = (np.minimum(tasks[name] / 1000 / step, BATCH_STEPS - 1).astype(np.int64) for name in ("start_ms", "end_ms"))

    def spread(amounts: Any) -> Any:
        """The amount of each task, evenly over the steps in which it ran."""
        change = np.zeros(BATCH_STEPS + 1)
        share = amounts / (last - first + 1)
        np.add.at(change, first, share)
        np.subtract.at(change, last + 1, share)
        return np.cumsum(change)[:-1]

    calls = spread(tasks["calls"])

    def mean(amounts: Any, digits: int) -> list[float | None]:
        return [round(float(s / n), digits) if n > MIN_CALLS else None for s, n in zip(spread(amounts), calls, strict=True)]

    rows = (tasks["rows"] + tasks["failed"]) / np.maximum(tasks["width"], 1)
    return {"step": step, "rows": mean(rows, 1), "seconds": mean(tasks["call_us"] / 1e6, 6)}


def _stragglers(history: History, tasks: dict[str, Any]) -> list[dict[str, Any]]:
    """The longest of the tasks that took much longer than most."""
    seconds = _seconds(tasks)
    done = tasks["outcome"] == DONE
    if done.sum() < MIN_TASKS:
        return []
    median = float(np.median(seconds[done]))
    slow = np.flatnonzero(seconds > max(STRAGGLER * median, MIN_SECONDS))
    longest = slow[np.argsort(-seconds[slow], kind="stable")][:MAX_STRAGGLERS]
    return [
        {
            **{name: int(tasks[name][i]) for name in ("worker", "fragment", "works", "rows", "failed", "outcome", "memory")},
            "columns": history.columns[tasks["columns"][i]],
            "start": tasks["start_ms"][i] / 1000,
            "seconds": float(seconds[i]),
            "times": round(float(seconds[i]) / median, 1) if median else None,
        }
        for i in longest
    ]


def _most(history: History) -> list[tuple[str, ErrorKind]]:
    return sorted(history.errors.items(), key=lambda item: -item[1].count)


def _error(kind: str, error: ErrorKind) -> list[Any]:
    return [kind, error.count, error.message[:2000], error.row_address]
