"""The few-shot protocol: methods x cells x grid, selection on validation rows only, the test rows read once.

A trained linear head is named by what it is: which modalities train it, and where it starts; its runs go through the
batched sweep together. The other published methods, `PEERS`, see a cell as a `Support`. Arrays come in, rows of results
go out; who reads stores and tables is `stored`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from xmodal import rng
from xmodal.errors import ConfigError, DataError, EmptyInputError
from xmodal.fewshot.arms import ADAPTER_GRID, ARMS, LINEAR_GRID, METHODS, ZERO_SHOT, Arm, Grid
from xmodal.fewshot.cells import Cell
from xmodal.fewshot.heads import apply_adapter
from xmodal.fewshot.outcomes import MethodResult, Outcome, summarise
from xmodal.fewshot.peers import PEERS
from xmodal.fewshot.peers.wise_ft import wise_ft
from xmodal.fewshot.runs import Recipe, Stream, Trained, Variant, epoch_batches, random_start
from xmodal.fewshot.support import Method, Support, hits
from xmodal.fewshot.sweep import sweep
from xmodal.zeroshot.weights import Averaging, class_weights


PUBLISHED_RECIPE = Recipe()


@dataclass(frozen=True)
class FewShotData:
    """The features of one benchmark.

    Args:
        items: (N, D) floating point, raw: pictures or sounds.
        labels: (N,) integers in [0, C).
        texts: (M, D) floating point, raw: class prompts of the same space, at least one a class.
        text_labels: (M,) integers; C is the largest plus one.
        averaging: how the prompts of a class become its zero-shot weight, see `class_weights`.
    """

    items: Tensor
    labels: Tensor
    texts: Tensor
    text_labels: Tensor
    averaging: Averaging = "raw"


def run(
    data: FewShotData,
    cells: Sequence[Cell],
    *,
    methods: Sequence[str] = METHODS,
    grid: Grid = LINEAR_GRID,
    adapter_grid: Grid = ADAPTER_GRID,
    recipe: Recipe = PUBLISHED_RECIPE,
    seed: int = 0,
    device: str = "cpu",
) -> list[MethodResult]:
    """Train, select and test every method in every cell; one result per method and shot count, in the order given.

    Zero-shot has one result, with 0 shots, over the distinct test sets. A batch size is used where the
    cell has more texts and more items than their halves of it (uni-modal: more items than the batch).

    Args:
        data: the features.
        cells: draws, see `split_cells` and `fold_cells`.
        methods: names from `METHODS`.
        grid: hyper-parameters of heads to choose from, in each cell by validation accuracy.
        adapter_grid: the same for adapters.
        recipe: how each run is trained.
        seed: addresses the batches and random starts, together with shots, seed and fold of the cell.
        device: where the sweep runs.

    Raises:
        ConfigError: a method is unknown, or no batch size of the grid fits a cell.
        EmptyInputError: there are no cells or no methods.
        DataError: shapes disagree, a label has no prompt, or a vector is zero or not finite.

    Source: Lin et al. 2023 (arXiv 2301.06267), the protocol of section 4 and appendix: means over draws, numpy's
    population deviation.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ConfigError(f"few-shot method {unknown[0]!r}: expected one of {', '.join(METHODS)}")
    if not cells or not methods:
        raise EmptyInputError(f"few-shot: {len(cells)} cells and {len(methods)} methods, expected at least one of each")
    bench = _Bench(data, device)
    results = []
    chosen: dict[Arm, list[_Chosen]] = {}
    for method in methods:
        if method == ZERO_SHOT:
            folds = {cell.test: cell.fold for cell in cells}
            results.append(summarise(method, 0, [bench.zero_shot(fold, test) for test, fold in folds.items()]))
            continue
        if method in PEERS:
            outcomes = [_run_peer(bench, PEERS[method], cell, recipe.scale, seed) for cell in cells]
        else:
            arm = ARMS[method]
            trained = replace(arm, wise_ratio=0.0)
            if trained not in chosen:
                own_grid = adapter_grid if arm.adapter else grid
                chosen[trained] = _train_arm(bench, arm, cells, own_grid, recipe, seed)
            outcomes = [_test_arm(bench, arm, *pair) for pair in zip(cells, chosen[trained], strict=True)]
        for shots in dict.fromkeys(cell.shots for cell in cells):
            mine = [outcome for cell, outcome in zip(cells, outcomes, strict=True) if cell.shots == shots]
            results.append(summarise(method, shots, mine))
    return results


