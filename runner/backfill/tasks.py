"""Tasks from works of any size, smaller and smaller, so that every worker is busy to the end."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Iterator, Sequence

from runner.backfill.work import FragmentWork

SHARE_OF_LEFT = 1 / 3  # of what is left for each worker, in one task: those after it even out how long it takes
SMALLEST_SHARE = 0.025  # of a worker's whole share; as long may a worker idle at the end
PIECES_PER_WORKER = 4  # of a split fragment; `stragglers` cuts them smaller where they take long
IMBALANCE = 1.15  # a schedule of whole fragments this much longer than the ideal is worth splitting fragments for


def tasks(works: Sequence[FragmentWork], workers: int, later: int = 0) -> list[tuple[FragmentWork, ...]]:
    """Bundle small works and split large ones, largest task first.

    A split work comes back as several with a `span` each; its parts are joined when all of them are done.

    Args:
        workers: there are now.
        later: there may come to be. Bundles leave work for them, for a bundle is not cut later; single works are, by `stragglers`.
    """
    total = sum(work.rows for work in works)
    ideal = max(total / max(workers, 1), 1)
    is_uneven = workers > 1 and _makespan([work.rows for work in works], workers) > IMBALANCE * ideal
    pieces = _split(works, ideal) if is_uneven else list(works)
    bundles: list[tuple[FragmentWork, ...]] = []
    bundle: list[FragmentWork] = []
    sizes = _sizes(total, max(workers, later, 1))
    rows, target = 0, next(sizes, 0.0)
    for work in sorted(pieces, key=lambda work: -work.rows):
        if bundle and rows + work.rows > target:
            bundles.append(tuple(bundle))
            bundle, rows, target = [], 0, next(sizes, target)
        bundle.append(work)
        rows += work.rows
    return [*bundles, tuple(bundle)] if bundle else bundles


def span_pieces(work: FragmentWork, count: int) -> list[FragmentWork]:
    """A work, or a span of one, in so many spans of about the same size."""
    start = work.span[0] if work.span else 0
    edges = [start + work.rows * i // count for i in range(count + 1)]
    return [_span(work, *edge) for edge in itertools.pairwise(edges)]


def _sizes(rows: int, workers: int) -> Iterator[float]:
    """Sizes of tasks that take so many rows together: each a share of what is left, down to the smallest that are worth it."""
    left, smallest = float(rows), max(rows / workers * SMALLEST_SHARE, 1.0)
    while left > 0:
        size = max(left / workers * SHARE_OF_LEFT, smallest)
        yield size
        left -= size


def _split(works: Sequence[FragmentWork], ideal: float) -> list[FragmentWork]:
    pieces: list[FragmentWork] = []
    for work in works:
        count = min(work.rows, math.ceil(PIECES_PER_WORKER * work.rows / ideal)) if work.rows > ideal / 2 else 1
        pieces += span_pieces(work, count) if count > 1 else [work]
    return pieces


def _span(work: FragmentWork, start: int, stop: int) -> FragmentWork:
    return dataclasses.replace(work, span=(start, stop), rows=stop - start)


def _makespan(sizes: Sequence[int], workers: int) -> int:
    """Rows on the busiest worker when the largest fragments go first to whoever is free."""
    loads = [0] * max(workers, 1)
    for size in sorted(sizes, reverse=True):
        heapq.heappushpop(loads, loads[0] + size)
    return max(loads)
