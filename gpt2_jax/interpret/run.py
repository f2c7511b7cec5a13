"""Runs a text through a model, keeps the residual stream, and runs single blocks of it again.

To keep all that is computed would take gigabytes for a long text. The residual stream [2 L + 1, T,
D] is enough to compute any block again, in the time of one block. What is kept is in the memory of
the host, so that texts that are looked into take none from an accelerator that serves others.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.formats import base
from gpt2_jax.interpret import programs
from gpt2_jax.interpret.interventions import NO_INTERVENTIONS, Interventions
from gpt2_jax.interpret.patterns import Overview, overview
from gpt2_jax.model import lengths
from gpt2_jax.model.build import build_decoder
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.lora import merge, without_adapters
from gpt2_jax.model.params import cast, stack, unstack
from gpt2_jax.model.positions import ENCODINGS
from gpt2_jax.model.residual import Stream
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_SMALLEST = 16
_MOST_TOKENS = 1024
"""The longest text, because the scores of one head have its square."""
_MOST_PATTERN_BYTES = 2**26
"""Patterns of all heads are kept if they are no larger; else a block is computed for its own.

Of such a long text, queries and keys are kept, from which those of one query follow at once, unless
positions enter the scores by a bias.
"""
_MOST_RECENT_BYTES = 2**26
"""Values of the last blocks that were asked for are kept, those of one at least."""
_PATTERN = "attn/pattern"
_KEPT = ("resid_mid", "resid_post", _PATTERN, "attn/z", "mlp/out")
"""What a run takes from each block."""
_SQUARE = ("attn/scores", "attn/seen", _PATTERN)
"""Values [1, H or 1, T, T]; all others are [1, T, ...]."""
_VALUES = (
    *("resid_pre", "attn_in", "resid_mid", "mlp_in", "resid_post"),
    *(f"attn/{name}" for name in ("q", "k", "v", "scores", "seen", "pattern", "z", "out")),
    *("mlp/pre", "mlp/neurons", "mlp/out"),
)
"""What `Run.block` gives: all of it in one program, which takes long to compile and not to run."""


def longest_text(config: ModelConfig) -> int:
    """Returns the most tokens of a text that a model is shown with."""
    return min(config.longest, _MOST_TOKENS)


def padded_length(num_tokens: int, config: ModelConfig) -> int:
    """Returns the length that a text is padded to: a power of two, or the model's longest."""
    size = _SMALLEST
    while size < num_tokens:
        size *= 2
    return min(size, config.longest)


class Recent:
    """Keeps what blocks computed last, for views of one block that are asked for one by one."""

    def __init__(self) -> None:
        """Starts with nothing."""
        self._values: dict[tuple[object, int], Mapping[str, np.ndarray]] = {}

    def get(self, key: tuple[object, int]) -> Mapping[str, np.ndarray] | None:
        """Returns the values of a run and a layer, if they are still there."""
        return self._values.get(key)

    def put(self, key: tuple[object, int], values: Mapping[str, np.ndarray]) -> None:
        """Keeps values in the place of the oldest ones."""
        self._values[key] = values
        while len(self._values) > 1 and self._num_bytes() > _MOST_RECENT_BYTES:
            self._values.pop(next(iter(self._values)))

    def drop(self, run: object) -> None:
        """Lets go of the values of one run."""
        self._values = {key: values for key, values in self._values.items() if key[0] is not run}

    def _num_bytes(self) -> int:
        return sum(array.nbytes for each in self._values.values() for array in each.values())


