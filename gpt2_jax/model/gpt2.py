"""GPT-2 (Radford et al. 2019) as a Flax linen module: the page to read first.

Shapes are in the names: `x_BxTxD` has axes B, T, D.

    B batch   T tokens   S cache slots   L layers   H heads   D model width
    K head width (D / H)   F MLP width (4 D)   V vocabulary (padded rows included)

The parameter tree uses the names of OpenAI's release: wte, wpe, h/{ln_1, attn/{c_attn, c_proj},
ln_2, mlp/{c_fc, c_proj}}, ln_f. For training the blocks are scanned and each of their leaves has a
leading L axis; for decoding they are unrolled as h_0, h_1, ... (see `unstack`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gpt2_jax.config import ModelConfig
from gpt2_jax.model import attention
from gpt2_jax.model.cache import KVCache, LayerCache, append
from gpt2_jax.model.embedding import lookup
from gpt2_jax.model.layout import constrain
from gpt2_jax.model.matmul import matmul

INIT_STD = 0.02
POSITION_INIT_STD = 0.01

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_new": functools.partial(nn.gelu, approximate=True),
    "gelu": functools.partial(nn.gelu, approximate=False),
    "relu": nn.relu,
    "silu": nn.silu,
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
    "tanh": nn.tanh,
}
# JAX's own policies for matrix products do not see those with a gradient of their own.
_PRODUCT = "product"
_REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(_PRODUCT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Linear(nn.Module):
    """y = x W + b, contracting the trailing axes of x with the leading ones of W.

    Attributes:
      inputs, outputs: sizes of the contracted and of the new axes.
      axes: a logical name for each axis of W, inputs first.
      std: of the normal distribution W starts from; b starts from 0.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    axes: tuple[str | None, ...]
    config: ModelConfig
    std: float = INIT_STD

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x W + b in the compute dtype."""
        dtype, param_dtype = self.config.dtype, self.config.param_dtype
        kernel_init = nn.with_logical_partitioning(nn.initializers.normal(self.std), self.axes)
        bias_axes = tuple(
            "vector" if name == "embed" else name for name in self.axes[len(self.inputs) :]
        )
        bias_init = nn.with_logical_partitioning(nn.initializers.zeros, bias_axes)
        kernel: Any = self.param("kernel", kernel_init, self.inputs + self.outputs, param_dtype)
        bias: Any = self.param("bias", bias_init, self.outputs, param_dtype)
        product = matmul(x, kernel, len(self.inputs), self.axes)
        return checkpoint_name(product, _PRODUCT) + bias.astype(dtype)


class Attention(nn.Module):
    """Multi-head causal self-attention."""

    config: ModelConfig
    train: bool

    @nn.compact
    def __call__(
        self,
        x_BxTxD: jax.Array,
        cache: LayerCache | None,
        slots_BxT: jax.Array,
        segments_BxT: jax.Array | None,
        layer_scale: jax.Array | None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """Returns ([B, T, D], the cache with this call's keys and values appended)."""
        config = self.config
        D, H, K = config.d_model, config.num_heads, config.head_dim
        dropout = nn.Dropout(config.dropout, deterministic=not self.train)

        c_attn = Linear(
            (D,), (3, H, K), ("embed", None, "heads", "head_dim"), config, name="c_attn"
        )
        qkv_BxTx3xHxK = constrain(
            c_attn(x_BxTxD), ("batch", "length", None, "act_heads", "head_dim")
        )
        q_BxTxHxK, k_BxTxHxK, v_BxTxHxK = jnp.moveaxis(qkv_BxTx3xHxK, 2, 0)
        scale = K**-0.5 if config.scale_attn_weights else 1.0
        if layer_scale is not None:
            q_BxTxHxK = (q_BxTxHxK * layer_scale).astype(q_BxTxHxK.dtype)
        kernel = "reference" if cache is not None else attention.choose(config)
        if kernel != "reference":
            y_BxTxHxK = attention.fused_attention(
                q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, segments_BxT, scale, kernel
            )
        else:
            k_BxSxHxK, v_BxSxHxK = k_BxTxHxK, v_BxTxHxK
            if cache is not None:
                cache = append(cache, (k_BxTxHxK, v_BxTxHxK), slots_BxT[:, 0])
                k_BxSxHxK, v_BxSxHxK = cache
            y_BxTxHxK, probs_BxHxTxS = attention.reference_attention(
                q_BxTxHxK, k_BxSxHxK, v_BxSxHxK, slots_BxT, segments_BxT, scale, dropout
            )
            self.sow("intermediates", "attention", probs_BxHxTxS)
        c_proj = Linear(
            (H, K),
            (D,),
            ("heads", "head_dim", "embed"),
            config,
            _residual_std(config),
            name="c_proj",
        )
        return dropout(c_proj(y_BxTxHxK)), cache


class MLP(nn.Module):
    """D -> F, the activation (GPT-2: GELU in its tanh form), F -> D."""

    config: ModelConfig
    train: bool

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        """Returns [B, T, D]."""
        config = self.config
        D, F = config.d_model, config.mlp_width
        h_BxTxF = Linear((D,), (F,), ("embed", "mlp"), config, name="c_fc")(x_BxTxD)
        h_BxTxF = constrain(h_BxTxF, ("batch", "length", "act_mlp"))
        h_BxTxF = _ACTIVATIONS[config.activation](h_BxTxF)
        c_proj = Linear((F,), (D,), ("mlp", "embed"), config, _residual_std(config), name="c_proj")
        return nn.Dropout(config.dropout, deterministic=not self.train)(c_proj(h_BxTxF))


class Block(nn.Module):
    """A transformer block: attention and MLP, each behind a norm, add to the residual stream."""

    config: ModelConfig
    train: bool

    @nn.compact
    def __call__(
        self,
        x_BxTxD: jax.Array,
        cache: LayerCache | None,
        slots_BxT: jax.Array,
        segments_BxT: jax.Array | None,
        layer_scale: jax.Array | None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """Returns (the residual stream [B, T, D], the layer's cache)."""
        x_BxTxD = constrain(x_BxTxD, ("batch", "length", "act_embed"))
        h_BxTxD = _layer_norm(self.config, "ln_1")(x_BxTxD)
        h_BxTxD, cache = Attention(self.config, self.train, name="attn")(
            h_BxTxD, cache, slots_BxT, segments_BxT, layer_scale
        )
        x_BxTxD = x_BxTxD + h_BxTxD
        h_BxTxD = _layer_norm(self.config, "ln_2")(x_BxTxD)
        x_BxTxD = x_BxTxD + MLP(self.config, self.train, name="mlp")(h_BxTxD)
        return constrain(x_BxTxD, ("batch", "length", "act_embed")), cache


class GPT2(nn.Module):
    """Token and position embeddings, L blocks, a last norm, and the token embedding as output.

    Attributes:
      config: shape and dtypes.
      scanned: blocks as one scan over stacked parameters (training: quick to compile), or unrolled
        (decoding: quick to run); a cache is stacked or not as the blocks are.
      train: whether dropout is on; `apply` then needs `rngs={"dropout": key}`.
    """

    config: ModelConfig
    scanned: bool = True
    train: bool = False

    def setup(self) -> None:
        """Declares parameters and blocks."""
        config = self.config
        V, D = config.padded_vocab_size, config.d_model
        init = nn.initializers.normal
        wte_init = nn.with_logical_partitioning(init(INIT_STD), ("vocab", "embed"))
        wpe_init = nn.with_logical_partitioning(init(POSITION_INIT_STD), ("position", "embed"))
        self.wte: Any = self.param("wte", wte_init, (V, D), config.param_dtype)
        self.wpe: Any = self.param("wpe", wpe_init, (config.context_length, D), config.param_dtype)
        self.dropout = nn.Dropout(config.dropout, deterministic=not self.train)
        block = Block
        if config.remat != "none" and self.train:
            block = nn.remat(Block, prevent_cse=False, policy=_REMAT_POLICIES[config.remat])
        if self.scanned:
            self.h: Any = nn.scan(
                block,
                variable_axes={"params": 0, "intermediates": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, nn.broadcast, nn.broadcast, 0),  # pyright: ignore[reportArgumentType]
                length=config.num_layers,
                unroll=config.scan_unroll,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(config, self.train)
        else:
            self.h = [block(config, self.train) for _ in range(config.num_layers)]
        self.ln_f = _layer_norm(config)
        if not config.tie_embeddings:
            self.lm_head: Any = self.param("lm_head", wte_init, (V, D), config.param_dtype)

    def __call__(
        self,
        tokens_BxT: jax.Array,
        cache: KVCache | None = None,
        segments_BxT: jax.Array | None = None,
    ) -> tuple[jax.Array, KVCache | None]:
        """Runs the tokens through the blocks, behind those the cache holds.

        Args:
          tokens_BxT: int32 ids below the vocabulary size. With a cache: the next T tokens of each
            row.
          cache: None for whole sequences.
          segments_BxT: int32, which document each token is of, documents lying one after another:
            attention stays within one and positions start anew. None: a row is one. Whole sequences
            only.

        Returns:
          (hidden [B, T, D] after the last norm, the cache with T more tokens in each row or None).
        """
        T = tokens_BxT.shape[1]
        slots_BxT = jnp.arange(T)[None]
        if cache is not None:
            if cache.stacked != self.scanned:
                raise ValueError(f"these blocks need init_cache(..., stacked={self.scanned})")
            if segments_BxT is not None:
                raise ValueError("a cache holds one document a row: no segments")
            slots_BxT = cache.lengths[:, None] + slots_BxT
        positions_BxT = slots_BxT if segments_BxT is None else _restarting(segments_BxT)
        x_BxTxD = self._embed(tokens_BxT, positions_BxT)
        scales_L = _layer_scales(self.config)
        if self.scanned:
            x_BxTxD, layers = self.h(
                x_BxTxD, cache and cache.layers, slots_BxT, segments_BxT, scales_L
            )
        else:
            layers = []
            for i, block in enumerate(self.h):
                layer_scale = None if scales_L is None else scales_L[i]
                x_BxTxD, layer = block(
                    x_BxTxD, cache and cache.layers[i], slots_BxT, segments_BxT, layer_scale
                )
                layers.append(layer)
            layers = tuple(layers)
        if cache is not None:
            cache = KVCache(layers, cache.lengths + T)
        return self.ln_f(x_BxTxD), cache

    def logits(
        self, tokens_BxT: jax.Array, cache: KVCache | None = None
    ) -> tuple[jax.Array, KVCache | None]:
        """Like `__call__`, up to logits: (float32 [B, T, vocab_size] without padding, cache)."""
        hidden_BxTxD, cache = self(tokens_BxT, cache)
        return self.unembed(hidden_BxTxD), cache

    def unembed(self, hidden_BxTxD: jax.Array) -> jax.Array:
        """Logits of hidden states: float32 [B, T, vocab_size] without the padded rows."""
        table = self.wte if self.config.tie_embeddings else self.lm_head
        table_VxD = table.astype(self.config.dtype)[: self.config.vocab_size]
        return jnp.einsum(
            "btd,vd->btv", hidden_BxTxD, table_VxD, preferred_element_type=jnp.float32
        )

    def _embed(self, tokens_BxT: jax.Array, positions_BxT: jax.Array) -> jax.Array:
        dtype = self.config.dtype
        tokens_BxTxD: Any = lookup(self.wte, tokens_BxT, ("vocab", "embed"), dtype)
        x_BxTxD = tokens_BxTxD + lookup(self.wpe, positions_BxT, ("position", "embed"), dtype)
        return self.dropout(constrain(x_BxTxD, ("batch", "length", "act_embed")))


def output_table(params: Mapping[str, Any]) -> jax.Array:
    """The output matrix [V, D]: the token embedding, unless it is untied."""
    return params.get("lm_head", params["wte"])


def unstack(params: Mapping[str, Any], num_layers: int) -> dict[str, Any]:
    """Scanned parameters (`h` with leading L axes) as unrolled ones (`h_0`, `h_1`, ...)."""
    layers = {
        f"h_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], params["h"]) for i in range(num_layers)
    }
    return {name: leaf for name, leaf in params.items() if name != "h"} | layers


def _restarting(segments_BxT: jax.Array) -> jax.Array:
    """Positions 0, 1, ... [B, T] from the first token of every segment on."""
    slots_T = jnp.arange(segments_BxT.shape[1])
    starts_BxT = jnp.pad(segments_BxT[:, 1:] != segments_BxT[:, :-1], ((0, 0), (1, 0)))
    return slots_T - jax.lax.cummax(jnp.where(starts_BxT, slots_T, 0), axis=1)


def _layer_norm(config: ModelConfig, name: str | None = None) -> nn.LayerNorm:
    """Layer normalization over D with statistics in float32 (Ba et al. 2016)."""
    return nn.LayerNorm(
        epsilon=config.layer_norm_epsilon,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        # E[x^2] - E[x]^2, flax's default, cancels on the large activations of trained models.
        use_fast_variance=False,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("vector",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("vector",)),
        name=name,
    )


def _layer_scales(config: ModelConfig) -> jax.Array | None:
    """What the queries of layer i are multiplied by, [L]: 1 / (i + 1), or None for no such scale.

    Mistral's GPT-2 runs (Stanford CRFM) scaled so; Hugging Face's config names the knob.
    """
    if not config.scale_attn_by_inverse_layer_idx:
        return None
    return 1 / jnp.arange(1, config.num_layers + 1, dtype=jnp.float32)


def _residual_std(config: ModelConfig) -> float:
    """Initial deviation of the 2 L projections into the residual stream (paper, section 2.3)."""
    return INIT_STD / math.sqrt(2 * config.num_layers)
