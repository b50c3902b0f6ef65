"""The body of a decoding worker, and the memory it shares with the encoder; nothing heavy is imported here.

Workers write decoded rows straight into memory that they share with the encoder: no array is ever pickled. The memory
is an unnamed file: nothing is left behind, even by a SIGKILL of all processes.
"""

import mmap
import os
import signal
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np

from xmodal.encoders.protocol import Decoder
from xmodal.errors import DataError
from xmodal.sources import Source


@dataclass(frozen=True)
class Task:
    """Rows to decode into a slot, from position `start` on, for the batch `number`."""

    slot: int
    number: int
    start: int
    source: Source


@dataclass(frozen=True)
class Result:
    """What became of a task: how many rows, which positions of the batch failed and why, and the time it took."""

    slot: int
    number: int
    count: int
    failures: dict[int, str]
    read_seconds: float
    decode_seconds: float


class SharedRing:
    """Batches (B, *shape) in memory that worker processes see too.

    Args:
        shape: (slots, B, *shape).
        dtype: of the values.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        # memfd is not limited by /dev/shm, which containers keep at 64 MB; elsewhere an unlinked file does the same.
        if hasattr(os, "memfd_create"):
            self._fd = os.memfd_create("xmodal")
        else:
            with tempfile.TemporaryFile() as file:
                self._fd = os.dup(file.fileno())
        os.ftruncate(self._fd, self.bytes)
        self._map()

    @property
    def bytes(self) -> int:
        """Length of the memory, at least one byte."""
        return max(1, int(np.prod(self.shape)) * self.dtype.itemsize)

    def _map(self) -> None:
        self.array: np.ndarray = np.frombuffer(mmap.mmap(self._fd, self.bytes), self.dtype, int(np.prod(self.shape)))
        self.array = self.array.reshape(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        # Only while a process is being started can a descriptor travel.
        return {"shape": self.shape, "dtype": self.dtype, "fd": reduction.DupFd(self._fd)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shape, self.dtype = state["shape"], state["dtype"]
        self._fd = state["fd"].detach()
        self._map()

    def close(self) -> None:
        """Close the descriptor; the memory goes when the last array over it goes."""
        os.close(self._fd)


def decode_into(task: Task, decoder: Decoder, out: np.ndarray) -> Result:
    """Read and decode the rows of `task` into `out`, the slot's (B, *shape); a row that fails is zero."""
    failures: dict[int, str] = {}
    read_seconds = decode_seconds = 0.0
    for row in range(len(task.source.ids)):
        position = task.start + row
        begin = time.perf_counter()
        middle = begin
        try:
            data = task.source.read(row)
            middle = time.perf_counter()
            out[position] = decoder(data)
        except DataError as error:
            failures[position] = str(error)
            out[position] = 0
            middle = max(middle, begin)
        end = time.perf_counter()
        read_seconds += middle - begin
        decode_seconds += end - middle
    return Result(task.slot, task.number, len(task.source.ids), failures, read_seconds, decode_seconds)


class _LastWords:
    """Send the traceback of the exception that ends a worker to the main process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._connection.send("".join(traceback.format_exception(error)))


def run_worker(connection: Connection, ring: SharedRing, decoder: Decoder) -> None:
    """Answer tasks from `connection` until it is closed: the body of a worker process.

    An exception that no medium should cause ends the process; the main process shows it and names the rows.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process ends the others
    warnings.simplefilter("ignore")  # what matters about a medium becomes the reason of its row
    with connection, _LastWords(connection):
        while True:
            try:
                task: Task = connection.recv()
            except (EOFError, OSError):
                return
            result = decode_into(task, decoder, ring.array[task.slot])
            try:
                connection.send(result)
            except OSError:
                return
