"""The database's storage: whether it takes what the runner writes, and whether its clock is this machine's."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator

from runner.doctor.check import Check, clock
from runner.errors import StorageError
from runner.store import Store

FOLDER = "doctor"


def look(store: Store) -> Iterator[Check]:
    """Put, get, list and delete an object of our own, and create it twice."""
    path = f"{FOLDER}/{uuid.uuid4().hex}"
    try:
        yield from _probe(store, path)
    except StorageError as exc:
        remedy = "check address, credentials (--storage-option, environment), region and endpoint, and the right to write there"
        yield Check("store", "FAIL", str(exc), remedy)
    finally:
        _forget(store, path)


def _probe(store: Store, path: str) -> Iterator[Check]:
    store.put(path, b"first")
    before = dt.datetime.now(dt.UTC)
    store.put(path, b"second")
    written, after = store.modified(path), dt.datetime.now(dt.UTC)
    problem = next(
        (
            what
            for what, is_wrong in (
                ("an object that was just written over is read as it was before", store.get(path) != b"second"),
                ("an object that was just written is not listed", path not in {found for found, _ in store.objects(FOLDER)}),
            )
            if is_wrong
        ),
        None,
    )
    if problem:
        yield Check("store", "FAIL", f"{store.uri}: {problem}", "use a store that is consistent, without a cache in between")
    else:
        yield Check("store", "OK", f"{store.uri}: put, get, list")
    yield _conditional(store, path)
    store.delete([path])
    gone = store.get(path) is None
    yield (
        Check("store: delete", "OK", "an object is gone")
        if gone
        else Check(
            "store: delete", "FAIL", f"{store.uri}: an object that was deleted is still read", "allow deletion below _runner/"
        )
    )
    if written is not None:
        apart = (before + (after - before) / 2 - written).total_seconds()
        yield clock("clock of the store", 0.0 if abs(apart) < 1 else apart, "the store's")  # its times are whole seconds


def _conditional(store: Store, path: str) -> Check:
    """Leases stand on this: of two who create an object, one does."""
    if store.create(path, b"third") or store.get(path) != b"second":
        return Check(
            "store: create once", "FAIL", f"{store.uri}: an object that is there can be created again",
            "use a store that has conditional puts (If-None-Match); "
            "without them two backfills of a column do not see each other",
        )  # fmt: skip
    return Check("store: create once", "OK", "of two who create an object, one does")


def _forget(store: Store, path: str) -> None:
    try:
        store.delete([path])
    except StorageError:
        return
