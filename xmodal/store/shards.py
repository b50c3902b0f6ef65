"""Read an uncompressed shard without zarr: its rows lie in the file as they lie in memory.

zarr decodes chunk by chunk and copies; a mapped file or one `readinto` gives the same values at the speed of memory.
Tests compare both row for row. Shards that other software wrote with its chunks in another order are read too.
"""

import google_crc32c
import numpy as np

from xmodal.store.layout import ArraySpec, Grid

MISSING = np.uint64(2**64 - 1)


def read_index(tail: bytes, grid: Grid) -> np.ndarray:
    """Return the (chunks, 2) uint64 offsets and lengths of a shard from its last `grid.index_bytes` bytes.

    Raises:
        ValueError: the length is wrong or the checksum does not fit.
    """
    if len(tail) != grid.index_bytes:
        raise ValueError(f"index of {len(tail)} bytes, expected {grid.index_bytes}")
    if google_crc32c.value(tail[:-4]) != int.from_bytes(tail[-4:], "little"):
        raise ValueError("checksum of the shard index does not fit")
    return np.frombuffer(tail, "<u8", count=2 * grid.chunks).reshape(-1, 2)


def in_order(index: np.ndarray, grid: Grid, spec: ArraySpec, rows: int) -> bool:
    """Tell whether the first `rows` rows lie at the start of the file, one after the other."""
    used = -(-rows // grid.chunk_rows)
    length = grid.chunk_rows * spec.row_bytes
    expected = np.arange(used, dtype=np.uint64) * np.uint64(length)
    return bool((index[:used, 0] == expected).all() and (index[:used, 1] == length).all())


def view_rows(data: np.ndarray, grid: Grid, spec: ArraySpec, rows: int) -> np.ndarray:
    """Return the (rows, *shape) array in a raw shard file; a view of `data` where its chunks are in order.

    Args:
        data: (bytes,) uint8, the whole file, mapped or in memory.
        grid: chunk and shard sizes.
        spec: what one row is.
        rows: rows that the shard holds.

    Raises:
        ValueError: the file is too short, or its index is damaged.
    """
    index = read_index(data[-grid.index_bytes :].tobytes(), grid)
    payload = data[: len(data) - grid.index_bytes]
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    if in_order(index, grid, spec, rows):
        if len(payload) < rows * spec.row_bytes:
            raise ValueError(f"{len(payload)} bytes of rows, expected at least {rows * spec.row_bytes}")
        return payload[: rows * spec.row_bytes].view(dtype).reshape(rows, *spec.shape)
    return _gather_chunks(payload, index, grid, spec, rows)


def _gather_chunks(payload: np.ndarray, index: np.ndarray, grid: Grid, spec: ArraySpec, rows: int) -> np.ndarray:
    out = np.zeros((rows, *spec.shape), np.dtype(spec.dtype).newbyteorder("<"))
    length = grid.chunk_rows * spec.row_bytes
    for chunk, start in enumerate(range(0, rows, grid.chunk_rows)):
        offset, size = index[chunk]
        if offset == MISSING and size == MISSING:
            continue  # Zarr: a chunk that is not stored holds the fill value, zero
        part = payload[int(offset) : int(offset) + length]
        if size != length or len(part) != length:
            raise ValueError(f"chunk {chunk} has {size} bytes at {offset}, expected {length} inside the file")
        stop = min(rows, start + grid.chunk_rows)
        values = part[: (stop - start) * spec.row_bytes].view(out.dtype)
        out[start:stop] = values.reshape(stop - start, *spec.shape)
    return out
