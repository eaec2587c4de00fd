"""Take over what was staged for an earlier version of the table, for rows that moved but whose inputs are the same.

A row is found again by what compactions report (see `moves`), otherwise by the hash of its inputs, with its row id where the table
has stable ones. An address alone proves nothing: after a compaction another row has it. What is found is staged as parts
of the new works, so that workers go on from it as from parts of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runner.backfill.checkpoint import StagedColumn, StagedFragment, Staging, done_path
from runner.backfill.column_file import read_row_map
from runner.backfill.input_hash import KEY_TYPE, Keys, find, keys_of
from runner.backfill.moves import NOWHERE, Moves, address
from runner.backfill.offsets import NONE, Offsets, contains, intersection, minus, union
from runner.backfill.parts import merged
from runner.backfill.plan import input_files, input_ids
from runner.backfill.planner import staged_paths
from runner.backfill.reader import FragmentRows
from runner.backfill.work import FragmentWork, Pass

READ_ROWS = 1 << 14
SAVE_BYTES = 64 << 20
SAVE_ROWS = 1 << 16  # joining parts costs the more the longer they are


@dataclass(frozen=True)
class Former:
    """A plan that the table outran, of this job or of one that ended early."""

    dataset: Any
    settings: Pass
    works: tuple[FragmentWork, ...]


def carry(
    former: Former, dataset: Any, settings: Pass, works: Sequence[FragmentWork], check: Callable[[], None] = lambda: None
) -> None:
    """Stage values of a former plan that are still valid, as parts in the folders of works that have nothing staged yet.

    Args:
        dataset, settings, works: those of the new plan.
        check: called again and again; raises to stop.
    """
    existing = staged_paths(settings.store, [*works, *former.works])
    folders = {path.rsplit("/", 1)[0] for path in existing}
    sources = [_Source(former, work, existing) for work in former.works if work.folder in folders]
    by_columns: dict[tuple[str, ...], list[FragmentWork]] = {}
    for work in works:
        if work.folder not in folders:
            by_columns.setdefault(work.columns, []).append(work)
    for columns, new in by_columns.items():
        fitting = [source for source in sources if set(columns) <= set(source.work.columns)]
        if fitting:
            _Carrier(former, dataset, settings, columns, check).carry(new, fitting)


class _Carrier:
    """Stages values for works of some columns."""

    def __init__(self, former: Former, dataset: Any, settings: Pass, columns: Sequence[str], check: Callable[[], None]) -> None:
        self._check = check
        self._former = former
        self._dataset = dataset
        self._settings = settings
        self._inputs = sorted({name for column in columns for name in settings.column(column).spec.inputs})
        self._input_ids = input_ids(dataset, self._inputs)
        self._row_ids = bool(former.dataset.has_stable_row_ids and dataset.has_stable_row_ids)

    def carry(self, new: Sequence[FragmentWork], sources: Sequence[_Source]) -> None:
        moves = Moves(self._former.dataset, self._dataset, self._input_ids)
        by_fragment: dict[int, list[_Source]] = {}
        for source in sources:
            source.found[:] = False
            by_fragment.setdefault(source.work.fragment_id, []).append(source)
        lost_rows = False
        for work in new:
            target = self._target(work, moves)
            lost_rows |= bool((target.origins == NOWHERE).any()) and not moves.is_appended(target.rows.fragment)
            for fragment_id, offsets in _by_fragment(target.origins):
                for source in by_fragment.get(fragment_id, ()):
                    source.found[offsets] = True
        staged = self._keys_of_lost(sources) if lost_rows else None
        for work in new:
            target = self._target(work, moves)
            if staged is not None and len(staged.keys) and not moves.is_appended(target.rows.fragment):
                self._find(target, staged)
            self._fill(target, by_fragment)

    def _target(self, work: FragmentWork, moves: Moves) -> _Target:
        self._check()
        rows = FragmentRows(self._dataset.get_fragment(work.fragment_id))
        selected = _selected(work, rows, self._settings)
        return _Target(work, rows, selected, moves.origins(rows.fragment)[selected])

    def _keys_of_lost(self, sources: Sequence[_Source]) -> _Lost:
        """Staged rows that are not known to be anywhere now."""
        keys, addresses = [np.empty(0, KEY_TYPE)], [np.empty(0, np.uint64)]
        live = {fragment.fragment_id: fragment for fragment in self._dataset.get_fragments()}
        for source in sources:
            self._check()
            rows = source.selected()
            rows = rows[~source.found[rows]]
            now = live.get(source.work.fragment_id)
            if now is not None and self._has_same_inputs(source.rows.fragment, now):  # these are where they were
                rows = minus(rows, FragmentRows(now).offsets())
            if len(rows):
                keys.append(keys_of(source.rows, self._inputs, rows, row_ids=self._row_ids))
                addresses.append(address(source.work.fragment_id, rows))
        found = np.concatenate(keys)
        order = np.argsort(found, kind="stable")
        return _Lost(found[order], np.concatenate(addresses)[order])

    def _has_same_inputs(self, old: Any, new: Any) -> bool:
        return set(input_files(old.metadata, self._input_ids)) == set(input_files(new.metadata, self._input_ids))

    def _find(self, target: _Target, staged: _Lost) -> None:
        """Set the origins of rows that have the inputs of a staged row."""
        missing = np.flatnonzero(target.origins == NOWHERE)
        if len(missing):
            at = find(staged.keys, keys_of(target.rows, self._inputs, target.selected[missing], row_ids=self._row_ids))
            target.origins[missing] = np.where(at < 0, NOWHERE, staged.addresses[at])

    def _fill(self, target: _Target, sources: dict[int, list[_Source]]) -> None:
        """Save the parts of one work, fragment by fragment of the values' origin."""
        order = np.argsort(target.origins, kind="stable")
        origins = target.origins[order]
        saver = _Saver(Staging(self._settings.store, target.work.folder), target.work.columns)
        for fragment_id in np.unique(origins[origins != NOWHERE] >> np.uint64(32)).tolist():
            for source in sources.get(fragment_id, ()):
                for offsets, columns in source.values():
                    self._check()
                    addresses = address(fragment_id, offsets)
                    first, end = np.searchsorted(origins, [addresses[0], addresses[-1] + np.uint64(1)])
                    inside = np.flatnonzero(np.isin(origins[first:end], addresses)) + first
                    at = pa.array(np.searchsorted(addresses, origins[inside]))
                    saver.add(target.selected[order[inside]], [columns[name].take(at) for name in target.work.columns])
        saver.flush()


