#!/usr/bin/env python3
"""Speed and memory of MxDNA with plain PyTorch, for beside_pytorch.py: one JSON line, in the form of the peer's bench.py.

    python3 benches/mxdna_torch.py --peer ../shared/peers train|embed --preset small|base [--bf16] [--model FOLDER]

The network of `MxdnaConfig`: layers over bases, the layer that cuts them into units, layers over units, a layer from units back to
masked bases. One step of `train`: masks and jitter are drawn, 16 (base: 4) sequences of 512 bases run forward, cross-entropy of the masked
bases plus the balance of the experts, backward pass, clipping by norm, AdamW. `embed` is the forward pass to the states of units.
Weights are those of the folder that --model names, which `vqdna pretrain --tokenizer mxdna` made, so that this network cuts as ours does;
it needs safetensors. Without it, some steps of training come first in either, and count in the memory, since a fresh model may cut
nearly everything to single bases.

Attention is PyTorch's fused one; experts gather the bases of their units and run one grouped convolution each; the assembly is
torchvision's deformable convolution. With --products, both are gathers and products instead. Units are chosen by a few lines of C++ (g++ is
needed), as in the published code; the layer back to bases runs on masked positions only, as ours does.
"""
import argparse
import ctypes
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# This folder's profile.py would hide Python's own, which torchvision reads.
sys.path.pop(0)

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

LETTERS, PADDING, UNKNOWN, FIRST, LAST, MASKED = 9, 0, 1, 2, 3, 4
SHARE, BALANCE, JITTER, WARMUP, BALANCING = 0.15, 0.01, 0.01, 2, 5

SELECTION = r"""
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>
extern "C" void select_units(const float* scores, const int64_t* sizes, const int64_t* lengths, int64_t batch, int64_t positions,
                             int64_t experts, int32_t* anchors) {
    for (int64_t b = 0; b < batch; ++b) {
        const float* s = scores + b * positions * experts;
        const int64_t end = lengths[b] - 1;
        std::vector<int32_t> order;
        for (int64_t p = 1; p < end; ++p)
            for (int64_t e = 0; e < experts; ++e)
                if (p - sizes[e] / 2 >= 1 && p - sizes[e] / 2 + sizes[e] <= end) order.push_back(p * experts + e);
        std::sort(order.begin(), order.end(), [&](int32_t i, int32_t j) { return s[i] > s[j] || (s[i] == s[j] && i < j); });
        std::vector<char> taken(positions, 0);
        for (int32_t i : order) {
            const int64_t p = i / experts, e = i % experts, start = p - sizes[e] / 2;
            if (std::any_of(&taken[start], &taken[start] + sizes[e], [](char t) { return t != 0; })) continue;
            std::fill(&taken[start], &taken[start] + sizes[e], 1);
            anchors[b * positions + p] = e;
        }
    }
}
"""


def build_selection():
    """The C++ part as a library that lives as long as the process."""
    folder = tempfile.mkdtemp()
    source, library = Path(folder, "select.cpp"), Path(folder, "select.so")
    source.write_text(SELECTION)
    subprocess.run(["g++", "-O3", "-march=native", "-shared", "-fPIC", source, "-o", library], check=True)
    return ctypes.CDLL(str(library)).select_units


@dataclass
class Config:
    d: int = 384
    heads: int = 6
    d_ff: int = 1024
    base_layers: int = 2
    unit_layers: int = 4
    sizes: tuple = tuple(range(1, 11))


PRESETS = {"small": Config(), "base": Config(512, 16, 2048, 4, 16)}


def turns_of(places, d_head):                  # [B, L] -> two of [B, 1, L, d_head / 2], once for all layers
    half = d_head // 2
    inverse = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = places[:, None, :, None].float() * inverse
    return angle.cos(), angle.sin()


def rotate(x, turns):                          # [B, H, L, h]
    (cos, sin), half = (turn.to(x.dtype) for turn in turns), x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def mask_of(real):
    """None where nothing is padded, so that attention may take its fastest path."""
    return None if bool(real.all()) else real[:, None, None, :]


