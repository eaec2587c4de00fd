"""Tags of Lance on the table versions that jobs read, so that no clean-up takes those versions' files away meanwhile."""

from __future__ import annotations

import datetime as dt
import re
from contextlib import suppress
from typing import Any

from runner.lease import living_jobs
from runner.store import Store, refused

_NAME = re.compile(r"^infill-(\d{8}-\d{6}-[0-9a-f]+)-\d+$")


class ReadTags:
    """The tags of one job on one table.

    Args:
        dataset: the table; any version of it.
    """

    def __init__(self, store: Store, dataset: Any, table: str, job_id: str) -> None:
        self._store = store
        self._dataset = dataset
        self._table = table
        self._job_id = job_id
        self._held: list[str] = []

    def hold(self, version: int) -> None:
        """Tag a version."""
        name = f"infill-{self._job_id}-{len(self._held)}"
        with refused("tag a version of", self._dataset.uri):
            try:
                self._dataset.tags.create(name, version)
            except ValueError as exc:
                # Where the answer of the storage is lost, Lance asks again and meets its own tag: nobody else's has this name.
                if "already exists" not in str(exc):
                    raise
        self._held.append(name)

    def release(self, *, keep_last: bool = False) -> None:
        """Take this job's tags away; one that is gone already is no error.

        Args:
            keep_last: leave the last one to the next job of the table, which finds by it what is still valid of the staged work.
        """
        self._delete(self._held[:-1] if keep_last else self._held)

    def dead(self) -> dict[str, int]:
        """Tags, with their versions, of jobs that ended without taking them away."""
        with refused("list the tags of", self._dataset.uri):
            tags = {name: _NAME.match(name) for name in self._dataset.tags.list()}
        ours = {name: found[1] for name, found in tags.items() if found and found[1] != self._job_id}
        if not ours:
            return {}
        living = living_jobs(self._store, self._table)  # looked at after the tags: a job has its lease before its tag
        versions = self._dataset.tags.list()
        return {name: int(versions[name]["version"]) for name, job in ours.items() if job not in living and name in versions}

    @staticmethod
    def began(name: str) -> dt.datetime:
        """When the job of a tag began, as its id says."""
        found = _NAME.match(name)
        assert found is not None
        return dt.datetime.strptime(found[1][:15], "%Y%m%d-%H%M%S").replace(tzinfo=dt.UTC)

    def collect(self, names: Any) -> None:
        """Take away tags of dead jobs."""
        self._delete(names)

    def _delete(self, names: Any) -> None:
        for name in names:
            with suppress(ValueError, OSError, RuntimeError):
                self._dataset.tags.delete(name)
