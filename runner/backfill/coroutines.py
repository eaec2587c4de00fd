"""Coroutine functions: many calls in flight at once, as fast as a service allows."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from runner.backfill.failures import CALL_ERRORS, CallTimeout
from runner.backfill.retries import Retries, retry_after

DEFAULT_CONCURRENCY = 16

Future = concurrent.futures.Future[Any]


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="runner-calls", daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Future:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Cancel what still runs, and end the thread; one that hangs is left behind."""
        self._loop.call_soon_threadsafe(self._cancel_all)
        self._thread.join(timeout=1.0)
        if not self._thread.is_alive():
            self._loop.close()

    def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        ended = asyncio.gather(*tasks, return_exceptions=True)
        ended.add_done_callback(lambda _: self._loop.stop())


class RateLimit:
    """Calls begin at even distances, so many a second; after a ``Retry-After`` none until then.

    Args:
        calls_a_second: None for no limit.
    """

    def __init__(self, calls_a_second: float | None) -> None:
        self._gap = 1 / calls_a_second if calls_a_second else 0.0
        self._next = self._paused_until = 0.0

    async def turn(self) -> None:
        """Return when the next call may begin."""
        now = asyncio.get_running_loop().time()
        at = max(self._next, now)
        self._next = at + self._gap
        while (wait := max(at, self._paused_until) - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(wait)

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)


class AsyncCall:
    """A coroutine function under its limits.

    Args:
        concurrency: calls in flight at once.
        calls_a_second: this worker's share of the rate limit.
        timeout: seconds for one call.
    """

    def __init__(
        self,
        call: Callable[..., Coroutine[Any, Any, Any]],
        loop: LoopThread,
        *,
        concurrency: int,
        calls_a_second: float | None,
        timeout: float | None,
    ) -> None:
        self._call = call
        self._loop = loop
        self._slots = asyncio.Semaphore(concurrency)
        self._rate = RateLimit(calls_a_second)
        self._timeout = timeout
        self.concurrency = concurrency

    def start(self, args: Sequence[Any]) -> Future:
        """Begin one call."""
        return self._loop.start(self.once(args))

    def wait_for(self, *args: Any) -> Any:
        """One call, to its end."""
        return self.start(args).result()

    def start_all(self, calls: Coroutine[Any, Any, Any]) -> Future:
        return self._loop.start(calls)

    async def once(self, args: Sequence[Any], is_wanted: Callable[[], bool] = lambda: True) -> Any:
        """One call when it has its turn, None where it is not wanted any more then; raises what the function raises."""
        async with self._slots:
            if is_wanted():
                await self._rate.turn()
            return await self._limited(args) if is_wanted() else None

    async def again(self, args: Sequence[Any], retries: Retries, exc: BaseException) -> Any:
        """The calls after the first, which raised `exc`; raises what the last one raised."""
        attempt = 0
        while (wait := retries.wait(attempt, exc)) is not None:
            if retry_after(exc) is not None:
                self._rate.pause(wait)
            await asyncio.sleep(wait)
            attempt += 1
            try:
                return await self.once(args)
            except CALL_ERRORS as later:
                exc = later
        raise exc

    async def _limited(self, args: Sequence[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await self._call(*args)
        except TimeoutError as exc:
            if not limit.expired():
                raise
            raise CallTimeout(f"the call took longer than {self._timeout:g} s") from exc
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RuntimeError("the call was cancelled from within") from exc
