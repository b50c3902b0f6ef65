"""Put the image and text towers of the chosen encoder in one place: models/encoder/<modality>/."""

from pathlib import Path
from typing import Annotated

import typer

from xmodal.encoders.resolve import resolve_encoder
from xmodal.stage import run


def main(
    name: Annotated[str, typer.Option(help="mini, or <open_clip architecture>/<pretrained tag>.")],
    weights: Annotated[str, typer.Option(help="Local weights for that architecture instead of the tag; may be empty.")],
) -> None:
    """Write models/encoder/image and models/encoder/text."""
    spec = f"{name.partition('/')[0]}@{weights}" if weights else name
    resolve_encoder(spec, Path("models/encoder"), trained=Path("models/clip"))


if __name__ == "__main__":
    run(main)