@dataclass(frozen=True)
class _Lost:
    """Keys of rows, sorted, and the rows' old addresses."""

    keys: Keys
    addresses: npt.NDArray[np.uint64]


@dataclass
class _Target:
    """A new work with nothing staged.

    Attributes:
        origins: for each selected row its old address, or `NOWHERE`.
    """

    work: FragmentWork
    rows: FragmentRows
    selected: Offsets
    origins: npt.NDArray[np.uint64]


class _Source:
    """An old work that has something staged.

    Attributes:
        found: for each row of the fragment, whether it is known where it is now.
    """

    def __init__(self, former: Former, work: FragmentWork, existing: set[str]) -> None:
        self.work = work
        self._settings = former.settings
        self._staging = Staging(former.settings.store, work.folder)
        self._done = self._staging.finished(former.settings.policy) if done_path(work.folder) in existing else None
        self.rows = FragmentRows(former.dataset.get_fragment(work.fragment_id))
        self.found = np.zeros(self.rows.physical, np.bool_)

    def selected(self) -> Offsets:
        """Rows with a staged value."""
        selected = _selected(self.work, self.rows, self._settings)
        return self._good(self._done, selected) if self._done else intersection(selected, self._staging.covered())

    def values(self) -> Iterator[tuple[Offsets, dict[str, Any]]]:
        """Staged rows in ascending order, and their values by column."""
        if self._done is None:
            yield from merged(self._staging)
            return
        selected = self.selected()
        readers = {column.column: self._batches(column) for column in self._done.columns}
        start = 0
        for arrays in zip(*readers.values(), strict=True):
            offsets = np.arange(start, start + len(arrays[0]), dtype=np.uint32)
            inside = np.flatnonzero(contains(selected, offsets))
            start += len(arrays[0])
            if len(inside):
                yield offsets[inside], {name: array.take(pa.array(inside)) for name, array in zip(readers, arrays, strict=True)}

    def _batches(self, column: StagedColumn) -> Iterator[Any]:
        from lance.file import LanceFileReader

        options = dict(self._settings.store.storage_options)
        reader = LanceFileReader(self._settings.store.url(column.path), storage_options=options)
        for batch in reader.read_all(batch_size=READ_ROWS).to_batches():
            yield batch.column(0)

    def _good(self, done: StagedFragment, selected: Offsets) -> Offsets:
        """The selected rows that were not skipped."""
        for column in done.columns:
            if column.kind != "full":
                row_map = read_row_map(self._settings.store.url(column.path), self._settings.store.storage_options)
                selected = minus(selected, union(*row_map.skipped.values()) if row_map else NONE)
        return selected


class _Saver:
    """Gathers rows of a work, in any order, and saves them as parts of a bounded size, each in order."""

    def __init__(self, staging: Staging, names: Sequence[str]) -> None:
        self._staging = staging
        self._names = names
        self._offsets: list[Offsets] = []
        self._columns: list[list[Any]] = []
        self._bytes = self._rows = 0

    def add(self, offsets: Offsets, columns: list[Any]) -> None:
        if not len(offsets):
            return
        self._offsets.append(offsets)
        self._columns.append(columns)
        self._bytes += sum(array.nbytes for array in columns)
        self._rows += len(offsets)
        if self._bytes >= SAVE_BYTES or self._rows >= SAVE_ROWS:
            self.flush()

    def flush(self) -> None:
        if not self._offsets:
            return
        offsets = np.concatenate(self._offsets)
        order = np.argsort(offsets)
        whole = [pa.concat_arrays(arrays).take(pa.array(order)) for arrays in zip(*self._columns, strict=True)]
        self._staging.save_part(offsets[order], whole, self._names)
        self._offsets, self._columns, self._bytes, self._rows = [], [], 0, 0


def _selected(work: FragmentWork, rows: FragmentRows, settings: Pass) -> Offsets:
    return work.selected(rows, settings, work.row_map(settings))


def _by_fragment(addresses: npt.NDArray[np.uint64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """The offsets of addresses by their fragment."""
    known = np.sort(addresses[addresses != NOWHERE])
    fragments = known >> np.uint64(32)
    edges = np.flatnonzero(np.diff(fragments, prepend=~fragments[:1]))
    for start, stop in itertools.pairwise([*edges.tolist(), len(known)]):
        yield int(fragments[start]), (known[start:stop] & np.uint64(0xFFFFFFFF)).astype(np.int64)
