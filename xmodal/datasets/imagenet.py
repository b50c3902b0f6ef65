"""ImageNet and its relatives: one folder per class, named by WordNet id, by class index or in plain words.

    train/<wnid>/*.JPEG and val/<wnid>/*.JPEG       ImageNet; the official val is the test split
    <one folder>/<wnid or index>/*                  ImageNet-V2, -A, -R, -Sketch: everything is the test split

Labels are 0..C-1 in the order of the 1,000-class list, so the sets with 200 classes are scored over their own 200.
Names come from the curated list for every kind of folder; clip-training (revantteotia/clip-training) scored its sets
with two lists that agree on 637 names only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from xmodal.datasets.folder import class_folders, subfolders
from xmodal.datasets.listing import Listing
from xmodal.datasets.prompts import load_class_names, load_wordnet_ids
from xmodal.datasets.sources import Source
from xmodal.errors import DataError, EmptyInputError

WORDNET_FOLDERS = "n" + "[0-9]" * 8  # pattern of a folder that is named by a WordNet id
_TERMS = "non-commercial research and education; the pictures keep their owners' rights"
_HENDRYCKS = "https://people.eecs.berkeley.edu/~hendrycks"
IMAGENET_SOURCES = (
    Source(
        "https://image-net.org/download.php",
        "val",
        _TERMS,
        media=True,
        alternatives=("images/val", WORDNET_FOLDERS),
        hint="Log in, unpack ILSVRC2012 into train/<wnid>/ and val/<wnid>/ (train is optional).",
    ),
)
V2_SOURCES = (
    Source(
        "https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz",
        "imagenetv2-matched-frequency-format-val",
        "MIT (Recht et al. 2019); the pictures keep their owners' rights",
        sha256="a32004f9e773279307499059d320336a23ccdc62cb32063da29bae9bd04c122c",
        n_bytes=1_253_959_680,
        media=True,
        alternatives=("[0-9]*",),
    ),
)
A_SOURCES = (
    Source(
        f"{_HENDRYCKS}/imagenet-a.tar",
        "imagenet-a",
        "MIT (Hendrycks et al. 2021); the pictures keep their owners' rights",
        sha256="3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e",
        n_bytes=687_552_512,
        media=True,
        alternatives=(WORDNET_FOLDERS,),
    ),
)
R_SOURCES = (
    Source(
        f"{_HENDRYCKS}/imagenet-r.tar",
        "imagenet-r",
        "MIT (Hendrycks et al. 2021); the pictures keep their owners' rights",
        sha256="18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52",
        n_bytes=2_191_079_936,
        media=True,
        alternatives=(WORDNET_FOLDERS,),
    ),
)
SKETCH_SOURCES = (
    Source(
        "https://drive.google.com/open?id=1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA",
        "sketch",
        "MIT (Wang et al. 2019); the pictures keep their owners' rights",
        media=True,
        alternatives=("images", WORDNET_FOLDERS),
        hint="Unpack ImageNet-Sketch.zip, which brings the folder sketch/<wnid>/.",
    ),
)


def read(root: Path) -> Listing:
    """Return ImageNet, or a relative of it, below `root`; every item outside `train/` is of the test split.

    Raises:
        DataError: a class folder has a WordNet id or an index that the 1,000-class list does not have.
        EmptyInputError: there are no class folders or no pictures in them.
    """
    bases = _bases(root)
    folders = sorted({name for base in bases for name in subfolders(root / base)})
    if not folders:
        raise EmptyInputError(f"{root}: no class folders, expected one per WordNet id, class index or name")
    keys = class_indices(folders)
    if keys is None:
        return class_folders(root, bases, {name: (label, name) for label, name in enumerate(folders)})
    names = load_class_names("imagenet")
    ordered = sorted(folders, key=lambda name: keys[name])
    classes = {name: (label, names[keys[name]]) for label, name in enumerate(ordered)}
    class_keys = tuple(keys[name] for name in ordered)
    return class_folders(root, bases, classes, templates=("imagenet80",), class_keys=class_keys)


def class_indices(folders: Sequence[str]) -> Mapping[str, int] | None:
    """Return the index in the 1,000-class list for each folder name, or None if the names are plain words.

    Raises:
        DataError: a WordNet id or an index is not in the list, or two folders are the same class.

    Example:
        >>> class_indices(["n01440764", "n01443537"])
        {'n01440764': 0, 'n01443537': 1}
        >>> class_indices(["cat", "dog"]) is None
        True
    """
    if all(name[:1] == "n" and len(name) == 9 and name[1:].isdecimal() for name in folders):
        known = load_wordnet_ids()
    elif all(name.isdecimal() for name in folders):
        known = {name: int(name) for name in folders if int(name) < len(load_class_names("imagenet"))}
    else:
        return None
    unknown = [name for name in folders if name not in known]
    if unknown:
        raise DataError(f"class folders {unknown[:5]} are not in the 1,000-class list of ImageNet")
    found = {name: known[name] for name in folders}
    if len(set(found.values())) != len(found):
        raise DataError(f"two of the class folders {sorted(found)[:10]} ... are the same class")
    return found


def _bases(root: Path) -> dict[str, str | None]:
    """Return the prefixes of the class folders and their splits."""
    for prefix in ("", "images/"):
        parts: dict[str, str | None] = {f"{prefix}train/": "train", f"{prefix}val/": "test"}
        there = {base: split for base, split in parts.items() if (root / base).is_dir()}
        if there:
            return there
    folders = subfolders(root)
    if len(folders) == 1 and subfolders(root / folders[0]):
        return {f"{folders[0]}/": "test"}
    return {"": "test"}
