"""Align a log-mel audio tower with the frozen space of the chosen encoder; write it to models/encoder/audio."""

from pathlib import Path
from typing import Annotated

import typer

from xmodal import distributed
from xmodal.align.audio import AudioTraining
from xmodal.align.pretrain_audio import SoundSource, pretrain_audio
from xmodal.curves import live_curves
from xmodal.device import Precision, select_device
from xmodal.encoders.audio import MelConfig
from xmodal.encoders.load import load_tower
from xmodal.encoders.mel_tower import MelTower, MelTowerConfig
from xmodal.files import write_json
from xmodal.loop import LoopConfig
from xmodal.stage import run


def main(
    dataset: Annotated[str, typer.Option(help="Data set with sounds.")],
    windows: Annotated[int, typer.Option(help="One-second windows that a sound gives; the rest is cut.")],
    epochs: Annotated[int, typer.Option(help="Passes over the sounds.")],
    batch: Annotated[int, typer.Option(help="Sounds in a step over all processes.")],
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")],
    weight_decay: Annotated[float, typer.Option(help="Of matrices.")],
    warmup: Annotated[float, typer.Option(help="Fraction of all steps.")],
    seed: Annotated[int, typer.Option(help="Names all random streams.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:<i> or mps.")],
    precision: Annotated[Precision, typer.Option(help="Of the towers.")],
) -> None:
    """Write models/encoder/audio, plots/pretrain_audio and metrics/pretrain_audio.json."""
    loop = LoopConfig(epochs=epochs, lr=learning_rate, weight_decay=weight_decay, warmup_fraction=warmup)
    text = load_tower(Path("models/encoder/text"), device=device, precision=precision)
    chosen = select_device(device)
    with distributed.process_group(chosen), live_curves(Path("plots/pretrain_audio")) as curves:
        report = pretrain_audio(
            MelTower(MelTowerConfig(dim=text.dim), seed=seed),
            MelConfig(windows=windows),
            SoundSource(folder=Path("data") / dataset),
            AudioTraining(loop=loop, batch=batch, micro_batch=batch, precision=precision),
            name=text.description()["encoder"],
            frozen={"text": text},
            out=Path("models/encoder/audio"),
            scratch=Path("scratch/pretrain_audio"),
            seed=seed,
            device=chosen,
            on_metrics=curves,
        )
        if distributed.rank() == 0:
            write_json(Path("metrics/pretrain_audio.json"), report.history[-1])


if __name__ == "__main__":
    run(main)
