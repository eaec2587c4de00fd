"""A pass as a worker has it: its table open, its functions constructed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from runner import shipping
from runner.backfill.blobs import BlobOpener
from runner.backfill.compute import Applier, Surroundings
from runner.backfill.flight import Applies
from runner.backfill.isolated import Isolated
from runner.backfill.pacer import Pacer
from runner.backfill.work import Pass, TargetColumn


class OpenPass:
    """A pass with its table open; functions are constructed when they are first called.

    Args:
        disposable: this process may be ended where a call hangs in C code.
        before: the same job at another version of the table; its functions stay as they are.
    """

    def __init__(self, settings: Pass, *, disposable: bool, before: OpenPass | None = None) -> None:
        import lance
        from lance.file import LanceFileSession

        self.settings = settings
        self.dataset = lance.dataset(
            settings.table_uri, version=settings.read_version, storage_options=settings.store.storage_options or None
        )
        self.pacer: Pacer = before.pacer if before else Pacer(settings.batch_size)
        self._around: Surroundings = (
            before._around if before else Surroundings(settings.workers, disposable, open_blobs=BlobOpener())
        )
        self._around.open_blobs.dataset = self.dataset
        self._files = LanceFileSession(settings.store.url("").rstrip("/"), settings.store.storage_options or None)
        self._appliers: dict[str, Applies] = before._appliers if before else {}
        self._isolated: dict[str, Applies] = {}

    def new_file(self, path: str, schema: pa.Schema) -> Any:
        """A Lance file writer for one of the runner's paths; all of them share one connection to the store."""
        return self._files.open_writer(path, schema=schema, version=self.dataset.data_storage_version)

    def appliers(self, columns: Sequence[TargetColumn], *, careful: bool) -> dict[str, Applies]:
        """The functions of some columns by their keys, each in a process of its own where the work is careful."""
        if careful:  # what the function holds here, a model say, is not to be there twice
            self._close(self._appliers)
        found = self._isolated if careful else self._appliers
        for column in columns:
            if column.function_key not in found:
                found[column.function_key] = self._new(column, careful=careful)
        return {column.function_key: found[column.function_key] for column in columns}

    def _new(self, column: TargetColumn, *, careful: bool) -> Applies:
        settings = self.settings
        if careful:
            return Isolated(settings, column)
        udf = shipping.load(column.spec, settings.store, allow_pickle=settings.allow_pickle)
        return Applier(udf, settings.policy, settings.timeout, self._around)

    @staticmethod
    def _close(appliers: dict[str, Applies]) -> None:
        while appliers:
            appliers.popitem()[1].close()

    def end_isolated(self) -> None:
        """End the processes of careful works."""
        self._close(self._isolated)

    def close(self) -> None:
        """End the functions' threads and processes."""
        self._close(self._appliers)
        self._close(self._isolated)
