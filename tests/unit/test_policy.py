from __future__ import annotations

from typing import Any

import pytest

from runner.backfill.policy import ErrorPolicy
from runner.errors import BadInput


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("fail", ErrorPolicy("fail", 0)),
        ("skip", ErrorPolicy("skip", 0)),
        ("retry:3", ErrorPolicy("fail", 3)),
        ("retry:3,fail", ErrorPolicy("fail", 3)),
        ("retry:12,skip", ErrorPolicy("skip", 12)),
        ("retry:0", ErrorPolicy("fail", 0)),
        ("skip:100", ErrorPolicy("skip", 0, "100")),
        ("skip:0.5%", ErrorPolicy("skip", 0, "0.5%")),
        ("retry:2,skip:100%", ErrorPolicy("skip", 2, "100%")),
    ],
)
def test_a_text_is_a_policy_and_its_text_is_the_same_policy(text: str, policy: ErrorPolicy) -> None:
    assert ErrorPolicy.parse(text) == policy
    assert ErrorPolicy.parse(str(policy)) == policy


@pytest.mark.parametrize("policy", [ErrorPolicy("skip", 2), ErrorPolicy()])
def test_a_policy_is_taken_as_it_is(policy: ErrorPolicy) -> None:
    assert ErrorPolicy.parse(policy) is policy


@pytest.mark.parametrize(
    "text",
    [
        *("", ",", ",skip", "retry", "retry:", "retry:-1", "retry:1.5", "retry:3,", "retry:3skip", "retry:3,retry:2"),
        *("Skip", "skip\n", " skip", "ignore", "retry:٣", None, 3, True),
        *("skip:", "skip:%", "skip:-1", "skip:1e3", "skip:٣", "fail:3", "skip:3,retry:2", "retry:2,fail:1%"),
    ],
)
def test_any_other_text_is_refused_with_the_forms_there_are(text: Any) -> None:
    with pytest.raises(BadInput, match=r"(?s)on_error=.* is not one of 'fail', 'skip', 'skip:100', 'skip:1%', 'retry:N'"):
        ErrorPolicy.parse(text)


@pytest.mark.parametrize("text", ["skip:0", "skip:00", "skip:1.5", "skip:0%", "skip:0.0%", "skip:100.1%", "retry:3,skip:101%"])
def test_a_limit_that_allows_nothing_or_more_than_all_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="a limit is a whole number of rows above 0, or above 0% and at most 100% of them"):
        ErrorPolicy.parse(text)


@pytest.mark.parametrize(
    ("text", "rows", "allowed"),
    [
        ("skip", 1000, None),
        ("fail", 1000, None),
        ("skip:100", 1000, 100),
        ("skip:100", 10, 100),
        ("skip:1%", 1000, 10),
        ("skip:1%", 99, 0),
        ("skip:0.1%", 10_000, 10),
        ("skip:100%", 7, 7),
    ],
)
def test_how_many_rows_may_be_skipped(text: str, rows: int, allowed: int | None) -> None:
    assert ErrorPolicy.parse(text).allowed(rows) == allowed
