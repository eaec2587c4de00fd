"""Which context is current: nested, in threads, in asyncio's tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Self

import pytest

from runner.context import Context, current_context
from runner.errors import BadInput


class Named(Context):
    """A context that runs nothing; its `close` waits until it is let or told to stop."""

    kind = "named"

    def __init__(self, name: str, waits: bool = False) -> None:
        super().__init__()
        self.name, self._waits = name, waits
        self.failure: BaseException | None = None

    def open(self) -> Self:
        self.is_open = True
        return self

    def close(self, failure: BaseException | None = None) -> None:
        self.is_open, self.failure = False, failure
        if self._waits:
            assert self._stopped.wait(30)

    def job(self, table: Any, request: Any) -> Any:
        raise NotImplementedError


def here() -> str | None:
    found = current_context()
    return found.name if isinstance(found, Named) else None


def elsewhere(call: Callable[[], Any]) -> Any:
    """What a call gives in a thread that knows of no context."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def test_nested_ones_end_in_turn() -> None:
    with Named("a"):
        with Named("b"):
            assert (here(), elsewhere(here)) == ("b", "b")
        assert (here(), elsewhere(here)) == ("a", "a")
    assert (here(), elsewhere(here)) == (None, None)


def test_threads_know_their_own_and_a_thread_without_one_is_not_given_another_s() -> None:
    both, seen = threading.Barrier(2), {}

    def refusal() -> str:
        try:
            return f"given {here()}"
        except BadInput as exc:
            return str(exc)

    def work(name: str) -> None:
        with Named(name):
            both.wait(30)
            seen[name] = here()
            if name == "a":
                seen["neither"] = elsewhere(refusal)
            both.wait(30)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (seen["a"], seen["b"]) == ("a", "b")
    assert seen["neither"].startswith("several contexts are open beside each other, and this thread is in none of them; enter one")


def test_tasks_know_their_own() -> None:
    async def work(name: str, entered: asyncio.Event, other: asyncio.Event) -> str | None:
        async with Named(name):
            entered.set()
            await other.wait()
            return await asyncio.to_thread(here)

    async def main() -> list[str | None]:
        a, b = asyncio.Event(), asyncio.Event()
        return list(await asyncio.gather(work("a", a, b), work("b", b, a)))

    assert asyncio.run(main()) == ["a", "b"]


def test_cells_of_a_notebook() -> None:
    """Each in a context of variables of its own, in one thread."""
    import contextvars

    with ExitStack() as left_open:
        outer, inner = Named("outer"), Named("inner")
        contextvars.Context().run(outer.__enter__)
        left_open.callback(lambda: contextvars.Context().run(outer.__exit__))
        contextvars.Context().run(inner.__enter__)
        assert contextvars.Context().run(here) == "inner"
        contextvars.Context().run(inner.__exit__)
        assert contextvars.Context().run(here) == "outer"
    assert contextvars.Context().run(here) is None


def test_a_task_that_is_cancelled_at_the_end_of_its_block_stops_waiting() -> None:
    context = Named("a", waits=True)

    async def work() -> None:
        async with context:
            pass

    async def main() -> None:
        task = asyncio.ensure_future(work())
        while not context.is_open:
            await asyncio.sleep(0)
        while context.is_open:
            await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert (context.failure, here()) == (None, None)
