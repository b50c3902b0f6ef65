"""The report: well-formed, self-contained, complete, escaped, and the same bytes for the same files."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from toy import png, write_json

from xmodal.errors import DataError, EmptyInputError
from xmodal.report import build_report
from xmodal.report.html import format_cell

VOID = {"meta", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """Check nesting and collect text, links and sources."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.sources: list[str] = []
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "src":
                self.sources.append(str(value))
            if name == "href":
                self.targets.add(str(value).removeprefix("#"))
            if name == "id":
                self.anchors.add(str(value))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data.strip())


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Path]:
    metrics, plots = tmp_path / "metrics", tmp_path / "plots"
    recalls = {f"recall_at_{k}": k / 20 for k in (1, 5, 10)} | {"median_rank": 3.0, "mean_rank": 12.345}
    write_json(
        metrics / "zeroshot/scenes.json",
        {"top1": 0.875, "top5": 0.99, "mean_per_class_recall": 0.87, "n": 480, "n_classes": 48, "n_failed": 0}
        | {"audio.top1": 0.75, "audio.top5": 0.9, "shift.sketch.top1": 0.4321, "split": "test", "prompts": "scenes"},
    )
    write_json(metrics / "zeroshot/cifar10.json", {"top1": 0.2, "top5": 0.7, "n": 10})
    write_json(
        metrics / "retrieval/scenes.json",
        {f"{direction}.{key}": value for direction in ("i2t", "t2i", "a2i") for key, value in recalls.items()}
        | {f"lang.{lang}.i2t.recall_at_1": 0.25 for lang in ("de", "fr")}
        | {f"strict.i2t.{key}": value / 2 for key, value in recalls.items()},
    )
    write_json(
        metrics / "fewshot/scenes.json",
        {"cross_modal.shots_1.mean": 0.61, "cross_modal.shots_1.std": 0.02, "cross_modal.shots_16.mean": 0.9, "n": 7},
    )
    write_json(metrics / "decode/caption.json", {"cider": 1.234, "bleu4": 0.5})
    write_json(metrics / "pretrain.json", {"loss": 0.5, "nested": {"steps": 300}})
    (plots / "zeroshot/scenes").mkdir(parents=True)
    (plots / "zeroshot/scenes/per_class.csv").write_text('class,top1,top5\n"<b>red</b> & co",0.5,1.0\nblue,1.0,1.0\n')
    (plots / "zeroshot/scenes/confusion.png").write_bytes(png("red"))
    (plots / "retrieval/scenes").mkdir(parents=True)
    (plots / "retrieval/scenes/similarity.png").write_bytes(png("blue"))
    (plots / "decode").mkdir()
    (plots / "decode/caption_samples.csv").write_text("id,predicted,reference\np0,a red circle,a circle that is red\n")
    return metrics, plots


def test_page_is_well_formed_and_has_everything(study: tuple[Path, Path], tmp_path: Path) -> None:
    build_report(*study, tmp_path / "out" / "index.html")
    text = (tmp_path / "out" / "index.html").read_text()
    page = Page(text)
    for words in (
        "0.875", "0.432", "0.151", "scenes shift.sketch", "image to text, own captions only", "12.35", "0.250", "de",
        "0.610 ± 0.020", "16 shots", "1 shot", "1.234", "a red circle", "nested.steps", "300", "<b>red</b> & co",
    ):  # fmt: skip
        assert words in page.words, words
    assert page.targets <= page.anchors
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "http" not in text
    assert "<b>red" not in text


def test_same_files_same_bytes(study: tuple[Path, Path], tmp_path: Path) -> None:
    build_report(*study, tmp_path / "a.html")
    build_report(*study, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_missing_parts_are_left_out(tmp_path: Path) -> None:
    write_json(tmp_path / "m/gap.json", {"distance": 0.8})
    build_report(tmp_path / "m", tmp_path / "none", tmp_path / "out.html", title="a < b")
    page = Page((tmp_path / "out.html").read_text())
    assert "a < b" in page.words
    assert "Retrieval" not in page.words
    assert "Other stages" in page.words


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(EmptyInputError, match="no metrics"):
        build_report(tmp_path, tmp_path, tmp_path / "out.html")
    write_json(tmp_path / "m/list.json", [1])
    with pytest.raises(DataError, match=r"list\.json: holds a list"):
        build_report(tmp_path / "m", tmp_path, tmp_path / "out.html")
    (tmp_path / "m/list.json").write_text("{")
    with pytest.raises(DataError, match=r"list\.json: not JSON"):
        build_report(tmp_path / "m", tmp_path, tmp_path / "out.html")
    write_json(tmp_path / "m/list.json", {"a": 1})
    (tmp_path / "p").mkdir()
    (tmp_path / "p/bad.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"bad\.csv: not a table"):
        build_report(tmp_path / "m", tmp_path / "p", tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.000"),
        (1.0, "1.000"),
        (1, "1"),
        (0.0401, "0.040"),
        (37.0, "37"),
        (123.456, "123.5"),
        ("x", "x"),
        (None, ""),
    ],
)
def test_cells(value: str | int | float | None, shown: str) -> None:
    assert format_cell(value) == shown
