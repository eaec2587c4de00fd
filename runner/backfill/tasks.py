"""Tasks of about the same size from works of any size, so that every worker is busy to the end."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Sequence

from runner.backfill.work import FragmentWork

TASKS_PER_WORKER = 8  # enough of them that the last ones to finish do so together
IMBALANCE = 1.15  # a schedule of whole fragments this much longer than the ideal is worth splitting fragments for


def tasks(works: Sequence[FragmentWork], workers: int) -> list[tuple[FragmentWork, ...]]:
    """Bundle small works and split large ones, largest task first.

    A split work comes back as several with a `span` each; its parts are joined when all of them are done.
    """
    total = sum(work.rows for work in works)
    ideal = max(total / max(workers, 1), 1)
    target = max(ideal / TASKS_PER_WORKER, 1)
    pieces = _split(works, workers, ideal) if _makespan([work.rows for work in works], workers) > IMBALANCE * ideal else list(works)
    bundles: list[tuple[FragmentWork, ...]] = []
    bundle: list[FragmentWork] = []
    rows = 0
    for work in sorted(pieces, key=lambda work: -work.rows):
        bundle.append(work)
        rows += work.rows
        if rows >= target:
            bundles.append(tuple(bundle))
            bundle, rows = [], 0
    return [*bundles, tuple(bundle)] if bundle else bundles


def _split(works: Sequence[FragmentWork], workers: int, ideal: float) -> list[FragmentWork]:
    size = max(int(ideal / 4), 1)
    pieces: list[FragmentWork] = []
    for work in works:
        count = min(work.rows, -(-work.rows // size)) if work.rows > ideal / 2 else 1
        if count < 2 or workers < 2:
            pieces.append(work)
            continue
        edges = [work.rows * i // count for i in range(count + 1)]
        pieces += [dataclasses.replace(work, span=(start, stop), rows=stop - start) for start, stop in itertools.pairwise(edges)]
    return pieces


def _makespan(sizes: Sequence[int], workers: int) -> int:
    """Rows on the busiest worker when the largest fragments go first to whoever is free."""
    loads = [0] * max(workers, 1)
    for size in sorted(sizes, reverse=True):
        heapq.heappushpop(loads, loads[0] + size)
    return max(loads)
