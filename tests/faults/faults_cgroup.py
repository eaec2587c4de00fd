"""A memory limit of the kernel's own for a process and all that it starts; cgroup v2 or v1, whichever the machine has."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class Group:
    """A control group with a limit.

    Attributes:
        peak: most bytes that were in use by processes (anonymous and shared memory, not the page cache).
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.is_v2 = (folder / "memory.max").exists()
        (folder / ("memory.max" if self.is_v2 else "memory.limit_in_bytes")).write_text(str(limit))
        self.limit = int((folder / ("memory.max" if self.is_v2 else "memory.limit_in_bytes")).read_text())
        self.peak = 0

    def command(self, command: list[str]) -> list[str]:
        """The same command inside."""
        return ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh", *command]

    def kills(self) -> int:
        """Processes that the kernel killed because of the limit."""
        text = (self.folder / ("memory.events" if self.is_v2 else "memory.oom_control")).read_text()
        return int(dict(line.split() for line in text.splitlines()).get("oom_kill", 0))

    def sample(self) -> None:
        stat = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        names = ("anon", "shmem") if self.is_v2 else ("total_rss", "total_shmem")
        self.peak = max(self.peak, sum(int(stat.get(name, 0)) for name in names))

    def charged(self) -> int:
        """Most bytes charged, page cache included."""
        return int((self.folder / ("memory.peak" if self.is_v2 else "memory.max_usage_in_bytes")).read_text())


@contextlib.contextmanager
def limited(limit: int) -> Iterator[Group]:
    """A new group; its processes must have ended when the block does.

    Raises:
        OSError: this machine lets nobody make one here.
    """
    controllers = ROOT / "cgroup.controllers"
    parent = ROOT if controllers.exists() and "memory" in controllers.read_text() else ROOT / "memory"
    folder = parent / f"faults-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    stop = threading.Event()
    try:
        group = Group(folder, limit)
        sampler = threading.Thread(target=lambda: _sample(group, stop), daemon=True)
        sampler.start()
        yield group
    finally:
        stop.set()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
                break
            time.sleep(0.05)


def _sample(group: Group, stop: threading.Event) -> None:
    while not stop.wait(0.1):
        group.sample()
