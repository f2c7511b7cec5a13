"""Generates many texts at a time: prefills them one by one, and decodes all in the same programs.

The engine is driven by calls of `step`, from one thread. A finite list of texts and a queue that
never ends are the same to it. Each step prefills at most one chunk of one text, starts one block of
tokens for all texts that are in a slot, and reads the block before: so the device computes while
the host turns tokens into text, and a long prompt delays the others by no more than a chunk.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gpt2_jax.errors import UserError
from gpt2_jax.inference import slots as device
from gpt2_jax.inference.sampling import SamplingOptions, settings_of
from gpt2_jax.inference.slots import BLOCK, NONE, Drawn, Row
from gpt2_jax.inference.text import TextStream
from gpt2_jax.model import lengths
from gpt2_jax.model.cached_attention import BLOCK as SLOTS_OF_BLOCK
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.parallel.distributed import on_every_host
from gpt2_jax.parallel.rules import Rules, sharding_context
from gpt2_jax.tokenizers.tokenizer import Tokenizer

# Sizes that a last chunk is padded to, of a longest of `_CHUNK` tokens.
_CHUNKS = (16, 32, 64, 128)
_CHUNK = _CHUNKS[-1]


@dataclasses.dataclass(frozen=True)
class Request:
    """Asks for one text, or several choices of the same prompt.

    Attributes:
      prompt: token ids, at least one.
      max_new_tokens: the most tokens to draw for each choice, at least 1.
      options: how they are drawn.
      stop: strings that end a text and are not part of it.
      seed: 64 bits; the same seed, prompt and options give the same texts at equal slots.
      num_choices: how many texts to generate; their noise is independent.
      first_choice: the number of the first of them, which is a part of the seed.
      logprobs: whether to keep log-probabilities of the tokens drawn.
      slide: whether a text that fills its slot goes on behind the last half of its tokens.
    """

    prompt: Sequence[int]
    max_new_tokens: int
    options: SamplingOptions = SamplingOptions()
    stop: Sequence[str] = ()
    seed: int = 0
    num_choices: int = 1
    first_choice: int = 0
    logprobs: bool = False
    slide: bool = False


class Choice:
    """Holds one text while it grows.

    Attributes:
      request, index: what asked for it, and its number among the choices.
      stream: its text.
      tokens: the ids that were drawn.
      logprobs: of each token (log-probability, [(id, log-probability)] of the most probable ones).
      unread: text that nobody has taken yet; whoever reads it empties it.
      finished: whether it ended, or was cancelled.
    """

    def __init__(self, request: Request, index: int, stream: TextStream) -> None:
        self.request, self.index, self.stream = request, index, stream
        self.tokens: list[int] = []
        self.logprobs: list[tuple[float, list[tuple[int, float]]]] = []
        self.unread = ""
        self.finished = False


@dataclasses.dataclass(eq=False)
class _Prefill:
    """Holds a text that is being read: its tokens, its cache, and who waits for it."""

    choices: collections.deque[Choice]
    tokens: Sequence[int]
    drawn: int
    cache: Any
    slot: int | None = None  # of a text that goes on in its slot
    done: int = 0
    last_1xD: Any = None


class Engine:
    """Runs texts through the slots of one model."""

    def __init__(
        self,
        model: GPT2,
        params: Any,
        tokenizer: Tokenizer,
        *,
        num_slots: int,
        max_length: int | None = None,
        fill_first: bool = False,
        mesh: Mesh | None = None,
        rules: Rules | None = None,
    ) -> None:
        """Makes the slots; programs are compiled when they first run.

        Args:
          model: a module of `build_decoder`.
          params: parameters of `generate.decode_params`.
          tokenizer: of the model.
          num_slots: how many texts are generated at a time. Bits of a text depend on it.
          max_length: the most tokens of a text, prompt included; by default the context.
          fill_first: whether all free slots are filled before the next block, which takes a list of
            texts the least time in all; otherwise a prompt delays the other texts by one chunk.
          mesh, rules: where the parameters are, if they are sharded.

        Raises:
          UserError: for a length that the model cannot compute.
        """
        self._model, self._params, self._tokenizer = model, params, tokenizer
        self._mesh, self._rules, self._fill_first = mesh, rules or Rules(), fill_first
        length = max_length or model.config.context_length
        if length > model.config.longest:
            raise UserError(f"max_length={length} exceeds {lengths.limit(model.config)}")
        self.max_length = length
        self._room = length if length <= _CHUNK else -(-length // SLOTS_OF_BLOCK) * SLOTS_OF_BLOCK
        self._num_slots = num_slots
        self._texts: list[Choice | None] = [None] * num_slots
        self._waiting: collections.deque[list[Choice]] = collections.deque()
        self._prefills: collections.deque[_Prefill] = collections.deque()
        self._unread: collections.deque[tuple[list[Choice | None], Drawn, int]] = (
            collections.deque()
        )
        self._slots = self._run(device.empty_slots, model, num_slots, self._room)

    def check(self, request: Request) -> None:
        """Checks a request against the model.

        Raises:
          UserError: for an empty prompt, ids beyond the vocabulary, or too many tokens.
        """
        V = self._model.config.vocab_size
        options = request.options
        ids = [*request.prompt, *options.stop_token_ids, *(i for i, _ in options.logit_bias)]
        if not request.prompt:
            raise UserError("the prompt has no token")
        if wrong := [token for token in ids if not 0 <= token < V]:
            raise UserError(f"token id {wrong[0]} is not in the vocabulary of {V}")
        if request.max_new_tokens < 1:
            raise UserError(f"max_new_tokens must be at least 1, not {request.max_new_tokens}")
        longest = len(request.prompt) + (1 if request.slide else request.max_new_tokens)
        if longest > self.max_length:
            raise UserError(
                f"prompt of {len(request.prompt)} tokens + max_new_tokens="
                f"{request.max_new_tokens} exceed {self.max_length} tokens; shorten the prompt or "
                "lower max_new_tokens"
            )
        settings_of(options, self._tokenizer.ends, request.seed)

    def submit(self, request: Request) -> list[Choice]:
        """Queues a request and returns its choices, which grow with each `step`.

        Raises:
          UserError: as `check` does.
        """
        self.check(request)
        ends = {*request.options.stop_token_ids}
        if not request.options.ignore_eos:
            ends |= {*self._tokenizer.ends}
        choices = [
            Choice(
                request, request.first_choice + i, TextStream(self._tokenizer, request.stop, ends)
            )
            for i in range(request.num_choices)
        ]
        self._waiting.append(choices)
        return choices

    def cancel(self, choice: Choice) -> None:
        """Ends a text; its slot is free for the next one."""
        if choice.finished:
            return
        choice.finished = True
        if choice in self._texts:
            self._free(self._texts.index(choice))

    @property
    def busy(self) -> bool:
        """Returns whether any text is waiting, growing or still to be read."""
        return bool(self._waiting or self._prefills or self._unread or any(self._texts))

    def step(self) -> None:
        """Takes the texts further by a chunk and a block, as the top of this file says."""
        self._admit()
        self._prefill()
        while self._fill_first and any(p.slot is None and p.choices for p in self._prefills):
            if None not in self._texts:
                break
            self._admit()
            self._prefill()
        started = any(text is not None for text in self._texts)
        if started:
            self._decode()
        while len(self._unread) > (1 if started else 0):
            self._read()

    def _admit(self) -> None:
        """Begins to read the next prompt if there is a slot for it."""
        reserved = sum(
            len([c for c in prefill.choices if not c.finished]) if prefill.slot is None else 0
            for prefill in self._prefills
        )
        while self._waiting and self._texts.count(None) > reserved:
            choices = [c for c in self._waiting.popleft() if not c.finished]
            if choices:
                self._prefills.append(self._begin(choices, choices[0].request.prompt, drawn=0))
                reserved += len(choices)

    def _begin(
        self, choices: Iterable[Choice], tokens: Sequence[int], drawn: int, slot: int | None = None
    ) -> _Prefill:
        cache = self._run(device.empty_cache, self._model, 1, self._room)
        return _Prefill(collections.deque(choices), list(tokens), drawn, cache, slot)

    def _prefill(self) -> None:
        """Reads one chunk of the prompt whose turn it is, and fills free slots from those read."""
        for prefill in list(self._prefills):
            while prefill.choices and prefill.choices[0].finished:
                prefill.choices.popleft()
            if not prefill.choices:
                self._prefills.remove(prefill)
        pending = [p for p in self._prefills if p.last_1xD is None or p.done < len(p.tokens)]
        if pending:
            prefill = pending[0]
            self._prefills.remove(prefill)
            self._prefills.append(prefill)  # round robin
            self._read_chunk(prefill)
        for prefill in [p for p in self._prefills if p.done == len(p.tokens)]:
            self._insert_all(prefill)

    def _read_chunk(self, prefill: _Prefill) -> None:
        part = prefill.tokens[prefill.done : prefill.done + min(_CHUNK, self._room)]
        size = min(next(size for size in _CHUNKS if size >= len(part)), self._room)
        # The padding of a last chunk must not reach beyond the cache, where it would be moved.
        start = min(prefill.done, self._room - size)
        part = prefill.tokens[start : prefill.done + len(part)]
        chunk = np.zeros((1, size), np.int32)
        chunk[0, : len(part)] = part
        prefill.cache, prefill.last_1xD = self._run(
            device.prefill_chunk,
            self._model,
            self._params,
            prefill.cache,
            jnp.asarray(chunk),
            jnp.int32(start),
            jnp.int32(len(part)),
        )
        prefill.done = start + len(part)

    def _insert_all(self, prefill: _Prefill) -> None:
        """Puts the choices of a prompt that was read into free slots, as many as there are."""
        while prefill.choices:
            slot = prefill.slot
            if slot is None:
                if None not in self._texts:
                    return
                slot = self._texts.index(None)
            choice = prefill.choices.popleft()
            if not choice.finished:
                self._insert(prefill, choice, slot)
        self._prefills.remove(prefill)

    def _insert(self, prefill: _Prefill, choice: Choice, slot: int) -> None:
        request, count = choice.request, len(prefill.tokens)
        tokens = np.zeros(self._room, np.int32)
        tokens[:count] = prefill.tokens
        left = request.max_new_tokens - prefill.drawn
        row = Row(
            tokens_S=tokens,
            length=np.int32(count),
            prompt_length=np.int32(count - prefill.drawn),
            # A slot has room for as many tokens; the last of them is drawn and not read.
            remaining=np.int32(min(left, self.max_length - count)),
            drawn=np.int32(prefill.drawn),
            settings=settings_of(request.options, self._tokenizer.ends, request.seed, choice.index),
        )
        self._slots, drawn = self._run(
            device.insert,
            self._model,
            self._params,
            self._slots,
            prefill.cache,
            prefill.last_1xD,
            row,
            jnp.int32(slot),
            logprobs=request.logprobs,
            continued=prefill.slot is not None,
        )
        self._texts[slot] = choice
        self._unread.append(([choice], drawn, slot))

    def _decode(self) -> None:
        logprobs = any(text is not None and text.request.logprobs for text in self._texts)
        # Few tokens at a time while a prompt is read, so that its text starts soon.
        count = BLOCK // 4 if self._prefills else BLOCK
        self._slots, drawn = self._run(
            device.decode_block,
            self._model,
            self._params,
            self._slots,
            jnp.int32(count),
            logprobs=logprobs,
        )
        self._unread.append((list(self._texts), drawn, 0))

    def _read(self) -> None:
        """Waits for the oldest results, and hands their tokens to the texts."""
        texts, drawn, first_slot = self._unread.popleft()
        arrays = [None if array is None else on_every_host(array) for array in drawn]
        for i, choice in enumerate(texts):
            if choice is not None and not choice.finished:
                row = Drawn(*(None if array is None else array[i] for array in arrays))
                self._take(choice, row, first_slot + i)

    def _take(self, choice: Choice, row: Drawn, slot: int) -> None:
        tokens = np.atleast_1d(row.tokens)
        tokens = tokens[tokens != NONE].tolist()
        if choice.request.logprobs:
            choice.logprobs += _listed(row, len(tokens))
        choice.tokens += tokens
        choice.unread += choice.stream.push(tokens)
        total = len(choice.request.prompt) + len(choice.tokens)
        if choice.stream.sample is None and len(choice.tokens) < choice.request.max_new_tokens:
            if tokens and self._is_full(choice, total):
                self._slide(choice, slot)
            return
        choice.unread += choice.stream.finish()
        choice.finished = True
        if self._texts[slot] is choice:
            self._free(slot)

    def _is_full(self, choice: Choice, total: int) -> bool:
        """Returns whether the slot has no room for the text's next token."""
        half = self.max_length // 2
        over = total - self.max_length
        return choice.request.slide and over >= 0 and over % (self.max_length - half) == 0

    def _slide(self, choice: Choice, slot: int) -> None:
        """Reads the last half of a text again, so that it goes on in its slot."""
        text = [*choice.request.prompt, *choice.tokens][-(self.max_length // 2) :]
        self._prefills.append(self._begin([choice], text, len(choice.tokens), slot))

    def _free(self, slot: int) -> None:
        self._texts[slot] = None
        self._slots = self._run(device.release, self._slots, jnp.int32(slot))

    def _run(self, program: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if self._mesh is None:
            return program(*arguments, **options)
        with sharding_context(self._mesh, self._rules):
            return program(*arguments, **options)


def _listed(row: Drawn, count: int) -> list[tuple[float, list[tuple[int, float]]]]:
    """Returns the log-probabilities of the first tokens of a row as plain numbers."""
    logprobs = np.atleast_1d(row.logprobs)[:count]
    size = np.shape(row.top_ids)[-1]
    ids = np.reshape(row.top_ids, (-1, size))[:count]
    tops = np.reshape(row.top_logprobs, (-1, size))[:count]
    return [
        (float(logprob), list(zip(row_ids.tolist(), map(float, row_tops), strict=True)))
        for logprob, row_ids, row_tops in zip(logprobs, ids, tops, strict=True)
    ]
