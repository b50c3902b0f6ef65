"""The batched sweep: many small linear heads trained together as one tensor program.

Runs that share their batches (a stream) differ in learning rate and weight decay only (variants), so the forward pass
of a stream is one product with all its heads side by side, and the streams of a block are one batched product. What a
run learns depends on its own batches, start and rates, not on what it is trained with; rounding may differ in the last
bits with the number of streams at a time.

Axes: S streams, G variants, R rows in a batch, V validation rows, C classes, D embedding.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xmodal.errors import ConfigError

ELEMENTS_PER_THREAD = 2**20


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How every run of a sweep is trained.

    Args:
        steps: updates.
        eval_every: validation after update 0 and every so many further ones.
        warmup_steps: updates of the linear warm-up.
        warmup_lr: learning rate of update 0, whatever the rate of the run.
        scale: what the cosines are multiplied by.
        betas: of AdamW.
        eps: of AdamW.
        block_bytes: heads, gradients and moments of the streams trained at a time; small enough for the cache.
    """

    steps: int = 12_800
    eval_every: int = 100
    warmup_steps: int = 50
    warmup_lr: float = 1e-5
    scale: float = 100.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    block_bytes: int = 2**22

    def __post_init__(self) -> None:
        """Refuse what makes no sense, by the name of the field."""
        for name in ("steps", "eval_every", "block_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"few-shot recipe: {name} is {getattr(self, name)}, expected at least 1")
        if self.warmup_steps < 0:
            raise ConfigError(f"few-shot recipe: warmup_steps is {self.warmup_steps}, expected at least 0")


@dataclass(frozen=True)
class Variant:
    """What runs on the same batches differ in: the learning rate and the (decoupled) weight decay."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Stream:
    """What runs on the same data share.

    Args:
        batches: (steps, R) int64 row numbers, the batch of every step.
        start: (C, D) float32, the head before the first update.
        val: row numbers to select the step on.
    """

    batches: Tensor
    start: Tensor
    val: tuple[int, ...]


@dataclass(frozen=True)
class Trained:
    """The best head of one run.

    Args:
        weight: (C, D) float32, as it was after update `step`.
        val_accuracy: its fraction of right validation rows.
        step: the first step with that accuracy, counted from 0.
    """

    weight: Tensor
    val_accuracy: float
    step: int


def learning_rate(step: int, lr: float, recipe: Recipe) -> float:
    """Return the learning rate of update `step`, counted from 0.

    Source: cross_modal_adaptation, `engine/optimizer/scheduler.py`: the first update has `warmup_lr` even where that is
    more than `lr`, and the cosine spans `steps` from the end of the warm-up, so it never reaches 0.

    Example:
        >>> [learning_rate(step, 1e-3, Recipe()) for step in (0, 25, 50)]
        [1e-05, 0.0005, 0.001]
    """
    if step < recipe.warmup_steps:
        return recipe.warmup_lr if step == 0 else lr * step / recipe.warmup_steps
    return lr * (1 + math.cos(math.pi * (step - recipe.warmup_steps) / recipe.steps)) / 2


def epoch_batches(rows: Sequence[int], size: int, steps: int, generator: np.random.Generator) -> Tensor:
    """Return the batches (steps, size) int64 of shuffled epochs over `rows`, the incomplete last batch dropped.

    Args:
        rows: what to draw from, more than `size`; a batch has no row twice.
        size: rows in a batch; 0 gives an empty second axis.
        steps: batches.
        generator: gives one permutation an epoch.

    Raises:
        ConfigError: there are not more rows than `size`.

    Example:
        >>> epoch_batches([4, 5, 6], 2, 3, np.random.default_rng(0)).shape
        torch.Size([3, 2])
    """
    if size and len(rows) <= size:
        raise ConfigError(f"few-shot: a batch of {size} from {len(rows)} rows, expected fewer than there are")
    if size == 0:
        return torch.empty(steps, 0, dtype=torch.int64)
    per_epoch = len(rows) // size
    epochs = -(-steps // per_epoch)
    shuffled = np.stack([generator.permutation(np.asarray(rows))[: per_epoch * size] for _ in range(epochs)])
    return torch.from_numpy(shuffled.reshape(-1, size)[:steps].astype(np.int64))


def sweep(
    row_ND: Tensor, label_N: Tensor, streams: Sequence[Stream], variants: Sequence[Variant], recipe: Recipe
) -> list[list[Trained]]:
    """Train every variant on every stream and return the best heads, [stream][variant].

    The loss is the mean cross-entropy of `scale` times the products of rows and head; the head has no bias; AdamW with
    decoupled decay. The head is kept at the first strict maximum of the validation accuracy.

    Args:
        row_ND: (N, D) float32 unit rows on the device of the sweep: items and texts in one matrix.
        label_N: (N,) int64, the class of each row.
        streams: their batches all have the same number of rows, their heads the same shape.
        variants: at least one.
        recipe: how to train.

    Source: Lin et al. 2023 (arXiv 2301.06267), section 3; the linear head of cross_modal_adaptation. Deviation: runs
    are batched, and draws are addressed by run and not by the history of the process.
    """
    C, D = streams[0].start.shape
    block = max(1, recipe.block_bytes // (16 * C * D * len(variants)))
    found: list[list[Trained]] = []
    with torch.no_grad(), _threads_for(min(block, len(streams)) * len(variants) * C * D):
        for first in range(0, len(streams), block):
            found += _train_block(row_ND, label_N, streams[first : first + block], variants, recipe)
    return found


@contextmanager
def _threads_for(elements: int) -> Iterator[None]:
    """Use one thread where a step is so small that handing it to several costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if elements > ELEMENTS_PER_THREAD else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train_block(
    row_ND: Tensor, label_N: Tensor, streams: Sequence[Stream], variants: Sequence[Variant], recipe: Recipe
) -> list[list[Trained]]:
    device, S, G = row_ND.device, len(streams), len(variants)
    head_SGCD = torch.stack([stream.start for stream in streams])[:, None].repeat(1, G, 1, 1).to(device)
    C, D = head_SGCD.shape[2:]
    batches = torch.stack([stream.batches for stream in streams], dim=1).to(device)
    best = _Best(row_ND, label_N, streams, head_SGCD)
    adam = _AdamW(head_SGCD, variants, recipe)
    minus_one = row_ND.new_full((S, batches.shape[2], G, 1), -1.0)
    for step, row_SR in enumerate(batches):
        x_SRD = row_ND[row_SR]
        logit_SRGC = _products(x_SRD, head_SGCD).mul_(recipe.scale)
        residual_SRGC = torch.softmax(logit_SRGC, dim=3)
        residual_SRGC.scatter_add_(3, label_N[row_SR][:, :, None, None].expand(-1, -1, G, 1), minus_one)
        residual_SRGC.mul_(recipe.scale / row_SR.shape[1])
        gradient = torch.bmm(residual_SRGC.flatten(2).transpose(1, 2), x_SRD).view(S, G, C, D)
        adam.update(gradient, step)
        if step % recipe.eval_every == 0:
            best.look(step)
    return best.trained()


def _products(x_SRD: Tensor, head_SGCD: Tensor) -> Tensor:
    """Return the products (S, R, G, C) of rows and heads."""
    S, G, C, D = head_SGCD.shape
    return torch.bmm(x_SRD, head_SGCD.view(S, G * C, D).transpose(1, 2)).view(S, -1, G, C)


class _AdamW:
    """AdamW in place on heads (S, G, C, D), with a learning rate and a decay for each variant."""

    def __init__(self, head_SGCD: Tensor, variants: Sequence[Variant], recipe: Recipe) -> None:
        self.head, self.recipe = head_SGCD, recipe
        self.mean, self.square = torch.zeros_like(head_SGCD), torch.zeros_like(head_SGCD)
        steps = range(recipe.steps)
        rate_TG = torch.tensor([[learning_rate(i, v.lr, recipe) for v in variants] for i in steps], dtype=torch.float64)
        decay_G = torch.tensor([v.weight_decay for v in variants], dtype=torch.float64)
        correction_T1 = 1 - torch.tensor([[recipe.betas[0] ** (i + 1)] for i in steps], dtype=torch.float64)
        self.kept_TG11 = (1 - rate_TG * decay_G).float()[..., None, None].to(head_SGCD.device)
        self.step_TG11 = (rate_TG / correction_T1).float()[..., None, None].to(head_SGCD.device)

    def update(self, gradient: Tensor, step: int) -> None:
        beta1, beta2 = self.recipe.betas
        self.head.mul_(self.kept_TG11[step])
        self.mean.lerp_(gradient, 1 - beta1)
        self.square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        torch.sqrt(self.square, out=gradient)
        gradient.div_(math.sqrt(1 - beta2 ** (step + 1))).add_(self.recipe.eps)
        torch.div(self.mean, gradient, out=gradient)
        self.head.addcmul_(gradient, self.step_TG11[step], value=-1)


class _Best:
    """The heads at the first strict maximum of the validation accuracy of each run."""

    def __init__(self, row_ND: Tensor, label_N: Tensor, streams: Sequence[Stream], head_SGCD: Tensor) -> None:
        device, V = row_ND.device, max(len(stream.val) for stream in streams)
        row_SV = torch.tensor([[*stream.val, *[0] * (V - len(stream.val))] for stream in streams], device=device)
        n_S = torch.tensor([len(stream.val) for stream in streams], device=device)
        self.x_SVD = row_ND[row_SV]
        # No class is -1, so the rows that only fill up are never right.
        self.label_SV = torch.where(torch.arange(V, device=device) < n_S[:, None], label_N[row_SV], -1)
        self.n_S, self.head = n_S, head_SGCD
        self.kept = head_SGCD.clone()
        self.right_SG = torch.full(head_SGCD.shape[:2], -1, device=device)
        self.step_SG = torch.full(head_SGCD.shape[:2], -1, device=device)

    def look(self, step: int) -> None:
        guess_SVG = _products(self.x_SVD, self.head).argmax(3)
        right_SG = (guess_SVG == self.label_SV[:, :, None]).sum(1)
        better_SG = right_SG > self.right_SG
        self.right_SG = torch.where(better_SG, right_SG, self.right_SG)
        self.step_SG = torch.where(better_SG, step, self.step_SG)
        self.kept = torch.where(better_SG[:, :, None, None], self.head, self.kept)

    def trained(self) -> list[list[Trained]]:
        return [list(self._runs(s)) for s in range(len(self.n_S))]

    def _runs(self, s: int) -> Iterator[Trained]:
        for g, weight_CD in enumerate(self.kept[s]):
            yield Trained(weight_CD.clone(), int(self.right_SG[s, g]) / int(self.n_S[s]), int(self.step_SG[s, g]))
