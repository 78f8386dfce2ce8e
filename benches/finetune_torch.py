#!/usr/bin/env python3
"""Speed and memory of fine-tuning with plain PyTorch, for beside_pytorch.py: one JSON line, in the form of the peer's bench.py.

    python3 benches/finetune_torch.py --peer ../shared/peers lora|full --preset small|base [--bf16]

One step: code vectors of 32 sequences of 101 bases through the peer's encoder, the mean over real positions, a head of two linear layers
with GELU between, cross-entropy of two classes, backward pass, clipping by norm, AdamW. `lora` freezes the encoder and learns, beside
the head, low-rank parts of rank 8 of queries, keys, values and the projection after attention, as the peft library computes them:
y = W x + alpha/r * B (A x), without dropout. `full` learns everything.
"""
import argparse
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

BATCH, LENGTH = 32, 101
RANK, ALPHA = 8, 16.0
CLASSES = 2
WARMUP = 2


class Lora(nn.Module):
    """A frozen linear layer and low-rank parts of equal blocks of its rows."""

    def __init__(self, base, blocks):
        super().__init__()
        d_in, d_out = base.in_features, base.out_features // blocks
        self.base = base
        self.lora_a = nn.ParameterList(nn.Parameter(torch.empty(RANK, d_in)) for _ in range(blocks))
        self.lora_b = nn.ParameterList(nn.Parameter(torch.zeros(d_out, RANK)) for _ in range(blocks))
        for a in self.lora_a:
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))

    def forward(self, x):
        low = [F.linear(F.linear(x, a), b) for a, b in zip(self.lora_a, self.lora_b)]
        return self.base(x) + ALPHA / RANK * torch.cat(low, -1)


class Classifier(nn.Module):
    """The peer's encoder without the heads of pre-training, and a head over the mean of its hidden states."""

    def __init__(self, encoder, mode):
        super().__init__()
        d = encoder.c.d_model
        del encoder.dense, encoder.head_norm, encoder.heads
        self.encoder = encoder
        if mode == "lora":
            encoder.requires_grad_(False)
            for layer in encoder.layers:
                layer.qkv, layer.out = Lora(layer.qkv, 3), Lora(layer.out, 1)
        self.dense, self.classifier = nn.Linear(d, d), nn.Linear(d, CLASSES)

    def forward(self, vectors, real):           # [B, L, d_input], bool [B, L] -> logits [B, CLASSES]
        hidden = self.encoder.hidden(vectors, torch.zeros_like(real), real)
        weight = real[..., None].to(hidden)
        pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
        return self.classifier(F.gelu(self.dense(pooled)))


def adamw(parameters, lr=1e-4):
    big, small = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return torch.optim.AdamW([{"params": big, "weight_decay": 0.01}, {"params": small, "weight_decay": 0.0}], lr=lr, fused=True)


def finetune(a, bench):
    model = Classifier(bench.MaskedModel(bench.ENCODER[a.preset]), a.mode)
    vectors = torch.randn(BATCH, LENGTH, bench.ENCODER[a.preset].d_input)
    real, labels = torch.ones(BATCH, LENGTH, dtype=torch.bool), torch.randint(0, CLASSES, (BATCH,))
    learned = [p for p in model.parameters() if p.requires_grad]
    optim = adamw(learned)

    def step():
        with bench.autocast(a.bf16):
            loss = F.cross_entropy(model(vectors, real), labels)
        optim.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optim.step()

    for _ in range(WARMUP):
        step()
    times = []
    for _ in range(a.runs):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    bench.report(a, BATCH * LENGTH, times)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mode", choices=["lora", "full"])
    p.add_argument("--peer", type=Path, required=True, help="folder of bench.py and vqdna_torch.py")
    p.add_argument("--preset", choices=["small", "base"], default="small")
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--runs", type=int, default=7)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    a.work = f"finetune-{a.mode}"
    # In the place of this folder, whose profile.py would hide Python's own.
    sys.path[0] = str(a.peer)
    import bench

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    finetune(a, bench)
