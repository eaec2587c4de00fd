"""A backfill, inline, that kills itself with SIGKILL at one point of its commit: ``python faults_child.py DB COLUMN POINT``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import runner
from runner.backfill.commit import Publisher
from runner.local_context import LocalContext
from runner.store import Store


def _kill_before(owner: Any, name: str, call: int = 1) -> None:
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def replaced(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, replaced)


def _kill_after(owner: Any, name: str) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, replaced)


def _kill_in_clean_up() -> None:
    import obstore

    _kill_after(obstore, "delete")


POINTS: dict[str, Callable[[], None]] = {
    "before the first file is published": lambda: _kill_before(Store, "publish"),
    "between two files": lambda: _kill_before(Store, "publish", 3),
    "between the files and the commit": lambda: _kill_before(Publisher, "_commit"),
    "after the commit": lambda: _kill_after(Publisher, "publish"),
    "in the middle of the clean-up": _kill_in_clean_up,
}


if __name__ == "__main__":
    database, column, point = sys.argv[1:]
    POINTS[point]()
    with LocalContext("inline"):
        runner.connect(database).open_table("t").backfill(column, progress=False)
