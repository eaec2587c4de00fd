"""What the faults happen in: one Ray of two nodes, one S3 server behind a proxy, and clients; and one trial of one fault in it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from faults_processes import REPO, wait_until
from faults_s3 import Server

from tests.chaos.client import ByCommand, Warm
from tests.chaos.faults import STOP, Fault, Trial
from tests.chaos.functions import chaotic
from tests.chaos.proxy import Proxy
from tests.chaos.subject import Subject, Watcher
from tests.e2e.ray_cluster import RayCluster

DATABASE = "s3://faults/chaos"
ROWS = 3000
CALLS = 5
"""Most times that a call is made again before it is held to be stuck."""


@dataclass
class Outcome:
    """Of one fault.

    Attributes:
        wrong: wrong values seen, at any moment; `twice`: calls beyond one a row; `bound`: how many of them there may be.
        problems: what must not be, in words.
    """

    fault: str
    seconds: float = 0.0
    wrong: int = 0
    twice: int = 0
    bound: int = 0
    failures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class World:
    """Everything that trials share.

    Attributes:
        cgroup: file that a process writes its id to in order to be limited in memory; empty where there is none.
    """

    ray: RayCluster
    server: Server
    proxy: Proxy
    folder: Path
    warm: Warm
    by_command: ByCommand
    cgroup: str

    @classmethod
    @contextlib.contextmanager
    def of(cls, ray: RayCluster, server: Server, proxy: Proxy, folder: Path, cgroup: str) -> Iterator[World]:
        (folder / "workspace").mkdir()
        (folder / "workspace" / "pyproject.toml").touch()
        options = {**server.options, "endpoint": proxy.endpoint}
        warm = Warm(DATABASE, options, {"RAY_ADDRESS": ray.address, "PYTHONPATH": f"{REPO}:{REPO}/tests/faults"}, folder)
        by_command = ByCommand(DATABASE, options, f"http://{ray.dashboard}", folder)
        try:
            yield cls(ray, server, proxy, folder, warm, by_command, cgroup)
        finally:
            warm.close()
            by_command.close()

    def try_out(self, name: str, fault: Fault, number: int, seed: str) -> Outcome:
        """Have a fault come over a backfill of a fresh table, and look at everything."""
        random, outcome = Random(seed), Outcome(name)
        flag = self.folder / f"{number}.flag"
        subject = Subject(DATABASE, self.server.options, f"t{number}", ROWS, self.folder / f"{number}.log", int(fault.skips))
        bad = random.randrange(ROWS)
        subject.make(chaotic(subject.log, flag, bad, fault.trouble, self.cgroup), fragments=random.choice([1, 3, 6]))
        if fault.trouble:
            flag.touch()
        client = self.by_command if fault.job else self.warm
        client.warm_up()
        trial = Trial(subject, client, self.ray, self.server, self.proxy, random, seed)
        with Watcher(subject) as watcher:
            _run(trial, fault, outcome, flag)
            _finish(trial, fault, outcome, flag, bad)
        _judge(subject, watcher, outcome)
        return outcome


def _run(trial: Trial, fault: Fault, outcome: Outcome, flag: Path) -> None:
    """The call under the fault, and the same call again until it is done."""
    subject, client = trial.subject, trial.client
    began = time.monotonic()
    moment = int(ROWS * trial.random.uniform(0.05, 0.6))
    try:
        if fault.early and trial.random.random() < 0.5:
            fault.strike(trial)
            moment = ROWS + 1
        client.begin(subject.name, fault.options)
        wait_until(lambda: subject.call_count() >= moment or client.has_ended(), f"{moment} calls", child=client.child)
        if subject.call_count() >= moment:
            fault.strike(trial)
        while len(outcome.failures) < CALLS:
            wait_until(client.has_ended, "the backfill ends")
            answer = client.answer()
            if "error" not in answer:
                break
            outcome.failures.append(f"{answer['type']}: {answer['error']}")
            flag.unlink(missing_ok=True)
            client.begin(subject.name, fault.options)
    finally:
        trial.proxy.harm(None)
    outcome.seconds = time.monotonic() - began
    outcome.bound = fault.again + len(outcome.failures) * STOP


def _finish(trial: Trial, fault: Fault, outcome: Outcome, flag: Path, bad: int) -> None:
    """What is skipped and what was appended is computed by the next calls."""
    subject = trial.subject
    flag.unlink(missing_ok=True)
    if fault.skips:
        errors = trial.subject.connection.open_table(subject.name).errors("out")
        per_fragment = [fragment.count_rows() for fragment in subject.dataset().get_fragments()]
        rows = [sum(per_fragment[: error.fragment_id]) + error.offset for error in errors]
        if rows != [bad]:
            outcome.problems.append(f"errors lists the rows {rows}, and {bad} failed")
        addresses = ", ".join(str(error.row_address) for error in errors)
        _plainly(trial, outcome, {"where": f"_rowaddr IN ({addresses})"})
    if subject.remains():  # the job that was killed had published already, so that its clean-up is the next one's
        subject.append(10)
    if subject.dataset().count_rows("out IS NULL"):
        _plainly(trial, outcome, {})


def _plainly(trial: Trial, outcome: Outcome, options: dict[str, str]) -> None:
    trial.client.begin(trial.subject.name, options)
    wait_until(trial.client.has_ended, "a backfill without a fault ends")
    answer = trial.client.answer()
    if "error" in answer:
        outcome.problems.append(f"a backfill without a fault fails: {answer['error']}")


def _judge(subject: Subject, watcher: Watcher, outcome: Outcome) -> None:
    total, filled, wrong = subject.state()
    outcome.wrong = max(wrong, watcher.wrong)
    outcome.twice = subject.called_twice()
    missing = subject.dataset().count_rows("out IS NULL")
    checks = {
        f"{outcome.wrong} wrong values": outcome.wrong,
        f"{missing} of {total} rows are NULL": missing,
        f"{subject.rows - filled} rows are lost": subject.rows - filled,
        f"{outcome.twice} calls made twice, and {outcome.bound} may be": not 0 <= outcome.twice <= outcome.bound,
        f"the column was seen half there: {sorted(watcher.halves)}": watcher.halves,
        f"a reader failed: {watcher.unexpected[:3]}": watcher.unexpected,
        "the table was never looked at": not watcher.looks,
        f"left behind: {subject.remains()}": subject.remains(),
        f"ended without a word of its own: {outcome.failures}": any(text.startswith("Traceback") for text in outcome.failures),
        f"not done after {CALLS} calls: {outcome.failures}": len(outcome.failures) >= CALLS,
    }
    outcome.problems += [text for text, is_so in checks.items() if is_so]
