"""The lock-step of CUDA: everything but the graph on the CPU, the graph itself where there is a GPU."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_sweep import (
    AXES,
    RATES,
    RECIPE,
    UPDATES,
    VARIANTS,
    adapted,
    problem,
    starts_and_gradients,
    train_adapter,
    train_one_by_one,
)

from xmodal.fewshot import sweep as sweep_module
from xmodal.fewshot.adamw import ScaledAdamW
from xmodal.fewshot.block import Block, captured_updates, optimiser_for
from xmodal.fewshot.heads import apply_adapter
from xmodal.fewshot.lockstep import streams_at_once
from xmodal.fewshot.runs import Recipe, Stream, learning_rate
from xmodal.fewshot.sweep import sweep

CUDA = torch.device("cuda")
with_cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: the graph cannot be captured here"),
]


def cosines(row, run):
    return (apply_adapter(row, *run.adapter) if run.adapter else row) @ run.weight.T


def check_same_runs(row, found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert (a.step, a.val_accuracy) == (b.step, b.val_accuracy)
            torch.testing.assert_close(cosines(row, a), cosines(row, b), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    pytest.importorskip("triton", reason="triton comes with torch for CUDA; it is not installed here")
    path = tmp_path_factory.mktemp("interpreted") / "found.safetensors"
    program = [sys.executable, Path(__file__).with_name("interpreted_kernel.py"), path]
    subprocess.run(program, env={**os.environ, "TRITON_INTERPRET": "1"}, check=True)
    return load_file(path)


def test_the_kernel_updates_as_torch_adamw_does_with_a_rate_and_a_decay_for_each_run(interpreted):
    starts, gradients = starts_and_gradients()
    for n, (start, gradient, axis) in enumerate(zip(starts, gradients, AXES, strict=True)):
        for g, variant in enumerate(RATES):
            weight = torch.nn.Parameter(start.select(axis, g).clone())
            optimizer = torch.optim.AdamW([weight], lr=variant.lr, weight_decay=variant.weight_decay)
            for step in range(UPDATES.steps):
                optimizer.param_groups[0]["lr"] = 1e-5 if step == 0 else learning_rate(step, variant.lr, UPDATES)
                weight.grad = gradient[step].select(axis, g).clone()
                optimizer.step()
                if f"update{step}.{n}" in interpreted:
                    found = interpreted[f"update{step}.{n}"].select(axis, g)
                    torch.testing.assert_close(found, weight.detach(), atol=1e-6, rtol=0)


def test_update_0_has_the_same_rate_in_all_runs(interpreted):
    starts, _ = starts_and_gradients()
    for n, (start, axis) in enumerate(zip(starts, AXES, strict=True)):
        decays = torch.tensor([variant.weight_decay for variant in RATES]).view(-1, *[1] * (3 - axis))
        moved = interpreted[f"update0.{n}"] - start * (1 - 1e-5 * decays)
        torch.testing.assert_close(moved.abs(), torch.full_like(start, 1e-5), atol=3e-7, rtol=0)


@pytest.mark.parametrize("kind", ["head", "adapter"])
def test_the_captured_step_trains_as_the_cpu_sweep_and_the_sequential_trainer(interpreted, kind):
    row, label, streams = problem(streams=2)
    streams = streams if kind == "head" else adapted(streams)
    for s, (stream, runs) in enumerate(zip(streams, sweep(row, label, streams, VARIANTS, RECIPE), strict=True)):
        for g, (variant, run) in enumerate(zip(VARIANTS, runs, strict=True)):
            weight, *adapter = (interpreted[f"{kind}.{s}.{g}.{n}"] for n in range(1 if kind == "head" else 3))
            found = cosines(row, dataclasses.replace(run, weight=weight, adapter=tuple(adapter) or None))
            if kind == "head":
                expected, _, step = train_one_by_one(row, label, stream, variant, RECIPE)
                expected = row @ expected.T
            else:
                expected, _, step = train_adapter(row, label, stream, variant, RECIPE)
            assert int(interpreted[f"{kind}.{s}.{g}.step"]) == run.step == step
            torch.testing.assert_close(found, cosines(row, run), atol=1e-5, rtol=0)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("steps", "eval_every"), [(1, 20), (20, 20), (21, 20), (300, 20), (260, 129)])
def test_what_is_captured_is_replayed_to_the_end(steps, eval_every):
    row, label, streams = problem()
    recipe = Recipe(steps=steps, eval_every=eval_every)
    block = Block(row, label, streams, VARIANTS, recipe, ScaledAdamW)
    captured = []

    def capture(work):
        captured.append(0)
        n = len(captured) - 1

        def replay():
            captured[n] += 1
            work()

        return replay

    block.train(capture)
    length, times = captured_updates(eval_every)
    looks = (steps - 1) // eval_every
    assert length * times == eval_every
    assert captured == ([looks * times, looks] if looks else [])
    check_same_runs(row, block.trained(), sweep(row, label, streams, VARIANTS, recipe))


def test_streams_at_once_leave_room_for_all_results():
    variants, gib = VARIANTS[:2], 2**30
    # 2 MiB of weights with both variants, so 12 MiB in training; of 819 MiB the results take 200.
    stream = Stream(torch.zeros(1, 8), torch.zeros(2**8, 2**10), ())
    assert streams_at_once([stream] * 100, variants, gib) == 619 // 12
    wide = dataclasses.replace(stream, adapter=(torch.zeros(2**7, 2**10), torch.zeros(2**10, 2**7)))
    assert streams_at_once([wide] * 50, variants, gib) == 619 // 24
    assert streams_at_once([stream] * 10, variants, gib) == 10
    assert streams_at_once([stream] * 10, variants, 0) == 1


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=with_cuda) for kind in ("head", "adapter")])
class TestOnCuda:
    @pytest.fixture
    def toy(self, kind):
        row, label, streams = problem()
        return row, label, streams if kind == "head" else adapted(streams)

    def on_cuda(self, toy, **options):
        row, label, streams = toy
        found = sweep(row.to(CUDA), label.to(CUDA), streams, VARIANTS, RECIPE, **options)
        moved = [[self.to_cpu(run) for run in runs] for runs in found]
        assert all(run.weight.device.type == "cuda" for runs in found for run in runs)
        return moved

    def to_cpu(self, run):
        adapter = (run.adapter[0].cpu(), run.adapter[1].cpu()) if run.adapter else None
        return dataclasses.replace(run, weight=run.weight.cpu(), adapter=adapter)

    def test_the_graph_trains_as_the_cpu_sweep(self, toy):
        check_same_runs(toy[0], self.on_cuda(toy), sweep(*toy, VARIANTS, RECIPE))

    def test_the_graph_trains_as_its_step_does_eagerly(self, toy):
        row, label, streams = toy
        block = Block(row.to(CUDA), label.to(CUDA), streams, VARIANTS, RECIPE, optimiser_for(CUDA))
        block.train()
        check_same_runs(row, self.on_cuda(toy), [[self.to_cpu(run) for run in runs] for runs in block.trained()])

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
    def test_the_step_never_waits_for_the_device(self, toy):
        row, label, streams = toy
        block = Block(row.to(CUDA), label.to(CUDA), streams, VARIANTS, RECIPE, optimiser_for(CUDA))
        block.update()
        torch.cuda.set_sync_debug_mode("error")
        try:
            block.update()
            block.look()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_blocks_of_one_stream_give_the_same(self, toy, monkeypatch):
        whole = self.on_cuda(toy)
        monkeypatch.setattr(sweep_module, "free_memory", lambda device: 0)
        check_same_runs(toy[0], self.on_cuda(toy), whole)

    def test_tf32_is_off_inside_and_as_it_was_after(self, toy):
        torch.set_float32_matmul_precision("high")
        try:
            check_same_runs(toy[0], self.on_cuda(toy), sweep(*toy, VARIANTS, RECIPE))
            assert torch.backends.cuda.matmul.allow_tf32
        finally:
            torch.set_float32_matmul_precision("highest")

    def test_what_is_kept_has_the_same_bytes(self, toy, tmp_path):
        first = self.on_cuda(toy, kept=tmp_path)
        for mine, theirs in zip(first, self.on_cuda(toy, kept=tmp_path), strict=True):
            assert all(torch.equal(a.weight, b.weight) for a, b in zip(mine, theirs, strict=True))
