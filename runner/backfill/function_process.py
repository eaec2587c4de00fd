"""The process that a function runs in by itself: what it is asked, the row it is at, and what it leaves when it dies."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import mmap
import multiprocessing
import multiprocessing.connection
import os
import signal
import struct
import subprocess
import sys
import tempfile
from typing import Any

import pyarrow as pa

from runner import shipping
from runner.backfill.blobs import BlobOpener
from runner.backfill.compute import Applier, Surroundings
from runner.backfill.failures import MAX_TRACEBACK_CHARS, CallTimeout, Failure, WorkerDied, WrongOutput
from runner.backfill.rows import Note
from runner.backfill.work import Pass, TargetColumn
from runner.errors import RunnerError

NO_ROW = -1
LOOK_SECONDS = 1.0
PR_SET_PDEATHSIG = 1

Result = tuple[Any, list[Failure]]
_ROW = struct.Struct("<q")


class FunctionProcess:
    """The process: what it is told and asked, the row it is at, and the stack that it leaves when it dies."""

    def __init__(self, settings: Pass, column: TargetColumn) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._stack = tempfile.TemporaryFile()  # noqa: SIM115 - open until the process is gone
        with tempfile.TemporaryFile() as file:
            file.truncate(_ROW.size)
            self._note = mmap.mmap(file.fileno(), _ROW.size)
            passed = theirs.fileno(), self._stack.fileno(), file.fileno()
            code = f"from {__name__} import serve; serve{passed}"
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            environment = {**os.environ, "PYTHONPATH": path}
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=passed, env=environment, stdin=subprocess.DEVNULL
            )
        theirs.close()
        self._tell((settings, column, os.getpid()))

    def wait_until_ready(self) -> None:
        """Until the function is constructed.

        Raises:
            EOFError: the process died.
            RunnerError: what constructing it raised.
        """
        self._answer()

    def apply(self, batch: pa.RecordBatch) -> Result:
        """The outcome of a batch.

        Raises:
            EOFError: the process died.
        """
        _ROW.pack_into(self._note, 0, NO_ROW)
        self._tell(_packed(batch))
        data, failures = self._answer()
        return _unpacked(data).column(0), failures

    def died(self, timeout: float | None) -> tuple[Failure, int]:
        """How it died, as a failure of row 0, and the row it was about to call, `NO_ROW` where it does not tell."""
        code = self._process.wait()
        self._stack.seek(0)
        stack = self._stack.read().decode(errors="replace")
        (row,) = _ROW.unpack_from(self._note)
        self.close()
        if timeout is not None and code == 1 and stack.startswith("Timeout ("):
            message = f"the call took longer than {timeout:g} s, in code that cannot be interrupted"
            return Failure(0, CallTimeout.__name__, message, stack[-MAX_TRACEBACK_CHARS:]), row  # the main thread comes last
        return Failure(0, WorkerDied.__name__, f"the worker died: {_exit(code)}", stack[:MAX_TRACEBACK_CHARS]), row

    def close(self) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._stack.close()
        self._note.close()

    def _tell(self, message: Any) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died, as its answer will tell
            self._connection.send(message)

    def _answer(self) -> Any:
        try:
            while not self._connection.poll(LOOK_SECONDS):
                if self._process.poll() is not None and not self._connection.poll():
                    raise EOFError  # processes that it forked hold its end of the connection
            answer = self._connection.recv()
        except ConnectionResetError:
            raise EOFError from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def serve(connection_fd: int, stack_fd: int, note_fd: int) -> None:
    """The process: constructs the function that it is told, and applies it to one batch after another until it is hung up on."""
    connection = multiprocessing.connection.Connection(connection_fd)
    settings, column, parent = connection.recv()
    _die_with(parent)
    faulthandler.enable(stack_fd)
    note = mmap.mmap(note_fd, _ROW.size)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            applier = _applier(settings, column, stack_fd, lambda row: _ROW.pack_into(note, 0, row))
            connection.send(None)
        except RunnerError as exc:
            connection.send(exc)
            return
        while True:
            connection.send(_outcome(applier, _unpacked(connection.recv())))


def _applier(settings: Pass, column: TargetColumn, stack_fd: int, note: Note) -> Applier:
    import lance

    dataset = lance.dataset(
        settings.table_uri, version=settings.read_version, storage_options=settings.store.storage_options or None
    )
    udf = shipping.load(column.spec, settings.store, allow_pickle=settings.allow_pickle)
    around = Surroundings(settings.workers, kills=True, stack_file=stack_fd, open_blobs=BlobOpener(dataset), note=note)
    return Applier(udf, settings.policy, settings.timeout, around)


def _outcome(applier: Applier, batch: pa.RecordBatch) -> Any:
    try:
        values, failures = applier(batch)
    except (RunnerError, WrongOutput) as exc:
        return exc
    return _packed(pa.record_batch([values], names=["values"])), failures


def _packed(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _unpacked(data: bytes) -> pa.RecordBatch:
    return next(iter(pa.ipc.open_stream(data)))


def _exit(code: int) -> str:
    """An exit status as a shell shows it: 128 and the signal's number for a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"exit code {128 - code} ({name})"


def _die_with(parent: int) -> None:
    """End this process when its parent ends; on Linux, elsewhere it ends with the batch it is at."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
