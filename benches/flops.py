"""Useful matrix-product FLOPs per base of every workload, from the shapes of the networks.

A multiply-add is 2 FLOPs. L is the bases of a window, d the width of the network, K the size of a codebook.

    convolution block       16 d²            pointwise d -> 4d -> d
    tokenizer's encoder     2 d_stem d  +  blocks · 16 d²
    quantizer's search      2 d K  per level; never trained
    tokenizer's decoder     blocks · 16 d²  +  2 d d_stem  +  2 · 5 · 4 d_stem   (kernel 5, 4 letters)
    transformer layer       8 d²  (query, key, value, out)  +  4 d d_ff  +  4 L d  (attention)
    backbone                2 d_input d  +  layers · layer
    heads of pre-training   0.25 · (2 d²  +  2 d K per level)   on the masked positions only

    encode, tokenize        encoder + search
    learn                   3 · (encoder + decoder) + search
    embed                   backbone
    pretrain                3 · (backbone + heads), less 2 d_input d: code vectors take no gradient
    finetune-full           3 · (backbone + head), less 2 d_input d; windows of 101 bases
    finetune-lora           backbone  +  its gradients of rows  +  adapters  +  3 · head; windows of 101 bases

    head of fine-tuning     (2 d²  +  4 d) / L: once a window
    gradients of rows       layers · layer  +  layers · 4 L d, less 6 d²: below the first layer nothing learns
    adapters                layers · 4 · 8 · 8 d: of queries, keys, values and out, rank 8, two thin products for each factor

Training takes 3 times the forward pass: a backward product for the inputs and one for the weights, which frozen ones do not need; of
attention, two for each of its products in any case. Left out as no products: the
stem (a look-up by letter), depth-wise convolutions, norms, activations, softmax, optimizer and codebook averages. Left out as not
useful: neighbourhoods that tokenize computes twice, and the square that completes a distance.
"""
from dataclasses import dataclass

WINDOW = 512
FINETUNE_WINDOW = 101
MASKED = 0.25
RANK = 8


@dataclass(frozen=True)
class Tokenizer:
    d_stem: int
    d_code: int
    codebook_sizes: tuple
    blocks: int = 6

    def blocks_flops(self):
        return self.blocks * 16 * self.d_code**2

    def encoder(self):
        return 2 * self.d_stem * self.d_code + self.blocks_flops()

    def search(self):
        return sum(2 * self.d_code * size for size in self.codebook_sizes)

    def decoder(self):
        return self.blocks_flops() + 2 * self.d_code * self.d_stem + 2 * 5 * 4 * self.d_stem


@dataclass(frozen=True)
class Backbone:
    d_input: int
    d_model: int
    layers: int
    d_ff: int
    codebook_sizes: tuple

    def projection(self):
        return 2 * self.d_input * self.d_model

    def linear(self):
        return self.layers * (8 * self.d_model**2 + 4 * self.d_model * self.d_ff)

    def attention(self, length):
        return self.layers * 4 * length * self.d_model

    def adapters(self):
        return self.layers * 4 * 8 * RANK * self.d_model

    def sequence_head(self, length):
        return (2 * self.d_model**2 + 4 * self.d_model) / length

    def heads(self):
        return MASKED * (2 * self.d_model**2 + sum(2 * self.d_model * size for size in self.codebook_sizes))


TOKENIZER = {
    "small": Tokenizer(d_stem=64, d_code=128, codebook_sizes=(256, 512)),
    "base": Tokenizer(d_stem=256, d_code=384, codebook_sizes=(1024, 2048)),
}
BACKBONE = {
    "small": Backbone(d_input=128, d_model=384, layers=6, d_ff=1536, codebook_sizes=(256, 512)),
    "base": Backbone(d_input=384, d_model=768, layers=12, d_ff=3072, codebook_sizes=(1024, 2048)),
}


def window(work):
    """Bases of a window, unless a workload is measured with others."""
    return FINETUNE_WINDOW if work.startswith("finetune") else WINDOW


def parts(work, preset, length=None):
    """FLOPs per base of a workload, by part."""
    length = length or window(work)
    if work in ("learn", "encode", "tokenize"):
        net = TOKENIZER[preset]
        frozen = {"encoder": net.encoder(), "search": net.search()}
        if work != "learn":
            return frozen
        return {**frozen, "decoder": net.decoder(), "backward": 2 * (net.encoder() + net.decoder())}
    net = BACKBONE[preset]
    frozen = {"projection": net.projection(), "linear": net.linear(), "attention": net.attention(length)}
    if work == "embed":
        return frozen
    if work == "finetune-lora":
        head = net.sequence_head(length)
        rows = net.linear() + 2 * net.attention(length) - 6 * net.d_model**2
        return {**frozen, "head": head, "backward": rows + 2 * head, "adapters": net.adapters()}
    forward = {**frozen, "heads": net.sequence_head(length) if work == "finetune-full" else net.heads()}
    return {**forward, "backward": 2 * sum(forward.values()) - net.projection()}


def per_base(work, preset, length=None):
    return sum(parts(work, preset, length).values())
