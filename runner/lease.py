"""One backfill of a column at a time, across processes and machines.

A lease is an object that only its holder rewrites, every few seconds. The next holder of an ended or expired lease creates
the object with the next number; create-only puts make sure that one of several succeeds, on every store.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from runner.errors import ColumnBusy, StorageError
from runner.store import Store

RENEW_SECONDS = 5.0
EXPIRE_SECONDS = 30.0
CLOCK_SECONDS = 2.0  # by which two processes may differ about when a third one started


@contextmanager
def column_leases(store: Store, table: str, columns: Sequence[str], job_id: str) -> Iterator[None]:
    """Hold the leases of columns for as long as the block runs.

    Raises:
        ColumnBusy: another job holds one of them; the message names the job, its process and its machine.
    """
    with ExitStack() as stack:
        for column in sorted(columns):
            stack.enter_context(_Lease(store, table, column, job_id))
        yield


class _Lease:
    def __init__(self, store: Store, table: str, column: str, job_id: str) -> None:
        self._store = store
        self._what = f"column {column!r} of table {table!r}"
        self._folder = f"leases/{urllib.parse.quote(table, safe='')}/{urllib.parse.quote(column, safe='')}"
        self._holder = {"job": job_id, "host": socket.gethostname(), "pid": os.getpid(), "started": _process_start(os.getpid())}
        self._path = ""
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="runner-lease", daemon=True)

    def __enter__(self) -> _Lease:
        while True:
            number, holder = self._latest()
            if holder and _is_alive(holder):
                raise ColumnBusy(
                    f"{self._what} is being filled by job {holder['job']} (process {holder['pid']} on {holder['host']}); "
                    "wait for it, or cancel it there"
                )
            self._path = f"{self._folder}/{number + 1:010d}.json"
            if self._store.create(self._path, self._content()):
                break
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._renewing.join()
        mine = self._path.rsplit("/", 1)[1]
        older = [path for path, _ in self._store.objects(self._folder) if path.rsplit("/", 1)[1] < mine]
        self._store.delete([*older, self._path])

    def _latest(self) -> tuple[int, dict[str, Any] | None]:
        paths = sorted(path for path, _ in self._store.objects(self._folder))
        data = self._store.get(paths[-1]) if paths else None
        number = int(paths[-1].rsplit("/", 1)[1].removesuffix(".json")) if paths else 0
        return number, json.loads(data) if data else None

    def _content(self) -> bytes:
        return json.dumps({**self._holder, "renewed": time.time()}).encode()

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                self._store.put(self._path, self._content())
            except StorageError:
                continue  # the lease outlives a few failed renewals


def _is_alive(holder: dict[str, Any]) -> bool:
    """On this machine the process itself tells; of another machine, the age of the last renewal."""
    if holder["host"] == socket.gethostname():
        started = _process_start(holder["pid"])
        return started is not None and abs(started - holder["started"]) < CLOCK_SECONDS
    return bool(time.time() - holder["renewed"] < EXPIRE_SECONDS)


def _process_start(pid: int) -> float | None:
    """Start time of a process, which tells a reused number from the process that had it; None where there is none."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None
