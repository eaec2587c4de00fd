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
    ],
)
def test_any_other_text_is_refused_with_the_forms_there_are(text: Any) -> None:
    with pytest.raises(BadInput, match=r"on_error=.* is not one of 'fail', 'skip', 'retry:N' or 'retry:N,skip'"):
        ErrorPolicy.parse(text)
