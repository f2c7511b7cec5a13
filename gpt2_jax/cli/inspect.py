"""Implements `gpt2-jax inspect`, which draws what a model does with a text."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2_jax.cli import EMA_HELP, MODEL_HELP, compilation_cache, interventions_file, texts
from gpt2_jax.errors import StorageError, UserError, did_you_mean
from gpt2_jax.files.extras import import_extra
from gpt2_jax.files.paths import local_path
from gpt2_jax.serve.languages import LANGUAGES

HELP = """\
Draw what a model does with a text, as figures for a paper, and write a lesson in one file.

The figures show the attention of one head as arcs and as a heat map, all heads and three scores of
each, the ten most probable next tokens, the surprise of every token, the logit lens, and the norms
of the residual stream. numbers.npz has the arrays that are drawn, numbers.json captions and what
was chosen. lesson.html is the explorer's page with the numbers of this text: it needs no server and
no network. Layers, heads and positions count from 0; all is computed in float32."""
EXAMPLES = """\
gpt2-jax inspect --model runs/quickstart --text "def add(a, b):" --out figures
gpt2-jax inspect --model gpt2 --text_file story.txt --layer 5 --head 1 --out figures --language zh
gpt2-jax inspect --model runs/small --ids 5,8,13 --query -1 --formats pdf --no_lesson --out figures
gpt2-jax inspect --model runs/small --text "a b a" --interventions off.json --out without_head"""

_FORMATS = ("svg", "png", "pdf")
_LESSON = "lesson.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    _add_reading(parser.add_argument_group("model and text"))
    _add_drawing(parser.add_argument_group("what is drawn"))
    _add_files(parser.add_argument_group("files to write"))
    compilation_cache.add_argument(parser)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of text"
    )


def _add_reading(group: argparse._ArgumentGroup) -> None:
    """Declares the model, and what it reads."""
    group.add_argument("--model", required=True, metavar="M", help=MODEL_HELP)
    group.add_argument("--ema", action="store_true", help=EMA_HELP)
    source = group.add_mutually_exclusive_group()
    source.add_argument("--text", metavar="TEXT", help="what the model reads")
    source.add_argument("--text_file", metavar="FILE", help="a UTF-8 file with the text")
    source.add_argument(
        "--ids", metavar="IDS", help="token ids, such as 1,2,3; for models without a tokenizer too"
    )


def _add_drawing(group: argparse._ArgumentGroup) -> None:
    """Declares what is computed and drawn."""
    group.add_argument("--layer", type=int, metavar="L", help="whose attention is drawn")
    group.add_argument(
        "--head",
        type=int,
        metavar="H",
        help="whose attention is drawn; layer and head by default those with the highest induction "
        "score if it is at least 0.1, else with the highest previous-token score",
    )
    group.add_argument(
        "--query",
        type=int,
        metavar="T",
        help="position whose attention is drawn, negative from the end; default: the one with most "
        "attention of the kind that the head was chosen for",
    )
    group.add_argument(
        "--position",
        type=int,
        metavar="T",
        help="position whose next token is drawn, negative from the end; default: the last",
    )
    group.add_argument(
        "--interventions",
        metavar="FILE",
        help=f"changes inside of the model, as JSON: {interventions_file.FORM}",
    )


def _add_files(group: argparse._ArgumentGroup) -> None:
    """Declares which files are written, and where."""
    group.add_argument(
        "--out",
        required=True,
        metavar="DIR",
        help="where the files go: a folder that is new, empty, or of an earlier inspect, whose "
        "files are replaced",
    )
    group.add_argument(
        "--formats",
        default="svg,png",
        metavar="A,B",
        help=f"of the figures, any of {', '.join(_FORMATS)}; default: svg,png",
    )
    group.add_argument(
        "--no_lesson", action="store_true", help=f"write figures and numbers, and no {_LESSON}"
    )
    group.add_argument(
        "--language",
        choices=LANGUAGES,
        default=LANGUAGES[0],
        help=f"that {_LESSON} opens in, English or Chinese; default: {LANGUAGES[0]}",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the figures, the numbers and the lesson, and returns the exit status."""
    formats = _formats(args.formats)
    out = local_path(args.out, "--out")
    changed: str | None = args.interventions
    changes = None if changed is None else interventions_file.read(changed)
    text = _text(args)
    import_extra("matplotlib", extra="plots", needed_by="gpt2-jax inspect")
    from gpt2_jax.interpret.figures import folder

    folder.refuse_other_folder(out)
    from gpt2_jax import api

    compilation_cache.apply(args)
    model = api.load(args.model, ema=args.ema, dtype="float32")  # as `inspect` computes anyway
    if changed is None:
        inspection, unmasked = model.inspect(text), frozenset()
    else:
        inspection, unmasked = interventions_file.inspected(changed, changes, model, text)
    report = _write(args, out, formats, inspection, unmasked, changes)
    print(json.dumps(report) if args.json else _shown(report, out))
    return 0


