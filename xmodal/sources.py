"""Where the bytes of media come from: files below a folder, or texts in memory.

A source is a table of rows; it hands a few rows at a time to a worker process as a small source of its own.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from xmodal.encoders.protocol import Modality
from xmodal.errors import DataError


class Source(Protocol):
    """Rows of media: stable ids, sha256 hex digests of the bytes, and the bytes themselves."""

    @property
    def ids(self) -> Sequence[str]:
        """Return the stable names, one per row."""
        ...

    @property
    def digests(self) -> Sequence[str]:
        """Return the sha256 hex digest of each row's bytes."""
        ...

    def select(self, rows: Sequence[int]) -> Self:
        """Return a picklable source of these rows only, in this order."""
        ...

    def read(self, row: int) -> bytes:
        """Return the bytes of one row.

        Raises:
            DataError: the bytes cannot be read, or are not those of the digest.
        """
        ...


class FileSource:
    """Files below one folder.

    Args:
        root: the folder.
        ids: stable names, one per row.
        digests: sha256 hex of each file.
        paths: where each file is, relative to `root`.

    Raises:
        DataError: the columns have different lengths.
    """

    def __init__(self, root: Path, ids: Sequence[str], digests: Sequence[str], paths: Sequence[str]) -> None:
        if not len(ids) == len(digests) == len(paths):
            raise DataError(
                f"{root}: {len(ids)} ids, {len(digests)} digests and {len(paths)} paths; expected equal counts"
            )
        self.root = root
        self.ids = ids
        self.digests = digests
        self.paths = paths

    def select(self, rows: Sequence[int]) -> Self:
        """Return a source of these rows only, in this order."""
        columns = ([column[row] for row in rows] for column in (self.ids, self.digests, self.paths))
        return type(self)(self.root, *columns)

    def read(self, row: int) -> bytes:
        """Return the bytes of the file of one row.

        Raises:
            DataError: the file is missing, cannot be read, or has changed since the table was made.
        """
        path = self.root / self.paths[row]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.paths[row]}: {error.strerror or error}") from error
        if hashlib.sha256(data).hexdigest() != self.digests[row]:
            raise DataError(f"{self.paths[row]}: the file has changed since its sha256 was recorded")
        return data


class TextSource:
    """Texts in memory; their digests are those of their UTF-8 bytes.

    Args:
        ids: stable names, one per row.
        texts: the texts.

    Raises:
        DataError: the columns have different lengths.

    Example:
        >>> TextSource(["t0"], ["a red circle"]).read(0)
        b'a red circle'
    """

    def __init__(self, ids: Sequence[str], texts: Sequence[str]) -> None:
        if len(ids) != len(texts):
            raise DataError(f"{len(ids)} ids and {len(texts)} texts; expected equal counts")
        self.ids = ids
        self.texts = texts
        self.digests = [hashlib.sha256(text.encode()).hexdigest() for text in texts]

    def select(self, rows: Sequence[int]) -> Self:
        """Return a source of these rows only, in this order."""
        return type(self)([self.ids[row] for row in rows], [self.texts[row] for row in rows])

    def read(self, row: int) -> bytes:
        """Return the UTF-8 bytes of one text."""
        return self.texts[row].encode()


def source_of(data_dir: Path, modality: Modality) -> Source:
    """Return every medium of one modality of a data set folder, in the order of its table; it may have no rows.

    Raises:
        TableError: a table is missing or breaks its schema.
    """
    from xmodal.tables import ITEMS, TEXTS, read_table  # late: decoding workers import this module and need no polars

    if modality == "text":
        texts = read_table(data_dir / "texts.parquet", TEXTS)
        return TextSource(texts["id"].to_list(), texts["text"].to_list())
    items = read_table(data_dir / "items.parquet", ITEMS).to_dict(as_series=False)
    rows = [row for row, own in enumerate(items["modality"]) if own == modality]
    ids, digests, paths = ([items[name][row] for row in rows] for name in ("id", "sha256", "path"))
    return FileSource(data_dir, ids, digests, paths)
