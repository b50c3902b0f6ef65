"""The files that a few-shot stage leaves: its metrics, its accuracies against shots, and every outcome."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xmodal.fewshot.outcomes import accuracy_table, entries
from xmodal.fewshot.record import Record, write_record
from xmodal.files import write_csv, write_json


def write_outputs(stage: str, name: str, record: Record, *, root: Path = Path()) -> None:
    """Write metrics/<stage>/<name>.json, plots/<stage>/<name>.csv and outcomes/<stage>/<name>.json below `root`.

    Metrics have one entry a method for one shot count, and one a method and shot count for several.

    Raises:
        ConfigError, DataError, EmptyInputError: as `write_record` raises them.
    """
    write_json(root / "metrics" / stage / f"{name}.json", entries(record.results))
    write_csv(root / "plots" / stage / f"{name}.csv", *accuracy_table(record.results))
    write_record(root / "outcomes" / stage / f"{name}.json", record.setting, record.results)


@contextmanager
def resumable(stage: str, name: str) -> Iterator[Path]:
    """Give scratch/<stage>/<name>, a folder for finished runs: it outlives an interruption, and goes when all is done.

    Example:
        >>> with resumable("fewshot", "scenes") as kept:
        ...     kept.as_posix()
        'scratch/fewshot/scenes'
    """
    kept = Path("scratch") / stage / name
    yield kept
    shutil.rmtree(kept, ignore_errors=True)
