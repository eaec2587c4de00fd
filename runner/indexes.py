"""Indexes on columns that were recomputed: Lance takes the replaced fragments out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runner.store import refused

if TYPE_CHECKING:
    from runner.table import Table


def uncovered(dataset: Any, columns: Sequence[str]) -> dict[str, str]:
    """For each index on one of the columns that does not cover the whole table, what it leaves out."""
    fragments = {fragment.fragment_id for fragment in dataset.get_fragments()}
    found: dict[str, str] = {}
    for index in dataset.describe_indices():
        on = [name for name in index.field_names if name.split(".")[0] in columns]
        left_out = fragments - {fragment for segment in index.segments for fragment in segment.fragment_ids}
        if on and left_out:
            found[index.name] = f"{index.name} on {', '.join(on)} leaves out {len(left_out):,} of {len(fragments):,} fragments"
    return found


def cover(table: Table, names: Sequence[str]) -> int:
    """Have indexes cover the whole table; the table version that comes of it."""
    dataset = table.to_lance()
    with refused("optimize the indexes of", table.uri):
        dataset.optimize.optimize_indices(index_names=list(names))
    return int(table.to_lance().version)
