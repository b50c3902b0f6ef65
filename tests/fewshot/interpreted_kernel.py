"""What the CUDA path computes, by Triton's interpreter: `TRITON_INTERPRET=1 python interpreted_kernel.py OUTPUT`.

A program of its own, because Triton decides at import whether it interprets. Writes the tensors of `update_by_update`
and of two small sweeps to a safetensors file.
"""

import sys

import torch
from safetensors.torch import save_file
from toy_sweep import AXES, RATES, RECIPE, UPDATES, VARIANTS, adapted, problem, starts_and_gradients

from xmodal.fewshot.block import Block
from xmodal.fewshot.fused_adamw import FusedAdamW


def update_by_update():
    starts, gradients = starts_and_gradients()
    adam = FusedAdamW(starts, AXES, RATES, UPDATES)
    found = {}
    for step in range(UPDATES.steps):
        adam.update([gradient[step] for gradient in gradients], torch.tensor([step]))
        found |= {f"update{step}.{n}": adam.parameters(n).clone() for n in range(2) if step in (0, 1, 50, 199)}
    return found


def small_sweep(name, streams):
    row, label, _ = problem(streams=2)
    block = Block(row, label, streams, VARIANTS, RECIPE, FusedAdamW)
    block.train()
    found = {}
    for s, runs in enumerate(block.trained()):
        for g, run in enumerate(runs):
            found |= {f"{name}.{s}.{g}.{n}": part for n, part in enumerate((run.weight, *(run.adapter or ())))}
            found[f"{name}.{s}.{g}.step"] = torch.tensor([run.step])
    return found


if __name__ == "__main__":
    _, _, streams = problem(streams=2)
    save_file(update_by_update() | small_sweep("head", streams) | small_sweep("adapter", adapted(streams)), sys.argv[1])
