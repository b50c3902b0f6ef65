"""DTD and every other set with a split file in CoOp's form: `split_zhou_*.json` beside the pictures.

    images/<class>/*.jpg
    split_zhou_DescribableTextures.json   {"train": [[path, label, classname], ...], "val": ..., "test": ...}
    indices/shot_<k>-seed_<s>.json        optional: positions in train and val, for published few-shot draws

The order of the split file is kept, because few-shot indices are positions in it; `split.json` is written beside the
tables with paths as `items.parquet` has them. Sources: Cimpoi et al. 2014 (DTD); Zhou et al. 2022, KaiyangZhou/CoOp.
"""

import json
from pathlib import Path
from typing import Any

from xmodal.datasets.listing import Listing, first_existing, read_json
from xmodal.datasets.sources import Source
from xmodal.errors import DataError
from xmodal.tables import Row

_TERMS = "research purposes, cite Cimpoi et al. 2014; split: MIT (KaiyangZhou/CoOp)"
SOURCES = (
    Source(
        "https://drive.google.com/file/d/1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x/view",
        "split_zhou_DescribableTextures.json",
        _TERMS,
    ),
    Source(
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        "images",
        _TERMS,
        inside="dtd",
        sha256="e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
        n_bytes=625_239_812,
        media=True,
    ),
)
# Where CoOp's data sets keep their pictures; the last one is the data set folder itself.
MEDIA_FOLDERS = ("images", "101_ObjectCategories", "jpg", "2750", "UCF-101-midframes", "SUN397", ".")
SPLITS = ("train", "val", "test")


def read(root: Path) -> Listing:
    """Return DTD (47 classes, or the ten of `dtd10`), items in the order train, val, test of its split file.

    Raises:
        DataError: there is not exactly one split file, or it has another form; the message has the entry.
    """
    return read_coop(root, templates=("texture",))


def read_coop(root: Path, *, templates: tuple[str, ...] = ("photo",)) -> Listing:
    """Return the data set whose one `split_zhou_*.json` lies in `root`; an item's id is its path in that file.

    Args:
        root: the data set folder.
        templates: the template sets for its class prompts.

    Raises:
        DataError: there is not exactly one split file, or it has another form; the message has the entry.
    """
    files = sorted(root.glob("split_zhou_*.json"))
    if len(files) != 1:
        raise DataError(f"{root}: expected one split_zhou_*.json, found {[path.name for path in files]}")
    content = read_json(files[0])
    if not isinstance(content, dict) or not set(SPLITS) <= set(content):
        raise DataError(f"{files[0]}: expected an object with the lists train, val and test")
    entries = [
        (split, *_checked(entry, f"{files[0]}: {split}[{number}]"))
        for split in SPLITS
        for number, entry in enumerate(content[split])
    ]
    prefix = _media_prefix(root, [path for _, path, _, _ in entries])
    items: list[Row] = [
        {"id": path, "modality": "image", "split": split, "path": prefix + path, "label": label, "class_name": name}
        for split, path, label, name in entries
    ]
    split_lists = {
        split: [[prefix + path, label, name] for part, path, label, name in entries if part == split]
        for split in SPLITS
    }
    extras = {"split.json": json.dumps(split_lists, separators=(",", ":")).encode()}
    for path in sorted((root / "indices").glob("shot_*-seed_*.json")):
        extras[f"indices/{path.name}"] = path.read_bytes()
    return Listing(items, templates=templates, extras=extras)


def _checked(entry: Any, where: str) -> tuple[str, int, str]:
    """Return path, label and class name of one entry of a split list."""
    match entry:
        case [str(path), int(label), str(name)] if label >= 0:
            return path, label, name
    raise DataError(f"{where}: expected [path, label, class name], found {entry!r}")


def _media_prefix(root: Path, paths: list[str]) -> str:
    """Return the folder, with its slash, in which the first pictures of the split file are."""
    for path in paths[:20]:
        folder = first_existing(root, *(f"{name}/{path}" for name in MEDIA_FOLDERS))
        if folder is not None:
            return folder.relative_to(root).as_posix().removesuffix(path)
    return "images/"
