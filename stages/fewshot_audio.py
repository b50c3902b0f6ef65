"""Few-shot methods on the labelled sounds of one data set, with and without class names as further samples."""

from pathlib import Path
from typing import Annotated

import typer

from xmodal.fewshot.evaluate import evaluate
from xmodal.fewshot.outcomes import accuracy_table, entries
from xmodal.files import write_csv, write_json
from xmodal.stage import run


def main(
    dataset: Annotated[str, typer.Option(help="Its folder below data/.")],
    encoder: Annotated[str, typer.Option(help="Names the folder below features/.")],
    shots: Annotated[int, typer.Option(help="Labelled sounds a class.")],
    seeds: Annotated[list[int], typer.Option(help="Of the draws; results are means over them.")],
    methods: Annotated[list[str], typer.Option(help="See xmodal.fewshot.arms.METHODS.")],
    prompts: Annotated[str, typer.Option(help="Template set of the class prompts; empty takes the hand-crafted one.")],
    steps: Annotated[int, typer.Option(help="Updates of each run of a head or an adapter.")],
    seed: Annotated[int, typer.Option(help="Names the random streams of training.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:<i> or mps.")],
    shots_all: Annotated[list[int] | None, typer.Option(help="Several shot counts in place of the one.")] = None,
) -> None:
    """Write metrics/fewshot_audio/<set>.json and plots/fewshot_audio/<set>.csv."""
    results = evaluate(
        (Path("data") / dataset, Path("features") / encoder / dataset),
        "audio",
        shots=shots_all or [shots],
        seeds=seeds,
        methods=methods,
        steps=steps,
        seed=seed,
        group=prompts or None,
        encoder_dir=Path("models/encoder"),
        device=device,
    )
    write_json(Path("metrics/fewshot_audio") / f"{dataset}.json", entries(results))
    write_csv(Path("plots/fewshot_audio") / f"{dataset}.csv", *accuracy_table(results))


if __name__ == "__main__":
    run(main)
