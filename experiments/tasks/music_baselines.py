r"""Scores music by n-grams with Kneser-Ney smoothing, the baselines of docs/music.md.

    gpt2-jax prepare --task music --input MIDI --out runs/data/music
    python experiments/tasks/music_baselines.py --data runs/data/music
    python experiments/tasks/music_baselines.py --data runs/data/music \
      --model runs/music/checkpoints/best --out experiments/tasks/results/music.json
    python experiments/tasks/music_baselines.py --midi MIDI --order length --family melody

Each piece is scored by itself, its end included, as `gpt2-jax eval --tasks music` scores it. With
`--model`, that of a model is set beside the best n-gram, piece by piece. `--midi` reads the files
again, for another order of what happens at the same time, or another notion of which pieces share a
melody: `--order length` is that of symusic's sort (start, length, pitch) with the ends of notes in
the order of their beginnings, and `--family melody` compares whole melodies.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from gpt2_jax.formats.load import load
from gpt2_jax.tasks.base import Metric
from gpt2_jax.tasks.bootstrap import difference
from gpt2_jax.tasks.music import splits
from gpt2_jax.tasks.music.events import duration, encode, is_onset, transposed, vocabulary
from gpt2_jax.tasks.music.notes import Piece
from gpt2_jax.tasks.music.prepare import read_pieces
from gpt2_jax.tasks.music.task import nats, per_note_and_token, read_documents
from gpt2_jax.tasks.run import with_intervals

ORDERS = (2, 5, 8)
DISCOUNT = 0.75


class KneserNey:
    """Interpolated Kneser-Ney n-grams with one discount (Chen and Goodman 1999, section 2.7)."""

    def __init__(self, order: int, vocab_size: int) -> None:
        """Takes n and the number of different tokens; the last id pads and ends texts."""
        self._order, self._vocab_size = order, vocab_size

    def nats(self, train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> np.ndarray:
        """Returns the nats of each test text, its end included, float64 [len(test)]."""
        pad = self._vocab_size - 1
        padded = [np.r_[[pad] * (self._order - 1), text, pad] for text in (*train, *test)]
        tokens = np.concatenate(padded).astype(np.int64)
        lengths = np.array([len(text) for text in padded])
        places = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        counted = places >= self._order - 1
        learned = np.arange(len(tokens)) < lengths[: len(train)].sum()
        scored = counted & ~learned
        probabilities = np.full(scored.sum(), 1 / self._vocab_size)
        # grams[k] identifies the k tokens that end at each place; 0 tokens are all the same.
        grams = [np.zeros(len(tokens), np.int64)]
        for _ in range(self._order):
            before = np.r_[0, grams[-1][:-1]]
            grams.append(np.unique(before * self._vocab_size + tokens, return_inverse=True)[1])
        for k in range(1, self._order + 1):
            history = np.r_[0, grams[k - 1][:-1]]
            kept = learned & counted
            if k < self._order:  # of a shorter gram, how many different tokens come before it
                _, first = np.unique(grams[k + 1][kept], return_index=True)
                kept = np.flatnonzero(kept)[first]
            counts = np.bincount(grams[k][kept], minlength=grams[k].max() + 1)
            size = history.max() + 1
            totals = np.bincount(history[kept], minlength=size)
            _, first = np.unique(grams[k][kept], return_index=True)
            kinds = np.bincount(history[kept][first], minlength=size)
            total = totals[history[scored]]
            own = np.maximum(counts[grams[k][scored]] - DISCOUNT, 0)
            mixed = own + DISCOUNT * kinds[history[scored]] * probabilities
            probabilities = np.where(total > 0, mixed / np.maximum(total, 1), probabilities)
        owner = np.repeat(np.arange(len(padded)), lengths)[scored] - len(train)
        return -np.bincount(owner, np.log(probabilities), minlength=len(test))


def main() -> None:
    """Prints the numbers and writes them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder that prepare --task music has made")
    source.add_argument("--midi", type=Path, help="folder of MIDI files")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--order", default="pitch", choices=("pitch", "length"))
    parser.add_argument("--family", default="run", choices=("run", "melody"))
    parser.add_argument("--seed", type=int, default=0, help="of the split, with --midi")
    parser.add_argument("--model", help="a model to compare, with --data")
    parser.add_argument("--out", type=Path, help="file of JSON to write")
    args = parser.parse_args()
    if args.data:
        train, test = (read_documents(args.data, split) for split in ("train", args.split))
    else:
        train, test = _from_midi(args.midi, args)
    once = train[: len(train) // len(splits.TRANSPOSITIONS)]
    untransposed = train[5 * len(once) : 6 * len(once)]
    found, metrics = {}, {}
    for keys, texts in (("own key", untransposed), ("all keys", train)):
        for order in ORDERS:
            sums = KneserNey(order, vocabulary().vocab_size).nats(texts, test)
            name = f"Kneser-Ney {order}-gram, {keys}"
            metrics[name] = per_note_and_token(sums, test)
            found[name] = with_intervals(metrics[name])
            _show(name, found[name])
    if args.model:
        metrics[args.model] = nats(load(args.model), test)
        found[args.model] = with_intervals(metrics[args.model])
        _show(args.model, found[args.model])
        best = min(metrics, key=lambda name: (name == args.model, metrics[name][0].value()))
        found["difference"] = _compared(metrics[args.model][0], metrics[best][0], best)
        print(json.dumps(found["difference"]))
    if args.out:
        settings = {"pieces": len(test), "split": args.split, "command": " ".join(sys.argv)}
        args.out.write_text(json.dumps({**settings, "results": found}, indent=1) + "\n")


def _compared(model: Metric, best: Metric, name: str) -> dict[str, object]:
    compared = difference(model, best)
    value, _, low, high = compared.interval
    return {"than": name, "value": value, "low": low, "high": high, "p": compared.p}


def _show(name: str, numbers: dict[str, float]) -> None:
    shown = " ".join(
        f"{numbers[each]:7.4f} ({numbers[f'{each}_low']:.2f} to {numbers[f'{each}_high']:.2f})"
        for each in ("nats_per_token", "nats_per_note")
    )
    print(f"{name:32} per token {shown} per note", flush=True)


def _from_midi(folder: Path, args: argparse.Namespace) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the texts to train on and to score, in the order and split that the flags say."""
    run = splits.RUN if args.family == "run" else 10**6
    parts = splits.split(read_pieces([folder]), 0.1, args.seed, run)
    words = {name: [_words(piece, args.order) for piece in part] for name, part in parts.items()}
    moved = (transposed(each, shift) for shift in splits.TRANSPOSITIONS for each in words["train"])
    return _ids(filter(None, moved)), _ids(words[args.split])


def _words(piece: Piece, order: str) -> list[str]:
    if order == "pitch":
        return encode(piece.notes)
    notes = sorted(piece.notes, key=lambda note: (note.start, note.length, note.pitch))
    rank = {(note.start, note.pitch): i for i, note in enumerate(notes)}
    words, begun, now = [], {}, 0
    for passes, group in itertools.groupby(encode(piece.notes), key=lambda w: duration(w) > 0):
        together = list(group)
        if passes:
            now += sum(map(duration, together))
        else:
            ends = [word for word in together if not is_onset(word)]
            starts = [word for word in together if is_onset(word)]
            ends.sort(key=lambda word: rank[begun[_pitch(word)], _pitch(word)])
            begun |= {_pitch(word): now for word in starts}
            together = [*ends, *sorted(starts, key=lambda word: rank[now, _pitch(word)])]
        words += together
    return words


def _pitch(word: str) -> int:
    return int(word.partition("_")[2])


def _ids(texts: Iterable[list[str]]) -> list[np.ndarray]:
    known = vocabulary()
    return [known.encode_array(" ".join(text)) for text in texts]


if __name__ == "__main__":
    main()
