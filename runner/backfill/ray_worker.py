"""The Ray actors that workers, and some drivers, run in.

To machines that may not have this package the classes go by value, with the package's source beside it. So this file imports
nothing but the standard library until the source is in place.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.backfill.process import Place
    from runner.backfill.sample import Sample
    from runner.backfill.work import FragmentWork, Pass, WorkerEvent

EVENT_SECONDS = 0.2


class RayWorker:
    """A `runner.backfill.worker.Worker` in a process of its own.

    Args:
        setup: what `runner.environments.activation.activate` takes.
        source: a zip file of this package, where the machine may not have it.
    """

    def __init__(self, setup: dict[str, Any] | None = None, source: bytes | None = None) -> None:
        own = [_unpacked(source)] if source is not None else []
        sys.path[:0] = own
        if setup:
            from runner.environments.activation import activate

            activate(setup)
        sys.path[:0] = own  # before a workspace's
        from runner.backfill.reader import keep_freed_memory
        from runner.backfill.worker import Worker

        keep_freed_memory()
        self._worker = Worker()

    def ready(self) -> Place:
        """Where it runs, once the process is up and has imported what it needs."""
        import lance  # noqa: F401

        from runner.backfill.process import here

        return here()

    def run(
        self, settings: Pass, works: Sequence[FragmentWork], labels: dict[str, Any] | None = None
    ) -> Iterator[list[WorkerEvent]]:
        """The events, several at a time: each message costs the driver a millisecond.

        Args:
            labels: what log lines are to tell besides; None where they are not to be JSON.
        """
        if labels is not None:
            from runner.watch.logs import begin_task

            begin_task(labels)
        batch: list[WorkerEvent] = []
        sent = time.monotonic()
        for event in self._worker.run(settings, works):
            batch.append(event)
            if time.monotonic() - sent > EVENT_SECONDS:
                yield batch
                batch, sent = [], time.monotonic()
        yield batch

    def sample(self, settings: Pass, works: Sequence[FragmentWork], rows: int | None, seconds: float) -> Sample:
        """See `runner.backfill.sample.sample`."""
        from runner.backfill.sample import sample

        return sample(settings, works, rows, seconds)


class RayDriver:
    """The driver of a backfill, as an actor: for a cluster that takes no jobs from outside.

    Args:
        source: a zip file of Infill's packages.
        requirements: what they need, at the client's versions.
    """

    def __init__(self, source: bytes, requirements: Sequence[str]) -> None:
        sys.path.insert(0, _unpacked(source))
        from runner.environments.own_requirements import PINS, install_missing

        os.environ[PINS] = " ".join(requirements)
        install_missing()

    def drive(self, database: str, storage_options: dict[str, str], job_id: str, variables: dict[str, str]) -> int:
        """See `runner.remote.remote_driver.drive`. The actor ends with it; what came of it is on record."""
        import ray

        from runner.remote.remote_driver import drive

        try:
            return drive(database, storage_options, job_id, variables)
        finally:
            ray.actor.exit_actor()  # type: ignore[no-untyped-call]


def look(distributions: Sequence[str]) -> dict[str, Any]:
    """What a worker's process finds: its Python, its platform and the versions of distributions, None for one that is missing."""
    import platform
    from importlib import metadata

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "platform": f"{sys.platform}-{platform.machine().lower()}",
        "versions": {name: version(name) for name in distributions},
    }


def _unpacked(source: bytes) -> str:
    """The folder of this package's source on this machine, unpacked if it is not there yet."""
    base = os.path.join(tempfile.gettempdir(), f"infill-{os.getuid()}")
    os.makedirs(base, mode=0o700, exist_ok=True)
    if os.stat(base).st_uid != os.getuid():
        raise RuntimeError(f"{base} is not a folder of this user; remove it, or set TMPDIR to a folder that is")
    folder = os.path.join(base, f"source-{hashlib.sha256(source).hexdigest()[:16]}")
    if os.path.isdir(folder):
        return folder
    half = tempfile.mkdtemp(dir=base, prefix="source-")
    try:
        archive = os.path.join(half, "source.zip")
        with open(archive, "wb") as file:
            file.write(source)
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(half)
        os.unlink(archive)
        os.rename(half, folder)
    except OSError:
        if not os.path.isdir(folder):
            raise
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder
