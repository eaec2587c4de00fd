"""A local HTTP service that takes 50 ms for an answer, as a process of its own: ``python -m bench.service``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.functions import SERVICE_VARIABLE

ANSWER_SECONDS = 0.05


async def _serve() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """``GET /seq`` is answered with ``3 * seq + 1``."""
    request = await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(ANSWER_SECONDS)
    body = b"%d" % (3 * int(request.split(b" ", 2)[1][1:]) + 1)
    writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()
    writer.close()


@contextmanager
def running() -> Iterator[None]:
    """The service, with its port in the environment of processes started meanwhile."""
    process = subprocess.Popen([sys.executable, "-m", "bench.service"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        os.environ[SERVICE_VARIABLE] = process.stdout.readline().strip()
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(_serve())
