"""Keep what is known of changed inputs true when the runner itself writes a column; see `runner.backfill.freshness`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runner.backfill.column_file import inputs_digest
from runner.backfill.freshness import FreshnessRecords
from runner.backfill.plan import BackfillPlan, field_ids, input_files, input_ids
from runner.backfill.reader import FragmentRows
from runner.backfill.selection import ColumnState
from runner.backfill.work import Pass
from runner.shipping import FunctionSpec
from runner.store import Store
from runner.targets import computed_columns

if TYPE_CHECKING:
    from runner.table import Table


def mark_published(
    store: Store, dataset: Any, table: str, plan: BackfillPlan, settings: Pass, versions: Mapping[str, int], fragment_ids: set[int]
) -> None:
    """The runner published columns: of which columns are the rows of those fragments of their inputs still?

    Args:
        versions: table version that was made for each published column.
    """
    records = FreshnessRecords(store, table)
    specs = {**computed_columns(dataset.schema), **{column.name: column.spec for column in settings.columns}}
    for name, spec in specs.items():
        fed_by = [version for column, version in versions.items() if column not in spec.inputs]
        if not fed_by:
            continue
        if name in plan.outdated:
            is_fresh = not plan.outdated[name] & fragment_ids
        else:
            is_fresh = _is_fresh(store, dataset, records, name, spec, fragment_ids)
        if is_fresh:
            for version in fed_by:
                records.add_own(name, field_ids(dataset, name), version)


def mark_fresh(store: Store, dataset: Any, table: Table, plan: BackfillPlan) -> None:
    """A plan of a whole table is done: columns of which nothing is outdated are of their inputs at the version it read."""
    records = FreshnessRecords(store, table.name)
    latest = int(table.to_lance().version)
    for name, outdated in plan.outdated.items():
        if not outdated:
            records.advance(name, field_ids(dataset, name), plan.read_version, latest)


def _is_fresh(store: Store, dataset: Any, records: FreshnessRecords, name: str, spec: FunctionSpec, fragment_ids: set[int]) -> bool:
    """Whether a column's rows in some fragments are known to be of their inputs."""
    own_ids, fed_by = field_ids(dataset, name), input_ids(dataset, spec.inputs)
    freshness = records.read(name, own_ids, dataset.version)
    for fragment_id in fragment_ids:
        fragment = dataset.get_fragment(fragment_id)
        meta = fragment.metadata
        digest = inputs_digest(input_files(meta, fed_by))
        state = ColumnState.of(meta, own_ids)
        row_map = state.row_map(f"{dataset.uri}/data", store.storage_options)
        changed = freshness.changed(FragmentRows(fragment), state, row_map, digest, has_row_versions=True)
        if changed is None or len(changed):
            return False
    return True
