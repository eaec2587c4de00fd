"""Start, watch and kill processes; everything that a test starts is found again by descent or by a mark in its environment."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
MARK = "FAULTS_RUN"
DEADLINE = 120.0


@dataclass
class Child:
    """A process that a test started, in a session of its own, with its output in a file."""

    process: subprocess.Popen[bytes]
    output: Path
    mark: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait(self, seconds: float = DEADLINE) -> int:
        return self.process.wait(seconds)

    def result(self, seconds: float = DEADLINE) -> dict[str, Any]:
        """The JSON object in its last line, after a good end."""
        code = self.wait(seconds)
        assert code == 0, f"exit status {code}: {self.text()[-3000:]}"
        found: dict[str, Any] = json.loads(self.output.with_suffix(".json").read_text().strip().splitlines()[-1])
        return found

    def kill(self) -> None:
        """kill -9 of this process alone."""
        self.process.kill()
        self.process.wait()

    def kill_tree(self) -> None:
        """kill -9 of this process, its descendants, and whatever of them left the tree."""
        tree = family(self.pid, self.mark)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        while tree:
            for process in tree:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(tree, timeout=5)
            tree = family(self.pid, self.mark)
        self.process.wait()


def family(pid: int, mark: str) -> list[psutil.Process]:
    """A process's descendants, and every process with its mark in the environment."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        found = {process.pid: process for process in psutil.Process(pid).children(recursive=True)}
    needle = f"{MARK}={mark}".encode()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if needle in Path(f"/proc/{process.pid}/environ").read_bytes():
                found[process.pid] = process
                found |= {child.pid: child for child in process.children(recursive=True)}
    found.pop(pid, None)
    alive = []
    for process in found.values():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive


@contextlib.contextmanager
def spawned(command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, cwd: Path = REPO) -> Iterator[Child]:
    """Run a command; nothing of it is left after the block. Standard output goes to a file of its own (`Child.result`)."""
    mark = uuid.uuid4().hex
    name = f"{len(list(folder.glob('*.out'))):03d}"
    temporary = tempfile.mkdtemp(prefix="rt-", dir="/tmp")  # Ray's sockets need short paths
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    full = kept | {"PYTHONPATH": str(HERE), "RAY_TMPDIR": temporary, "RAY_USAGE_STATS_ENABLED": "0", MARK: mark} | dict(env or {})
    output = folder / f"{name}.out"
    with output.open("wb") as errors, output.with_suffix(".json").open("wb") as out:
        process = subprocess.Popen(
            command, env=full, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True
        )
    child = Child(process, output, mark)
    try:
        yield child
    finally:
        child.kill_tree()
        shutil.rmtree(temporary, ignore_errors=True)


def cli(*args: str) -> list[str]:
    return [sys.executable, "-m", "runner", *args]


def run_cli(folder: Path, *args: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``python -m runner ... --json`` to its end; what it printed."""
    with spawned(cli(*args, "--json"), folder, env) as child:
        return child.result()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = DEADLINE, child: Child | None = None) -> None:
    """Poll until a condition holds; fail at the deadline, or when the process it is waited for has ended."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}. {child.text()[-3000:] if child else ''}"
        if child is not None and child.process.poll() is not None and not condition():
            raise AssertionError(f"ended with {child.process.returncode} before: {what}. {child.text()[-3000:]}")
        time.sleep(0.002)


def free_ports(count: int) -> list[int]:
    """Ports below the range that the kernel gives to outgoing connections, free now."""
    found: list[int] = []
    for port in range(20000 + os.getpid() % 9000, 32000):
        if len(found) == count:
            return found
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
    raise AssertionError("no free ports")


@contextlib.contextmanager
def standing_ray(folder: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """A Ray of the test's own; the environment that joins it."""
    (port,) = free_ports(1)
    temporary = tempfile.mkdtemp(prefix="rs-", dir="/tmp")
    env = {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    ray = str(Path(sys.executable).with_name("ray"))
    command = [
        ray, "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}", f"--temp-dir={temporary}",
        "--include-dashboard=false", "--object-store-memory=200000000",
    ]  # fmt: skip
    try:
        with spawned(command, folder, {name: env[name] for name in env if name != "RAY_ADDRESS"}) as child:
            started = child.output.with_suffix(".json")
            wait_until(lambda: "Ray runtime started" in started.read_text(), "Ray is up", child=child)
            yield env
            assert child.process.poll() is None, "the standing Ray was stopped"
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def pss_mb(pids: Sequence[int]) -> float:
    """Proportional set sizes, summed."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
            total += next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
    return total / 1000


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
