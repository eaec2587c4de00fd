"""Schedules as KubeRay and Kubernetes read them (robfig/cron v3, ParseStandard)."""

from __future__ import annotations

import re

import pytest

from infra.cron import check_schedule


@pytest.mark.parametrize(
    "text",
    [
        "0 3 * * *",
        "*/15 0-6,22 1,15 jan-MAR mon",
        "0 0 29 2 *",  # in leap years
        "0 0 31 2 1",  # either kind of day will do: Mondays of February
        "0 0 31 2 */2",  # with a step it counts as given
        "5/20 ? ? 12 0",
        "@daily",
        "0 0 31 2,3 *",
    ],
)
def test_a_schedule_that_fires_stays_as_it_was_written(text: str) -> None:
    assert check_schedule(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 0 31 2 *", "never fires: no month of it has a day 31"),
        ("0 0 30-31 2 *", "never fires: no month of it has a day 30"),
        ("0 0 31 4,6,9,11 ?", "never fires: no month of it has a day 31"),
        ("0 0 31 2 */1", "never fires: no month of it has a day 31"),  # every day, so not given
        ("0 3 * *", "has 4 fields, not 5"),
        ("0 0 3 * * *", "has 6 fields, not 5"),
        ("60 * * * *", "minute: '60' is not within 0 to 59"),
        ("0 24 * * *", "hour: '24' is not within 0 to 23"),
        ("0 0 0 * *", "day of the month: '0' is not within 1 to 31"),
        ("0 0 * 13 *", "month: '13' is not within 1 to 12"),
        ("0 0 * * 7", "day of the week: '7' is not within 0 to 6; 0 is Sunday"),
        ("0 0 * * moon", "day of the week: 'moon' is not within 0 to 6"),
        ("5-1 * * * *", "minute: '5-1' is an empty range"),
        ("*/0 * * * *", "minute: '*/0' is an empty range"),
        ("0 0 L * *", "day of the month: 'L' is not within 1 to 31"),
        ("1-2-3 * * * *", "minute: '1-2-3' is none of *, a number"),
        ("TZ=Europe/Berlin 0 3 * * *", "has a time zone in it; give it in time_zone"),
        ("@every 1h", "counts from when the schedule was made"),
        ("@reboot", "is none of @yearly"),
        ("", "has 0 fields"),
    ],
)
def test_what_never_fires_or_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        check_schedule(text)
