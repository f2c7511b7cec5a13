"""A plain GPT-2 in torch, written the way people write it for training, and its training step."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn

from experiments.benchmarks.case import Shape

_PREFIX = "transformer."


class Attention(nn.Module):
    """Mixes positions by causal self-attention."""

    def __init__(self, shape: Shape) -> None:
        """Makes one projection for queries, keys and values, and one for the result."""
        super().__init__()
        self.heads = shape.heads
        self.c_attn = nn.Linear(shape.width, 3 * shape.width)
        self.c_proj = nn.Linear(shape.width, shape.width)

    def forward(self, x_BxTxD: Tensor) -> Tensor:
        """Returns the same shape."""
        B, T, D = x_BxTxD.shape
        q, k, v = (
            part.view(B, T, self.heads, D // self.heads).transpose(1, 2)
            for part in self.c_attn(x_BxTxD).split(D, dim=-1)
        )
        mixed_BxHxTxK = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(mixed_BxHxTxK.transpose(1, 2).reshape(B, T, D))


class MLP(nn.Module):
    """Transforms each position by itself."""

    def __init__(self, shape: Shape) -> None:
        """Makes the two projections."""
        super().__init__()
        self.c_fc = nn.Linear(shape.width, 4 * shape.width)
        self.c_proj = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x_BxTxD: Tensor) -> Tensor:
        """Returns the same shape."""
        return self.c_proj(F.gelu(self.c_fc(x_BxTxD), approximate="tanh"))


class Block(nn.Module):
    """Adds attention and then an MLP to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        """Makes both with their norms."""
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(shape.width), Attention(shape)
        self.ln_2, self.mlp = nn.LayerNorm(shape.width), MLP(shape)

    def forward(self, x_BxTxD: Tensor) -> Tensor:
        """Returns the same shape."""
        x_BxTxD = x_BxTxD + self.attn(self.ln_1(x_BxTxD))
        return x_BxTxD + self.mlp(self.ln_2(x_BxTxD))


class GPT2(nn.Module):
    """Turns token ids into logits; the embedding is also the output matrix."""

    def __init__(self, shape: Shape) -> None:
        """Makes the layers, with GPT-2's initialization."""
        super().__init__()
        self.wte = nn.Embedding(shape.vocab, shape.width)
        self.wpe = nn.Embedding(shape.context, shape.width)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.ln_f = nn.LayerNorm(shape.width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                to_residual = name.endswith("c_proj.weight")
                std = 0.02 / math.sqrt(2 * shape.layers) if to_residual else 0.02
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids_BxT: Tensor) -> Tensor:
        """Returns logits [B, T, V]."""
        positions = torch.arange(ids_BxT.shape[1], device=ids_BxT.device)
        x_BxTxD = self.wte(ids_BxT) + self.wpe(positions)
        for block in self.h:
            x_BxTxD = block(x_BxTxD)
        return F.linear(self.ln_f(x_BxTxD), self.wte.weight)

    @torch.no_grad()
    def read(self, folder: Path) -> None:
        """Copies the weights of a model in Hugging Face's format, whose kernels are [in, out]."""
        with safe_open(folder / "model.safetensors", "pt") as file:
            for name, parameter in self.named_parameters():
                stored = file.get_tensor(_PREFIX + name)
                is_kernel = parameter.ndim == 2 and not name.startswith("w")
                parameter.copy_(stored.T if is_kernel else stored)


def cross_entropy(model: nn.Module, inputs_BxT: Tensor, targets_BxT: Tensor) -> Tensor:
    """Returns the mean loss in nats; models of transformers wrap their logits."""
    logits = model(inputs_BxT)
    logits = logits if isinstance(logits, Tensor) else logits.logits
    return F.cross_entropy(logits.flatten(0, 1), targets_BxT.flatten())


def adamw(model: nn.Module, rate: float, beta2: float) -> torch.optim.AdamW:
    """Returns the fused AdamW; matrices and embeddings decay, biases and norms do not."""
    parameters = [*model.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, beta2), eps=1e-8, fused=True)
