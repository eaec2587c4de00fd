"""The targets, each a question put to the medians of a run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.functions import CALLS_A_SECOND, SETUP_SECONDS

Record = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """All records of a run, and the raw bytes of each workload's column."""

    records: list[Record]
    raw_bytes: dict[str, int]

    def of(self, workload: str, tool: str, *, memory: bool = False) -> list[Record]:
        """The records that ended well: the timed rounds, or the one that sampled PSS."""
        return [
            record
            for record in self.records
            if record["workload"] == workload
            and record["tool"] == tool
            and record["error"] is None
            and (record["round"] < 0) == memory
        ]

    def values(self, workload: str, tool: str, field: str, *, memory: bool = False) -> list[float]:
        found = self.of(workload, tool, memory=memory)
        return [record[field] for record in found if record.get(field) is not None]

    def median(self, workload: str, tool: str, field: str, *, memory: bool = False) -> float | None:
        found = self.values(workload, tool, field, memory=memory)
        return statistics.median(found) if found else None


@dataclass(frozen=True)
class Target:
    """A figure that may be at most `limit`."""

    title: str
    limit: float
    unit: str
    value: Callable[[Results], float | None]


@dataclass(frozen=True)
class Verdict:
    """A target with what was reached; `value` is None where it was not measured."""

    title: str
    limit: float
    unit: str
    value: float | None

    @property
    def met(self) -> str:
        if self.value is None:
            return "not measured"
        return "met" if self.value <= self.limit else "NOT MET"


def judge(results: Results) -> list[Verdict]:
    return [Verdict(target.title, target.limit, target.unit, target.value(results)) for target in _targets()]


def _targets() -> Iterator[Target]:
    for key in ("W1", "W2", "W3", "W4"):
        yield Target(f"{key} job, of Geneva's", 1 / 8, "x", _ratio(key, "ours", "geneva", "job_s"))
        yield Target(f"{key} job, of lance-ray's", 2 / 3, "x", _ratio(key, "ours", "lance_ray", "job_s"))
    yield Target("W4 job `local`, of one-process Lance's", 2, "x", _ratio("W4", "ours", "lance", "job_s"))
    for key in ("W1", "W4"):
        title = f"{key} job `inline`, of one-process Lance's"
        yield Target(title, 2, "x", _ratio(key, "ours_inline", "lance", "job_s"))
    yield Target("W5a job", 0.7, "s", _median("W5a", "ours", "job_s"))
    yield Target("W5b job", 0.7, "s", _median("W5b", "ours", "job_s"))
    yield Target("W6 redone a worker, worst round", 1, "s", _worst("W6", "ours", "redone_s_per_worker"))
    yield Target("W7 `inline`, process start to exit", 1.5, "s", _median("W7", "ours_inline", "wall_s"))
    yield Target("W8 second job, 1,000 rows", 0.3, "s", _median("W8", "ours", "job_s"))
    yield Target("W9 job, of what the rate limit allows", 1 / 0.9, "x", _paced("W9", "ours"))
    yield Target("W10 job, of its 5 s of setup", 1.2, "x", _of("W10", "ours", SETUP_SECONDS))
    yield Target("W12a job, 1,000 fragments, of 8 fragments (W1)", 1.3, "x", _to("W12a", "W1", "ours"))
    yield Target("W12b job, one fragment, of 8 fragments (W1)", 1.3, "x", _to("W12b", "W1", "ours"))
    for key in ("W1", "W2", "W3", "W4"):
        yield Target(f"{key} published bytes, of raw", 1.02, "x", _published(key))
        title = f"{key} published bytes, of one-process Lance's"
        yield Target(title, 1.02, "x", _ratio(key, "ours", "lance", "data_bytes"))
    for key in ("W1", "W4"):
        title = f"{key} peak PSS, of Geneva's"
        yield Target(title, 2 / 3, "x", _ratio(key, "ours", "geneva", "pss_mb", memory=True))


def _median(workload: str, tool: str, field: str) -> Callable[[Results], float | None]:
    return lambda results: results.median(workload, tool, field)


def _worst(workload: str, tool: str, field: str) -> Callable[[Results], float | None]:
    return lambda results: max(results.values(workload, tool, field), default=None)


def _ratio(workload: str, ours: str, peer: str, field: str, *, memory: bool = False) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        top = results.median(workload, ours, field, memory=memory)
        bottom = results.median(workload, peer, field, memory=memory)
        return top / bottom if top is not None and bottom else None

    return value


def _of(workload: str, tool: str, seconds: float) -> Callable[[Results], float | None]:
    """Job time as a multiple of some seconds."""

    def value(results: Results) -> float | None:
        job = results.median(workload, tool, "job_s")
        return None if job is None else job / seconds

    return value


def _paced(workload: str, tool: str) -> Callable[[Results], float | None]:
    """Job time as a multiple of what the rate limit alone takes for its rows."""

    def value(results: Results) -> float | None:
        job, rows = results.median(workload, tool, "job_s"), results.median(workload, tool, "rows_done")
        return job / (rows / CALLS_A_SECOND) if job is not None and rows else None

    return value


def _to(workload: str, other: str, tool: str) -> Callable[[Results], float | None]:
    """Job time as a multiple of another workload's."""

    def value(results: Results) -> float | None:
        top, bottom = results.median(workload, tool, "job_s"), results.median(other, tool, "job_s")
        return top / bottom if top is not None and bottom else None

    return value


def _published(workload: str) -> Callable[[Results], float | None]:
    def value(results: Results) -> float | None:
        written = results.median(workload, "ours", "data_bytes")
        return written / results.raw_bytes[workload] if written is not None else None

    return value
