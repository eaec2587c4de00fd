"""Columns that a backfill finds missing, added for the function that is to fill them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.errors import BadInput
from runner.functions import UDF
from runner.targets import Request, check_where

if TYPE_CHECKING:
    from runner.table import Table


def add_missing(table: Table, function: UDF | None, inputs: Sequence[str] | None, options: Mapping[str, Any]) -> UDF | None:
    """Add the columns of a backfill that the table does not have, and return the function that the backfill is still to be given.

    Args:
        inputs: columns that feed the new ones; default: as the function says.
        options: what `Table.backfill` is to be called with, all of it checked before anything is added.

    Raises:
        BadInput: wrong options, or a function that the columns do not fit.
    """
    columns = list(options["columns"])
    missing = [name for name in columns if name not in table.schema.names]
    if function is None or not missing:
        return function
    check_where(Request(**{**options, "columns": tuple(columns)}).where, table.to_lance())
    try:
        table.add_columns(_transforms(function, missing, inputs))
    except BadInput:
        if not all(name in table.schema.names for name in missing):  # else another run was first
            raise
    return None if missing == columns else function


def _transforms(function: UDF, missing: Sequence[str], inputs: Sequence[str] | None) -> dict[str, UDF]:
    function = function.with_inputs(list(inputs)) if inputs else function
    if len(missing) == 1:
        return {missing[0]: function}
    outputs = function.outputs()
    return {name: outputs.get(name, function) for name in missing}