class _Bench:
    """Unit rows of items and texts in one matrix, and the zero-shot head."""

    def __init__(self, data: FewShotData, device: str) -> None:
        items, texts = tuple(data.items.shape), tuple(data.texts.shape)
        if len(items) != 2 or len(texts) != 2 or items[1] != texts[1] or tuple(data.labels.shape) != items[:1]:
            raise DataError(f"few-shot: items {items}, labels {tuple(data.labels.shape)}, texts {texts} do not fit")
        if not len(data.text_labels) or not len(data.labels):
            raise EmptyInputError(f"few-shot: {items[0]} items and {texts[0]} texts, expected both")
        self.n_items, self.n_texts = items[0], texts[0]
        C = int(data.text_labels.max()) + 1
        wrong = (data.labels < 0) | (data.labels >= C)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise DataError(f"few-shot: item {row} has label {int(data.labels[row])}, the prompts name 0 to {C - 1}")
        self.text_CD = class_weights(data.texts, data.text_labels, C, averaging=data.averaging).to(device)
        raw = torch.cat([data.items.float(), data.texts.float()])
        bad = ~(raw.isfinite().all(1) & (raw != 0).any(1))
        if bad.any():
            raise DataError(f"few-shot: the vector of item {int(bad.nonzero()[0])} is zero or not finite")
        self.row_ND = torch.nn.functional.normalize(raw, dim=1).to(device)
        self.label_N = torch.cat([data.labels.long(), data.text_labels.long()]).to(device)

    def rows(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the unit rows (R, D) of these numbers and their labels (R,)."""
        row_R = torch.tensor(numbers, device=self.row_ND.device)
        return self.row_ND[row_R], self.label_N[row_R]

    def accuracy(
        self, weight_CD: Tensor, numbers: Sequence[int], adapter: tuple[Tensor, Tensor] | None = None
    ) -> float:
        row_RD, label_R = self.rows(numbers)
        if adapter is not None:
            row_RD = apply_adapter(row_RD, *adapter)
        return float(hits(row_RD @ weight_CD.T, label_R))

    def zero_shot(self, fold: int, test: Sequence[int]) -> Outcome:
        return Outcome(None, fold, self.accuracy(self.text_CD, test))

    def stream(self, arm: Arm, cell: Cell, batch: int, steps: int, seed: int) -> Stream | None:
        """Return the batches and the start of one run, or None where the batch does not fit."""
        texts = batch // 2 if arm.modality == "cross" else 0
        if batch - texts >= len(cell.train) or texts >= self.n_texts:
            return None
        address = (cell.shots, cell.seed, cell.fold, arm.modality, batch)
        adapter = self._adapter(cell, seed) if arm.adapter else None
        text_rows = range(self.n_items, self.n_items + self.n_texts)
        drawn = [
            epoch_batches(rows, size, steps, rng.numpy_generator(seed, "fewshot", name, *address))
            for name, rows, size in (("items", cell.train, batch - texts), ("texts", text_rows, texts))
        ]
        return Stream(torch.cat(drawn, dim=1), self._start(arm, cell, seed), cell.val, adapter)

    def _adapter(self, cell: Cell, seed: int) -> tuple[Tensor, Tensor]:
        D = self.text_CD.shape[1]
        H = D // HIDDEN_SHARE
        generator = rng.torch_generator(seed, "fewshot", "adapter", cell.shots, cell.seed, cell.fold)
        return random_start(H, D, generator), random_start(D, H, generator)

    def _start(self, arm: Arm, cell: Cell, seed: int) -> Tensor:
        if arm.start == "text":
            return self.text_CD
        generator = rng.torch_generator(seed, "fewshot", "start", cell.shots, cell.seed, cell.fold)
        C, D = self.text_CD.shape
        return random_start(C, D, generator)


class _Chosen(NamedTuple):
    """The run of an arm in one cell with the best validation accuracy."""

    run: Trained
    lr: float
    weight_decay: float
    batch: int


def _train_arm(bench: _Bench, arm: Arm, cells: Sequence[Cell], grid: Grid, recipe: Recipe, seed: int) -> list[_Chosen]:
    """Sweep all runs of all cells and return the one of each cell that validation chooses."""
    variants = [Variant(lr, decay) for lr, decay in product(grid.lrs, grid.weight_decays)]
    trained: list[dict[tuple[int, int], Trained]] = [{} for _ in cells]
    for b, batch in enumerate(grid.batches):
        streams = {n: bench.stream(arm, cell, batch, recipe.steps, seed) for n, cell in enumerate(cells)}
        fitting = {n: stream for n, stream in streams.items() if stream is not None}
        if fitting:
            found = sweep(bench.row_ND, bench.label_N, list(fitting.values()), variants, recipe)
            for n, runs in zip(fitting, found, strict=True):
                trained[n].update({(v, b): one for v, one in enumerate(runs)})
    chosen = []
    for cell, runs_of_cell in zip(cells, trained, strict=True):
        if not runs_of_cell:
            raise ConfigError(
                f"few-shot: no batch size of {grid.batches} fits {len(cell.train)} train items and {bench.n_texts} "
                f"texts ({arm.modality}-modal, {cell.shots} shots)"
            )
        # max keeps the first of equals, and sorted keys are in grid order.
        v, b = max(sorted(runs_of_cell), key=lambda key: runs_of_cell[key].val_accuracy)
        chosen.append(_Chosen(runs_of_cell[v, b], variants[v].lr, variants[v].weight_decay, grid.batches[b]))
    return chosen


def _test_arm(bench: _Bench, arm: Arm, cell: Cell, chosen: _Chosen) -> Outcome:
    weight_CD = chosen.run.weight
    if arm.wise_ratio:
        weight_CD = wise_ft(weight_CD, bench.text_CD, arm.wise_ratio)
    val, test = (bench.accuracy(weight_CD, rows, chosen.run.adapter) for rows in (cell.val, cell.test))
    _, lr, weight_decay, batch = chosen
    found = {"lr": lr, "weight_decay": weight_decay, "batch": batch, "step": chosen.run.step}
    return Outcome(cell.seed, cell.fold, test, val, found)


def _run_peer(bench: _Bench, method: Method, cell: Cell, scale: float, seed: int) -> Outcome:
    support = Support(*bench.rows(cell.train), *bench.rows(cell.val), bench.text_CD, scale=scale)
    found = method(support, rng.derive_seed(seed, "fewshot", "peer", cell.shots, cell.seed, cell.fold))
    row_RD, label_R = bench.rows(cell.test)
    return Outcome(cell.seed, cell.fold, float(hits(found.logits(row_RD), label_R)), found.val_accuracy, found.chosen)
