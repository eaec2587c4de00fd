"""Run one command and measure all of its processes, Ray's daemons included (Linux only)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MARKER = "BENCH_RUN"
TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.1
PSS_SECONDS = 0.2
LINGER_SECONDS = 3.0


@dataclass
class Usage:
    """What a command cost."""

    returncode: int
    timed_out: bool
    wall_s: float
    cpu_s: float
    foreign_cores: float
    pss: list[tuple[float, float]] = field(default_factory=list)

    def pss_peak(self) -> float | None:
        """The highest PSS sum in MB."""
        return max((mb for _, mb in self.pss), default=None)

    def pss_before(self, moment: float) -> float | None:
        """The last PSS sum in MB sampled before `moment` (seconds since the epoch)."""
        return next((mb for at, mb in reversed(self.pss) if at < moment), None)


class Tree:
    """The processes of one run: its descendants, and whatever carries its marker in the environment.

    The marker finds daemons that left the session; descent finds workers that overwrote their environment
    to set a title. A process once seen is kept by its start time, so a reused pid is not mistaken for it.
    """

    def __init__(self, marker: str) -> None:
        self._needle = f"{MARKER}={marker}".encode()
        self._known: dict[int, tuple[str, bool]] = {}
        self._cpu: dict[tuple[int, str], float] = {}
        self.alive: list[int] = []

    def scan(self) -> None:
        """Look at every process of the machine once."""
        stats = {pid: stat for pid in _pids() if (stat := _stat(pid)) is not None}
        known = {pid: seen for pid, seen in self._known.items() if pid in stats and stats[pid][19] == seen[0]}
        for pid in sorted(stats.keys() - known.keys(), key=lambda pid: int(stats[pid][19])):
            parent = known.get(int(stats[pid][1]), ("", False))[1]
            known[pid] = (stats[pid][19], parent or self._needle in _environment(pid))
        self._known = known
        self.alive = [pid for pid, (_, ours) in known.items() if ours and stats[pid][0] != "Z"]
        for pid, (start, ours) in known.items():
            if ours:
                self._cpu[pid, start] = (int(stats[pid][11]) + int(stats[pid][12])) / TICKS

    @property
    def cpu_s(self) -> float:
        """User and system seconds of all processes seen, as of their last sample."""
        return sum(self._cpu.values())

    def pss_mb(self) -> float:
        """Proportional set sizes of the living processes, summed."""
        return sum(_pss_kb(pid) for pid in self.alive) / 1000

    def kill(self) -> None:
        """Kill every process of the run, and those they start meanwhile."""
        for _ in range(20):
            self.scan()
            if not self.alive:
                return
            for pid in self.alive:
                _kill(pid)
            time.sleep(0.05)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    timeout: float,
    pss: bool = False,
    kill_when: Callable[[], bool] = lambda: False,
    settled: Callable[[], bool] = lambda: True,
) -> Usage:
    """Run a command to its end and see to it that nothing of it is left.

    When `kill_when` becomes true, the command's own process (not its children) is killed with SIGKILL. What lives on
    may go on until `settled`.
    """
    marker = uuid.uuid4().hex
    tree = Tree(marker)
    samples: list[tuple[float, float]] = []
    busy, start = _busy_s(), time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**env, MARKER: marker},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    timed_out, sampled, descriptor = False, 0.0, os.pidfd_open(process.pid)
    try:
        while not _ended(process, descriptor, SAMPLE_SECONDS):
            tree.scan()
            now = time.monotonic()
            if pss and now - sampled >= PSS_SECONDS:
                samples.append((time.time(), tree.pss_mb()))
                sampled = now
            timed_out = now - start > timeout
            if timed_out or kill_when():
                process.kill()
        wall = time.monotonic() - start
        tree.scan()
        foreign = (_busy_s() - busy - tree.cpu_s) / wall
        _linger(tree, settled)
    finally:
        process.kill()
        tree.kill()
        process.wait()
        os.close(descriptor)
    return Usage(process.returncode, timed_out, wall, tree.cpu_s, max(0.0, foreign), samples)


def _linger(tree: Tree, settled: Callable[[], bool]) -> None:
    """Let what outlives the command end by itself, for a while."""
    end = time.monotonic() + LINGER_SECONDS
    tree.scan()
    while tree.alive and (time.monotonic() < end or not settled()):
        time.sleep(SAMPLE_SECONDS)
        tree.scan()


def _ended(process: subprocess.Popen[bytes], descriptor: int, seconds: float) -> bool:
    """Wait for the process's end, at most so long; without polling, so that the moment is exact."""
    return bool(select.select([descriptor], [], [], seconds)[0]) and process.wait() is not None


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on: 0 state, 1 parent, 11 and 12 CPU ticks, 19 start time."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def _environment(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _pss_kb(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
    except OSError:
        return 0


def _busy_s() -> float:
    """CPU seconds that all cores of the machine have been busy so far."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq = (int(value) for value in file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
