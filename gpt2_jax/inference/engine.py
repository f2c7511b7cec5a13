"""Generates many texts at a time: prefills them one by one, and decodes all in the same programs.

The engine is driven by calls of `step`, from one thread. A finite list of texts and a queue that
never ends are the same to it. Each step prefills at most one chunk of one text, starts one block of
tokens for all texts that are in a slot, and reads the block before: so the device computes while
the host turns tokens into text, and a long prompt delays the others by no more than a chunk.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gpt2_jax.errors import UserError
from gpt2_jax.inference import slots as device
from gpt2_jax.inference.occupancy import Occupancy, Reading, slot_use
from gpt2_jax.inference.placement import Placement
from gpt2_jax.inference.prefill import CHUNKS, Drawn
from gpt2_jax.inference.reading import Prefill, Reader, take_prompt
from gpt2_jax.inference.requests import Choice, Request
from gpt2_jax.inference.sampling import settings_of
from gpt2_jax.inference.slots import BLOCK_TOKENS, Row
from gpt2_jax.model import lengths
from gpt2_jax.model.cached_attention import BLOCK_SLOTS
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_CHUNK = CHUNKS[-1]
_SHORT_BLOCK = BLOCK_TOKENS // 4


class Engine:
    """Runs texts through the slots of one model.

    Attributes:
      num_slots: how many texts are generated at a time.
      max_length: the most tokens of a text, prompt included.
    """

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
    ) -> None:
        """Makes the slots; programs are compiled when they first run.

        Args:
          model: a module of `build_decoder`.
          params: parameters of `generate.decode_params`.
          tokenizer: of the model.
          num_slots: how many texts are generated at a time, at least 1. Bits of a text depend on
            it and on `max_length`, which is the room of a slot.
          max_length: the most tokens of a text, prompt included; by default the context.
          fill_first: whether all free slots are filled before the next block, which takes a list of
            texts the least time in all; otherwise a prompt delays the other texts by one chunk.
          mesh: over which the parameters are sharded, if they are: by `Rules`. Heads of the cache
            are divided over its axis `tensor`; rows are not divided.

        Raises:
          UserError: for a length that the model cannot compute.
        """
        self._model, self._params, self._tokenizer = model, params, tokenizer
        self._fill_first = fill_first
        length = model.config.context_length if max_length is None else max_length
        if length > model.config.longest:
            raise UserError(f"max_length={length} exceeds {lengths.limit(model.config)}")
        self.max_length = length
        self.num_slots = num_slots
        self._room = length if length <= _CHUNK else -(-length // BLOCK_SLOTS) * BLOCK_SLOTS
        self._texts: list[Choice | None] = [None] * num_slots
        self._waiting: collections.deque[list[Choice]] = collections.deque()
        self._place = Placement(params, mesh)
        self._reader = Reader(model, params, self._room, self._place)
        # Each of these waits for a result of the device, and hands it to the texts.
        self._unread: collections.deque[Callable[[], None]] = collections.deque()
        self._inserted = False
        self._slots = self._place.make(device.empty_slots, model, num_slots, self._room)
        self._cache_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._slots.cache.layers))

    def check(self, request: Request) -> None:
        """Raises UserError for a request that this engine cannot run, as `Request.check` does."""
        request.check(self._model.config.vocab_size, self.max_length, self._tokenizer.ends)

    def submit(self, request: Request) -> list[Choice]:
        """Queues a request and returns its choices, which grow with each `step`.

        Raises:
          UserError: as `check` does.
        """
        self.check(request)
        numbers = range(request.first_choice, request.first_choice + request.num_choices)
        choices = [Choice(request, number, self._tokenizer) for number in numbers]
        self._waiting.append(list(choices))
        return choices

    def cancel(self, choice: Choice) -> None:
        """Ends a text, wherever it is; its slot is free for the next one."""
        if choice.finished:
            return
        choice.finished = True
        if choice in self._texts:
            self._free(self._texts.index(choice))
        for group in [group for group in self._waiting if choice in group]:
            group.remove(choice)
            if not group:
                self._waiting.remove(group)
        self._reader.cancel(choice)

    def close(self) -> None:
        """Frees the memory of the device, also where an error still refers to it.

        Texts are left as they are, and the engine cannot be used any more.
        """
        for array in jax.tree.leaves(self._slots):
            array.delete()
        self._reader.close()
        self._texts = [None] * len(self._texts)
        self._waiting.clear()
        self._unread.clear()

    @property
    def busy(self) -> bool:
        """Returns whether any text is waiting, growing or still to be read."""
        return bool(self._waiting or self._reader.prefills or self._unread or any(self._texts))

    @property
    def num_waiting(self) -> int:
        """Returns how many texts are not in a slot yet."""
        return self._reader.num_choices + sum(map(len, self._waiting))

    @property
    def num_running(self) -> int:
        """Returns how many texts are in a slot."""
        return len(self._texts) - self._texts.count(None)

    def occupancy(self) -> Occupancy:
        """Returns what the slots and the cache hold; only the thread that steps may call it."""
        return Occupancy(
            slots=tuple(slot_use(choice, self.max_length) for choice in self._texts),
            reading=tuple(
                Reading(prefill.chunks.done, len(prefill.tokens) - 1)
                for prefill in self._reader.prefills
            ),
            waiting=self.num_waiting,
            room=self._room,
            cache_bytes=self._cache_bytes,
        )

    def step(self) -> None:
        """Takes the texts further by a chunk and a block, as the top of this file says."""
        self._admit()
        self._prefill()
        while self._fill_first and None in self._texts and self.num_waiting:
            self._admit()
            self._prefill()
        started = any(self._texts)
        if started:
            self._decode()
        while len(self._unread) > (1 if started else 0):
            self._unread.popleft()()

    def _admit(self) -> None:
        """Begins to read the next prompts for which there are slots."""
        reserved = self._reader.num_choices
        while self._waiting and self._texts.count(None) > reserved and not self._reader.full:
            choices = self._waiting.popleft()
            self._reader.begin(choices, choices[0].request.prompt, drawn=0)
            reserved += len(choices)

    def _prefill(self) -> None:
        """Reads one chunk of the prompt whose turn it is, and fills free slots from those read."""
        self._reader.read_chunk()
        for prefill in self._reader.finished:
            self._report(prefill)
            self._insert_all(prefill)

    def _report(self, prefill: Prefill) -> None:
        """Has the log-probabilities of a prompt read, if they are asked for, once."""
        if prefill.wants_logprobs and not prefill.reported:
            prefill.reported = True
            choices, found = list(prefill.choices), prefill.found
            self._unread.append(lambda: take_prompt(choices, found))

    def _insert_all(self, prefill: Prefill) -> None:
        """Puts the choices of a prompt that was read into free slots, as many as there are."""
        while prefill.choices:
            slot = prefill.slot
            if prefill.choices[0].request.max_new_tokens == 0:
                prefill.choices.popleft()
                continue
            if slot is None:
                if None not in self._texts:
                    return
                slot = self._texts.index(None)
            self._insert(prefill, prefill.choices.popleft(), slot)
        self._reader.prefills.remove(prefill)

    def _insert(self, prefill: Prefill, choice: Choice, slot: int) -> None:
        request, count = choice.request, len(prefill.tokens)
        tokens = np.zeros(self._room, np.int32)
        tokens[:count] = prefill.tokens
        left = request.max_new_tokens - prefill.drawn
        row = Row(
            tokens_S=tokens,
            length=np.int32(count),
            # A slot has room for as many tokens; the last of them is drawn and not read.
            remaining=np.int32(min(left, self.max_length - count)),
            drawn=np.int32(prefill.drawn),
            choice=np.uint32(choice.index),
            settings=settings_of(request.options, self._tokenizer.ends, request.seed),
        )
        self._slots = self._place.run(
            device.insert,
            self._slots,
            prefill.cache,
            row,
            np.int32(slot),
            continued=prefill.slot is not None,
        )
        self._texts[slot] = choice
        self._inserted = True

    def _decode(self) -> None:
        logprobs = any(text is not None and text.request.logprobs for text in self._texts)
        # A new text shows its first token at once; few at a time while another prompt is read.
        reading = self._reader.unfinished
        count = 1 if self._inserted else _SHORT_BLOCK if reading else BLOCK_TOKENS
        self._inserted = False
        self._slots, drawn = self._place.run(
            device.decode_block,
            self._model,
            self._params,
            self._slots,
            np.int32(count),
            logprobs=logprobs,
        )
        texts = list(self._texts)
        self._unread.append(lambda: self._take_drawn(texts, drawn))

    def _take_drawn(self, texts: Sequence[Choice | None], drawn: Drawn) -> None:
        """Waits for tokens, and hands them to the texts."""
        block = drawn.on_host()
        for slot, choice in enumerate(texts):
            if choice is None or choice.finished:
                continue
            count = choice.take(block.row(slot))
            if choice.finished:
                self._free(slot)
            elif count and self._is_full(choice):
                self._slide(choice, slot)

    def _is_full(self, choice: Choice) -> bool:
        """Returns whether the slot has no room for the text's next token."""
        over = len(choice.request.prompt) + len(choice.tokens) - self.max_length
        return choice.request.slide and over >= 0 and over % -(-self.max_length // 2) == 0

    def _slide(self, choice: Choice, slot: int) -> None:
        """Reads the last half of a text again, so that it goes on in its slot."""
        text = [*choice.request.prompt, *choice.tokens][-(self.max_length // 2) :]
        self._reader.begin([choice], text, len(choice.tokens), slot)

    def _free(self, slot: int) -> None:
        self._texts[slot] = None
        self._slots = self._place.run(device.release, self._slots, np.int32(slot))
