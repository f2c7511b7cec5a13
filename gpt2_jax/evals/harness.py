"""Our models under lm-eval, as its model `gpt2_jax`: each of its tasks, computed by our own code.

    python -m gpt2_jax.evals.harness --model gpt2_jax --model_args model=M --tasks arc_easy

is lm-eval's command line with one model more: lm-eval 0.4.13 looks for no models in other packages.
From Python, importing this module is enough for `lm_eval.simple_evaluate(model="gpt2_jax", ...)`.

Texts are cut, truncated and stopped by the conventions of lm-eval's `hf` backend
(`lm_eval/models/huggingface.py`), so that the two agree on the same weights. Needs the `eval`
extra, and no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gpt2_jax.errors import Gpt2JaxError, UserError
from gpt2_jax.evals import generation
from gpt2_jax.evals.generation import Generation
from gpt2_jax.formats.load import load
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.generate import decode_params, encode_prompt, generate_text
from gpt2_jax.inference.scoring import Likelihood, Scorer, windows
from gpt2_jax.parallel.malloc import keep_freed_memory

_missing: ImportError | None = None
_TemplateLM: Any = object
try:
    # Its own models too: once one is registered, lm-eval no longer looks for them by itself.
    import lm_eval.models  # noqa: F401  # pyright: ignore[reportMissingImports]
    from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
    from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
    from tqdm import tqdm  # pyright: ignore[reportMissingModuleSource]

    _TemplateLM = TemplateLM
except ImportError as error:  # the module still imports, and says so when it is used
    _missing = error

NAME = "gpt2_jax"
"""What `--model` calls it."""

_DTYPES = ("auto", "float32", "bfloat16")
_MOST_SHARING = 8  # continuations of a context: each holds a copy of its cache


class GPT2JaxLM(_TemplateLM):
    """A model of ours behind lm-eval's interface; `--model_args` are what the constructor takes."""

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
          dtype: it computes in; auto is the model's own.
          tokens_per_batch: of log-likelihoods, padding included; see `Scorer`.
          seed: of what is sampled: the same requests give the same texts.
          batch_size: prompts generated together; auto takes as many as leave the caches small.
            Log-likelihoods are batched by tokens, whatever this is.
          max_batch_size: the most that auto takes.
          device: has no effect; one that JAX does not run on is refused, but for the `cuda:0` that
            lm-eval passes by default.
          trust_remote_code: lm-eval passes it on; it is for the data sets, and has no effect here.
          unknown: refused.

        Raises:
          UserError: for an argument that is missing, unknown or wrong, no model, or no lm-eval.
        """
        _require_lm_eval()
        super().__init__()
        if unknown:
            raise UserError(
                f"the model {NAME} has no argument {', '.join(unknown)}; it has: model, dtype, "
                "tokens_per_batch, seed, batch_size, max_batch_size, device"
            )
        if model is None:
            raise UserError(f"the model {NAME} needs to know which: --model_args model=M")
        if dtype not in _DTYPES:
            raise UserError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
        _check_whole("seed", seed, 0)
        if tokens_per_batch is not None:
            _check_whole("tokens_per_batch", tokens_per_batch, 1)
        _check_device(device)
        self._loaded = load(str(model))
        self._config = self._loaded.config.model
        if dtype != "auto":
            self._config = dataclasses.replace(self._config, dtype=dtype)
        self._rows = generation.rows(batch_size, max_batch_size, self._config)
        self._tokens_per_batch, self._seed = tokens_per_batch, seed
        eot = self._loaded.tokenizer.eot
        self._eot_text = "" if eot is None else self._loaded.tokenizer.decode([eot])

    @property
    def eot_token_id(self) -> int | None:
        """The id that ends a text; None where the tokenizer has none."""
        return self._loaded.tokenizer.eot

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context: its end, or a newline where there is none."""
        return encode_prompt(self._loaded.tokenizer, "")[0]

    @property
    def max_length(self) -> int:
        """Tokens of the model's context."""
        return self._config.context_length

    @property
    def max_gen_toks(self) -> int:
        """Tokens that are generated where a task does not say."""
        return generation.MAX_GEN_TOKS

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name, by which lm-eval tells cached requests apart."""
        return self._loaded.tokenizer.name

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Token ids of a text; the end of text, where it is spelled out, becomes its own id.

        That is what transformers' tokenizers do, unlike ours: tasks write it between documents.

        Args:
          add_special_tokens: has no effect: GPT-2 adds none.
        """
        tokenizer = self._loaded.tokenizer
        if tokenizer.eot is None or not self._eot_text:
            return tokenizer.encode(string)
        tokens: list[int] = []
        for part in string.split(self._eot_text):
            tokens += [*tokenizer.encode(part), tokenizer.eot]
        return tokens[:-1]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Refuses: GPT-2 was trained on no conversations."""
        raise UserError(f"the model {NAME} has no chat template: leave --apply_chat_template out")

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside its results: size, dtype and training step."""
        return {
            "model_num_parameters": sum(p.size for p in jax.tree.leaves(self._loaded.params)),
            "model_dtype": self._config.dtype,
            "model_step": self._loaded.step,
        }

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probabilities (nats) of whole texts, in windows that do not overlap.

        The last window is filled up with context; see `windows`.
        """
        texts = [request.args[0] for request in requests]
        encoded = map(self.tok_encode, tqdm(texts, desc="Tokenizing inputs", disable=disable_tqdm))
        prefix, length = self.prefix_token_id, self.max_length
        pieces = [windows(tokens, prefix, length, stride=length) for tokens in encoded]
        owners = [owner for owner, found in enumerate(pieces) for _ in found]
        left = [len(found) for found in pieces]
        totals = [0.0] * len(texts)
        flat = [piece for found in pieces for piece in found]
        for index, (likelihood,) in self._score(flat, "loglikelihood_rolling", disable_tqdm):
            owner = owners[index]
            totals[owner] += likelihood.total
            left[owner] -= 1
            if not left[owner]:
                # At once: what is cached needs not be computed again if this run is stopped.
                self.cache_hook.add_partial("loglikelihood_rolling", (texts[owner],), totals[owner])
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations, each up to the first of its stop strings, which is not part of it.

        A context loses its beginning where `max_gen_toks` would not fit behind it.

        Raises:
          UserError: for a setting that generation does not have, or a `max_gen_toks` that leaves
            no room for a context.
        """
        batches = list(self._batches(requests))  # a mistake in any request is found before work
        texts = [""] * len(requests)
        desc = "Running generate_until requests"
        with tqdm(total=len(requests), desc=desc, disable=disable_tqdm) as bar:
            for number, (wanted, indices, prompts) in enumerate(batches):
                found = self._generate(prompts, wanted, number)
                for index, text in zip(indices, found, strict=True):
                    texts[index] = text
                    self.cache_hook.add_partial("generate_until", requests[index].args, text)
                bar.update(len(indices))
        return texts

    def _batches(
        self, requests: Sequence[Any]
    ) -> Iterator[tuple[Generation, list[int], list[list[int]]]]:
        """(what is wanted, indices of requests, their prompts): of like lengths, longest first."""
        alike: dict[Generation, list[int]] = {}
        for index, request in enumerate(requests):
            wanted = generation.parse(request.args[1], self.max_length, self._eot_text)
            alike.setdefault(wanted, []).append(index)
        for wanted, indices in alike.items():
            room = self.max_length - wanted.max_new_tokens
            encoded = {index: self.tok_encode(requests[index].args[0]) for index in indices}
            prompts = {index: encoded[index][-room:] or [self.prefix_token_id] for index in indices}
            indices.sort(key=lambda index: -len(prompts[index]))
            for start in range(0, len(indices), self._rows):
                batch = indices[start : start + self._rows]
                yield wanted, batch, [prompts[index] for index in batch]

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """(log-probability, whether it is what greedy decoding gives) of each continuation."""
        pairs = [
            # A context of nothing but spaces gave them all to its continuation.
            (tuple(context) or (self.prefix_token_id,), tuple(continuation))
            for _, context, continuation in requests
        ]
        shared = list(_share(pairs))
        answers: list[Any] = [None] * len(requests)
        scored = [request for request, _ in shared]
        for index, likelihoods in self._score(scored, "loglikelihood", disable_tqdm):
            for place, likelihood in zip(shared[index][1], likelihoods, strict=True):
                answers[place] = likelihood.total, bool(likelihood.greedy.all())
                self.cache_hook.add_partial("loglikelihood", requests[place][0], answers[place])
        return answers

    def _score(
        self, requests: Sequence[Request], kind: str, disable_tqdm: bool
    ) -> Iterator[tuple[int, list[Likelihood]]]:
        total = sum(len(request.continuations) for request in requests)
        with tqdm(total=total, desc=f"Running {kind} requests", disable=disable_tqdm) as bar:
            for index, likelihoods in self._scorer.score(requests):
                yield index, likelihoods
                bar.update(len(likelihoods))

    def _generate(self, prompts: list[list[int]], wanted: Generation, number: int) -> list[str]:
        """The texts of batch `number` of a call: batches draw from seeds of their own."""
        tokenizer = self._loaded.tokenizer
        seed = np.random.SeedSequence((self._seed, number)).generate_state(1)
        samples = generate_text(
            self._decode_params,
            self._config,
            tokenizer,
            prompts,
            max_new_tokens=wanted.max_new_tokens,
            options=wanted.options,
            stop=wanted.stop,
            seed=int(seed[0]),
        )
        # Not the samples' own texts, which end at whichever stop string begins first.
        tokens = [[token for token in one.tokens if token != tokenizer.eot] for one in samples]
        return [wanted.cut(tokenizer.decode(one)) for one in tokens]

    # Each holds the parameters in a form of its own: made when a task asks for it.

    @functools.cached_property
    def _scorer(self) -> Scorer:
        params = self._loaded.params
        return Scorer(params, self._config, tokens_per_batch=self._tokens_per_batch)

    @functools.cached_property
    def _decode_params(self) -> dict[str, Any]:
        return decode_params(self._loaded.params, self._config)


