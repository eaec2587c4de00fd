"""Remove what jobs left in a database that no job will take up: staged work, leases, read tags, records."""

from __future__ import annotations

import datetime as dt
import json
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner.backfill import checkpoint, freshness, settled
from runner.backfill.checkpoint import staging_root
from runner.errors import ColumnBusy
from runner.lease import column_leases, is_alive
from runner.read_tags import ReadTags
from runner.records import FOLDER as JOBS
from runner.records import JobRecords
from runner.targets import computed_columns

if TYPE_CHECKING:
    from runner.connection import Connection
    from runner.store import Store

LEASES = "leases"
HASHED = 64  # characters of a folder of so many columns that their names are hashed


@dataclass(frozen=True)
class Leftover:
    """Something that is removed, or would be.

    Attributes:
        name: a folder or object below ``_runner/``, or ``tag NAME of TABLE``.
        why: what makes it left over.
        used: when it was last written.
        problem: why it stays after all; empty where it is gone.
    """

    name: str
    why: str
    bytes: int
    used: dt.datetime
    problem: str = ""


@dataclass
class _Folder:
    """Objects that go together."""

    bytes: int
    used: dt.datetime


def collect(
    connection: Connection, older_than: dt.timedelta, *, job_records: bool = False, dry_run: bool = False
) -> list[Leftover]:
    """Remove what belongs to tables or columns that are gone, and what nothing was written to for a time.

    Work that is staged for a column is kept until it is that old, whatever version of the function made it: the next backfill
    knows which of it is valid. A table whose column is being filled is left alone.

    Args:
        older_than: of staged work, leases of processes that are gone, and read tags of jobs that are gone.
        job_records: remove records of jobs that have ended, or were lost, as old, too; with their logs and errors.
        dry_run: remove nothing, and return what would be removed.
    """
    before = dt.datetime.now(dt.UTC) - older_than
    store = connection.store
    tables = {name.removesuffix(".lance") for name in store.folders() if name.endswith(".lance")}
    found: list[Leftover] = []
    for table in sorted(_named(store, checkpoint.FOLDER, checkpoint.name_of) | _named(store, LEASES) | tables):
        columns = _columns(connection, table) if table in tables else None
        found += _Table(connection, table, columns, before, dry_run).collect()
    for root in (settled.FOLDER, freshness.FOLDER):
        for table in sorted(_named(store, root) - tables):
            found += _gone(store, f"{root}/{_quoted(table)}", f"table {table} is gone", dry_run)
    return found + (list(_job_records(store, before, dry_run)) if job_records else [])


def _columns(connection: Connection, table: str) -> dict[str, bool]:
    """The columns of a table, and whether a function computes them."""
    schema = connection.open_table(table).schema
    computed = computed_columns(schema)
    return {name: name in computed for name in schema.names}


