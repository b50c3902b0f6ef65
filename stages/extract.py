"""Embed every medium of one modality of one data set, once, into features/<encoder>/<set>/<modality>.zarr."""

from pathlib import Path
from typing import Annotated

import typer

from xmodal.device import Precision
from xmodal.encoders.load import load_tower
from xmodal.encoders.protocol import Modality
from xmodal.extract import extract
from xmodal.files import write_json
from xmodal.progress import RichProgress
from xmodal.sources import source_of
from xmodal.stage import run


def main(
    dataset: Annotated[str, typer.Option(help="Its folder below data/.")],
    modality: Annotated[Modality, typer.Option(help="A set without this modality gets an empty store.")],
    encoder: Annotated[str, typer.Option(help="Names the folder below features/.")],
    dtype: Annotated[str, typer.Option(help="float16 or float32.")],
    batch: Annotated[int, typer.Option(help="Media that the encoder gets at a time.")],
    workers: Annotated[int, typer.Option(help="Decoding processes; 0 decodes in a thread.")],
    max_failed: Annotated[float, typer.Option(help="Fraction of media that may fail.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:<i> or mps.")],
    precision: Annotated[Precision, typer.Option(help="Of the encoder.")],
) -> None:
    """Write the store, and how fast it went to logs/extract/."""
    name = f"{dataset}-{modality}"
    with RichProgress(name) as progress:
        throughput = extract(
            source_of(Path("data") / dataset, modality),
            load_tower(Path("models/encoder") / modality, device=device, precision=precision),
            Path("features") / encoder / dataset / f"{modality}.zarr",
            dtype=dtype,
            batch_rows=batch,
            workers=workers if modality != "text" else None,
            max_failed=max_failed,
            retry_failed=True,
            replace=True,
            allow_empty=True,
            progress=progress,
        )
    write_json(Path("logs/extract") / f"{name}.json", throughput.row())


if __name__ == "__main__":
    run(main)
