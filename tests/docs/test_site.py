"""The site builds without a warning, holds what the code says, and reads nothing from elsewhere."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

pytest.importorskip("mkdocs", reason="mkdocs is not installed: uv sync --group docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def words(page: Path) -> str:
    """What a reader sees of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.read_text())).split())


def test_the_front_page_is_the_readme_with_links_that_lead_on(site: Path) -> None:
    front = (site / "index.html").read_text()
    assert 'href="functions.html#coroutines-and-services"' in front
    assert 'href="bench/RESULTS.html"' in front


def test_every_command_and_option_has_a_line(site: Path) -> None:
    page = words(site / "reference" / "command-line.html")
    assert "infill backfill DB TABLE COLUMN... [OPTIONS]" in page
    assert "--cluster CLUSTER local inline (this process)" in page
    assert "--reuse <match|always|never> match Where one runs" in page


def test_every_field_of_a_file_has_a_line_with_type_and_default(site: Path) -> None:
    cluster, manifest, stack = (
        words(site / "reference" / f"{name}.html") for name in ("cluster-file", "manifest-file", "stack-config")
    )
    assert "max_replicas integer 10" in cluster
    assert "node_selector mapping to string" in cluster
    assert "ready_timeout_seconds integer 900 How long" in cluster
    assert "pip list of string Requirements (PEP 508)" in manifest
    assert "operator OperatorSettings or boolean false" in stack


def test_the_python_reference_is_the_docstrings(site: Path) -> None:
    page = words(site / "reference" / "runner.html")
    assert "Compute what is missing of one or more columns and publish it, each column in one new table version." in page
    assert "another backfill of the column runs." in page


def test_pages_read_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not re.findall(r'<(?:script|img|link)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"', page.read_text()), page
