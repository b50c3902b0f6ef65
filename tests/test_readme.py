"""The README is true: its numbers are those of the files, its links resolve, its commands exist."""

import json
import re
from pathlib import Path

import pytest
import yaml
from closure import ROOT
from typer.testing import CliRunner

from xmodal.cli import app

README = (ROOT / "README.md").read_text()
# | what | number | `metrics/file.json` `key` |
ROWS = re.findall(r"^\|.*\| *(-?[\d.]+)[^|]*\| *`([\w/.-]+\.json)` `([\w. -]+)` *\|$", README, re.MULTILINE)


def value_at(path: Path, key: str) -> float:
    value = json.loads(path.read_text())
    if key in value:
        return value[key]
    for part in key.split("."):
        value = value[part]
    return value


def test_there_are_results() -> None:
    assert len(ROWS) >= 10


@pytest.mark.parametrize(("number", "file", "key"), ROWS)
def test_number_is_that_of_the_file(number: str, file: str, key: str) -> None:
    digits = len(number.partition(".")[2])
    assert number == f"{value_at(ROOT / file, key):.{digits}f}"


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_link_resolves(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make (\w+)", README, re.MULTILINE))))
def test_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("command", ["demo", "search", "similarity", "zeroshot", "summary", "info", "verify", "doctor"])
def test_command_exists(command: str) -> None:
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_experiment_overrides_name_parameters() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for line in (ROOT / "experiments" / "real.txt").read_text().splitlines():
        value = params
        for part in line.partition("=")[0].split("."):
            value = value[part]
