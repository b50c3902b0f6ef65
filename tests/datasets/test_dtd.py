"""Split files in CoOp's form: order kept, indices copied, faults named, and the real ten classes of DTD."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny_content import picture

from xmodal.datasets import classes_of, prepare
from xmodal.datasets.dtd import read, read_coop
from xmodal.errors import DataError
from xmodal.tables import ITEMS, TEXTS, read_table

SPLIT = {
    "train": [["dots/2.jpg", 1, "dots"], ["bands/1.jpg", 0, "bands"], ["dots/1.jpg", 1, "dots"]],
    "val": [["bands/2.jpg", 0, "bands"]],
    "test": [["bands/3.jpg", 0, "bands"]],
}


def write_set(root: Path, media: str, split: Any) -> Path:
    for number, entry in enumerate(entry for part in SPLIT.values() for entry in part):
        path = root / media / str(entry[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (root / "split_zhou_Tiny.json").write_text(json.dumps(split))
    return root


def test_order_of_the_split_file_is_kept(tmp_path: Path) -> None:
    root = write_set(tmp_path / "local" / "dtd10", "images", SPLIT)
    (root / "indices").mkdir()
    (root / "indices" / "shot_1-seed_1.json").write_text('{"train":{"indices":[0,1]},"val":{"indices":[0]}}')
    prepare("dtd10", tmp_path / "out", local=tmp_path / "local", seed=0, max_failed=0.0)
    items = read_table(tmp_path / "out" / "items.parquet", ITEMS)
    assert items["id"].to_list() == ["dots/2.jpg", "bands/1.jpg", "dots/1.jpg", "bands/2.jpg", "bands/3.jpg"]
    assert items["path"][0] == "images/dots/2.jpg"
    assert classes_of(items) == ["bands", "dots"]
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    by_path = dict(zip(items["path"], items["split"], strict=True))
    assert all(by_path[path] == part for part, entries in split.items() for path, _, _ in entries)
    assert split["train"][2] == ["images/dots/1.jpg", 1, "dots"]
    assert (tmp_path / "out" / "indices" / "shot_1-seed_1.json").exists()
    texts = read_table(tmp_path / "out" / "texts.parquet", TEXTS)
    assert texts["text"].to_list() == ["bands texture.", "dots texture."]


@pytest.mark.parametrize("media", ["images", "jpg", "2750", "."])
def test_media_folders_of_coop(tmp_path: Path, media: str) -> None:
    root = write_set(tmp_path / "set", media, SPLIT)
    assert all((root / row["path"]).is_file() for row in read_coop(root).items)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ([], "expected an object with the lists train, val and test"),
        ({"train": [], "val": []}, "expected an object with the lists train, val and test"),
        ({**SPLIT, "val": [["a.jpg", "0", "a"]]}, r"val\[0\]: expected \[path, label, class name\]"),
        ({**SPLIT, "test": [["a.jpg", 0]]}, r"test\[0\]"),
        ({**SPLIT, "test": [["a.jpg", -1, "a"]]}, r"test\[0\]"),
    ],
)
def test_faulty_split_files(tmp_path: Path, split: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write_set(tmp_path, "images", split))


def test_no_split_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected one split_zhou_"):
        read(tmp_path)
    (tmp_path / "split_zhou_X.json").write_text('{"train": [')
    with pytest.raises(DataError, match="line 1: not JSON"):
        read(tmp_path)


def test_real_dtd10(real_data: Path) -> None:
    items = read(real_data / "dtd10").items
    assert Counter(row["split"] for row in items) == {"train": 600, "val": 240, "test": 360}
    assert Counter(row["label"] for row in items) == dict.fromkeys(range(10), 120)
    assert all((real_data / "dtd10" / row["path"]).is_file() for row in items)
    ids = (real_data / "frozen_features" / "dtd10_image_mobilenetv1.ids.txt").read_text().split()
    assert {row["id"] for row in items} == set(ids)


def test_real_split_of_all_47_classes(real_data: Path, tmp_path: Path) -> None:
    name = "split_zhou_DescribableTextures.json"
    (tmp_path / name).write_bytes((real_data / "coop_splits" / name).read_bytes())
    items = read(tmp_path).items
    assert Counter(row["split"] for row in items) == {"train": 2820, "val": 1128, "test": 1692}
    assert len({row["class_name"] for row in items}) == 47