class Subject:
    """Holds a model that texts are run through, in float32 and with its adapters merged.

    Attributes:
      config: of the module: without adapters.
      model: the module.
      params: unrolled over layers.
      tokenizer: of its texts.
      longest: the most tokens of a text.
      recent: values of its blocks.
    """

    def __init__(self, config: Config, params: Any, tokenizer: Tokenizer) -> None:
        """Prepares a model.

        Args:
          config: of the run that made it.
          params: scanned parameters in float32, as `formats.load` returns them; or unrolled ones,
            of which those in float32 are shared.
          tokenizer: of the model.
        """
        model = config.model
        if model.lora_rank:
            stacked = params if "h" in params else stack(params, model.num_layers)
            params, model = merge(stacked, model), without_adapters(model)
        compute = dataclasses.replace(config.compute, dtype="float32", precision="highest")
        self.config = model
        self.model: GPT2 = build_decoder(model, compute)
        unrolled = unstack(params, model.num_layers) if "h" in params else params
        self.params = cast(unrolled, "float32")
        self.tokenizer = tokenizer
        self.longest = longest_text(model)
        self.recent = Recent()

    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns a hash of the config and of all parameters."""
        of_params = base.fingerprint(self.params, self.config)
        return hashlib.sha256(f"{self.config} {of_params}".encode()).hexdigest()[:16]

    @functools.cached_property
    def outside(self) -> dict[str, Any]:
        """Returns the parameters outside of the blocks."""
        blocks = {f"h_{i}" for i in range(self.config.num_layers)}
        return {name: leaf for name, leaf in self.params.items() if name not in blocks}


class Run:
    """Holds what one text left in a model.

    Attributes:
      subject: the model.
      tokens: ids of the text, T of them, at least one.
      interventions: what was changed.
      token_embeddings: float32 [T, D], the rows of the embedding table.
      residual: float32 [2 L + 1, T, D]: what enters the first block, then what each block has
        behind its attention and behind its MLP.
      z: float32 [L, T, H, K], the heads' outputs before the projection.
      mlp_out: float32 [L, T, D], what the MLPs add.
      queries_and_keys: float32 [2, L, T, H, K], as `z` by layer; None if patterns are kept, or if
        scores need more than these.
      overviews: of the attention patterns of each layer.
    """

    def __init__(
        self,
        subject: Subject,
        tokens: Sequence[int],
        interventions: Interventions = NO_INTERVENTIONS,
    ) -> None:
        """Runs the text.

        Raises:
          UserError: for no token, too many of them, or an intervention that the model has no place
            for.
        """
        self.subject, self.tokens, self.interventions = subject, list(tokens), interventions
        _check_length(self.tokens, subject)
        interventions.check(subject.config, len(self.tokens))
        self._key, self._size = object(), padded_length(len(self.tokens), subject.config)
        embedded = programs.embed(subject.model, subject.outside, self.padded(self.tokens))
        self.token_embeddings = np.asarray(embedded.token_TxD)[: len(self)].copy()
        self._compute(embedded.embedding_TxD)

    def _compute(self, padded_first_x_TxD: jax.Array) -> None:
        """Keeps what the blocks leave of the text, behind which their T axis has padding."""
        L, H, T = self.subject.config.num_layers, self.subject.config.num_heads, len(self)
        stream = programs.empty_stream(self.subject.model, padded_first_x_TxD)
        self.overviews: list[Overview] = []
        keep = 4 * L * H * self._size**2 <= _MOST_PATTERN_BYTES
        self._patterns: list[np.ndarray] | None = [] if keep else None
        has_bias = ENCODINGS[self.subject.config.position].score_bias is not None
        qk = () if keep or has_bias else ("attn/q", "attn/k")
        rows = [np.asarray(padded_first_x_TxD)[:T]]
        kept: dict[str, list[np.ndarray]] = {name: [] for name in ("attn/z", "mlp/out", *qk)}
        for layer in range(L):
            stream, values = self._run_block(layer, stream, padded_first_x_TxD, (*_KEPT, *qk))
            rows += [values["resid_mid"], values["resid_post"]]
            for name, arrays in kept.items():
                arrays.append(values[name])
            self.overviews.append(overview(values[_PATTERN], self.tokens))
            if self._patterns is not None:
                self._patterns.append(values[_PATTERN].copy())
        self.residual = np.stack(rows)
        self.z, self.mlp_out = np.stack(kept["attn/z"]), np.stack(kept["mlp/out"])
        self.queries_and_keys = np.stack([kept[name] for name in qk]) if qk else None
        first_v = stream.first_v_BxTxHxK
        self._first_v_TxHxK = None if first_v is None else np.asarray(first_v)[0, :T].copy()

    def __len__(self) -> int:
        """Returns T, the number of tokens."""
        return len(self.tokens)

    @property
    def num_bytes(self) -> int:
        """Returns the bytes that the run keeps."""
        arrays = [self.token_embeddings, self.residual, self.z, self.mlp_out]
        arrays += self._patterns or []
        arrays += [x for x in (self.queries_and_keys, self._first_v_TxHxK) if x is not None]
        arrays += [x for of_layer in self.overviews for x in of_layer]
        return sum(array.nbytes for array in arrays)

    def padded(self, rows: Any) -> np.ndarray:
        """Returns rows of the text, and the last one again up to the length of its programs."""
        rows = np.asarray(rows)
        behind = [(0, self._size - len(rows)), *[(0, 0)] * (rows.ndim - 1)]
        return np.pad(rows, behind, mode="edge")

    def _on_device(self, rows: np.ndarray) -> jax.Array:
        return jnp.asarray(self.padded(rows))

    def patterns(self, layer: int) -> np.ndarray:
        """Returns the attention patterns of all heads of a layer, [H, T, T]."""
        if self._patterns is not None:
            return self._patterns[layer]
        return self.block(layer)[_PATTERN]

    def block(self, layer: int) -> Mapping[str, np.ndarray]:
        """Returns the values of one block, which is computed again.

        Names are those of the taps in `model.gpt2`, such as "resid_mid", "attn/z" and
        "mlp/neurons". The first axis is of the text's T tokens, but of "attn/scores" and
        "attn/pattern" [H, T, T], and of "attn/seen" [1, T, T].
        """
        key = (self._key, layer)
        values = self.subject.recent.get(key)
        if values is None:
            padded_x_TxD = self._on_device(self.residual[2 * layer])
            padded_first_x_TxD = self._on_device(self.residual[0])
            first_v = self._first_v_TxHxK
            first_v = None if first_v is None else self._on_device(first_v)[None]
            before = Stream(padded_x_TxD[None], first_v)
            values = self._run_block(layer, before, padded_first_x_TxD, _VALUES)[1]
            self.subject.recent.put(key, values)
        return values

    def forget_blocks(self) -> None:
        """Lets go of the values of blocks that are kept; they are computed again when needed."""
        self.subject.recent.drop(self._key)

    def _run_block(
        self, layer: int, stream: Stream, padded_first_x_TxD: jax.Array, wanted: tuple[str, ...]
    ) -> tuple[Stream, dict[str, np.ndarray]]:
        subject, T = self.subject, len(self)
        edits = programs.BlockEdits()
        if self.interventions:
            edits = self.interventions.of_layer(layer, subject.config, self._size, T)
        stream, shown = programs.run_block(
            subject.model,
            subject.params[f"h_{layer}"],
            np.int32(layer),
            stream,
            padded_first_x_TxD,
            edits,
            wanted,
        )
        arrays = {name: np.asarray(array)[0] for name, array in shown.items()}
        of_text = {n: x[:, :T, :T] if n in _SQUARE else x[:T] for n, x in arrays.items()}
        return stream, of_text

    def logits(self, position: int = -1) -> np.ndarray:
        """Returns the logits [V] behind the token at a position, before softmax."""
        row = self.residual[-1, position][None]
        return np.asarray(programs.read_out(self.subject.model, self.subject.outside, row)[0])


def _check_length(tokens: Sequence[int], subject: Subject) -> None:
    if not tokens:
        raise UserError("the text has no token")
    if len(tokens) > subject.longest:
        limit = f"the {subject.longest} that can be looked into"
        if subject.longest == subject.config.longest:
            limit = lengths.limit(subject.config)
        raise UserError(f"text of {len(tokens)} tokens exceeds {limit}")
