"""The download stage: template sets by option, none for the generated set; sizes and limits."""

from pathlib import Path

import pytest
import yaml
from closure import ROOT
from coop_tree import write_tree
from typer.testing import CliRunner

from stages.download import main
from xmodal.datasets import prepare
from xmodal.datasets.coop import SETS
from xmodal.stage import build_app
from xmodal.tables import ITEMS, TEXTS, read_table

ARGUMENTS = ["--train", "1", "--val", "1", "--test", "1", "--max_failed", "0", "--seed", "0"]
FOOD = next(dataset for dataset in SETS if dataset.key == "food101")


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ([], ["hand_crafted", "classname", "vanilla"]),
        (["--prompts", "mined", "--prompts", "hand_crafted"], ["mined", "hand_crafted"]),
        (["--prompts", "ensemble"], ["ensemble"]),
    ],
)
def test_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], groups: list[str]) -> None:
    write_tree(tmp_path / "shelf", FOOD)
    monkeypatch.chdir(tmp_path)
    command = ["--name", "food101", *ARGUMENTS, "--limit", "0", *options, "--local", "shelf"]
    result = CliRunner().invoke(build_app(main), command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    texts = read_table(tmp_path / "data" / "food101" / "texts.parquet", TEXTS)
    assert list(dict.fromkeys(texts["group"])) == groups
    unknown = CliRunner().invoke(build_app(main), [*command, "--prompts", "nope"])
    assert unknown.exit_code == 1
    assert "no templates 'nope'" in unknown.stderr


@pytest.mark.parametrize(("limit", "counts"), [(0, [3, 1, 2]), (2, [2, 1, 2]), (1, [1, 1, 1])])
def test_sizes_of_scenes_never_cut_a_real_set_and_a_limit_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, counts: list[int]
) -> None:
    write_tree(tmp_path / "shelf", FOOD)
    monkeypatch.chdir(tmp_path)
    command = ["--name", "food101", *ARGUMENTS, "--limit", str(limit), "--local", "shelf"]
    result = CliRunner().invoke(build_app(main), command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    splits = read_table(tmp_path / "data" / "food101" / "items.parquet", ITEMS)["split"].to_list()
    assert [splits.count(part) for part in ("train", "val", "test")] == counts
    assert (tmp_path / "data" / "food101" / "split.json").is_file() == (sum(counts) == 6)


def test_parameters_limit_no_real_set_by_default() -> None:
    assert yaml.safe_load((ROOT / "params.yaml").read_text())["download"]["limit"] == 0


def test_the_generated_set_keeps_its_own_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Path, dict[str, int]]] = []
    monkeypatch.setattr("xmodal.datasets.scenes.generate", lambda out, **options: calls.append((out, options)))
    sizes = {"train": 4, "val": 2, "test": 2}
    for templates in ((), ("ensemble",)):
        prepare("scenes", tmp_path, local=None, seed=0, max_failed=0.0, templates=templates, **sizes)
    assert calls == [(tmp_path, {"seed": 0, **sizes})] * 2
