"""Runs a text through a model, keeps the residual stream, and runs single blocks of it again.

To keep all that is computed would take gigabytes for a long text. The residual stream [2 L + 1, T,
D] is enough to compute any block again, in the time of one block.
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
from gpt2_jax.interpret import programs
from gpt2_jax.interpret.interventions import Interventions
from gpt2_jax.model import lengths
from gpt2_jax.model.build import build_decoder
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.model.lora import merge, without_adapters
from gpt2_jax.model.params import cast, unstack
from gpt2_jax.model.residual import Stream
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_SMALLEST = 16
_MOST_TOKENS = 1024
"""The longest text, because the scores of one head have its square."""


def longest_text(config: ModelConfig) -> int:
    """Returns the most tokens of a text that a model is shown with."""
    return min(config.longest, _MOST_TOKENS)


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
            params, model = merge(params, model), without_adapters(model)
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
    """

    def __init__(
        self,
        subject: Subject,
        tokens: Sequence[int],
        interventions: Interventions = Interventions(),
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
            raise UserError(
                f"text of {len(self.tokens)} tokens exceeds {lengths.limit(subject.config)}"
                if subject.longest >= subject.config.longest
                else f"text of {len(self.tokens)} tokens exceeds the {subject.longest} that are shown"
            )
        interventions.check(subject.config, len(self.tokens))
        size = _SMALLEST
        while size < len(self.tokens):
            size *= 2
        size = min(size, max(subject.config.longest, len(self.tokens)))
        padded = np.zeros(size, np.int32)
        padded[: len(self.tokens)] = self.tokens
        self._embedded = programs.embed(subject.model, subject.outside, jnp.asarray(padded))
        stream = programs.empty_stream(subject.model, self._embedded.embedding_TxD)
        rows = [stream.x_BxTxD[0]]
        for layer in range(subject.config.num_layers):
            stream, shown = self._block(layer, stream, ("resid_mid",))
            rows += [shown["resid_mid"][0], stream.x_BxTxD[0]]
        self.residual = jnp.stack(rows)
        self._first_v = stream.first_v_BxTxHxK
        self._recent: tuple[Any, Mapping[str, Any]] = (None, {})

    def __len__(self) -> int:
        """Returns T, the number of tokens."""
        return len(self.tokens)

    @property
    def num_bytes(self) -> int:
        """Returns the bytes that the run keeps."""
        return self.residual.nbytes

    def token_embedding(self, position: int) -> np.ndarray:
        """Returns the row of the embedding table at a position, [D]."""
        return np.asarray(self._embedded.token_TxD[position])

    def block(self, layer: int, *wanted: str) -> dict[str, jax.Array]:
        """Returns values of one block, computed again, with padded positions.

        Args:
          layer: its index.
          wanted: names of taps (see `model.gpt2`), such as "attn/scores", "attn/z", "mlp/neurons".
        """
        before = Stream(self.residual[2 * layer][None], self._first_v)
        return self._block(layer, before, wanted)[1]

    def _block(
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

    def logits(self, position: int = -1) -> np.ndarray:
        """Returns the logits [V] behind the token at a position, before softmax."""
        row = self.residual[-1, range(len(self))[position]][None]
        return np.asarray(programs.read_out(self.subject.model, self.subject.outside, row)[0])