class Layer(nn.Module):
    """Attention, of rows to themselves or to others, then SwiGLU; norms before both."""

    def __init__(self, c):
        super().__init__()
        linear = lambda d_in, d_out: nn.Linear(d_in, d_out, bias=False)
        self.heads = c.heads
        self.attn_norm, self.ffn_norm = nn.LayerNorm(c.d), nn.LayerNorm(c.d)
        self.qkv, self.o = linear(c.d, 3 * c.d), linear(c.d, c.d)
        self.gate_up, self.down = linear(c.d, 2 * c.d_ff), linear(c.d_ff, c.d)

    def forward(self, x, turns, others, other_turns, mask):
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        own = self.attn_norm(x)
        if others is None:
            q, k, v = self.qkv(own).chunk(3, -1)
        else:
            d = x.shape[-1]
            q = F.linear(own, self.qkv.weight[:d])
            k, v = F.linear(self.attn_norm(others), self.qkv.weight[d:]).chunk(2, -1)
        mixed = F.scaled_dot_product_attention(rotate(split(q), turns), rotate(split(k), other_turns), split(v), attn_mask=mask)
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def groups(d, size):
    best = None
    for small in range(1, int(d ** 0.5) + 1):
        for divisor in (small, d // small) if d % small == 0 else ():
            if best is None or abs(divisor - size) < abs(best - size):
                best = divisor
    return best


def sample(x, offset, modulation):
    """What the taps of a deformable convolution read: x [B, L, d], the others [B, taps, L], to [B, L, taps * d]."""
    batch, length, d = x.shape
    taps = offset.shape[1]
    place = torch.arange(length) + torch.arange(taps)[:, None] - taps // 2 + offset
    left = place.floor()
    right_share = place - left

    def read(at, share):
        rows = at.clamp(0, length - 1).long().transpose(1, 2).reshape(batch, length * taps, 1)
        weight = (share * ((at >= 0) & (at < length)) * modulation).transpose(1, 2).reshape(batch, length * taps, 1)
        return x.gather(1, rows.expand(-1, -1, d)) * weight

    return (read(left, 1 - right_share) + read(left + 1, right_share)).reshape(batch, length, taps * d)


class Expert(nn.Module):
    def __init__(self, d, size, products):
        super().__init__()
        self.size, self.products = size, products
        self.pre, self.post = nn.Linear(d, 2 * d, bias=False), nn.Linear(d, d, bias=False)
        self.conv = nn.Conv1d(d, d, size, stride=size, groups=groups(d, size), bias=False)
        self.norm = nn.LayerNorm(d)

    def convolve(self, x):                     # [units * size, d] -> [units, d]
        if not self.products:
            return self.conv(x.T[None])[0].T
        d, inside, size = self.conv.weight.shape
        x = x.view(-1, size, d // inside, inside).permute(2, 0, 1, 3).reshape(d // inside, -1, size * inside)
        weight = self.conv.weight.view(d // inside, inside, inside, size).permute(0, 3, 2, 1).reshape(d // inside, size * inside, inside)
        return torch.bmm(x, weight).transpose(0, 1).reshape(-1, d)

    def forward(self, x):                      # [units * size, d] -> [units, d]
        return self.post(F.silu(self.norm(self.convolve(F.glu(self.pre(x))))))


class Units(nn.Module):
    """Bases to units to tokens."""

    def __init__(self, c, select, products):
        super().__init__()
        self.products = products
        self.sizes, self.select, self.pool = torch.tensor(c.sizes), select, ThreadPoolExecutor(torch.get_num_threads())
        self.norm, self.gate = nn.LayerNorm(c.d), nn.Linear(c.d, len(c.sizes), bias=False)
        self.experts = nn.ModuleList(Expert(c.d, size, products) for size in c.sizes)
        self.assembly_norm = nn.LayerNorm(c.d)
        self.offset, self.modulation = nn.Conv1d(c.d, 3, 3, padding=1), nn.Conv1d(c.d, 3, 3, padding=1)
        for conv in (self.offset, self.modulation):
            nn.init.zeros_(conv.weight), nn.init.zeros_(conv.bias)
        self.conv = nn.Parameter(torch.randn(c.d, c.d, 3, 1) * 0.02)

    def choose(self, scores, lengths):
        batch, positions, experts = scores.shape
        host = np.ascontiguousarray(scores.detach().float().numpy())
        anchors = np.full((batch, positions), -1, dtype=np.int32)
        pointer = lambda array: array.ctypes.data_as(ctypes.c_void_p)
        sizes, lengths = self.sizes.numpy(), lengths.numpy()

        def part(rows):
            self.select(pointer(host[rows]), pointer(sizes), pointer(lengths[rows]), ctypes.c_int64(len(lengths[rows])),
                        ctypes.c_int64(positions), ctypes.c_int64(experts), pointer(anchors[rows]))

        # C code runs without Python's lock.
        step = -(-batch // torch.get_num_threads())
        list(self.pool.map(part, [slice(first, first + step) for first in range(0, batch, step)]))
        return torch.from_numpy(anchors)

    def forward(self, x, special, lengths):
        normed = self.norm(x)
        jittered = normed * torch.empty_like(normed).uniform_(1 - JITTER, 1 + JITTER) if self.training else normed
        scores = self.gate(jittered * (~special)[..., None])
        anchors = self.choose(scores, lengths)
        batch, positions, d = x.shape
        flat, chance = normed.reshape(-1, d), scores.float().softmax(-1)
        flat_anchors = anchors.flatten()
        vectors, rows = [], []
        for number, expert in enumerate(self.experts):
            at = (flat_anchors == number).nonzero()[:, 0]
            if len(at) == 0:
                continue
            covered = at[:, None] - expert.size // 2 + torch.arange(expert.size)
            weight = chance.reshape(-1, chance.shape[-1])[at, number, None]
            vectors.append(expert(flat[covered.flatten()]) * weight)
            rows.append(at)
        added = x.reshape(-1, d).index_add(0, torch.cat(rows), torch.cat(vectors).to(x.dtype))
        is_unit = anchors >= 0
        chances = chance[is_unit]
        share = F.one_hot(anchors[is_unit].long(), len(self.experts)).float().mean(0)
        balance = len(self.experts) * (share * chances.mean(0)).sum()

        kept = is_unit | (special & (torch.arange(positions) < lengths[:, None]))
        count = kept.sum(1)
        order = torch.argsort(~kept, dim=1, stable=True)[:, :int(count.max())]
        real = torch.arange(order.shape[1]) < count[:, None]
        packed = added.reshape(batch, positions, d).gather(1, order[..., None].expand(-1, -1, d)) * real[..., None]
        units = real & is_unit.gather(1, order)
        normed = self.assembly_norm(packed) * real[..., None]
        a = normed.transpose(1, 2)
        offset, modulation = self.offset(a).float(), 2 * torch.sigmoid(self.modulation(a)).float()
        if self.products:
            read = sample(normed * units[..., None], offset, modulation)
            weight = self.conv[..., 0].transpose(1, 2).flatten(1)
            return packed + F.linear(read, weight), real, order, balance
        offset = torch.stack((offset, torch.zeros_like(offset)), 2).flatten(1, 2)[..., None]
        sampled = deform_conv2d((a * units[:, None, :]).float()[..., None], offset, self.conv.float(), padding=(1, 0),
                                mask=modulation[..., None])
        return packed + sampled[..., 0].transpose(1, 2).to(packed.dtype), real, order, balance


class Mxdna(nn.Module):
    def __init__(self, c, select, products):
        super().__init__()
        self.d_head = c.d // c.heads
        self.embed = nn.Embedding(LETTERS, c.d)
        self.bases = nn.ModuleList(Layer(c) for _ in range(c.base_layers))
        self.tokenizer = Units(c, select, products)
        self.units = nn.ModuleList(Layer(c) for _ in range(c.unit_layers))
        self.norm, self.decoder, self.head_norm = nn.LayerNorm(c.d), Layer(c), nn.LayerNorm(c.d)
        self.dense, self.dense_norm, self.out = nn.Linear(c.d, c.d), nn.LayerNorm(c.d), nn.Linear(c.d, LETTERS)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def hidden(self, ids, special, lengths):
        positions = torch.arange(ids.shape[1])
        mask, turns = mask_of(positions < lengths[:, None]), turns_of(positions[None], self.d_head)
        x = self.embed(ids)
        for layer in self.bases:
            x = layer(x, turns, None, turns, mask)
        tokens, real, places, balance = self.tokenizer(x, special, lengths)
        mask, turns = mask_of(real), turns_of(places, self.d_head)
        for layer in self.units:
            tokens = layer(tokens, turns, None, turns, mask)
        return x, self.norm(tokens), real, turns, balance

    def forward(self, ids, special, lengths, asked, within):
        """Logits of masked positions, given as [B, most] padded, of which `within` are real."""
        x, tokens, real, turns, balance = self.hidden(ids, special, lengths)
        rows = x.gather(1, asked[..., None].expand(-1, -1, x.shape[-1]))
        found = self.head_norm(self.decoder(rows, turns_of(asked, self.d_head), tokens, turns, mask_of(real)))[within]
        return self.out(self.dense_norm(F.gelu(self.dense(found)))), balance, int(real.sum())


def load(model, folder):
    """The weights of a folder that `vqdna pretrain --tokenizer mxdna` made."""
    from safetensors.torch import load_file

    given = load_file(folder / "model.safetensors")
    roots = {"decoder": "masked.decoder", "dense": "masked.head.dense", "dense_norm": "masked.head.norm", "out": "masked.head.out",
             "head_norm": "masked.head_norm", "tokenizer.assembly_norm": "encoder.tokenizer.assembly.norm",
             "tokenizer.offset": "encoder.tokenizer.assembly.offset", "tokenizer.modulation": "encoder.tokenizer.assembly.modulation",
             "tokenizer.conv": "encoder.tokenizer.assembly.conv.weight"}
    parts = {".qkv.": [".attn.q.", ".attn.k.", ".attn.v."], ".gate_up.": [".ffn.gate.", ".ffn.up."], ".o.": [".attn.o."], ".down.": [".ffn.down."]}

    def of(name):
        root = max((root for root in roots if name == root or name.startswith(root + ".")), key=len, default=None)
        theirs = roots[root] + name[len(root):] if root else "encoder." + name
        part = next((part for part in parts if part in theirs), None)
        return torch.cat([given.pop(theirs.replace(part, own)) for own in parts[part]]) if part else given.pop(theirs)

    own = model.state_dict()
    model.load_state_dict({name: of(name).reshape(own[name].shape) for name in own})
    if given:
        raise SystemExit(f"error: {folder} holds what this network has not: {', '.join(given)}")


def puzzle(batch, length, share=SHARE):
    """Sequences with masks: what is shown, what is special, lengths, what is asked for, and what stands there."""
    own = torch.randint(5, 9, (batch, length))
    masked = torch.rand(batch, length) < share
    draw = torch.rand(batch, length)
    shown = torch.where(masked & (draw < 0.8), MASKED, own)
    shown = torch.where(masked & (draw >= 0.8) & (draw < 0.9), torch.randint(5, 9, own.shape), shown)
    edge = lambda value: torch.full((batch, 1), value)
    ids = torch.cat((edge(FIRST), shown, edge(LAST)), 1)
    special = torch.zeros_like(ids, dtype=torch.bool)
    special[:, 0] = special[:, -1] = True
    most = int(masked.sum(1).max())
    order = torch.argsort(~masked, dim=1, stable=True)[:, :most]
    within = torch.arange(most) < masked.sum(1)[:, None]
    return ids, special, torch.full((batch,), length + 2), order + 1, within, own.gather(1, order)[within]


def adamw(model, lr=1e-4):
    big = [p for p in model.parameters() if p.ndim > 1]
    small = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": big, "weight_decay": 0.01}, {"params": small, "weight_decay": 0.0}], lr=lr, fused=True)


def report(a, bench, bases, tokens, times):
    import json
    seconds = statistics.median(times)
    print(json.dumps({"peer": "pytorch " + torch.__version__, "work": a.work, "preset": a.preset, "bf16": a.bf16, "bases": bases,
                      "seconds": round(seconds, 5), "min": round(min(times), 5), "max": round(max(times), 5),
                      "bases_per_s": round(bases / seconds, 1), "tokens_per_s": round(statistics.mean(tokens) / seconds, 1),
                      "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)}))


def main(a, bench):
    batch, length = bench.BATCH[a.preset], bench.LENGTH
    model = Mxdna(PRESETS[a.preset], build_selection(), a.products)
    if a.model:
        load(model, a.model)
    times, tokens = [], []
    optim = adamw(model)

    def train():
        ids, special, lengths, asked, within, letters = puzzle(batch, length)
        with bench.autocast(a.bf16):
            logits, balance, count = model(ids, special, lengths, asked, within)
            loss = F.cross_entropy(logits.float(), letters) + BALANCE * balance
        optim.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        return count

    step = train
    for _ in range(0 if a.model else BALANCING):
        train()
    if a.mode == "embed":
        model.eval()
        ids, special, lengths, *_ = puzzle(batch, length, 0)

        def step():
            with torch.inference_mode(), bench.autocast(a.bf16):
                return int(model.hidden(ids, special, lengths)[2].sum())

    for _ in range(WARMUP):
        step()
    for _ in range(a.runs):
        start = time.perf_counter()
        tokens.append(step())
        times.append(time.perf_counter() - start)
    report(a, bench, batch * length, tokens, times)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("mode", choices=["train", "embed"])
    p.add_argument("--peer", type=Path, required=True, help="folder of bench.py")
    p.add_argument("--preset", choices=list(PRESETS), default="small")
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--model", type=Path, metavar="FOLDER", help="weights to begin with")
    p.add_argument("--products", action="store_true", help="grouped and deformable convolutions as gathers and products")
    p.add_argument("--runs", type=int, default=7)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    a.work = f"mxdna-{a.mode}"
    sys.path.insert(0, str(a.peer))
    os.environ.setdefault("OMP_NUM_THREADS", str(a.threads))
    import bench

    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    main(a, bench)
