"""The rows of a column that the error policy skipped, where they are now, and why."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runner.backfill.column_file import inputs_digest
from runner.backfill.moves import NOWHERE, Moves
from runner.backfill.plan import field_ids, input_files, input_ids
from runner.backfill.reader import FragmentRows
from runner.backfill.selection import ColumnState
from runner.backfill.settled import SettledRows
from runner.errors import RowError
from runner.records import JobRecords
from runner.targets import computed_columns

if TYPE_CHECKING:
    from runner.table import Table


def failed_rows(table: Table, dataset: Any, column: str) -> list[RowError]:
    """By row address; each with the error of the latest job that skipped it."""
    here, moved = _skipped(table, dataset, column)
    errors: dict[int, RowError] = {}
    records = JobRecords(table.connection.store)
    for record in records.latest(table.name):
        if column in record.columns:
            known = {error.row_address: error for error in records.errors(record.job_id)}
            for address in here & known.keys():
                errors.setdefault(address, known[address])
            if moved - errors.keys() and known and record.read_version is not None:
                for address, origin in _origins(table, dataset, column, record.read_version, moved - errors.keys()).items():
                    if origin in known:
                        errors[address] = dataclasses.replace(known[origin], row_address=address)
    for address in moved - errors.keys():
        errors[address] = RowError(address, "unknown", "a compaction moved the row and its error is on record no more", "")
    return [errors[address] for address in sorted(errors)]


def _skipped(table: Table, dataset: Any, column: str) -> tuple[set[int], set[int]]:
    """Addresses of skipped rows in files of the runner, and in files of Lance's own."""
    store, spec, ids = table.connection.store, computed_columns(dataset.schema)[column], field_ids(dataset, column)
    settled, fed_by = SettledRows(store, table.name, column, spec.inputs), input_ids(dataset, spec.inputs)
    here: set[int] = set()
    moved: set[int] = set()
    for fragment in dataset.get_fragments():
        state = ColumnState.of(fragment.metadata, ids)
        if state.name is not None and state.tag is None:
            digest = inputs_digest(input_files(fragment.metadata, fed_by))
            row_map, found = settled.row_map(FragmentRows(fragment), state.name, digest), moved
        else:
            row_map, found = state.row_map(f"{table.uri}/data", store.storage_options), here
        for rows in row_map.skipped.values() if row_map else ():
            found.update((fragment.fragment_id << 32) | int(row) for row in rows)
    return here, moved


def _origins(table: Table, dataset: Any, column: str, version: int, addresses: set[int]) -> dict[int, int]:
    """Where rows were at a version, as far as that can be told."""
    found: dict[int, int] = {}
    with suppress(ValueError, OSError):  # the version is gone
        spec = computed_columns(dataset.schema)[column]
        moves = Moves(table.to_lance(version), dataset, input_ids(dataset, spec.inputs))
        for fragment_id in {address >> 32 for address in addresses}:
            origins = moves.origins(dataset.get_fragment(fragment_id))
            for address in addresses:
                if address >> 32 == fragment_id and origins[address & 0xFFFFFFFF] != NOWHERE:
                    found[address] = int(origins[address & 0xFFFFFFFF])
    return found
