"""What happens to a row whose function raises."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from runner.errors import BadInput

_SKIP = r"skip(?::(?P<most>[0-9]+(?:\.[0-9]+)?%?))?"
_FORM = re.compile(rf"(?:retry:(?P<retries>[0-9]+)(?:,|$))?(?P<then>fail|{_SKIP})?")
_FORMS = "'fail', 'skip', 'skip:100', 'skip:1%', 'retry:N', or 'retry:N,' before one of them"


@dataclass(frozen=True)
class ErrorPolicy:
    """Retries first, then fail or skip.

    Args:
        then: ``"fail"`` ends the job with nothing published; ``"skip"`` leaves the row NULL and records it.
        retries: calls after the first, for each row; see `runner.backfill.retries`.
        most: rows that may be skipped, as a number (``"100"``) or a share of the job's rows (``"1%"``); the job ends
            beyond it. None for no limit.
    """

    then: Literal["fail", "skip"] = "fail"
    retries: int = 0
    most: str | None = None

    @classmethod
    def parse(cls, text: str | ErrorPolicy) -> ErrorPolicy:
        """From ``"fail"``, ``"skip"``, ``"skip:100"``, ``"skip:1%"``, ``"retry:3"`` (then fail) or ``"retry:3,skip"``.

        Raises:
            BadInput: any other text.
        """
        if isinstance(text, ErrorPolicy):
            return text
        found = _FORM.fullmatch(text) if isinstance(text, str) and text and text[-1] not in ",\n" else None
        if not found:
            raise BadInput(f"on_error={text!r} is not one of {_FORMS}")
        most = found["most"]
        if most is not None and not _is_limit(most):
            raise BadInput(f"on_error={text!r}: a limit is a whole number of rows above 0, or above 0% and at most 100% of them")
        then: Literal["fail", "skip"] = "skip" if (found["then"] or "").startswith("skip") else "fail"
        return cls(then=then, retries=int(found["retries"] or 0), most=most)

    def allowed(self, rows: int) -> int | None:
        """How many of so many rows may be skipped; None for any number."""
        if self.most is None:
            return None
        return int(rows * float(self.most[:-1]) / 100) if self.most.endswith("%") else int(self.most)

    def __str__(self) -> str:
        then = f"{self.then}:{self.most}" if self.most else self.then
        return f"retry:{self.retries},{then}" if self.retries else then


def _is_limit(text: str) -> bool:
    if text.endswith("%"):
        return 0 < float(text[:-1]) <= 100
    return "." not in text and int(text) > 0
