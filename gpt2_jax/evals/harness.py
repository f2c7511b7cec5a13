"""Runs lm-eval's tasks on our models, as its model `gpt2_jax`, with our own code.

    python -m gpt2_jax.evals.harness --model gpt2_jax --model_args model=M --tasks arc_easy

is lm-eval's command line with this model added, because lm-eval 0.4.13 cannot find models in other
packages. In Python, importing this module is enough for
`lm_eval.simple_evaluate(model="gpt2_jax", ...)`.

Texts are split, truncated and stopped by the conventions of lm-eval's `hf` backend
(`lm_eval/models/huggingface.py`), so that the two agree on the same weights. This needs the `eval`
extra, but not torch.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gpt2_jax.errors import Gpt2JaxError, UserError
from gpt2_jax.evals import generation
from gpt2_jax.evals.generation import Generation
from gpt2_jax.evals.harness_arguments import NAME, check_arguments
from gpt2_jax.evals.shared_contexts import group_by_context
from gpt2_jax.formats.load import load
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.generate import decode_params, encode_prompt, generate_text
from gpt2_jax.inference.scoring import Likelihood, Scorer, windows
from gpt2_jax.model.build import build_decoder
from gpt2_jax.parallel.compilation_cache import keep_compiled_programs
from gpt2_jax.parallel.malloc import keep_freed_memory

_missing: ImportError | None = None
_TemplateLM: Any = object
try:
    # This registers lm-eval's own models, which it no longer does once another is registered.
    import lm_eval.models  # noqa: F401  # pyright: ignore[reportMissingImports]
    from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
    from tqdm import tqdm  # pyright: ignore[reportMissingModuleSource]

    _TemplateLM = TemplateLM
except ImportError as error:  # the module can still be imported; using it reports this error
    _missing = error


class GPT2JaxLM(_TemplateLM):
    """Gives lm-eval one of our models; `--model_args` are the constructor's arguments."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        dtype: str = "auto",
        tokens_per_batch: int | None = None,
        seed: int = 0,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        device: str | None = None,
        trust_remote_code: bool = False,
        **unknown: Any,
    ) -> None:
        """Loads the model.

        Args:
          model: see `gpt2_jax.formats.load`.
          dtype: the compute dtype; auto is the model's own.
          tokens_per_batch: tokens in a batch of log-likelihoods, padding included; see `Scorer`.
          seed: of sampling; the same requests give the same texts.
          batch_size: prompts that are generated together; auto takes as many as keep the caches
            small. Log-likelihoods are always batched by tokens instead.
          max_batch_size: the limit of auto.
          device: has no effect; a device that JAX does not run on is refused, except the `cuda:0`
            that lm-eval passes by default.
          trust_remote_code: has no effect; lm-eval passes it for its data sets.
          unknown: other arguments, which are refused.

        Raises:
          UserError: if an argument is missing, unknown or out of range, the model cannot be read,
            or lm-eval is not installed.
        """
        _require_lm_eval()
        super().__init__()
        values = {"model": model, "dtype": dtype, "seed": seed, "device": device}
        check_arguments(values | {"tokens_per_batch": tokens_per_batch}, unknown)
        keep_compiled_programs()
        self._model = load(str(model))
        self._config = self._model.config
        if dtype != "auto":
            compute = dataclasses.replace(self._config.compute, dtype=dtype)
            self._config = dataclasses.replace(self._config, compute=compute)
        self._decoder = build_decoder(self._config.model, self._config.compute)
        self._rows = generation.batch_rows(batch_size, max_batch_size, self._config)
        self._tokens_per_batch, self._seed = tokens_per_batch, seed
        eot = self._model.tokenizer.eot
        self._eot_text = "" if eot is None else self._model.tokenizer.decode([eot])

    @property
    def eot_token_id(self) -> int | None:
        """Returns the id of the end-of-text token, or None if the tokenizer has none."""
        return self._model.tokenizer.eot

    @property
    def prefix_token_id(self) -> int:
        """Returns the token before a text without context: the end of text, or a newline."""
        return encode_prompt(self._model.tokenizer, "")[0]

    @property
    def max_length(self) -> int:
        """Returns the length of the model's context in tokens."""
        return self._config.model.context_length

    @property
    def max_gen_toks(self) -> int:
        """Returns how many tokens are generated if a task does not set it."""
        return generation.MAX_GEN_TOKS

    @property
    def tokenizer_name(self) -> str:
        """Returns the tokenizer's name, by which lm-eval distinguishes cached requests."""
        return self._model.tokenizer.name

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Returns the token ids of a string, in which `<|endoftext|>` becomes the end-of-text id.

        Tasks write it between documents, and transformers' tokenizers convert it, unlike ours.

        Args:
          string: the text.
          add_special_tokens: has no effect, because GPT-2 adds none.
          kwargs: has no effect.
        """
        tokenizer = self._model.tokenizer
        if tokenizer.eot is None or not self._eot_text:
            return tokenizer.encode(string)
        tokens: list[int] = []
        for document in string.split(self._eot_text):
            tokens += [*tokenizer.encode(document), tokenizer.eot]
        return tokens[:-1]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Raises UserError, because GPT-2 was not trained on conversations."""
        raise UserError(f"the model {NAME} has no chat template: leave --apply_chat_template out")

    def get_model_info(self) -> dict[str, Any]:
        """Returns what lm-eval writes beside its results: size, dtype and training step."""
        return {
            "model_num_parameters": sum(p.size for p in jax.tree.leaves(self._model.params)),
            "model_dtype": self._config.compute.dtype,
            "model_step": self._model.step,
        }

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Returns the log-probabilities (nats) of whole texts, in windows that do not overlap.

        The context of the last window is extended to fill it; see `windows`.
        """
        texts = [request.args[0] for request in requests]
        encoded = map(self.tok_encode, tqdm(texts, desc="Tokenizing inputs", disable=disable_tqdm))
        prefix, length = self.prefix_token_id, self.max_length
        windows_by_text = [windows(tokens, prefix, length, stride=length) for tokens in encoded]
        text_of = [text for text, cut in enumerate(windows_by_text) for _ in cut]
        remaining = [len(cut) for cut in windows_by_text]
        totals = [0.0] * len(texts)
        flat = [window for cut in windows_by_text for window in cut]
        for index, (likelihood,) in self._score(flat, "loglikelihood_rolling", disable_tqdm):
            text = text_of[index]
            totals[text] += likelihood.total
            remaining[text] -= 1
            if not remaining[text]:
                # Cached at once, so that it is not computed again if this run is interrupted.
                self.cache_hook.add_partial("loglikelihood_rolling", (texts[text],), totals[text])
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns continuations, each up to the first of its stop strings.

        The beginning of a context is removed if `max_gen_toks` would not fit behind it.

        Raises:
          UserError: if a setting is unknown, or `max_gen_toks` leaves no room for a context.
        """
        batches = list(self._batches(requests))  # refuses any wrong request before the work starts
        texts = [""] * len(requests)
        desc = "Running generate_until requests"
        with tqdm(total=len(requests), desc=desc, disable=disable_tqdm) as bar:
            for number, (settings, indices, prompts) in enumerate(batches):
                generated = self._generate(prompts, settings, number)
                for index, text in zip(indices, generated, strict=True):
                    texts[index] = text
                    self.cache_hook.add_partial("generate_until", requests[index].args, text)
                bar.update(len(indices))
        return texts

    def _batches(
        self, requests: Sequence[Any]
    ) -> Iterator[tuple[Generation, list[int], list[list[int]]]]:
        """Yields (settings, indices of requests, their prompts), longest prompts first."""
        groups: dict[Generation, list[int]] = {}
        for index, request in enumerate(requests):
            settings = generation.parse(request.args[1], self.max_length, self._eot_text)
            groups.setdefault(settings, []).append(index)
        for settings, indices in groups.items():
            room = self.max_length - settings.max_new_tokens
            encoded = {index: self.tok_encode(requests[index].args[0]) for index in indices}
            prompts = {index: encoded[index][-room:] or [self.prefix_token_id] for index in indices}
            indices.sort(key=lambda index: -len(prompts[index]))
            for start in range(0, len(indices), self._rows):
                batch = indices[start : start + self._rows]
                yield settings, batch, [prompts[index] for index in batch]

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """Returns (log-probability, whether greedy decoding produces it) of each continuation."""
        pairs = [
            # A context is empty if it was all spaces, which lm-eval moves to the continuation.
            (tuple(context) or (self.prefix_token_id,), tuple(continuation))
            for _, context, continuation in requests
        ]
        groups = list(group_by_context(pairs))
        answers: list[Any] = [None] * len(requests)
        grouped = [request for request, _ in groups]
        for index, likelihoods in self._score(grouped, "loglikelihood", disable_tqdm):
            for position, likelihood in zip(groups[index][1], likelihoods, strict=True):
                answer = likelihood.total, bool(likelihood.greedy.all())
                self.cache_hook.add_partial("loglikelihood", requests[position][0], answer)
                answers[position] = answer
        return answers

    def _score(
        self, requests: Sequence[Request], kind: str, disable_tqdm: bool
    ) -> Iterator[tuple[int, list[Likelihood]]]:
        total = sum(len(request.continuations) for request in requests)
        with tqdm(total=total, desc=f"Running {kind} requests", disable=disable_tqdm) as bar:
            for index, likelihoods in self._scorer.score(requests):
                yield index, likelihoods
                bar.update(len(likelihoods))

    def _generate(self, prompts: list[list[int]], settings: Generation, number: int) -> list[str]:
        """Returns the texts of batch `number` of a call; each batch has a seed of its own."""
        tokenizer = self._model.tokenizer
        seed = np.random.SeedSequence((self._seed, number)).generate_state(1)
        samples = generate_text(
            self._decoder,
            self._decode_params,
            tokenizer,
            prompts,
            max_new_tokens=settings.max_new_tokens,
            options=settings.options,
            stop=settings.stop,
            seed=int(seed[0]),
            num_slots=len(prompts),
        )
        # The samples' own texts end at the stop string that begins first, whatever its order.
        ids = [
            [token for token in sample.tokens if token not in tokenizer.ends] for sample in samples
        ]
        return [settings.cut(tokenizer.decode(tokens)) for tokens in ids]

    # Both hold a copy of the parameters, so each is made only when a task needs it.

    @functools.cached_property
    def _scorer(self) -> Scorer:
        config = self._config
        return Scorer(
            self._model.params,
            config.model,
            config.compute,
            tokens_per_batch=self._tokens_per_batch,
        )

    @functools.cached_property
    def _decode_params(self) -> dict[str, Any]:
        return decode_params(self._decoder, self._model.params)


if _missing is None:
    register_model(NAME)(GPT2JaxLM)  # pyright: ignore[reportPossiblyUnboundVariable]


def main() -> int:
    """Runs lm-eval's command line with our model added; returns the exit status."""
    try:
        _require_lm_eval()
        from lm_eval.__main__ import cli_evaluate  # pyright: ignore[reportMissingImports]

        keep_freed_memory()
        cli_evaluate()
    except Gpt2JaxError as error:
        print("error:", *str(error).splitlines(), file=sys.stderr)
        return error.exit_status
    return 0


def _require_lm_eval() -> None:
    if _missing is not None:
        raise UserError(f"lm-eval is needed ({_missing}): pip install 'gpt2_jax[eval]'")


if __name__ == "__main__":
    sys.exit(main())
