"""What happens to a row whose function raises."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from runner.errors import BadInput

_FORM = re.compile(r"(?:retry:(?P<retries>[0-9]+)(?:,(?P<later>fail|skip))?|(?P<then>fail|skip))")


@dataclass(frozen=True)
class ErrorPolicy:
    """Retries first, then fail or skip.

    Args:
        then: ``"fail"`` ends the job with nothing published; ``"skip"`` leaves the row NULL and records it.
        retries: calls after the first, for each row, 0.1 s, 0.2 s, 0.4 s ... apart (at most 5 s).
    """

    then: Literal["fail", "skip"] = "fail"
    retries: int = 0

    @classmethod
    def parse(cls, text: str | ErrorPolicy) -> ErrorPolicy:
        """From ``"fail"``, ``"skip"``, ``"retry:3"`` (then fail) or ``"retry:3,skip"``.

        Raises:
            BadInput: any other text.
        """
        if isinstance(text, ErrorPolicy):
            return text
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        if not found:
            raise BadInput(f"on_error={text!r} is not one of 'fail', 'skip', 'retry:N' or 'retry:N,skip'")
        then: Literal["fail", "skip"] = "skip" if "skip" in (found["then"], found["later"]) else "fail"
        return cls(then=then, retries=int(found["retries"] or 0))

    def __str__(self) -> str:
        return f"retry:{self.retries},{self.then}" if self.retries else self.then
