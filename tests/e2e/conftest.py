"""One local Ray for the session, an inline context for most tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import runner
from runner import Connection, Context
from tests.e2e.helpers import Gate


@pytest.fixture
def db(tmp_path: Path) -> Connection:
    return runner.connect(tmp_path / "db")


@pytest.fixture
def inline(db: Connection) -> Iterator[Connection]:
    """A database, with backfills in this process."""
    with db.context(cluster="inline"):
        yield db


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Context]:
    """Ray on this machine, started once: a start costs seconds."""
    with Connection.local_ray_context() as context:
        yield context


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where functions under test log their calls."""
    return tmp_path / "calls.log"


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path / "gate")
    yield made
    made.close()
