"""What goes wrong with a row, in words."""

from __future__ import annotations

import os
import traceback
from dataclasses import dataclass

MAX_TRACEBACK_CHARS = 4000
CALL_ERRORS = (Exception, SystemExit)  # of a call; anything else, an interrupt say, is not the function's

_HERE = os.path.dirname(__file__)


class CallTimeout(Exception):
    """One call of the function took longer than its ``timeout``."""


class WorkerDied(Exception):
    """The process died during a call."""


class WrongOutput(Exception):
    """What the function returned is not what it declared. For a whole batch no policy forgives this."""


@dataclass(frozen=True)
class Failure:
    """A row of a batch whose call failed: its index in the batch, and the exception in words."""

    row: int
    error: str
    message: str
    traceback: str

    @classmethod
    def of(cls, row: int, exc: BaseException) -> Failure:
        return cls(row, type(exc).__name__, str(exc), _formatted(exc))

    def moved(self, row: int) -> Failure:
        """The same, of another row."""
        return Failure(row, self.error, self.message, self.traceback)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether a call ran out of memory, the GPU's or the machine's; told by name, as torch, CuPy and JAX have their own."""
    if isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError":
        return True
    return isinstance(exc, RuntimeError) and any(words in str(exc).lower() for words in ("out of memory", "resource_exhausted"))


def _formatted(exc: BaseException) -> str:
    """The traceback from the user's function on: our own frames say nothing to its author."""
    frame = exc.__traceback__
    while frame is not None and frame.tb_next is not None and os.path.dirname(frame.tb_frame.f_code.co_filename) == _HERE:
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(exc), exc, frame))[-MAX_TRACEBACK_CHARS:]
