#!/usr/bin/env python3
"""Golden numbers of a causal transformer, which crates/vqdna/tests/golden.rs compares with.

    python3 benches/causal_golden.py fixtures/golden/causal

Needs `pip install torch==2.13.0 safetensors numpy`. The network is defined here in plain PyTorch, attention as softmax over an explicit
triangle: vectors of tokens, a projection, layers with norms before their parts, rotary or ALiBi positions, exact GELU, a last norm, and one
classifier for each level. The loss is the mean over levels of the mean cross-entropy of the next id, over the positions with a real one
after them. Linear weights are [out, in]; `in.real` is 1 for real positions, and values at padded ones are unspecified.
"""

import argparse
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

SIZES = {"d_input": 10, "d_model": 32, "layers": 3, "heads": 4, "d_ff": 64, "codebook_sizes": [7, 11], "eps": 1e-5, "rope_theta": 10_000.0}
LENGTHS = [70, 33, 1, 57]


def turned(x, theta):
    """Rotary positions of x [batch, heads, length, width], in pairs (i, i + width/2)."""
    half = x.shape[-1] // 2
    speeds = theta ** (-torch.arange(half) / half)
    angles = torch.arange(x.shape[-2])[:, None] * speeds
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


class Layer(nn.Module):
    def __init__(self, d, heads, inner, eps, theta):
        super().__init__()
        self.heads, self.theta = heads, theta
        self.norm1, self.norm2 = nn.LayerNorm(d, eps=eps), nn.LayerNorm(d, eps=eps)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, inner), nn.Linear(inner, d)

    def forward(self, x, real):
        batch, length, d = x.shape
        width = d // self.heads
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width).permute(2, 0, 3, 1, 4)
        if self.theta:
            q, k = turned(q, self.theta), turned(k, self.theta)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width)
        if not self.theta:
            # Heads are a power of 2 here.
            slopes = torch.tensor([2.0 ** (-8 * (head + 1) / self.heads) for head in range(self.heads)])
            place = torch.arange(length)
            scores = scores - slopes[:, None, None] * (place[:, None] - place[None, :]).abs()
        seen = torch.tril(torch.ones(length, length, dtype=torch.bool)) & real[:, None, None, :]
        attended = scores.masked_fill(~seen, -math.inf).softmax(-1) @ v
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    def __init__(self, d_input, d_model, layers, heads, d_ff, codebook_sizes, eps, rope_theta):
        super().__init__()
        self.proj = nn.Linear(d_input, d_model)
        self.layers = nn.ModuleList(Layer(d_model, heads, d_ff, eps, rope_theta) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model, eps=eps)
        self.dense, self.head_norm = nn.Linear(d_model, d_model), nn.LayerNorm(d_model, eps=eps)
        self.heads = nn.ModuleList(nn.Linear(d_model, size) for size in codebook_sizes)

    def hidden(self, vectors, real):
        x = self.proj(vectors)
        for layer in self.layers:
            x = layer(x, real)
        return self.norm(x)

    def loss(self, hidden, real, codes):
        predicting = real[:, :-1] & real[:, 1:]
        features = self.head_norm(F.gelu(self.dense(hidden[:, :-1][predicting])))
        losses = [F.cross_entropy(head(features), ids[:, 1:][predicting]) for head, ids in zip(self.heads, codes)]
        return sum(losses) / len(losses)


def write(folder, name, seed, theta):
    torch.manual_seed(seed)
    sizes = SIZES | {"rope_theta": theta}
    model = Model(**sizes)
    real = torch.arange(max(LENGTHS))[None, :] < torch.tensor(LENGTHS)[:, None]
    vectors = torch.randn(*real.shape, sizes["d_input"])
    codes = [torch.randint(0, size, real.shape) for size in sizes["codebook_sizes"]]
    hidden = model.hidden(vectors, real)
    loss = model.loss(hidden, real, codes)
    loss.backward()
    arrays = {"in.vectors": vectors, "in.real": real.float(), "out.hidden": hidden.detach() * real[..., None], "out.loss": loss.detach()[None]}
    arrays |= {f"in.codes.{level}": ids.float() for level, ids in enumerate(codes, 1)}
    arrays |= {f"w.{name}": weight.detach().clone() for name, weight in model.named_parameters()}
    arrays["w.mask_vector"] = torch.zeros(sizes["d_model"])
    arrays |= {f"grad.{name}": weight.grad for name, weight in model.named_parameters()}
    metadata = {"config": json.dumps(sizes), "torch": torch.__version__, "seed": str(seed)}
    save_file({name: array.contiguous() for name, array in arrays.items()}, folder / f"{name}.safetensors", metadata)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files go")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    write(folder, "rotary", 1, 10_000.0)
    write(folder, "alibi", 2, 0.0)


if __name__ == "__main__":
    main()
