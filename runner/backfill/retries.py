"""Call again what raised, later and later, or when the service says."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from runner.backfill.failures import CALL_ERRORS
from runner.exception_names import load_exceptions

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
LONGEST_RETRY_AFTER_S = 600.0


class Retries:
    """How often a call is made again, and when.

    Waits 0.1 s, 0.2 s, 0.4 s ... at most 5 s, of which up to a half is left out at random, so that the workers do not come back
    together. What the exception says of a ``Retry-After`` counts instead, up to ten minutes.

    Args:
        count: calls after the first.
        retry_on: names of exceptions to retry; empty for all.
    """

    def __init__(self, count: int, retry_on: Sequence[str] = ()) -> None:
        self._count = count
        self._retry_on = load_exceptions(retry_on) or CALL_ERRORS

    def wait(self, attempt: int, exc: BaseException) -> float | None:
        """Seconds until the call after attempt 0, 1, 2 ... that raised; None for no such call."""
        if attempt >= self._count or not isinstance(exc, self._retry_on):
            return None
        said = retry_after(exc)
        if said is not None:
            return min(said, LONGEST_RETRY_AFTER_S)
        longest = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S)
        return random.uniform(longest / 2, longest)

    def again(self, call: Callable[..., Any], args: Sequence[Any], exc: BaseException) -> Any:
        """Make the calls after the first, which raised `exc`; raises what the last one raised."""
        attempt = 0
        while (wait := self.wait(attempt, exc)) is not None:
            time.sleep(wait)
            attempt += 1
            try:
                return call(*args)
            except CALL_ERRORS as later:
                exc = later
        raise exc


def retry_after(exc: BaseException) -> float | None:
    """Seconds that an exception asks to wait: its ``retry_after``, or the header of its HTTP response.

    aiohttp has the headers on the exception, httpx and requests on its ``response``.
    """
    said = getattr(exc, "retry_after", None)
    for holder in (exc, getattr(exc, "response", None)):
        headers = getattr(holder, "headers", None)
        if said is None and hasattr(headers, "get"):
            said = headers.get("Retry-After") or headers.get("retry-after")  # type: ignore[union-attr]
    try:
        return max(float(said), 0.0)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return _until(said)


def _until(date: Any) -> float | None:
    """Seconds until an HTTP date."""
    try:
        return max(email.utils.parsedate_to_datetime(date).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError, AttributeError):
        return None
