"""Publish staged columns, each of them whole in one new table version, or not at all.

Lance takes files of the same fields only in one DataReplacement, so several columns are several versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from runner.backfill.checkpoint import StagedColumn, StagedFragment
from runner.backfill.column_file import file_name, inputs_digest
from runner.backfill.moves import has_updates
from runner.backfill.plan import field_ids, input_files, input_ids
from runner.backfill.selection import ColumnState
from runner.errors import CommitConflict
from runner.store import Store

MAX_ATTEMPTS = 10
PUBLISH_THREADS = 16


class TableMoved(CommitConflict):
    """What is staged does not fit the table as it is now; a plan of the table as it is now takes over what is still valid.

    Attributes:
        published: columns that were published before.
        version: the last table version that was made for them, None if there is none.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.published: tuple[str, ...] = ()
        self.version: int | None = None


class Publisher:
    """Publishes the staged columns of one table.

    Args:
        dataset: the table at the version that the job read.
        table_path: the table's folder, relative to the database.
        inputs: input columns of each column; a fragment whose input files changed is not published over.
    """

    def __init__(self, store: Store, dataset: Any, table_path: str, inputs: Mapping[str, Sequence[str]]) -> None:
        self._store = store
        self._dataset = dataset
        self._data = f"{table_path}/data"
        self._column_ids = {column: field_ids(dataset, column) for column in inputs}
        self._input_ids = {column: input_ids(dataset, names) for column, names in inputs.items()}

    def check_rows_stayed(self, fragment_ids: Iterable[int]) -> None:
        """Refuse to publish while rows of these fragments lie elsewhere now, where the columns would stay empty.

        Raises:
            TableMoved: an update or a merge wrote such rows anew.
        """
        latest = self._latest()
        if latest.version == self._dataset.version:
            return
        now = {fragment.fragment_id: fragment.metadata.num_deletions for fragment in latest.get_fragments()}
        for fragment_id in fragment_ids:
            before = self._dataset.get_fragment(fragment_id).metadata.num_deletions
            if now.get(fragment_id, before) > before and has_updates(latest, self._dataset.version):
                raise _moved(f"rows of fragment {fragment_id} were updated", None)

    def publish(self, staged: Sequence[StagedFragment], message: str) -> dict[str, int]:
        """Commit each column whole; returns the table version that was made for each. The staged files stay where they are.

        Raises:
            TableMoved: another writer rewrote or removed fragments of the job; the table is as that writer left it.
            CommitConflict: a column is gone, or others committed again and again in between.
        """
        before = {fragment.fragment_id: self._dataset.get_fragment(fragment.fragment_id).metadata for fragment in staged}
        self._check_lengths(staged, before)
        files: dict[str, list[_File]] = {}
        for fragment in staged:
            for column in fragment.columns:
                files.setdefault(column.column, []).append(
                    _File(fragment.fragment_id, column, self._new_name(column, before[fragment.fragment_id]))
                )
        versions: dict[str, int] = {}
        for name, column_files in files.items():
            try:
                versions[name] = self._publish_column(column_files, before, message)
            except TableMoved as exc:
                exc.published, exc.version = tuple(versions), max(versions.values(), default=None)
                raise
        return versions

    def _new_name(self, column: StagedColumn, meta: Any) -> str:
        files = input_files(meta, self._input_ids[column.column])
        return file_name(column.kind, column.version, inputs_digest(files) if column.fits_inputs else None)

    def _latest(self) -> Any:
        import lance

        return lance.dataset(self._dataset.uri, storage_options=self._store.storage_options or None)

    @staticmethod
    def _check_lengths(staged: Sequence[StagedFragment], before: Mapping[int, Any]) -> None:
        """Lance commits a file of the wrong length, and the column is then unreadable; so it is refused here."""
        for fragment in staged:
            for column in fragment.columns:
                physical = before[fragment.fragment_id].physical_rows
                if column.rows != physical:
                    raise RuntimeError(f"{column.path} has {column.rows} rows, fragment {fragment.fragment_id} has {physical}")

    def _publish_column(self, files: Sequence[_File], before: Mapping[int, Any], message: str) -> int:
        """Only a conflict proves that nothing was committed. After any other error of the commit (a lost connection, say) the
        files stay: it may have gone through, and if it did not, Lance's own clean-up takes them.
        """
        import lance

        try:
            with ThreadPoolExecutor(PUBLISH_THREADS, "runner-publish") as threads:
                list(threads.map(lambda file: self._store.publish(file.staged.path, f"{self._data}/{file.name}"), files))
            operation = lance.LanceOperation.DataReplacement(self._replacements(files))
        except BaseException:
            self._take_back(files)
            raise
        try:
            return self._commit(operation, files, before, message)
        except CommitConflict:
            self._take_back(files)
            raise

    def _take_back(self, files: Sequence[_File]) -> None:
        for file in files:
            self._store.remove_published(f"{self._data}/{file.name}")

    def _commit(self, operation: Any, files: Sequence[_File], before: Mapping[int, Any], message: str) -> int:
        """Commit on the latest version, once it is known that the staged values fit it."""
        import lance
        from lance.commit import CommitConflictError

        options = self._store.storage_options or None
        cause: Exception | None = None
        for _ in range(MAX_ATTEMPTS):
            latest = self._latest()
            self._check_still_valid(latest, files, before, cause)
            try:
                done = lance.LanceDataset.commit(
                    latest, operation, read_version=latest.version, storage_options=options, commit_message=message
                )
                return int(done.version)
            except CommitConflictError as exc:
                cause = exc
        raise CommitConflict(
            f"{self._data}: others committed {MAX_ATTEMPTS} times in between; staged work is kept, run again"
        ) from cause

    def _replacements(self, files: Sequence[_File]) -> list[Any]:
        """Lance's description of each file. They differ in name and size only, so one of them is opened."""
        import lance
        from lance.fragment import DataFile

        sample = DataFile.create(self._dataset, files[0].name)
        shape = sample.fields, sample.column_indices, sample.file_major_version, sample.file_minor_version
        return [
            lance.LanceOperation.DataReplacementGroup(file.fragment_id, DataFile(file.name, *shape, file.staged.size))
            for file in files
        ]

    def _check_still_valid(self, latest: Any, files: Sequence[_File], before: Mapping[int, Any], cause: Exception | None) -> None:
        """Whether the staged values still fit: the same fragments with the same input files and the same old column."""
        column = files[0].staged.column
        if latest.version == self._dataset.version:
            return
        if field_ids(latest, column) != self._column_ids[column]:
            raise CommitConflict(
                f"the column {column} was dropped or replaced while the job ran; nothing of it was published"
            ) from cause
        now = {fragment.fragment_id: fragment.metadata for fragment in latest.get_fragments()}
        for file in files:
            old, new = before[file.fragment_id], now.get(file.fragment_id)
            if new is None:
                raise _moved(f"fragment {file.fragment_id} was rewritten or removed", cause)
            if set(input_files(old, self._input_ids[column])) != set(input_files(new, self._input_ids[column])):
                raise _moved(f"the inputs of fragment {file.fragment_id} changed", cause)
            if ColumnState.of(old, self._column_ids[column]) != ColumnState.of(new, self._column_ids[column]):
                raise _moved(f"somebody else wrote {column} in fragment {file.fragment_id}", cause)


@dataclass(frozen=True)
class _File:
    """A staged column file and the name it is published under."""

    fragment_id: int
    staged: StagedColumn
    name: str


def _moved(reason: str, cause: Exception | None) -> TableMoved:
    moved = TableMoved(reason)
    moved.__cause__ = cause
    return moved
