"""Few-shot index files: `shot_<k>-seed_<s>.json`, in the form in which the published draws come.

    {"train": {"data": [{"impath", "label", "classname"}, ...], "indices": [...]}, "val": {the same}}

`indices` are positions in the train and val lists of the split file, and they alone say what is drawn. `data` repeats
the rows with paths of the machine that drew them; it only serves to recognise an index file of another split, and may
be missing. Source: linzhiqiu/cross_modal_adaptation.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodal.datasets.listing import Entry, Split, read_json
from xmodal.errors import DataError, SplitMismatchError
from xmodal.fewshot.sampler import Shots, index_record
from xmodal.files import write_text


def index_name(shots: int, seed: int) -> str:
    """Return the name of an index file.

    Example:
        >>> index_name(4, 1)
        'shot_4-seed_1.json'
    """
    return f"shot_{shots}-seed_{seed}.json"


def index_files(folder: Path) -> list[Path]:
    """Return the index files in a folder, sorted by name; none where there is no such folder."""
    return sorted(folder.glob("shot_*-seed_*.json"))


def read_index(path: Path, split: Split) -> Shots:
    """Return the draw of an index file, as positions in the lists of `split`.

    Args:
        path: the file, with or without its `data`.
        split: the lists "train" and "val" of (path, label, class name) of the split that it must belong to.

    Raises:
        DataError: the file is missing or no JSON or has another form.
        SplitMismatchError: a position is outside its list, or the picture or label stored with it is another one; the
            message has the entry.
    """
    content = read_json(path)
    train, val = (_part(content, part, split[part], f"{path}: {part}") for part in ("train", "val"))
    return Shots(train, val)


def write_index(path: Path, split: Split, shots: Shots, *, folder: str = "") -> None:
    """Write an index file in the published form, indented by 4.

    Args:
        path: the file, usually called as `index_name` says.
        split: the lists "train" and "val" of (path, label, class name).
        shots: positions in them.
        folder: what to put before each path, for readers that open the pictures by `impath`: `./data/dtd/images`.
    """
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    placed = {part: [(prefix + entry[0], *entry[1:]) for entry in split[part]] for part in ("train", "val")}
    write_text(path, json.dumps(index_record(placed, shots), indent=4))


def _part(content: Any, part: str, entries: Sequence[Entry], where: str) -> tuple[int, ...]:
    """Return the checked positions of one part of an index file."""
    match content:
        case {"train": {"indices": list()}, "val": {"indices": list()}}:
            record: Mapping[str, Any] = content[part]
        case _:
            raise DataError(f'{where}: expected {{"train": {{"indices": [...]}}, "val": {{"indices": [...]}}}}')
    rows: list[Any] = record["indices"]
    for position, row in enumerate(rows):
        if not isinstance(row, int) or isinstance(row, bool):
            raise DataError(f"{where}: indices[{position}] is {row!r}, expected a whole number")
        if not 0 <= row < len(entries):
            raise SplitMismatchError(f"{where}: indices[{position}] is {row}, the split has {len(entries)} rows")
    if "data" in record:
        _refuse_other_rows(record["data"], [(row, *entries[row]) for row in rows], where)
    return tuple(rows)


def _refuse_other_rows(data: Any, drawn: Sequence[tuple[int, str, int, str]], where: str) -> None:
    """Compare the rows stored in an index file with those of the split; folders before a path do not count."""
    if not isinstance(data, list) or len(data) != len(drawn):
        found = f"{len(data)} rows" if isinstance(data, list) else type(data).__name__
        raise DataError(f"{where}: data: expected one row for each of {len(drawn)} indices, found {found}")
    for position, (stored, (row, path, label, name)) in enumerate(zip(data, drawn, strict=True)):
        match stored:
            case {"impath": str(found_path), "label": int(found_label)}:
                same_file = f"/{found_path}".replace("\\", "/").endswith(f"/{path}")
            case _:
                raise DataError(f"{where}: data[{position}]: expected impath, label and classname, found {stored!r}")
        if not same_file or found_label != label:
            raise SplitMismatchError(
                f"{where}: data[{position}] is {found_path!r} with label {found_label}, but row {row} of the split is "
                f"{path!r} with label {label} ({name}): the file was drawn from another split"
            )
