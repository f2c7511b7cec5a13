"""Music as a task: how well a model predicts pieces, and how it continues them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2_jax.data.meta import read_meta
from gpt2_jax.data.shards import open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.evals.run import Show
from gpt2_jax.files.extras import import_extra
from gpt2_jax.formats.model import Model
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.inference.scoring import Scorer, windows
from gpt2_jax.prepare.example_lines import Example
from gpt2_jax.tasks.base import Decoding, Metric, Record, Settings, Task, average
from gpt2_jax.tasks.music import measures
from gpt2_jax.tasks.music.events import decode, duration, is_onset, onsets, vocabulary
from gpt2_jax.tasks.music.midi import midi_bytes
from gpt2_jax.tasks.music.notes import STEPS, Note
from gpt2_jax.tasks.music.prepare import prepare_music
from gpt2_jax.tasks.run import answer, summed, with_intervals
from gpt2_jax.tokenizers.tokenizer import Tokenizer, tokenizer_from_dict

PROMPT_BEATS = 16
"""Quarter notes of a piece that are given, or half of it if that is less."""
_COMPARED: dict[str, tuple[Callable[..., Any], Callable[..., float]]] = {
    "key": (measures.key_scores, measures.key_agreement),
    "meter": (measures.on_beat, measures.meter_agreement),
}
"""What is compared between a beginning and its continuation: (a measure, its agreement)."""


class Music(Task):
    """Continues the beginning of each piece, and predicts each piece, event by event."""

    name = "music"
    decoding = Decoding(SamplingOptions(temperature=1.0, top_p=0.95), max_new_tokens=256)

    @property
    def protocol(self) -> str:
        """Returns how pieces are scored and continued."""
        return (
            "nats: each piece by itself after the end of text, its own end included, windows of "
            "the context with half of it scored anew; continuations: of the first "
            f"{PROMPT_BEATS} quarter notes after the end of text, top-p "
            f"{self.decoding.options.top_p:g}, "
            f"{self.decoding.max_new_tokens} tokens; key: correlation of the fits to Krumhansl's "
            "profiles; meter: 1 - difference of the shares of onsets on a quarter note; p: "
            "permutation of the pairs, 10,000; intervals: bootstrap over pieces"
        )

    def prepare(
        self, data: Path, tokenizer: str | Tokenizer | None, out: str | Path, **settings: Any
    ) -> dict[str, Any]:
        """Writes the shards of a folder of MIDI files; see `prepare_music`.

        Raises:
          UserError: for a tokenizer, as it is always that of events, or another setting that has no
            meaning here.
        """
        refused = {
            "--tokenizer": tokenizer is not None,
            "--fraction": "fraction" in settings,
            "--engine": settings.get("engine", "processes") != "processes",
            "--ray_address": settings.get("ray_address") is not None,
        }
        for flag in (flag for flag, given in refused.items() if given):
            raise UserError(f"{flag} does not apply to --task music: omit it")
        for name in ("engine", "ray_address"):
            settings.pop(name, None)
        return prepare_music([data], out, **settings)

    def read(self, folder: Path, split: str) -> list[Record]:
        """Returns the pieces of a split of a prepared folder, each as `events`, a list of ids."""
        return [{"events": tuple(piece.tolist())} for piece in read_documents(folder, split)]

    def format(self, record: Record) -> Example:
        """Returns the beginning of a piece and the rest of it."""
        words = _words(record)
        steps = sum(map(duration, words))
        cut = opening(words, min(PROMPT_BEATS * STEPS, steps // 2))
        prompt, rest = ("".join(f"{word} " for word in part) for part in (words[:cut], words[cut:]))
        return Example(prompt, rest)

    def prompt_tokens(self, record: Record, tokenizer: Tokenizer) -> list[int]:
        """Returns the ids of the beginning, behind the end of text, as in training."""
        eot = tokenizer.eot
        assert eot is not None
        return [eot, *tokenizer.encode(self.format(record).prompt)]

    def score(self, records: Sequence[Record], answers: Sequence[str]) -> list[Metric]:
        """Returns how continuations agree with their beginnings, and the share that mido reads."""
        metrics, _ = self._agreements(records, answers)
        return metrics

    def evaluate(
        self, model: Model, data: Path, settings: Settings, show: Show = lambda done, total: None
    ) -> dict[str, float]:
        """Returns nats per note and token, and what `score` says of the continuations.

        Beside `key` and `meter` are `_chance`, the agreement with the continuations of others, and
        `_p`, how often shuffled pairs agree as well.

        Raises:
          UserError: if the model is not of events, or the folder is not prepared music.
        """
        if model.tokenizer.to_dict() != vocabulary().to_dict():
            raise UserError(
                f"music: the model's tokens are not events but {model.tokenizer.name}: train one "
                "on what `gpt2-jax prepare --task music` makes"
            )
        pieces = read_documents(data, settings.split)[: settings.limit]
        found = with_intervals(nats(model, pieces))
        answered = answer(self, model, data, settings, show)
        metrics, chances = self._agreements(answered.records, answered.texts)
        found |= summed(answered, metrics)
        for name, chance in chances.items():
            found |= {f"{name}_chance": chance.chance, f"{name}_p": chance.p}
        return found

    def _agreements(
        self, records: Sequence[Record], answers: Sequence[str]
    ) -> tuple[list[Metric], dict[str, measures.Chance]]:
        """Returns what `score` does, and how chance would agree, if there are several pieces."""
        pairs = [
            continued(self.format(record).prompt.split(), answer.split())
            for record, answer in zip(records, answers, strict=True)
        ]
        found = [average("parses", [_parses((*first, *second)) for first, second in pairs])]
        chances = {}
        for name, (measure, agreement) in _COMPARED.items():
            firsts = [measure(first) for first, _ in pairs]
            seconds = [measure(second) for _, second in pairs]
            found.append(average(name, [*map(agreement, firsts, seconds)]))
            if chance := measures.against_chance(firsts, seconds, agreement):
                chances[name] = chance
        return found, chances


def read_documents(folder: str | Path, split: str) -> list[np.ndarray]:
    """Returns the ids of each piece of a split of a prepared folder, without ends of text.

    Raises:
      UserError: if the folder is not prepared music.
    """
    meta = read_meta(folder)
    if meta is None or meta["tokenizer"] != vocabulary().to_dict() or split not in meta["splits"]:
        raise UserError(
            f"{folder} has no {split} split of music: name the folder that `gpt2-jax prepare "
            "--task music --input MIDI --out runs/data/music` makes"
        )
    eot = tokenizer_from_dict(meta["tokenizer"]).eot
    tokens = open_tokens(folder, split)
    ids = tokens.read(0, len(tokens))
    (starts,) = np.nonzero(ids == eot)
    return [part[1:] for part in np.split(ids, starts[1:])]


def nats(model: Model, pieces: Sequence[np.ndarray]) -> list[Metric]:
    """Returns how many nats a model needs per note and per token, each piece by itself.

    A piece is scored after the end of text, and its own end too.
    """
    eot = model.tokenizer.eot
    assert eot is not None
    context = model.config.model.context_length
    requests, owners = [], []
    for number, piece in enumerate(pieces):
        parts = windows([*piece.tolist(), eot], eot, context, max(context // 2, 1))
        requests += parts
        owners += [number] * len(parts)
    sums = np.zeros(len(pieces))
    scorer = Scorer(model.params, model.config.model, model.config.compute)
    for index, (likelihood,) in scorer.score(requests):
        sums[owners[index]] -= likelihood.total
    return per_note_and_token(sums, pieces)


def per_note_and_token(sums: np.ndarray, pieces: Sequence[np.ndarray]) -> list[Metric]:
    """Returns the metrics of the nats of each piece, float64 [N]; tokens include its end."""
    onset = np.array([*map(is_onset, vocabulary().words), False])
    counts = {
        "nats_per_note": [int(onset[piece].sum()) for piece in pieces],
        "nats_per_token": [len(piece) + 1 for piece in pieces],
    }
    return [
        Metric(name, np.stack([sums, np.array(count, np.float64)], 1), lambda s: s[0] / s[1])
        for name, count in counts.items()
    ]


def opening(words: Sequence[str], steps: int) -> int:
    """Returns how many words lead to the step: none that passes it, or happens at it."""
    now = 0
    for count, word in enumerate(words):
        now += duration(word)
        if now >= steps:
            return count + (now == steps)
    return len(words)


def _words(record: Record) -> list[str]:
    known = vocabulary().words
    return [known[token] for token in record["events"]]


def continued(prompt: Sequence[str], answer: Sequence[str]) -> tuple[list[Note], list[Note]]:
    """Returns the notes that begin in the prompt, which may end in the answer, and all others."""
    begun = onsets(prompt)
    parts: tuple[list[Note], list[Note]] = ([], [])
    for note in decode([*prompt, *answer]).notes:
        parts[(note.start, note.pitch) not in begun].append(note)
    return parts


def _parses(notes: Sequence[Note]) -> bool:
    """Returns whether mido reads as many notes from the file as were written."""
    mido = import_extra("mido", extra="tasks", needed_by="music")
    try:
        file = mido.MidiFile(file=io.BytesIO(midi_bytes(notes)))
    except (OSError, ValueError, EOFError):
        return False
    begun = sum(message.type == "note_on" and message.velocity > 0 for message in file)
    return begun == len(notes)
