"""The faults, and what each may cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from faults_processes import kill

from tests.chaos.client import WORKERS, ByCommand, Warm
from tests.chaos.functions import CALLS_A_SECOND
from tests.chaos.proxy import Harm
from tests.chaos.subject import Subject

if TYPE_CHECKING:
    from faults_s3 import Server

    from tests.chaos.proxy import Proxy
    from tests.e2e.ray_cluster import RayCluster

KILL = CALLS_A_SECOND
"""A worker that dies loses a second of its work at most."""
STOP = WORKERS * CALLS_A_SECOND
"""So does each worker when a job ends before its time."""
APPENDED = 100


@dataclass(frozen=True)
class Trial:
    """One backfill that a fault comes over."""

    subject: Subject
    client: Warm | ByCommand
    ray: RayCluster
    server: Server
    proxy: Proxy
    random: Random
    seed: str


def _nothing(trial: Trial) -> None:
    pass


def _kill_worker(trial: Trial) -> None:
    kill(int(trial.subject.calls()[-1, 1]))


def _kill_client(trial: Trial) -> None:
    trial.client.child.kill()


def _kill_job(trial: Trial) -> None:
    """The process of the Ray job, wherever its Ray put it."""
    import psutil

    mine = [trial.subject.database, str(trial.subject.connection.jobs(trial.subject.name)[0].job_id)]
    found = [process.pid for process in psutil.process_iter(["cmdline"]) if (process.info["cmdline"] or [])[-2:] == mine]
    for pid in found:
        kill(pid)
    assert found, "no process of the job"


def _replace_node(trial: Trial) -> None:
    trial.ray.replace_node()


def _restart_server(trial: Trial) -> None:
    trial.server.kill()
    trial.server.start()


def _append(trial: Trial) -> None:
    trial.subject.append(APPENDED)


def _harm(kind: Harm, share: float) -> Callable[[Trial], None]:
    return lambda trial: trial.proxy.harm(kind, share, trial.seed)


@dataclass(frozen=True)
class Fault:
    """What happens to a backfill.

    Attributes:
        strike: called when some of the rows are computed.
        trouble: what the function does on one row; see `chaotic`.
        options: of the backfill.
        again: calls beyond one a row that it may cost where the job goes on by itself. Each time that it fails adds `STOP`.
        job: the driver is a job of the Ray.
        skips: the row in trouble is left NULL and listed in `errors`.
        early: it may strike before the first row too: while the job plans and takes its lease.
    """

    strike: Callable[[Trial], None] = _nothing
    trouble: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    again: int = 0
    job: bool = False
    skips: bool = False
    early: bool = False


FAULTS: dict[str, Fault] = {
    "worker process killed": Fault(_kill_worker, again=KILL),
    "driver killed (it is the client)": Fault(_kill_client),
    "driver killed (a Ray job)": Fault(_kill_job, job=True),
    "client of a Ray job killed": Fault(_kill_client, job=True),
    "node removed, another added": Fault(_replace_node, again=WORKERS * KILL),
    "S3 server killed and restarted": Fault(_restart_server),
    "S3 answers 500": Fault(_harm("500", 0.3), early=True),
    "S3 answers 503 SlowDown": Fault(_harm("503", 0.3), early=True),
    "S3 is slow": Fault(_harm("slow", 0.5), early=True),
    "S3 connection cut in a body": Fault(_harm("cut", 0.3), early=True),
    "S3 did it, and the answer is lost": Fault(_harm("answer lost", 0.15), early=True),
    "rows appended by another process": Fault(_append),
    "function raises: skip": Fault(trouble="raise", options={"on_error": "skip"}, again=1, skips=True),
    "function raises once: retry": Fault(trouble="raise once", options={"on_error": "retry:2"}, again=1),
    "function raises: fail": Fault(trouble="raise"),
    "function returns garbage": Fault(trouble="garbage"),
    "function hangs: timeout, skip": Fault(trouble="hang", options={"on_error": "skip", "timeout": 0.5}, again=1, skips=True),
    "function hangs once: timeout, retry": Fault(trouble="hang", options={"on_error": "retry:1", "timeout": 0.5}, again=1),
    "function prints 8 MB": Fault(trouble="print"),
    "function segfaults once": Fault(trouble="segfault", again=KILL),
    "function takes all memory once": Fault(trouble="hog", again=KILL),
}
HOG = "function takes all memory once"