class _Table:
    """What is left of one table.

    Args:
        columns: those it has, with whether they are computed; None where the table is gone.
    """

    def __init__(
        self, connection: Connection, table: str, columns: dict[str, bool] | None, before: dt.datetime, dry_run: bool
    ) -> None:
        self._connection = connection
        self._store = connection.store
        self._table = table
        self._have = columns
        self._before = before
        self._dry_run = dry_run

    def collect(self) -> list[Leftover]:
        folders = _folders(self._store, staging_root(self._table), depth=4)
        staged = [one for path, folder in folders.items() if (one := self._staged(path, folder))]
        leases = list(self._leases())
        reader, tags = self._tags()
        found = [*staged, *leases, *tags.values()]
        if self._dry_run or not found:
            return found
        names = {name for path in folders for name in _column_names(path)}
        names |= {urllib.parse.unquote(lease.name.split("/")[2]) for lease in leases}
        with ExitStack() as stack:
            try:  # so that no job takes it up meanwhile; whoever had them before is dropped with them
                stack.enter_context(
                    column_leases(self._store, self._table, sorted(names | set(self._have or ())), "checkpoints gc")
                )
            except ColumnBusy as busy:
                return [replace(leftover, problem=str(busy)) for leftover in found]
            for leftover in staged:
                self._store.delete_folder(leftover.name)
            if reader is not None:
                reader.collect(tags)
        return found

    def _staged(self, path: str, folder: _Folder) -> Leftover | None:
        why = self._why_gone(_column_names(path))
        if why is None and folder.used < self._before:
            why = f"no job came back to it since {folder.used:%Y-%m-%d %H:%M}"
        return Leftover(path, why, folder.bytes, folder.used) if why else None

    def _why_gone(self, columns: Sequence[str]) -> str | None:
        if self._have is None:
            return f"table {self._table} is gone"
        missing = next((name for name in columns if name not in self._have), None)
        if missing is not None:
            return f"column {missing} of {self._table} is gone"
        plain = next((name for name in columns if not self._have[name]), None)
        return None if plain is None else f"column {plain} of {self._table} has no function any more"

    def _leases(self) -> Iterator[Leftover]:
        for path, size, used in self._store.times(f"{LEASES}/{_quoted(self._table)}"):
            if used < self._before and (data := self._store.get(path)):
                holder = json.loads(data)
                if not is_alive(holder):
                    yield Leftover(path, f"its holder is gone: process {holder['pid']} on {holder['host']}", size, used)

    def _tags(self) -> tuple[ReadTags | None, dict[str, Leftover]]:
        """Read tags of jobs that are gone, by name, and what removes them."""
        if self._have is None:
            return None, {}
        reader = ReadTags(self._store, self._connection.open_table(self._table).to_lance(), self._table, "")
        dead = {name: ReadTags.began(name) for name in reader.dead()}
        return reader, {
            name: Leftover(f"tag {name} of {self._table}", "its job is gone", 0, began)
            for name, began in dead.items()
            if began < self._before
        }


def _job_records(store: Store, before: dt.datetime, dry_run: bool) -> Iterator[Leftover]:
    records = JobRecords(store)
    sizes: dict[str, _Folder] = {}
    for path, size, used in store.times(JOBS):
        job_id = path.removeprefix(f"{JOBS}/").partition(".")[0]
        known = sizes.setdefault(job_id, _Folder(0, used))
        known.bytes, known.used = known.bytes + size, max(known.used, used)
    for job_id, folder in sorted(sizes.items()):
        record = records.read(job_id)
        if folder.used >= before or (record is not None and record.state not in ("DONE", "FAILED", "CANCELLED", "LOST")):
            continue
        if not dry_run:
            records.remove(job_id)
        state = "a job without a record" if record is None else f"the job ended: {record.state}"
        yield Leftover(f"{JOBS}/{job_id}", state, folder.bytes, folder.used)


def _gone(store: Store, prefix: str, why: str, dry_run: bool) -> list[Leftover]:
    folders = _folders(store, prefix, depth=2)
    if not dry_run:
        store.delete_folder(prefix)
    return [Leftover(path, why, folder.bytes, folder.used) for path, folder in folders.items()]


def _folders(store: Store, prefix: str, depth: int) -> dict[str, _Folder]:
    """The folders so many names deep below ``_runner/``, with all that is in them."""
    found: dict[str, _Folder] = {}
    for path, size, used in store.times(prefix):
        folder = found.setdefault("/".join(path.split("/")[:depth]), _Folder(0, used))
        folder.bytes, folder.used = folder.bytes + size, max(folder.used, used)
    return found


def _named(store: Store, root: str, name_of: Callable[[str], str] = urllib.parse.unquote) -> set[str]:
    """The tables that have anything below a root."""
    return {name_of(path.split("/")[1]) for path, _ in store.objects(root)}


def _column_names(folder: str) -> list[str]:
    """The columns of a folder of staged work; none where they are too many for a name."""
    name = folder.split("/")[2]
    return [] if len(name) == HASHED and "+" not in name else [checkpoint.name_of(column) for column in name.split("+")]


def _quoted(table: str) -> str:
    return urllib.parse.quote(table, safe="")
