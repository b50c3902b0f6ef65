"""AdamW for many runs in lock-step on CUDA: one Triton kernel, one pass over memory.

Weights, gradients and moments come in, weights and moments go out: 28 bytes a parameter. Each run has a learning rate
and a decoupled weight decay of its own. What changes from update to update lies in tables on the device and is
addressed by a step number on the device, so a CUDA graph can hold the update.

Only CUDA needs Triton, so this module is imported where a sweep on CUDA begins.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from xmodal.fewshot.adamw import kept_table, rate_table
from xmodal.fewshot.runs import Recipe, Variant

PROGRAM_NUMBERS = 1024


class FusedAdamW:
    """The parameters of many runs and their moments.

    Args:
        starts: tensors of float32 with an axis of G runs, as training begins with them; the values are copied.
        axes: which axis of each tensor that is.
        variants: G pairs of learning rate and weight decay.
        recipe: the schedule and the constants of AdamW.

    Attributes:
        tensors: the parameters; `update` changes them in place.
        factor_G: (G,) ones, see `Optimiser`.

    Source: Loshchilov and Hutter 2019 (arXiv 1711.05101), as torch.optim.AdamW computes it.
    """

    def __init__(
        self, starts: Sequence[Tensor], axes: Sequence[int], variants: Sequence[Variant], recipe: Recipe
    ) -> None:
        device = starts[0].device
        self.recipe = recipe
        self.tensors = [torch.empty(start.shape, device=device).copy_(start) for start in starts]
        self.factor_G = torch.ones(len(variants), device=device)
        self._means = [torch.zeros_like(tensor) for tensor in self.tensors]
        self._squares = [torch.zeros_like(tensor) for tensor in self.tensors]
        self._inner = [start.shape[axis + 1 :].numel() for start, axis in zip(starts, axes, strict=True)]
        count_T = torch.arange(1, recipe.steps + 1, dtype=torch.float64)
        move_TG = rate_table(variants, recipe) / (1 - recipe.betas[0] ** count_T)[:, None]
        tables = move_TG, kept_table(variants, recipe), (1 - recipe.betas[1] ** count_T).rsqrt()
        self._tables = [table.to(device, torch.float32).contiguous() for table in tables]

    def update(self, gradients: Sequence[Tensor], step: Tensor) -> None:
        """Do update `step`, an int64 tensor of one number on the device, counted from 0."""
        parts = zip(self.tensors, gradients, self._means, self._squares, self._inner, strict=True)
        for tensor, gradient, mean, square, inner in parts:
            _update[(triton.cdiv(tensor.numel(), PROGRAM_NUMBERS),)](
                tensor,
                gradient.contiguous(),
                mean,
                square,
                step,
                *self._tables,
                tensor.numel(),
                runs=len(self.factor_G),
                inner=inner,
                beta1=self.recipe.betas[0],
                beta2=self.recipe.betas[1],
                eps=self.recipe.eps,
                block=PROGRAM_NUMBERS,
            )

    def parameters(self, n: int) -> Tensor:
        """Return tensor `n`, not to be written to."""
        return self.tensors[n]


@triton.jit
def _update(
    weight,
    gradient,
    mean,
    square,
    step,
    move_table,
    kept_table,
    root_table,
    numbers,
    runs: tl.constexpr,
    inner: tl.constexpr,
    beta1: tl.constexpr,
    beta2: tl.constexpr,
    eps: tl.constexpr,
    block: tl.constexpr,
):
    # Only the first number of a program needs 64 bits; constants for `runs` and `inner` spare every number a division.
    first = tl.program_id(0).to(tl.int64) * block
    lane = tl.arange(0, block)
    mask = lane < numbers - first
    run = ((first % (runs * inner)).to(tl.int32) + lane) // inner % runs
    now = tl.load(step)
    move = tl.load(move_table + now * runs + run)
    kept = tl.load(kept_table + now * runs + run)
    root = tl.load(root_table + now)
    g = tl.load(gradient + first + lane, mask)
    m = tl.load(mean + first + lane, mask)
    v = tl.load(square + first + lane, mask)
    w = tl.load(weight + first + lane, mask)
    m = m + (1 - beta1) * (g - m)
    v = beta2 * v + (1 - beta2) * g * g
    w = w * kept - move * tl.div_rn(m, tl.sqrt_rn(v) * root + eps)
    tl.store(mean + first + lane, m, mask)
    tl.store(square + first + lane, v, mask)
    tl.store(weight + first + lane, w, mask)