def _text(args: argparse.Namespace) -> str | list[int]:
    if args.ids is not None:
        return texts.parse_ids(args.ids, "--ids")
    if args.text_file is not None:
        return texts.read_text(args.text_file, "--text_file")
    if args.text is None:
        raise UserError("there is nothing to read: pass --text TEXT, --text_file FILE or --ids IDS")
    return args.text


def _formats(names: str) -> list[str]:
    formats = [name.strip().lower() for name in names.split(",")]
    for name in formats:
        if name not in _FORMATS:
            raise UserError(
                f"--formats must be of {', '.join(_FORMATS)}, not {name!r}"
                f"{did_you_mean(name, _FORMATS)}"
            )
    return list(dict.fromkeys(formats))


def _write(
    args: argparse.Namespace,
    out: Path,
    formats: Sequence[str],
    inspection: Any,
    unmasked: frozenset[int],
    changes: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Writes all files, and returns what --json prints."""
    from gpt2_jax.interpret.figures import folder
    from gpt2_jax.interpret.figures.draw import draw
    from gpt2_jax.interpret.figures.fonts import Fonts
    from gpt2_jax.interpret.figures.labels import Labels
    from gpt2_jax.interpret.figures.selection import select
    from gpt2_jax.interpret.figures.source import Source

    fonts = Fonts()
    tokenizer = inspection.run.subject.tokenizer
    source = Source(inspection, Labels(tokenizer, fonts.drawable), unmasked)
    chosen = select(source, args.layer, args.head, args.query, args.position)
    drawn = draw(source, chosen, fonts, formats)
    files = {f"{each.name}.{form}": each.contents[form] for each in drawn for form in formats}
    selection = dataclasses.asdict(chosen)
    if not args.no_lesson:
        from gpt2_jax.serve.lesson import lesson

        row = source[f"row/{chosen.layer}/{chosen.head}/{chosen.query}"][2]
        shown = {"layer": chosen.layer, "head": chosen.head, "query": chosen.query}
        state = {"model": args.model, **shown, "key": int(row.argmax())}
        if changes is not None:
            state["interventions"] = changes
        files[_LESSON] = lesson(inspection, state, args.language)
    index = {
        "model": args.model,
        "selection": selection,
        "figures": {each.name: each.caption for each in drawn},
        "interventions": changes,
        "arrays": {name: list(array.shape) for name, array in source.used.items()},
        "summary": source.summary,
    }
    try:
        written = folder.write(out, files, source.used, index)
    except OSError as error:
        raise StorageError(
            f"cannot write --out {out}: {error.strerror}; run the same command again when that is "
            "fixed"
        ) from error
    names = sorted(path.name for path in written)
    tokens = len(source)
    return {"model": args.model, "out": str(out), "tokens": tokens, **selection, "files": names}


def _shown(report: Mapping[str, Any], out: Path) -> str:
    lines = [
        f"{report['tokens']} tokens; layer {report['layer']}, head {report['head']}, query "
        f"{report['query']}: {report['rule']}",
        *(str(out / name) for name in report["files"]),
    ]
    return "\n".join(lines)
