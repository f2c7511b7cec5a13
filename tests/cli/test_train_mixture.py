"""Tests `gpt2-jax train` on a mixture of prepared sets: its batches, reports and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.checkpoint.store import CheckpointStore
from gpt2_jax.cli.main import main
from gpt2_jax.prepare.corpora import Document
from gpt2_jax.prepare.prepare import prepare

_CONFIG = """
from gpt2_jax.config import default

def get_config():
    c = default()
    c.model.num_layers = 1
    c.model.num_heads = 2
    c.model.d_model = 16
    c.model.context_length = 16
    c.model.vocab_size = 257
    c.model.vocab_multiple = 16
    c.compute.dtype = "float32"
    c.compute.loss_chunk = 0
    c.data.mixture = "letters=0.75,digits=0.25"
    c.data.tokenizer = "byte"
    c.schedule.warmup_steps = 1
    c.train.batch_size = 8
    c.train.total_steps = 6
    c.eval.every = 0
    c.eval.sample_tokens = 0
    c.log.every = 1
    c.log.norms_every = 0
    c.log.tensorboard = False
    return c
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixture")
    rng = np.random.default_rng(0)
    for name, characters in {"letters": "abcdefgh ", "digits": "0123456789 "}.items():
        text = "".join(rng.choice(list(characters), 3000))
        prepare([Document(name, text)], "byte", folder / name)
    prepare([Document("c", "abcab" * 100)], "char", folder / "characters")
    prepare([Document("s", "x" * 23)], "byte", folder / "short")
    prepare([Document("v", "x" * 999)], "byte", folder / "no_val", val_fraction=0.001)
    (folder / "foreign").mkdir()
    foreign = np.full(900, 7, np.uint16)
    foreign[3] = 999
    foreign.tofile(folder / "foreign" / "train.bin")
    (folder / "mixed.py").write_text(_CONFIG)
    return folder


@pytest.fixture
def house(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _train(workdir: str, *words: str) -> int:
    return main(["train", "--config", "mixed.py", "--workdir", workdir, *words])


def _rows(workdir: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(workdir, "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_interrupted_and_resumed_equals_uninterrupted_and_each_set_is_scored(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train("whole") == 0
    assert _train("halves", "--stop_at_step", "3") == 0
    shutil.copytree("letters", "moved/letters")  # the same shards in another place
    moved = f"--config.data.mixture=./moved/letters=3,{Path('digits').absolute()}=1"
    assert _train("halves", moved) == 0
    whole, halves = (
        {row["step"]: row["loss"] for row in _rows(name) if "loss" in row}
        for name in ("whole", "halves")
    )
    assert whole == halves and sorted(whole) == [1, 2, 3, 4, 5, 6]
    digests = [
        (CheckpointStore(Path(name, "checkpoints"), keep=1).meta(6)["data_fingerprint"])
        for name in ("whole", "halves")
    ]
    assert digests[0] == digests[1]
    (scores,) = [row for row in _rows("whole") if "eval/loss" in row]
    parts = scores["eval/letters/loss"], scores["eval/digits/loss"]
    assert scores["eval/loss"] == pytest.approx(0.75 * parts[0] + 0.25 * parts[1])
    assert scores["eval/perplexity"] == pytest.approx(np.exp(scores["eval/loss"]))
    assert scores["eval/bits_per_byte"] == pytest.approx(scores["eval/loss"] / np.log(2), rel=0.01)
    capsys.readouterr()

    # Another set under the same name, or other shares, is another run.
    assert _train("whole", "--config.data.mixture=letters=0.5,digits=0.5") == 2
    assert "data.mixture ('letters=0.75" in capsys.readouterr().err
    shutil.rmtree("digits")
    prepare([Document("digits", "31415 926 " * 300)], "byte", "digits")
    assert _train("whole", "--config.train.total_steps=7") == 2
    assert "the data of data.mixture=letters=0.75,digits=0.25" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mixture=letters=1,missing=1",), "no data folder missing"),
        (("mixture=letters=1,digits",), "'digits' is not FOLDER=WEIGHT"),
        (("path=letters",), "data.path and data.mixture exclude each other"),
        (("mixture=letters=1,short=1",), "short: the train split has 21 tokens"),
        (("mixture=letters=1,no_val=1",), "no_val: the val split has 1 tokens"),
        (("mixture=letters=1,foreign=1",), "foreign: token 3 has the id 999, but ids must be"),
        (
            ("mixture=letters=1,characters=1",),
            "characters was prepared with char: set --config.data.tokenizer=char",
        ),
        (
            ("mixture=characters=1,letters=1", "tokenizer=char"),
            "data.tokenizer=char, but letters was prepared with byte",
        ),
        (
            ("mixture=characters=1", "tokenizer=char"),
            "model.vocab_size=257, but the tokenizer of characters has 3 ids",
        ),
    ],
)
def test_sets_that_do_not_fit_are_refused(
    house: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert _train("new", *(f"--config.data.{word}" for word in words)) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
    assert not Path("new").exists()


def test_character_sets_of_different_characters_are_refused(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare([Document("c", "xyzxy" * 100)], "char", "others")
    words = ("data.mixture=characters=1,others=1", "data.tokenizer=char", "model.vocab_size=3")
    assert _train("new", *(f"--config.{word}" for word in words)) == 2
    assert "others and characters have char tokenizers" in capsys.readouterr().err
