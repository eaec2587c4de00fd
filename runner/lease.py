"""Objects by which processes on any machine know that another one is still there: one backfill of a column at a time, and more.

A lease is an object that only its holder rewrites, every few seconds. Of an exclusive one, the next holder of an ended or expired
lease creates the object with the next number; create-only puts make sure that one of several succeeds, on every store.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, ClassVar

from runner.errors import ColumnBusy, StorageError
from runner.store import Store

RENEW_SECONDS = 5.0
EXPIRE_SECONDS = 30.0
CLOCK_SECONDS = 2.0  # by which two processes may differ about when a third one started


@contextmanager
def column_leases(
    store: Store, table: str, columns: Sequence[str], job_id: str, wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold the leases of columns for as long as the block runs.

    Args:
        wait: called again and again while another job holds one of them. Default: that is an error.

    Raises:
        ColumnBusy: another job holds one of them; the message names the job, its process and its machine.
    """
    with ExitStack() as stack:
        for column in sorted(columns):
            stack.enter_context(_column_lease(store, table, column, job_id, wait))
        yield


def _column_lease(store: Store, table: str, column: str, job_id: str, wait: Callable[[], None] | None) -> ExclusiveLease:
    def busy(holder: dict[str, Any]) -> None:
        if wait is not None:
            wait()
            return
        raise ColumnBusy(
            f"column {column!r} of table {table!r} is being filled by job {holder['job']} (process {holder['pid']} on "
            f"{holder['host']}); wait for it, or cancel it there"
        )

    folder = f"leases/{urllib.parse.quote(table, safe='')}/{urllib.parse.quote(column, safe='')}"
    return ExclusiveLease(store, folder, {"job": job_id}, busy)


def living_jobs(store: Store, table: str) -> set[str]:
    """Jobs that hold the lease of a column of a table now."""
    newest: dict[str, str] = {}
    for path, _ in store.objects(f"leases/{urllib.parse.quote(table, safe='')}"):
        folder = path.rsplit("/", 1)[0]
        newest[folder] = max(path, newest.get(folder, ""))
    found = (store.get(path) for path in newest.values())
    holders = [json.loads(data) for data in found if data]
    return {holder["job"] for holder in holders if is_alive(holder)}


def holder_here(**named: Any) -> dict[str, Any]:
    """What a lease says of this process, and what is `named`."""
    return {**named, "host": socket.gethostname(), "pid": os.getpid(), "started": _process_start(os.getpid())}


def is_alive(holder: dict[str, Any]) -> bool:
    """Whether the holder of a lease is there: on this machine the process itself tells; of another, the age of its last renewal."""
    if holder["host"] == socket.gethostname():
        started = _process_start(holder["pid"])
        return started is not None and abs(started - holder["started"]) < CLOCK_SECONDS
    return bool(time.time() - holder["renewed"] < EXPIRE_SECONDS)


class Renewed:
    """An object that a thread of this process rewrites until it is stopped, with the time of each renewal.

    Args:
        also: called after each renewal, for what else is to be kept alive.
    """

    def __init__(self, store: Store, path: str, holder: dict[str, Any], also: Callable[[], None] = lambda: None) -> None:
        self._store, self._path, self._holder, self._also = store, path, holder, also
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="runner-lease", daemon=True)

    def content(self) -> bytes:
        """The object as it is now."""
        return json.dumps({**self._holder, "renewed": time.time()}).encode()

    def start(self) -> None:
        """Begin to renew the object, which is there already."""
        self._thread.start()

    def stop(self) -> None:
        """Renew it no more. The object stays."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                self._store.put(self._path, self.content())
            except StorageError:
                continue  # the lease outlives a few failed renewals
            finally:
                self._also()


class ExclusiveLease:
    """A lease that one process has at a time.

    Ending it does not raise where the storage fails: what the block came to counts. The object then stays until this process
    takes the lease again, or ends.

    Args:
        folder: of its objects, below ``_runner/``.
        named: what the lease says of its holder, besides host and process.
        busy: called with the living holder; returns to ask again, or raises.
    """

    _held: ClassVar[set[str]] = set()
    """Ids of those that this process holds or tries to get; what else is in its name was left behind."""

    def __init__(self, store: Store, folder: str, named: dict[str, Any], busy: Callable[[dict[str, Any]], None]) -> None:
        self._store, self._folder, self._busy = store, folder, busy
        self._id = uuid.uuid4().hex
        self._holder = holder_here(**named, lease=self._id)
        self._path = ""

    def __enter__(self) -> ExclusiveLease:
        self._held.add(self._id)
        try:
            self._take()
        except BaseException:
            self._held.discard(self._id)
            raise
        self._renewed.start()
        return self

    def _take(self) -> None:
        while True:
            number, holder = self._latest()
            if holder and holder.get("lease") == self._id:
                return  # we created it, and the answer was lost
            if holder and is_alive(holder) and not self._is_left_behind(holder):
                self._busy(holder)
                continue
            self._path = f"{self._folder}/{number + 1:010d}.json"
            self._renewed = Renewed(self._store, self._path, self._holder)
            if self._store.create(self._path, self._renewed.content()):
                return

    def __exit__(self, *_: object) -> None:
        self._renewed.stop()
        mine = self._path.rsplit("/", 1)[1]
        try:
            with suppress(StorageError):
                older = [path for path, _ in self._store.objects(self._folder) if path.rsplit("/", 1)[1] < mine]
                self._store.delete([*older, self._path])
        finally:
            self._held.discard(self._id)

    def _is_left_behind(self, holder: dict[str, Any]) -> bool:
        """Whether this process had it, and could not remove it."""
        is_own = (holder["host"], holder["pid"]) == (self._holder["host"], self._holder["pid"])
        return is_own and "lease" in holder and holder["lease"] not in self._held

    def _latest(self) -> tuple[int, dict[str, Any] | None]:
        paths = sorted(path for path, _ in self._store.objects(self._folder))
        data = self._store.get(paths[-1]) if paths else None
        number = int(paths[-1].rsplit("/", 1)[1].removesuffix(".json")) if paths else 0
        return number, json.loads(data) if data else None


def _process_start(pid: int) -> float | None:
    """Start time of a process, which tells a reused number from the process that had it; None where there is none."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None
