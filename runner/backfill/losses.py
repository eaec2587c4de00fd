"""What becomes of a work whose worker died: it runs elsewhere, then with care, then in halves, down to the row that kills."""

from __future__ import annotations

import collections
import dataclasses

from runner.backfill.work import FragmentWork
from runner.errors import WorkerLost

MAX_LOSSES = 3  # of workers on a work that cannot be cut, before it is held to be what kills them
CARELESS_LOSSES = 2
MAX_CAREFUL_LOSSES = 60  # on one fragment: many times what finding a row takes


class Losses:
    """Counts the workers that died on each work."""

    def __init__(self) -> None:
        self._of_work: collections.Counter[tuple[str, tuple[int, int] | None]] = collections.Counter()
        self._of_fragment: collections.Counter[str] = collections.Counter()

    def has(self, work: FragmentWork) -> bool:
        """Whether a worker died on this work."""
        return bool(self._of_work[work.folder, work.span])

    def successors(self, work: FragmentWork, cause: str) -> list[FragmentWork]:
        """The works that go on from the parts of one whose worker died: itself, or its halves.

        Raises:
            WorkerLost: there is no end to it.
        """
        key = work.folder, work.span
        self._of_work[key] += 1
        losses = self._of_work[key]
        again = dataclasses.replace(work, has_parts=True)
        if work.join or work.cause is not None:  # calls no function
            return [again] if losses < MAX_LOSSES else self._give_up(work, losses, cause)
        if not work.careful:
            return [dataclasses.replace(again, careful=losses >= CARELESS_LOSSES)]
        self._of_fragment[work.folder] += 1
        if self._of_fragment[work.folder] > MAX_CAREFUL_LOSSES:
            return self._give_up(work, self._of_fragment[work.folder], cause)
        return self._halves(again, losses, cause)

    @staticmethod
    def _halves(work: FragmentWork, losses: int, cause: str) -> list[FragmentWork]:
        start, stop = work.span or (0, work.rows)
        if stop - start == 1:
            return [dataclasses.replace(work, span=(start, stop), cause=cause if losses > 1 else None)]
        middle = (start + stop) // 2
        spans = (start, middle), (middle, stop)
        return [dataclasses.replace(work, span=span, rows=span[1] - span[0]) for span in spans]

    @staticmethod
    def _give_up(work: FragmentWork, losses: int, cause: str) -> list[FragmentWork]:
        raise WorkerLost(
            f"fragment {work.fragment_id}: the worker died {losses} times on it; the last time: {cause}. Finished work is kept"
        )
