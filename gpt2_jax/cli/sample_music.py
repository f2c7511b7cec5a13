"""What `gpt2-jax sample --prompt_midi` does: it continues the music of a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpt2_jax.errors import UserError
from gpt2_jax.files.atomic import write_file
from gpt2_jax.files.paths import local_path
from gpt2_jax.tasks.music import measures
from gpt2_jax.tasks.music.notes import STEPS, Note

_FLAGS = ("prompt_beats", "piano_roll")


def add_arguments(group: argparse._ArgumentGroup) -> None:
    """Declares the flags that --prompt_midi takes beside those of every prompt."""
    group.add_argument(
        "--prompt_beats",
        type=int,
        metavar="N",
        help="with --prompt_midi, continue the first N quarter notes instead of the whole file",
    )
    group.add_argument(
        "--piano_roll",
        metavar="FILE",
        help="with --prompt_midi, also draw the notes as a PNG, the given and the new ones apart",
    )


def check(args: argparse.Namespace) -> None:
    """Raises UserError for flags that do not go together."""
    if args.prompt_midi is None:
        if given := next((flag for flag in _FLAGS if getattr(args, flag) is not None), None):
            raise UserError(f"--{given} is for --prompt_midi FILE: add it, or omit the flag")
        return
    if args.out is None:
        raise UserError("--prompt_midi needs --out FILE.mid, the file to write")
    for flag, given in (("stream", args.stream), ("json", args.json), ("stop", args.stop)):
        if given:
            raise UserError(f"--{flag} is for text: omit it with --prompt_midi")
    if args.num_samples > 1:
        raise UserError(
            f"--prompt_midi writes one file: omit --num_samples={args.num_samples}; another --seed "
            "gives another continuation"
        )
    if args.prompt_beats is not None and args.prompt_beats < 1:
        raise UserError(f"--prompt_beats must be at least 1, not {args.prompt_beats}")
    if Path(args.out).resolve() == Path(args.prompt_midi).resolve():
        raise UserError("--out is the file of --prompt_midi, which would be lost: name another")
    for flag, suffix in (("out", ".mid"), ("piano_roll", ".png")):
        name = getattr(args, flag)
        if name is not None and Path(name).suffix.lower() != suffix:
            raise UserError(f"--{flag} must end in {suffix}, not {name!r:.80}")


def run(model: Any, args: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Writes the beginning of the file and what the model makes of it.

    Raises:
      UserError: if the model is not of music, or a file cannot be read or written.
    """
    from gpt2_jax.tasks.music import events, midi, task

    known = events.vocabulary()
    if model.tokenizer.to_dict() != known.to_dict():
        raise UserError(
            f"--prompt_midi needs a model of music, but {args.model} has {model.tokenizer.name} "
            "tokens: train one on what `gpt2-jax prepare --task music` makes"
        )
    piece = midi.read_midi(args.prompt_midi)
    words = events.encode(piece.notes)
    if args.prompt_beats is not None:
        words = words[: task.opening(words, args.prompt_beats * STEPS)]
    (sample,) = model.generate([known.eot, *known.encode(" ".join(words))], **settings)
    answer = [known.words[token] for token in sample.tokens if token != known.eot]
    given, new = task.continued(words, answer)
    stop = max((note.stop for note in (*given, *new)), default=0)
    meters = [meter for meter in piece.meters if meter.start < stop]
    _write(args.out, "--out", midi.midi_bytes([*given, *new], meters))
    if args.piano_roll is not None:
        from gpt2_jax.tasks.music.piano_roll import piano_roll

        title = f"{piece.name}, continued by {args.model}"
        _write(args.piano_roll, "--piano_roll", piano_roll(given, new, piece.bars(stop), title))
    print(f"{args.out}: {_counted(given, 'notes given')}, and {_counted(new, 'new')}")
    after = f"after {stop / STEPS:g} quarter notes"
    if sample.finish_reason == "stop":
        print(f"the music ends by itself, {after}")
    elif args.max_new_tokens is None:
        print(f"the music is cut {after}, where the context ends; --max_new_tokens may go on")
    else:
        print(f"the music is cut {after}, at --max_new_tokens {args.max_new_tokens}")


def _counted(notes: list[Note], kind: str) -> str:
    """Returns how many notes there are, and their key if there are any."""
    key = f", in {measures.key_name(measures.key_scores(notes))}" if notes else ""
    return f"{len(notes)} {kind}{key}"


def _write(name: str, flag: str, content: bytes) -> None:
    path = local_path(name, flag)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    except OSError as error:
        raise UserError(f"{flag}: cannot write {path} ({error.strerror}): choose another") from None
