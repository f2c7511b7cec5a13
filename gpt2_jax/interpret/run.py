"""Runs a text through a model, keeps the residual stream, and runs single blocks of it again.

To keep all that is computed would take gigabytes for a long text. The residual stream [2 L + 1, T,
D] is enough to compute any block again, in the time of one block.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gpt2_jax.config import Config, ModelConfig
from gpt2_jax.errors import UserError
from gpt2_jax.interpret import programs
from gpt2_jax.interpret.interventions import NO_INTERVENTIONS, Interventions
from gpt2_jax.interpret.patterns import Overview, overview
from gpt2_jax.model import lengths
from gpt2_jax.model.build import build_decoder
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.lora import merge, without_adapters
from gpt2_jax.model.params import cast, stack, unstack
from gpt2_jax.model.residual import Stream
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_SMALLEST = 16
_MOST_TOKENS = 1024
"""The longest text, because the scores of one head have its square."""
_MOST_PATTERN_BYTES = 2**26
"""Patterns of all heads are kept if they are no larger; else a block is computed for its own."""
_RECENT = 2
_PATTERN = "attn/pattern"
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


class Subject:
    """Holds a model that texts are run through, in float32 and with its adapters merged.

    Attributes:
      config: of the module: without adapters.
      model: the module.
      params: unrolled over layers.
      tokenizer: of its texts.
      longest: the most tokens of a text.
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

    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns a hash of the config and of the bits of all parameters."""
        digest = hashlib.sha256(repr(self.config).encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
            # Sums wrap around, so that a change of any single value changes the digest.
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.asarray(bits.sum(dtype=jnp.uint32)).tobytes())
            digest.update(np.asarray(leaf.reshape(-1)[:: max(1, leaf.size // 64)]).tobytes())
        return digest.hexdigest()[:16]

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
      residual: float32 [2 L + 1, S, D] on the device, of which the first T positions are the
        text: what enters the first block, then what each block has behind its attention and behind
        its MLP.
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
        if not self.tokens:
            raise UserError("the text has no token")
        if len(self.tokens) > subject.longest:
            limit = f"the {subject.longest} that can be looked into"
            if subject.longest == subject.config.longest:
                limit = lengths.limit(subject.config)
            raise UserError(f"text of {len(self.tokens)} tokens exceeds {limit}")
        interventions.check(subject.config, len(self.tokens))
        size = padded_length(len(self.tokens), subject.config)
        padded = np.zeros(size, np.int32)
        padded[: len(self.tokens)] = self.tokens
        self._embedded = programs.embed(subject.model, subject.outside, jnp.asarray(padded))
        stream = programs.empty_stream(subject.model, self._embedded.embedding_TxD)
        rows = [stream.x_BxTxD[0]]
        self.overviews: list[Overview] = []
        self._patterns: list[np.ndarray] | None = [] if self._keeps_patterns(size) else None
        self._recent: dict[int, dict[str, jax.Array]] = {}
        for layer in range(subject.config.num_layers):
            stream, shown = self._run_block(layer, stream, ("resid_mid", _PATTERN))
            rows += [shown["resid_mid"][0], stream.x_BxTxD[0]]
            pattern_HxTxT = self._text_of(shown[_PATTERN])
            self.overviews.append(overview(pattern_HxTxT, self.tokens))
            if self._patterns is not None:
                self._patterns.append(pattern_HxTxT)
        self.residual = jnp.stack(rows)
        self._first_v = stream.first_v_BxTxHxK

    def _keeps_patterns(self, size: int) -> bool:
        config = self.subject.config
        return 4 * config.num_layers * config.num_heads * size**2 <= _MOST_PATTERN_BYTES

    def __len__(self) -> int:
        """Returns T, the number of tokens."""
        return len(self.tokens)

    @property
    def num_bytes(self) -> int:
        """Returns the bytes that the run keeps, but for what the last blocks computed."""
        patterns = sum(array.nbytes for array in self._patterns or ())
        return self.residual.nbytes + patterns

    @property
    def embedded(self) -> programs.Embedded:
        """Returns what enters the first block, with padded positions."""
        return self._embedded

    def text_rows(self, i: int) -> np.ndarray:
        """Returns row i of the residual stream at the positions of the text, [T, D]."""
        return np.asarray(self.residual[i, : len(self)])

    def patterns(self, layer: int) -> np.ndarray:
        """Returns the attention patterns of all heads of a layer, [H, T, T]."""
        if self._patterns is not None:
            return self._patterns[layer]
        return self._text_of(self.block(layer)[_PATTERN])

    def block(self, layer: int) -> dict[str, jax.Array]:
        """Returns the values of one block, computed again, with padded positions.

        Those of the last blocks that were asked for are kept. Names are those of the taps in
        `model.gpt2`, such as "resid_mid", "attn/z" and "mlp/neurons"; a leading axis has length 1.
        """
        if layer not in self._recent:
            while len(self._recent) >= _RECENT:
                self._recent.pop(next(iter(self._recent)))
            before = Stream(self.residual[2 * layer][None], self._first_v)
            self._recent[layer] = self._run_block(layer, before, _VALUES)[1]
        return self._recent[layer]

    def forget_blocks(self) -> None:
        """Lets go of the values of blocks that are kept; they are computed again when needed."""
        self._recent.clear()

    def _run_block(
        self, layer: int, stream: Stream, wanted: tuple[str, ...]
    ) -> tuple[Stream, dict[str, jax.Array]]:
        subject = self.subject
        edits = programs.BlockEdits()
        if self.interventions:
            edits = self.interventions.of_layer(
                layer, subject.config, stream.x_BxTxD.shape[1], len(self.tokens)
            )
        return programs.run_block(
            subject.model,
            subject.params[f"h_{layer}"],
            np.int32(layer),
            stream,
            self._embedded.embedding_TxD,
            edits,
            wanted,
        )

    def _text_of(self, pattern_1xHxSxS: jax.Array) -> np.ndarray:
        T = len(self.tokens)
        return np.asarray(pattern_1xHxSxS)[0, :, :T, :T]

    def logits(self, position: int = -1) -> np.ndarray:
        """Returns the logits [V] behind the token at a position, before softmax."""
        row = self.residual[-1, range(len(self))[position]][None]
        return np.asarray(programs.read_out(self.subject.model, self.subject.outside, row)[0])
