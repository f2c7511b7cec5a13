r"""Makes examples of a task that a small model learns in minutes, and scores a model on it.

    python experiments/finetuning/reversed_words.py write --out runs/data/reversed_words
    gpt2-jax train --config configs/finetune.py --workdir runs/reversed \
      --config.train.init_from=runs/quickstart --config.data.path=runs/data/reversed_words
    python experiments/finetuning/reversed_words.py score --model runs/reversed/checkpoints/best

A prompt asks for a word of three to eight random letters, and the answer is its letters in reverse.
No word is in two of train.jsonl, val.jsonl and test.jsonl. `score` decodes greedily and prints one
JSON object: the share of answers that are right, and of those that ended by themselves.
"""

from __future__ import annotations

import argparse
import json
import random
import string
from pathlib import Path

from gpt2_jax.formats.load import load
from gpt2_jax.inference.generate import decode_params, generate_text
from gpt2_jax.inference.sampling import SamplingOptions
from gpt2_jax.model.build import build_decoder

_SPLITS = {"train": 20_000, "val": 500, "test": 500}
_SHORTEST, _LONGEST = 3, 8
_AT_ONCE = 100


def main() -> None:
    """Writes examples, or scores a model on the test split."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    writer = verbs.add_parser("write", help="write train.jsonl, val.jsonl and test.jsonl")
    writer.add_argument("--out", required=True, type=Path, help="folder of the files")
    scorer = verbs.add_parser("score", help="score a model on test.jsonl")
    scorer.add_argument("--model", required=True, help="any model that gpt2-jax sample takes")
    scorer.add_argument("--data", default=Path("runs/data/reversed_words"), type=Path)
    args = parser.parse_args()
    if args.verb == "write":
        write(args.out)
    else:
        print(json.dumps(score(args.model, args.data / "test.jsonl")))


def write(folder: Path, seed: int = 0) -> None:
    """Writes the splits, the same for the same seed."""
    rng = random.Random(seed)
    words: dict[str, None] = {}  # in the order in which they were drawn
    while len(words) < sum(_SPLITS.values()):
        length = rng.randint(_SHORTEST, _LONGEST)
        words["".join(rng.choices(string.ascii_lowercase, k=length))] = None
    drawn = iter(words)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in _SPLITS.items():
        lines = [json.dumps(_example(next(drawn))) for _ in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _example(word: str) -> dict[str, str]:
    return {"prompt": f"word: {word}\nreversed: ", "answer": word[::-1]}


def score(name: str, path: Path) -> dict[str, float]:
    """Returns {"exact_match", "ended", "count"} of a model's greedy answers to the prompts."""
    model = load(name)
    decoder = build_decoder(model.config.model, model.config.compute)
    params = decode_params(decoder, model.params)
    lines = path.read_text(encoding="utf-8").splitlines()
    examples = [json.loads(line) for line in lines]
    right = ended = 0
    for first in range(0, len(examples), _AT_ONCE):
        part = examples[first : first + _AT_ONCE]
        samples = generate_text(
            decoder,
            params,
            model.tokenizer,
            [model.tokenizer.encode(example["prompt"]) for example in part],
            max_new_tokens=2 * _LONGEST,
            options=SamplingOptions(temperature=0.0),
        )
        for example, sample in zip(part, samples, strict=True):
            right += sample.text == example["answer"]
            ended += sample.finish_reason == "stop"
    count = len(examples)
    return {"exact_match": right / count, "ended": ended / count, "count": count}


if __name__ == "__main__":
    main()
