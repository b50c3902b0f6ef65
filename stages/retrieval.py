"""Search pictures by captions, captions by pictures, and both by sounds, on the test split of one data set."""

from pathlib import Path
from typing import Annotated

import typer

from xmodal.retrieval import evaluate_retrieval, write_retrieval
from xmodal.stage import run


def main(
    dataset: Annotated[str, typer.Option(help="Its folder below data/.")],
    encoder: Annotated[str, typer.Option(help="Names the folder below features/.")],
) -> None:
    """Write metrics/retrieval/<set>.json and plots/retrieval/<set>/."""
    result = evaluate_retrieval(Path("data") / dataset, Path("features") / encoder / dataset)
    write_retrieval(
        result, Path("metrics/retrieval") / f"{dataset}.json", Path("plots/retrieval") / dataset, title=dataset
    )


if __name__ == "__main__":
    run(main)
