"""Cron schedules, as Kubernetes and KubeRay read them: https://pkg.go.dev/github.com/robfig/cron/v3, `ParseStandard`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_PART = re.compile(r"(?P<range>\*|\?|(?P<first>\w+)(-(?P<last>\w+))?)(/(?P<step>[0-9]+))?")


@dataclass(frozen=True)
class _Field:
    """One of the five. Both ends are part of it; the first name stands for the lowest number."""

    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()

    def numbers(self, text: str) -> frozenset[int]:
        """What the field's text allows.

        Raises:
            ValueError: it is no such text.
        """
        return frozenset(number for part in text.split(",") for number in self._part(part))

    def _part(self, text: str) -> range:
        match = _PART.fullmatch(text)
        if match is None:
            raise ValueError(f"{self.name}: {text!r} is none of *, a number, a range a-b or a step */n")
        first, last, step = self.lowest, self.highest, int(match["step"] or 1)
        if match["first"]:
            first = self._number(match["first"])
            last = self._number(match["last"]) if match["last"] else self.highest if match["step"] else first
        if step == 0 or first > last:
            raise ValueError(f"{self.name}: {text!r} is an empty range; write the lower end first, and a step of at least 1")
        return range(first, last + 1, step)

    def _number(self, text: str) -> int:
        if text.lower() in self.names:
            return self.lowest + self.names.index(text.lower())
        if not text.isdecimal() or not self.lowest <= int(text) <= self.highest:
            sunday = "; 0 is Sunday" if self.highest == 6 else ""
            raise ValueError(f"{self.name}: {text!r} is not within {self.lowest} to {self.highest}{sunday}")
        return int(text)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, tuple(_MONTHS)),
    _Field("day of the week", 0, 6, tuple(_DAYS)),
)


def check_schedule(text: str) -> str:
    """A schedule that fires, as it was written.

    Five fields (minute, hour, day of the month, month, day of the week), or one of @hourly, @daily, @weekly, @monthly, @yearly.

    Raises:
        ValueError: no schedule, or one that never fires, such as the 31st of February; with the remedy.
    """
    if re.match(r"\s*(CRON_)?TZ=", text):
        raise ValueError(f"{text!r} has a time zone in it; give it in time_zone")
    if text.startswith("@every"):
        raise ValueError(f"{text!r} counts from when the schedule was made, which is never said; write */10 * * * * or @hourly")
    if text.startswith("@") and text not in _NAMED:
        raise ValueError(f"{text!r} is none of {', '.join(_NAMED)}")
    fields = _NAMED.get(text, text).split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"{text!r} has {len(fields)} fields, not 5: minute, hour, day of the month, month, day of the week: 0 3 * * *"
        )
    numbers = [field.numbers(part) for field, part in zip(_FIELDS, fields, strict=True)]
    days, months = numbers[2], numbers[3]
    # Where both kinds of day are given, either will do, so the day of the week always comes.
    by_week = not any(re.fullmatch(r"[*?](/0*1)?", part) for part in fields[4].split(","))
    if not by_week and not any(min(days) <= _LONGEST_MONTHS[month - 1] for month in months):
        raise ValueError(f"{text!r} never fires: no month of it has a day {min(days)}")
    return text
