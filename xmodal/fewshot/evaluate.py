"""One few-shot evaluation from folders to results: what the methods need is read, and the protocol runs on it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from xmodal.device import select_device
from xmodal.encoders.protocol import Modality
from xmodal.features import SetFeatures
from xmodal.fewshot.arms import ARMS
from xmodal.fewshot.outcomes import MethodResult
from xmodal.fewshot.partial import PARTIAL_RECIPE
from xmodal.fewshot.protocol import PUBLISHED_RECIPE, run
from xmodal.fewshot.shifted import read_shifted
from xmodal.fewshot.stored import read_benchmark
from xmodal.fewshot.stored_towers import read_towers

Place = tuple[Path, Path]


def evaluate(
    place: Place,
    modality: Modality,
    *,
    shots: Sequence[int],
    seeds: Sequence[int],
    methods: Sequence[str],
    steps: int,
    partial_steps: int = PARTIAL_RECIPE.steps,
    seed: int,
    group: str | None = None,
    views: Sequence[str] = (),
    shifted: Place | None = None,
    encoder_dir: Path,
    device: str = "auto",
) -> list[MethodResult]:
    """Return the results of the methods on one data set; arguments and errors not named here are those of `run`.

    Args:
        place: `data/<set>` and `features/<encoder>/<set>`.
        modality: image or audio.
        shots: labelled items a class.
        seeds: of the draws.
        methods: names from `METHODS`.
        steps: updates of each run of a head or an adapter.
        partial_steps: updates of each run of partial fine-tuning.
        seed: names the random streams of training.
        group: template set of the class prompts; None takes the hand-crafted one, else the first.
        views: further views of the train items to train on.
        shifted: a place to test on as well, see `read_shifted`; None for none.
        encoder_dir: `models/encoder`, which is read for partial fine-tuning alone.
        device: as `xmodal.device.select_device` takes it.

    Raises:
        EmptyInputError, ConfigError, DataError, StoreError, WeightsError: see `read_benchmark`, `read_shifted`,
            `read_towers` and `run`.
    """
    found = read_benchmark(*place, modality, shots=shots, seeds=seeds, group=group, views=views)
    data = found.data
    shifted_ids: dict[str, list[str]] = {}
    if shifted is not None:
        sets, shifted_ids = read_shifted(place[0], *shifted, modality)
        data = replace(data, shifted=sets)
    if any(method in ARMS and ARMS[method].trained == "partial" for method in methods):
        stores = {} if shifted is None else {name: (SetFeatures(shifted[1]), ids) for name, ids in shifted_ids.items()}
        towers = read_towers(encoder_dir, SetFeatures(place[1]), modality, found.ids, found.text_ids, stores)
        data = replace(data, towers=towers)
    return run(
        data,
        found.cells,
        methods=methods,
        recipe=replace(PUBLISHED_RECIPE, steps=steps),
        partial_recipe=replace(PARTIAL_RECIPE, steps=partial_steps),
        seed=seed,
        device=str(select_device(device)),
    )
