"""Sets of rows of a fragment: ascending arrays of physical offsets.

numpy's own set functions hash or sort; offsets are small integers, for which a table of bits is ten times as fast.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.uint32]

NONE: Offsets = np.empty(0, np.uint32)
NONE.setflags(write=False)


def union(*sets: Offsets) -> Offsets:
    """Rows in any of the sets."""
    filled = [rows for rows in sets if len(rows)]
    if len(filled) < 2:
        return filled[0] if filled else NONE
    bits = np.zeros(max(int(rows[-1]) for rows in filled) + 1, np.bool_)
    for rows in filled:
        bits[rows] = True
    return np.flatnonzero(bits).astype(np.uint32)


def minus(rows: Offsets, other: Offsets) -> Offsets:
    """Rows of the first set that are not in the second."""
    return rows[~contains(other, rows)] if len(rows) and len(other) else rows


def intersection(rows: Offsets, other: Offsets) -> Offsets:
    """Rows in both sets."""
    return rows[contains(other, rows)]


def contains(rows: Offsets, asked: Offsets) -> npt.NDArray[np.bool_]:
    """For each asked row, whether it is in the set."""
    return np.isin(asked, rows, kind="table")
