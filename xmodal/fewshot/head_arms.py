"""Linear heads and adapters on stored vectors: all runs of all cells go through the batched sweep together."""

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path

from torch import Tensor

from xmodal.fewshot.arms import Arm, Grid
from xmodal.fewshot.bench import Bench
from xmodal.fewshot.cells import Cell
from xmodal.fewshot.heads import apply_adapter
from xmodal.fewshot.learnt import Learnt
from xmodal.fewshot.runs import Recipe, Trained, Variant
from xmodal.fewshot.streams import make_stream, refuse_unfit
from xmodal.fewshot.sweep import sweep


def train_heads(
    bench: Bench,
    arm: Arm,
    cells: Sequence[Cell],
    grid: Grid,
    recipe: Recipe,
    seed: int,
    *,
    kept: Path | None = None,
) -> list[Learnt]:
    """Sweep all runs of all cells and return the one of each cell that validation chooses.

    `kept` is a folder for finished runs, see `sweep`.

    Raises:
        ConfigError: no batch size of the grid fits a cell.
    """
    variants = [Variant(lr, decay) for lr, decay in product(grid.lrs, grid.weight_decays)]
    trained: list[dict[tuple[int, int], Trained]] = [{} for _ in cells]
    for b, batch in enumerate(grid.batches):
        streams = {n: make_stream(bench, arm, cell, batch, recipe.steps, seed) for n, cell in enumerate(cells)}
        fitting = {n: stream for n, stream in streams.items() if stream is not None}
        if fitting:
            found = sweep(bench.row_ND, bench.label_N, list(fitting.values()), variants, recipe, kept=kept)
            for n, runs in zip(fitting, found, strict=True):
                trained[n].update({(v, b): one for v, one in enumerate(runs)})
    learnt = []
    for cell, runs_of_cell in zip(cells, trained, strict=True):
        if not runs_of_cell:
            refuse_unfit(bench, arm, cell, grid.batches)
        # max keeps the first of equals, and sorted keys are in grid order.
        v, b = max(sorted(runs_of_cell), key=lambda key: runs_of_cell[key].val_accuracy)
        run, variant = runs_of_cell[v, b], variants[v]
        chosen = {"lr": variant.lr, "weight_decay": variant.weight_decay, "batch": grid.batches[b], "step": run.step}
        learnt.append(Learnt(run.weight, _features(run), recipe.scale, chosen))
    return learnt


def _features(run: Trained) -> "partial[Tensor]":
    if run.adapter is None:
        return partial(_as_they_are)
    first_HD, second_DH = run.adapter
    return partial(apply_adapter, first_HD=first_HD, second_DH=second_DH)


def _as_they_are(row_RD: Tensor) -> Tensor:
    return row_RD
