from __future__ import annotations

import json

import pytest

from runner.errors import RowError
from runner.result import BackfillResult


def result(**changes: object) -> BackfillResult:
    values: dict[str, object] = {
        "job_id": "20260131-235959-3f9a1c",
        "table": "images",
        "columns": ("label", "size"),
        "status": "DONE",
        "executor": "local",
        "workers": 2,
        "rows_done": 1_200_000,
        "rows_valid": 34_000,
        "bytes_read": 12_345_678,
        "bytes_written": 999,
        "seconds": {"plan": 0.25, "compute": 4.0, "total": 4.5},
        "version_before": 3,
        "version_after": 4,
    }
    return BackfillResult(**{**values, **changes})  # type: ignore[arg-type]


def test_a_result_prints_as_its_figures() -> None:
    lines = [" ".join(line.split()) for line in repr(result()).splitlines()]
    assert lines == [
        "backfill of label, size in images: DONE",
        "rows done 1,200,000 at 300,000 rows/s",
        "already done 34,000",
        "bytes 12.3 MB read, 999 B written",
        "seconds 4.50 (plan 0.25 s, compute 4.00 s)",
        "table version 3 -> 4",
        "job 20260131-235959-3f9a1c",
    ]
    assert str(result()) == repr(result())


def test_what_happened_to_some_rows_is_told_where_it_did() -> None:
    lines = dict(result(rows_resumed=200_000, rows_skipped=1_001, rows_stale=7).lines())
    assert lines["rows done"] == "1,200,000 at 250,000 rows/s"
    assert lines["taken over"] == "200,000 rows computed before"
    assert lines["skipped"] == "1,001 rows left NULL by the error policy"
    assert lines["stale"] == "7 rows of an older function version (stale=True computes them)"
    assert {"taken over", "skipped", "stale"}.isdisjoint(dict(result().lines()))


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"rows_done": 0}, "backfill of label, size in images: DONE (nothing to do)"),
        ({"rows_done": 0, "rows_skipped": 1}, "backfill of label, size in images: DONE"),
        ({"rows_done": 0, "status": "FAILED"}, "backfill of label, size in images: FAILED"),
    ],
)
def test_the_title_says_when_there_was_nothing_to_do(changes: dict[str, object], title: str) -> None:
    assert result(**changes).title == title


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1_000, "1.0 KB"), (1_500_000, "1.5 MB"), (2_000_000_000_000, "2,000.0 GB")]
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert dict(result(bytes_read=count, bytes_written=0).lines())["bytes"] == f"{text} read, 0 B written"


def test_html_escapes_what_the_user_named_and_what_functions_raised() -> None:
    error = RowError(1 << 32, "<Error>", "<script>alert('x')</script> & more", "Traceback")
    html = result(table="<b>images</b>", columns=("<i>",), errors=(error,), seconds={"<plan>": 1.0})._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; more" in html
    assert "&lt;Error&gt;" in html
    assert "&lt;b&gt;images&lt;/b&gt;" in html
    assert "&lt;plan&gt;" in html
    assert "<i>" not in html
    assert f"<td>{1 << 32}</td>" in html


def test_html_shows_the_lines_and_at_most_twenty_errors() -> None:
    errors = tuple(RowError(n, "E", f"message {n}.", "") for n in range(25))
    html = result(errors=errors)._repr_html_()
    assert "<th>rows done</th><td>1,200,000 at 300,000 rows/s</td>" in html
    assert html.count("message ") == 20
    assert "_rowaddr" in html
    assert "_rowaddr" not in result()._repr_html_()


def test_a_result_is_plain_json() -> None:
    made = result(errors=(RowError(5, "E", "m", "t"),))
    raw = json.loads(json.dumps(made.to_dict()))
    assert raw["errors"] == [{"row_address": 5, "error": "E", "message": "m", "traceback": "t"}]
    assert (raw["columns"], raw["rows_done"], raw["seconds"]["total"]) == (["label", "size"], 1_200_000, 4.5)
