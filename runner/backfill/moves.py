"""Where rows of a table were at an earlier version: a compaction says in its transaction which fragments it merged into which.

A compaction writes the live rows of a group's fragments one after the other. A row's address moves, its values do not; where
this cannot be had from the transactions (cleaned away, or not readable), a row's origin is unknown.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runner.backfill.column_file import path_of
from runner.backfill.reader import FragmentRows

Addresses = npt.NDArray[np.uint64]

NOWHERE = np.uint64(0xFFFFFFFFFFFFFFFF)


def address(fragment_id: int, offsets: Any) -> Addresses:
    """Row addresses, ``fragment_id << 32 | offset``."""
    return np.uint64(fragment_id << 32) | np.asarray(offsets, np.uint64)


@dataclass
class _Known:
    """A fragment whose rows can be traced: its input files, and where its rows were (None: they never moved)."""

    inputs: frozenset[str]
    origins: _Runs | None


class _Runs:
    """Addresses, most of which are one more than the one before, in a few bytes for each run of such."""

    def __init__(self, addresses: Addresses) -> None:
        ahead = np.where(addresses == NOWHERE, NOWHERE, addresses - np.arange(len(addresses), dtype=np.uint64))
        starts = np.flatnonzero(np.diff(ahead, prepend=~ahead[:1]))
        self._ahead = ahead[starts]
        self._lengths = np.diff(starts, append=len(addresses))

    def addresses(self) -> Addresses:
        ahead = np.repeat(self._ahead, self._lengths)
        return np.where(ahead == NOWHERE, NOWHERE, ahead + np.arange(len(ahead), dtype=np.uint64))


class Moves:
    """Traces rows from one version of a table back to an earlier one.

    Args:
        field_ids: of the input columns; a row counts as the same only while the files of these are.

    Attributes:
        appended: data files of fragments that were appended in between; nothing in them was there before.
    """

    def __init__(self, old: Any, new: Any, field_ids: set[int]) -> None:
        self._old = old
        self._new = new
        self._field_ids = field_ids
        self._known = {f.fragment_id: _Known(self._inputs(f.metadata), None) for f in old.get_fragments()}
        self.appended: set[str] = set()
        for version in range(old.version + 1, new.version + 1):
            self._follow(version)

    def origins(self, fragment: Any) -> Addresses:
        """For each physical row of a fragment of the later version its old address, or `NOWHERE`."""
        return self._origins(fragment.metadata)

    def is_appended(self, fragment: Any) -> bool:
        return any(path_of(file) in self.appended for file in fragment.metadata.files)

    def _follow(self, version: int) -> None:
        import lance

        operation = read_operation(self._new, version)
        if isinstance(operation, lance.LanceOperation.Rewrite):
            for group in operation.groups:
                self._merge(version - 1, group)
        elif isinstance(operation, lance.LanceOperation.Append):
            self.appended.update(path_of(file) for meta in operation.fragments for file in meta.files)
        elif isinstance(operation, (lance.LanceOperation.Overwrite, lance.LanceOperation.Restore)):
            self._known.clear()

    def _merge(self, version: int, group: Any) -> None:
        parts = []
        for meta in group.old_fragments:
            fragment = self._fragment(version, meta)
            if fragment is None:
                return
            parts.append(self._origins(fragment.metadata)[FragmentRows(fragment).offsets()])
        joined = np.concatenate(parts) if parts else np.empty(0, np.uint64)
        new = list(group.new_fragments)
        if sum(meta.physical_rows for meta in new) != len(joined):
            return  # not what is described above; the rows count as unknown
        start = 0
        for meta in new:
            self._known[meta.id] = _Known(self._inputs(meta), _Runs(joined[start : start + meta.physical_rows]))
            start += meta.physical_rows

    def _fragment(self, version: int, meta: Any) -> Any:
        """A fragment with its live rows as they were; None where they cannot be had any more."""
        known = self._old.get_fragment(meta.id)
        if known is not None and known.metadata.num_deletions == meta.num_deletions:  # deleted rows only ever get more
            return known
        try:
            return self._new.checkout_version(version).get_fragment(meta.id)
        except OSError:
            return None

    def _origins(self, meta: Any) -> Addresses:
        known = self._known.get(meta.id)
        if known is None or known.inputs != self._inputs(meta):
            return np.full(meta.physical_rows, NOWHERE)
        return address(meta.id, np.arange(meta.physical_rows)) if known.origins is None else known.origins.addresses()

    def _inputs(self, meta: Any) -> frozenset[str]:
        return frozenset(path_of(file) for file in meta.files if self._field_ids.intersection(file.fields))


def read_operation(dataset: Any, version: int) -> Any:
    """What was committed as a version; None where that is not known: it was cleaned up, or pylance cannot describe it."""
    try:
        try:
            transaction = dataset.read_transaction(version)
        except TypeError:
            with _RewrittenIndexes():
                transaction = dataset.read_transaction(version)
    except (OSError, ValueError, TypeError):
        return None
    return transaction.operation if transaction is not None else None


class _RewrittenIndexes:
    """Within the block pylance can describe a compaction that rewrote an index.

    pylance 14 makes its own class of such an index with fewer arguments than the class takes. What is said of indexes is not used.
    """

    _lock = threading.Lock()

    def __enter__(self) -> None:
        import lance

        self._lock.acquire()
        self._original: Any = lance.LanceOperation.RewrittenIndex
        lance.LanceOperation.RewrittenIndex = _AnyIndex  # type: ignore[assignment, misc]

    def __exit__(self, *_: object) -> None:
        import lance

        lance.LanceOperation.RewrittenIndex = self._original  # type: ignore[misc]
        self._lock.release()


class _AnyIndex:
    def __init__(self, *_: Any) -> None:
        pass


def has_updates(dataset: Any, since: int) -> bool:
    """Whether rows may have been written anew, elsewhere in the table, after a version."""
    import lance

    operations = (read_operation(dataset, version) for version in range(since + 1, dataset.version + 1))
    return any(found is None or isinstance(found, lance.LanceOperation.Update) for found in operations)
