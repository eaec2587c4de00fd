"""Says at the end how many blocks and commands of the pages were run, parsed and excused."""

from __future__ import annotations

from collections import Counter

import pytest

CHECKED = pytest.StashKey[Counter[tuple[str, str]]]()


@pytest.fixture
def checked(request: pytest.FixtureRequest) -> Counter[tuple[str, str]]:
    """What was done with the blocks and commands of all pages."""
    return request.config.stash.setdefault(CHECKED, Counter())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for (what, done), count in sorted(config.stash.get(CHECKED, Counter()).items()):
        terminalreporter.write_line(f"README.md and docs/: {what} {done}: {count}")
