"""Clients that make backfills of chaos tables: one whose process is the driver, and the command line with its driver on a cluster.

As a program, ``python client.py DATABASE FOLDER``, the former: it answers the files ``N.ask`` of a folder in turn.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

OPTIONS = "CHAOS_STORAGE_OPTIONS"
WORKERS = 2


class Warm:
    """A process that joins the Ray and keeps its workers from one backfill to the next.

    Args:
        env: of the process; names the Ray.
        folder: it runs there, and its files are there.
    """

    def __init__(self, database: str, options: Mapping[str, str], env: Mapping[str, str], folder: Path) -> None:
        self._env = {**env, OPTIONS: json.dumps(dict(options))}
        self._database, self._folder = database, folder
        self._running = ExitStack()
        self._asked = 0
        self.child: Any = None

    def warm_up(self) -> None:
        """Start the process unless it is there."""
        from faults_processes import spawned, wait_until

        if self.child is None or self.child.process.poll() is not None:
            self.close()
            command = [sys.executable, str(Path(__file__).resolve()), self._database, str(self._folder)]
            self.child = self._running.enter_context(spawned(command, self._folder, self._env, self._folder / "workspace"))
            ready = self._folder / f"{self.child.pid}.ready"
            wait_until(ready.exists, "the client is ready", child=self.child)

    def begin(self, table: str, options: Mapping[str, Any]) -> None:
        """Ask for a backfill."""
        self.warm_up()
        self._asked += 1
        _write(self._folder / f"{self._asked}.ask", {"table": table, "options": options})

    def has_ended(self) -> bool:
        return (self._folder / f"{self._asked}.answer").exists() or self.child.process.poll() is not None

    def answer(self) -> dict[str, Any]:
        """What came of the backfill, once it has ended: its result, or the ``error`` in words and its ``type``."""
        path = self._folder / f"{self._asked}.answer"
        if not path.exists():
            path.with_suffix(".ask").unlink(missing_ok=True)
            return {"error": "the client was killed", "type": "killed"}
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def close(self) -> None:
        self._running.close()
        self.child = None


class ByCommand:
    """``python -m runner backfill`` with a cluster's address: the driver is a job of its Ray."""

    def __init__(self, database: str, options: Mapping[str, str], address: str, folder: Path) -> None:
        self._database, self._folder = database, folder
        self._flags = [f"--cluster={address}", *(f"--storage-option={name}={value}" for name, value in options.items())]
        self._running = ExitStack()
        self.child: Any = None

    def warm_up(self) -> None:
        """There is nothing to keep warm."""

    def begin(self, table: str, options: Mapping[str, Any]) -> None:
        from faults_processes import REPO, cli, spawned

        self.close()
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = cli("backfill", self._database, table, "out", "--json", *flags, *self._flags)
        env = {"PYTHONPATH": str(REPO)}
        self.child = self._running.enter_context(spawned(command, self._folder, env, self._folder / "workspace"))

    def has_ended(self) -> bool:
        return self.child.process.poll() is not None

    def answer(self) -> dict[str, Any]:
        if self.child.process.returncode == 0:
            return dict(self.child.result())
        if self.child.process.returncode < 0:
            return {"error": "the client was killed", "type": "killed"}
        text = self.child.text()
        lines = [line for line in text.splitlines() if line.startswith("runner: ") and " rows/s" not in line]
        if "Traceback" in text or not lines:
            return {"error": text[-2000:], "type": "Traceback"}
        return {"error": lines[-1], "type": "RunnerError"}

    def close(self) -> None:
        self._running.close()


def _write(path: Path, content: Any) -> None:
    """Whole or not at all."""
    half = path.with_suffix(".half")
    half.write_text(json.dumps(content, default=str))
    half.rename(path)


def _next_ask(folder: Path, parent: int) -> Path:
    while os.getppid() == parent:
        waiting = [path for path in folder.glob("*.ask") if not path.with_suffix(".answer").exists()]
        if waiting:
            return min(waiting, key=lambda path: int(path.stem))
        time.sleep(0.01)
    sys.exit()


def _outcome(backfill: Callable[[], Any]) -> dict[str, Any]:
    import traceback

    from runner.errors import RunnerError

    try:
        return dict(backfill().to_dict())
    except RunnerError as exc:
        return {"error": str(exc), "type": type(exc).__name__}
    except Exception as exc:
        return {"error": "".join(traceback.format_exception(exc))[-3000:], "type": "Traceback"}


def _serve(database: str, folder: Path) -> None:
    import runner

    connection = runner.connect(database, storage_options=json.loads(os.environ[OPTIONS]))
    parent = os.getppid()
    with connection.context("local"):
        (folder / f"{os.getpid()}.ready").touch()
        while True:
            path = _next_ask(folder, parent)
            asked = json.loads(path.read_text())
            more = {"progress": False, "concurrency": WORKERS, **asked["options"]}
            answer = _outcome(lambda: connection.open_table(asked["table"]).backfill("out", **more))  # noqa: B023
            _write(path.with_suffix(".answer"), answer)


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]))