if _missing is None:
    register_model(NAME)(GPT2JaxLM)  # pyright: ignore[reportPossiblyUnboundVariable]


def main() -> int:
    """lm-eval's command line with our model among its own; returns the exit status."""
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


def _check_whole(name: str, value: Any, least: int) -> None:
    if type(value) is not int or value < least:
        raise UserError(f"{name} must be a whole number from {least} on, not {value!r}")


def _check_device(device: str | None) -> None:
    """Refuses a device other than JAX's: it would be passed over in silence."""
    if device in (None, "cuda:0"):  # what lm-eval passes by default, whatever there is
        return
    kind, _, number = device.partition(":")
    backend = jax.default_backend()
    if {"cuda": "gpu"}.get(kind, kind) != backend or (number and jax.local_device_count() > 1):
        raise UserError(
            f"device={device}, but JAX runs on {backend} ({jax.local_device_count()} devices): "
            "leave it out, and choose with JAX_PLATFORMS or CUDA_VISIBLE_DEVICES"
        )


def _share(
    pairs: Iterable[tuple[tuple[int, ...], tuple[int, ...]]],
) -> Iterator[tuple[Request, list[int]]]:
    """(request, places of its continuations among the pairs): neighbors of one context together.

    A context of one token has no cache to share.
    """
    context, places, continuations = (), [], []
    for place, (its_context, continuation) in enumerate(pairs):
        alone = its_context != context or len(context) == 1 or len(places) == _MOST_SHARING
        if places and alone:
            yield Request(context, tuple(continuations)), places
            places, continuations = [], []
        context = its_context
        places.append(place)
        continuations.append(continuation)
    if places:
        yield Request(context, tuple(continuations)), places


if __name__ == "__main__":
    sys.exit(main())
