"""Defines GPT-2 (Radford et al. 2019) as a Flax linen module: the file to read first.

Shapes are in the names: `x_BxTxD` has axes B, T, D.

    B batch   T tokens   S cache slots   L layers   H heads   D model width
    K head width (D / H)   F MLP width (4 D)   V vocabulary (padded rows included)

The parameter tree uses the names of OpenAI's release: wte, wpe, h/{ln_1, attn/{c_attn, c_proj},
ln_2, mlp/{c_fc, c_proj}}, ln_f. For training, the blocks are scanned and each of their leaves has a
leading L axis; for decoding, they are unrolled as h_0, h_1, ... (see `params.unstack`).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt2_jax.config import ComputeConfig, ModelConfig
from gpt2_jax.model.activations import GATES, make_activation
from gpt2_jax.model.attention import layer_scales, reference_attention, split_qkv
from gpt2_jax.model.attention_kernels import choose, fused_attention
from gpt2_jax.model.cache import KVCache, LayerCache, append
from gpt2_jax.model.cached_attention import cached_attention
from gpt2_jax.model.defaults import layers_per_iteration
from gpt2_jax.model.dropout import Dropout
from gpt2_jax.model.embedding import embed
from gpt2_jax.model.layout import constrain
from gpt2_jax.model.linear import PRODUCT, Linear
from gpt2_jax.model.lora import adapter_of
from gpt2_jax.model.mup import matrix_std, output_scale, scaled
from gpt2_jax.model.norms import QK_NORMS, make_norm
from gpt2_jax.model.positions import ENCODINGS, restarting_positions
from gpt2_jax.model.residual import (
    INIT_STD,
    NORM_POSITIONS,
    Mix,
    Stream,
    empty_values,
    is_first_layer,
    residual_std,
)
from gpt2_jax.model.softcap import capped
from gpt2_jax.model.taps import VALUES, tap, tap_of

_REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Attention(nn.Module):
    """Computes multi-head causal self-attention."""

    config: ModelConfig
    compute: ComputeConfig
    train: bool

    @nn.compact
    def __call__(
        self,
        x_BxTxD: jax.Array,
        cache: LayerCache | None,
        slots_BxT: jax.Array,
        positions_BxT: jax.Array,
        segments_BxT: jax.Array | None,
        layer_scale: jax.Array | None,
        first_v_BxTxHxK: jax.Array | None,
        is_first: jax.Array | None,
    ) -> tuple[jax.Array, LayerCache | None, jax.Array | None]:
        """Returns ([B, T, D], the layer's cache with T more tokens, the first layer's values)."""
        config, compute = self.config, self.compute
        D, H, K = config.d_model, config.num_heads, config.head_dim
        dropout = Dropout(config.dropout, deterministic=not self.train)

        axes, std = ("embed", None, "heads", "head_dim"), matrix_std(config, INIT_STD)
        lora = adapter_of(config, "attn.c_attn", train=self.train)
        c_attn = Linear((D,), (3, H, K), axes, compute, std, config.bias, lora, name="c_attn")
        q_BxTxHxK, k_BxTxHxK, v_BxTxHxK = split_qkv(c_attn(x_BxTxD), H)
        if first_v_BxTxHxK is not None and is_first is not None:
            first_v_BxTxHxK = jnp.where(is_first, v_BxTxHxK, first_v_BxTxHxK)
            v_BxTxHxK = Mix(name="value_mix")(v_BxTxHxK, first_v_BxTxHxK)
        if norm := QK_NORMS[config.qk_norm]:
            q_BxTxHxK = norm.make(config, compute, "ln_q")(q_BxTxHxK)
            k_BxTxHxK = norm.make(config, compute, "ln_k")(k_BxTxHxK)
        encoding = ENCODINGS[config.position]
        if rotate := encoding.rotate:
            q_BxTxHxK, k_BxTxHxK = (rotate(x, positions_BxT) for x in (q_BxTxHxK, k_BxTxHxK))
        if layer_scale is not None:
            q_BxTxHxK = (q_BxTxHxK * layer_scale).astype(q_BxTxHxK.dtype)
        named = zip("qkv", (q_BxTxHxK, k_BxTxHxK, v_BxTxHxK), strict=True)
        q_BxTxHxK, k_BxTxHxK, v_BxTxHxK = (tap(self, name, x) for name, x in named)
        qkv, precision = (q_BxTxHxK, k_BxTxHxK, v_BxTxHxK), compute.matmul_precision
        scale, window, score_bias = config.score_scale, config.attention_window, encoding.score_bias
        if cache is not None:
            cache = append(cache, (k_BxTxHxK, v_BxTxHxK), slots_BxT[:, 0])
            bias = score_bias and score_bias(self, q_BxTxHxK, slots_BxT, cache[0].shape[2])
            y_BxTxHxK = cached_attention(
                q_BxTxHxK, *cache, slots_BxT, scale, precision, window, bias
            )
        elif (kernel := choose(config, compute)) != "reference":
            y_BxTxHxK = fused_attention(*qkv, segments_BxT, scale, kernel, precision, window)
        else:
            bias = score_bias and score_bias(self, q_BxTxHxK, slots_BxT, x_BxTxD.shape[1])
            y_BxTxHxK = reference_attention(
                *qkv, slots_BxT, segments_BxT, scale, dropout, precision, window, bias, tap_of(self)
            )
        y_BxTxHxK = tap(self, "z", y_BxTxHxK)
        axes, std = ("heads", "head_dim", "embed"), residual_std(config)
        lora = adapter_of(config, "attn.c_proj", train=self.train)
        c_proj = Linear((H, K), (D,), axes, compute, std, config.bias, lora, name="c_proj")
        return tap(self, "out", dropout(c_proj(y_BxTxHxK))), cache, first_v_BxTxHxK


class MLP(nn.Module):
    """Projects D -> F, applies the activation (GPT-2: the tanh form of GELU), projects F -> D."""

    config: ModelConfig
    compute: ComputeConfig
    train: bool

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        """Returns [B, T, D]."""
        config, compute = self.config, self.compute
        D, F, bias = config.d_model, config.mlp_width, config.bias
        std = matrix_std(config, INIT_STD)

        def widened(name: str) -> jax.Array:
            lora = adapter_of(config, f"mlp.{name}", train=self.train)
            y = Linear((D,), (F,), ("embed", "mlp"), compute, std, bias, lora, name=name)(x_BxTxD)
            return constrain(y, ("batch", "length", "act_mlp"))

        h_BxTxF = tap(self, "pre", widened("c_fc"))
        if gate := GATES.get(config.activation):
            h_BxTxF = gate(widened("c_gate")) * h_BxTxF
        else:
            h_BxTxF = make_activation(config.activation, plain=compute.plain)(h_BxTxF)
        h_BxTxF = tap(self, "neurons", h_BxTxF)
        axes, std = ("mlp", "embed"), residual_std(config)
        lora = adapter_of(config, "mlp.c_proj", train=self.train)
        c_proj = Linear((F,), (D,), axes, compute, std, bias, lora, name="c_proj")
        dropout = Dropout(config.dropout, deterministic=not self.train)
        return tap(self, "out", dropout(c_proj(h_BxTxF)))


class Block(nn.Module):
    """Adds attention and MLP to the residual stream, each with a norm: in GPT-2 before it."""

    config: ModelConfig
    compute: ComputeConfig
    train: bool

    @nn.compact
    def __call__(
        self,
        stream: Stream,
        cache: LayerCache | None,
        slots_BxT: jax.Array,
        positions_BxT: jax.Array,
        segments_BxT: jax.Array | None,
        first_x_BxTxD: jax.Array | None,
        of_layer: tuple[jax.Array | None, jax.Array | None],
    ) -> tuple[Stream, LayerCache | None]:
        """Returns (the residual stream, the layer's cache).

        Args:
          of_layer: the factor of the layer's queries, and whether it is the first; None if unused.
        """
        config, compute = self.config, self.compute
        ln_1, ln_2 = make_norm(config, compute, "ln_1"), make_norm(config, compute, "ln_2")
        place = NORM_POSITIONS[config.norm_position]  # GPT-2 normalizes before, and not after
        x_BxTxD = constrain(stream.x_BxTxD, ("batch", "length", "act_embed"))
        if first_x_BxTxD is not None:
            x_BxTxD = Mix(name="x0_mix")(x_BxTxD, first_x_BxTxD)
        x_BxTxD = tap(self, "resid_pre", x_BxTxD)
        h_BxTxD = tap(self, "attn_in", place.before(ln_1, x_BxTxD))
        layer_scale, is_first = of_layer
        h_BxTxD, cache, first_v = Attention(config, compute, self.train, name="attn")(
            h_BxTxD,
            cache,
            slots_BxT,
            positions_BxT,
            segments_BxT,
            layer_scale,
            stream.first_v_BxTxHxK,
            is_first,
        )
        x_BxTxD = tap(self, "resid_mid", place.after(ln_1, x_BxTxD + h_BxTxD))
        h_BxTxD = tap(self, "mlp_in", place.before(ln_2, x_BxTxD))
        h_BxTxD = MLP(config, compute, self.train, name="mlp")(h_BxTxD)
        x_BxTxD = tap(self, "resid_post", place.after(ln_2, x_BxTxD + h_BxTxD))
        return Stream(constrain(x_BxTxD, ("batch", "length", "act_embed")), first_v), cache


class GPT2(nn.Module):
    """Runs token and position embeddings, L blocks, a final norm and the output matrix.

    `gpt2_jax.model.build` constructs it.

    Attributes:
      config: which function it is.
      compute: how it is computed.
      scanned: whether the blocks are one scan over stacked parameters (fast to compile, for
        training) or unrolled (fast to run, for decoding); a cache must be stacked accordingly.
      train: whether dropout and remat are active; `apply` then needs `rngs={"dropout": key}`.
    """

    config: ModelConfig
    compute: ComputeConfig
    scanned: bool = True
    train: bool = False

    def setup(self) -> None:
        """Declares the parameters and the blocks."""
        config, compute = self.config, self.compute
        V, D = config.padded_vocab_size, config.d_model
        normal = nn.initializers.normal(INIT_STD)
        wte_init = nn.with_logical_partitioning(normal, ("vocab", "embed"))
        self.wte: Any = self.param("wte", wte_init, (V, D), jnp.float32)
        self.position: Any = ENCODINGS[config.position].declare(self, config)
        self.dropout = Dropout(config.dropout, deterministic=not self.train)
        block = Block
        if compute.remat != "none" and self.train:
            block = nn.remat(Block, prevent_cse=False, policy=_REMAT_POLICIES[compute.remat])
        if self.scanned:
            self.h: Any = nn.scan(
                block,
                variable_axes={"params": 0, VALUES: 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, *(nn.broadcast,) * 4, 0),  # pyright: ignore[reportArgumentType]
                length=config.num_layers,
                unroll=layers_per_iteration(config, compute),
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(config, compute, self.train)
        else:
            self.h = [block(config, compute, self.train) for _ in range(config.num_layers)]
        if NORM_POSITIONS[config.norm_position].has_final:
            self.ln_f = make_norm(config, compute)
        if not config.tie_embeddings:
            self.lm_head: Any = self.param("lm_head", wte_init, (V, D), jnp.float32)

    def __call__(
        self,
        tokens_BxT: jax.Array,
        cache: KVCache | None = None,
        segments_BxT: jax.Array | None = None,
    ) -> tuple[jax.Array, KVCache | None]:
        """Runs the tokens through the blocks, behind the tokens that the cache holds.

        Args:
          tokens_BxT: int32 ids below the vocabulary size; with a cache, the next T tokens of each
            row.
          cache: keys and values of earlier tokens; None for whole sequences.
          segments_BxT: int32, the document of each token; documents lie one after another,
            attention stays within a document and positions restart at each. None means that a row
            is one document. A cache takes no segments.

        Returns:
          (hidden states [B, T, D] after the final norm, with muP times the factor of the logits;
          the cache with T more tokens in each row, None without a cache).
        """
        T = tokens_BxT.shape[1]
        slots_BxT = jnp.arange(T)[None]
        if cache is not None:
            if cache.stacked != self.scanned:
                raise ValueError(f"these blocks need init_cache(..., stacked={self.scanned})")
            if segments_BxT is not None:
                raise ValueError("a cache takes no segments: each of its rows is one document")
            slots_BxT = cache.lengths[:, None] + slots_BxT
        positions_BxT = slots_BxT if segments_BxT is None else restarting_positions(segments_BxT)
        x_BxTxD = self.embed(tokens_BxT, positions_BxT)
        config = self.config
        stream = Stream(x_BxTxD, empty_values(config, x_BxTxD))
        of_layers_L = layer_scales(config), is_first_layer(config)
        inputs = slots_BxT, positions_BxT, segments_BxT, x_BxTxD if config.x0_residual else None
        if self.scanned:
            stream, layers = self.h(stream, cache and cache.layers, *inputs, of_layers_L)
        else:
            layers = []
            for i, block in enumerate(self.h):
                of_layer = jax.tree.map(lambda leaf, i=i: leaf[i], of_layers_L)
                stream, layer = block(stream, cache and cache.layers[i], *inputs, of_layer)
                layers.append(layer)
            layers = tuple(layers)
        if cache is not None:
            cache = KVCache(layers, cache.lengths + T)
        return self.finish(stream.x_BxTxD), cache

    def finish(self, x_BxTxD: jax.Array) -> jax.Array:
        """Returns hidden states, which `unembed` takes, of the residual stream behind any block."""
        if NORM_POSITIONS[self.config.norm_position].has_final:
            x_BxTxD = self.ln_f(x_BxTxD)
        return scaled(x_BxTxD, output_scale(self.config))

    def logits(
        self, tokens_BxT: jax.Array, cache: KVCache | None = None
    ) -> tuple[jax.Array, KVCache | None]:
        """Returns (float32 logits [B, T, vocab_size], without padded rows; the cache)."""
        hidden_BxTxD, cache = self(tokens_BxT, cache)
        return self.unembed(hidden_BxTxD), cache

    def unembed(self, hidden_BxTxD: jax.Array) -> jax.Array:
        """Returns float32 logits [B, T, vocab_size] of hidden states, without padded rows."""
        table = self.wte if self.config.tie_embeddings else self.lm_head
        logits_BxTxV = jnp.einsum(
            "btd,vd->btv",
            hidden_BxTxD,
            table.astype(self.compute.dtype),
            precision=self.compute.matmul_precision,
            preferred_element_type=jnp.float32,
        )
        # Padded rows are dropped from the logits: to cut the table, XLA would copy it every time.
        return capped(logits_BxTxV[..., : self.config.vocab_size], self.config.logit_softcap)

    def embed(self, tokens_BxT: jax.Array, positions_BxT: jax.Array) -> jax.Array:
        """Returns the embeddings [B, T, D] that enter the first block."""
        x_BxTxD = tap(self, "token", embed(self.wte, tokens_BxT, ("vocab", "embed"), self.compute))
        if add := ENCODINGS[self.config.position].embed:
            x_BxTxD = add(self.position, x_BxTxD, positions_BxT, self.compute)
        x_BxTxD = tap(self, "embedding", scaled(x_BxTxD, self.config.mup_input_alpha))
        return self.dropout(constrain(x_BxTxD, ("batch", "length", "act_embed")))
