"""What `prepare --format examples` and the cache write: ids, places, splits, and refusals."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from gpt2_jax.cli.main import main
from gpt2_jax.config import from_dict
from gpt2_jax.config.fields import parse_fields
from gpt2_jax.data.examples import open_examples
from gpt2_jax.data.meta import read_meta
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.example_files import open_data, uses_examples
from gpt2_jax.prepare.examples import prepare_examples
from gpt2_jax.tokenizers.tokenizer import make_tokenizer

FIELDS = parse_fields("prompt:q,answer:a")
GPT2 = make_tokenizer("gpt2")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of the cache, which is not made yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPT2_JAX_EXAMPLES", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(name, rows):
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Path(name)


def questions(count):
    return [{"q": f"question {i}:", "a": f" answer naïve {i}", "id": i} for i in range(count)]


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def ids_of(examples):
    """Returns (prompt ids, answer ids with the end) of every example."""
    found = []
    for start, answer, stop in zip(examples.starts, examples.answers, examples.stops, strict=True):
        tokens = examples.tokens.read(int(start), int(stop - start)).tolist()
        found.append((tokens[: answer - start], tokens[answer - start :]))
    return found


def make(out="out", rows=None, **options):
    files = {"train": [write("f.jsonl", rows or questions(40))]}
    return prepare_examples(files, FIELDS, GPT2, out, name="f.jsonl", **options)


def test_prompt_and_answer_are_tokenized_separately_and_end_with_the_end_of_text():
    rows = [
        *questions(9),
        {"text": "all of it"},
        {"q": "", "a": "unprompted"},
        {"q": "a", "a": "b"},
    ]
    summary = make(rows=rows, val_fraction=0.2)
    train, val = open_examples("out", "f.jsonl")
    pairs = [(row.get("q", ""), row.get("a", row.get("text"))) for row in rows]
    expected = [
        (GPT2.encode(prompt) or [GPT2.eot], [*GPT2.encode(answer), GPT2.eot])
        for prompt, answer in pairs
    ]
    assert ids_of(train) + ids_of(val) == expected
    assert (len(train), len(val)) == (9, 3)
    assert [*train.lines, *val.lines] == list(range(1, 13))
    assert expected[-1][0] + expected[-1][1][:1] != GPT2.encode("ab")
    splits = summary["splits"]
    size = sum(len((prompt + answer).encode()) for prompt, answer in pairs)
    assert sum(split["bytes"] for split in splits.values()) == size
    assert sum(split["documents"] for split in splits.values()) == 12
    meta = read_meta("out")
    assert meta is not None
    learned = sum(split["answer_tokens"] for split in meta["splits"].values())
    assert learned == sum(len(answer) for _, answer in expected)


def test_workers_and_work_items_change_no_byte():
    made = []
    for number, (workers, size) in enumerate([(1, 500), (2, 500), (1, 1 << 24)]):
        make(f"out{number}", questions(100), workers=workers, work_item_bytes=size)
        made.append(contents(f"out{number}"))
    metas = [json.loads(each.pop("meta.json")) for each in made]
    assert made[0] == made[1] == made[2]
    assert metas[0] == metas[1]
    assert metas[0]["splits"] == metas[2]["splits"]  # the text's sum is taken over the work items


def test_lines_are_counted_across_work_items_and_blank_lines():
    Path("f.jsonl").write_text(
        "\n".join(json.dumps(row) + "\n" for row in questions(30)), encoding="utf-8"
    )
    files = {"train": [Path("f.jsonl")]}
    prepare_examples(files, FIELDS, GPT2, "out", name="f", work_item_bytes=300)
    train, val = open_examples("out", "f")
    assert [*train.lines, *val.lines] == list(range(1, 60, 2))


def test_the_same_again_is_already_prepared_and_others_are_refused():
    make()
    assert make()["already_prepared"]
    with pytest.raises(UserError, match="not the same text"):
        make(rows=questions(41))
    with pytest.raises(UserError, match="not the same fields"):
        files = {"train": [write("f.jsonl", [{"q": "x", "b": "y"}] * 2)]}
        prepare_examples(files, parse_fields("prompt:q,answer:b"), GPT2, "out", name="f")


def test_other_examples_for_a_trained_tokenizer_are_refused_as_such():
    files = {"train": [write("f.jsonl", questions(40))]}
    for already in (False, True):
        done = prepare_examples(files, FIELDS, "bpe:300", "out", name="f")
        assert done["already_prepared"] is already
    write("f.jsonl", questions(41))
    with pytest.raises(UserError, match="not the same text or bpe:N"):
        prepare_examples(files, FIELDS, "bpe:300", "out", name="f")


def test_fields_that_a_prepared_folder_was_not_made_with_are_refused():
    make()
    with pytest.raises(UserError, match=r"was prepared with prompt:q,answer:a"):
        open_data(config_of("out", fields="prompt:x,answer:y"))
    assert open_data(config_of("out")).tokenizer.name == "gpt2"


def config_of(path, **data):
    values = {"data": {"path": path, "fields": str(FIELDS), "tokenizer": "gpt2"} | data}
    values |= {"model": {"vocab_size": 50257, "context_length": 32}, "train": {"batch_size": 4}}
    return from_dict(values)


def test_train_tokenizes_once_and_shows_what_prepare_made(cache):
    path = str(write("f.jsonl", questions(40)))
    said: list[str] = []
    sets = open_data(config_of(path), log=said.append)
    assert uses_examples(config_of(path))
    assert said[0].startswith("tokenizing f.jsonl into")
    (folder,) = cache.iterdir()
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    said.clear()
    again = open_data(config_of(path), log=said.append, check_sums=True)
    assert said[0].startswith("f.jsonl: 36 examples to train on")
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert again.fingerprint == sets.fingerprint
    make(val_fraction=0.1)
    prepared = open_data(config_of("out"))
    assert uses_examples(config_of("out"))
    for step in (0, 5):
        ours, theirs = (each.source.rows(step, range(4)) for each in (sets, prepared))
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    write("f.jsonl", questions(41))
    assert open_data(config_of(path)).fingerprint != sets.fingerprint


def test_a_folder_has_its_own_validation_file_and_overlap_is_counted():
    write("set/train.jsonl", questions(20))
    write("set/val.jsonl", [*questions(1), {"q": "new", "a": "one"}, questions(8)[7]])
    said: list[str] = []
    sets = open_data(config_of("set"), log=said.append)
    assert len(sets.val_tokens["set"].numbers) == 3
    assert "2 of the 3 validation examples of set are also trained on" in said[-1]
    assert "validation lines 1, 3" in said[-1]


def _open(path):
    return open_data(config_of(path)).fingerprint


@pytest.mark.slow
def test_processes_that_start_together_tokenize_once(cache):
    path = str(write("f.jsonl", questions(3000)))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert len(set(pool.map(_open, [path] * 3))) == 1
    assert len(list(cache.iterdir())) == 1


def test_a_damaged_cache_is_made_again_and_a_damaged_index_named(cache):
    path = str(write("f.jsonl", questions(10)))
    open_data(config_of(path))
    (folder,) = cache.iterdir()
    (folder / "meta.json").write_text("{")
    open_data(config_of(path))
    (folder / "train_examples.npy").write_bytes(b"x" * 50)
    with pytest.raises(UserError, match=r"train_examples.npy cannot be read"):
        open_data(config_of(path))
    (folder / "train_examples.npy").unlink()
    with pytest.raises(UserError, match=r"train_examples.npy is missing"):
        open_data(config_of(path))


def test_a_tokenizer_without_an_end_of_text_is_refused():
    path = str(write("f.jsonl", questions(10)))
    with pytest.raises(UserError, match=r"f.jsonl: the char tokenizer has no end of text"):
        open_data(config_of(path, tokenizer="char"))
    char = make_tokenizer("char", "abc")
    with pytest.raises(UserError, match=r"f: the char tokenizer has no end of text"):
        prepare_examples({"train": [Path(path)]}, FIELDS, char, "out", name="f")
    with pytest.raises(UserError, match=r"data.tokenizer=bpe comes with a model"):
        open_data(config_of(path, tokenizer="bpe"))


def test_a_folder_of_parts_is_all_of_its_files(capsys):
    for name in ("a", "b"):
        write(f"parts/{name}.jsonl", questions(10))
    words = ("--format", "examples", "--fields", str(FIELDS), "--out", "out", "--json")
    assert main(["prepare", *words, "--input", "parts"]) == 0
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert sum(split["documents"] for split in splits.values()) == 20


def test_lines_of_several_files_come_with_their_file(capsys):
    """In messages and in what is kept of bad steps; of one file, lines are enough."""
    rows = [{"q": f"question {i}", "a": "yes"} for i in range(30)]
    write("parts/a.jsonl", rows[:10])
    write("parts/b.jsonl", rows[10:20])
    Path("parts/more").mkdir()
    write("parts/more/b.jsonl", [rows[3], {"q": "?", "a": "no"}, rows[17]])
    for size in (120, 1 << 24):  # several work items a file, and all files in one
        files = {"train": sorted(Path("parts").rglob("*.jsonl"))}
        out = f"out{size}"
        prepare_examples(
            files, FIELDS, GPT2, out, name="parts", val_fraction=0.2, work_item_bytes=size
        )
        meta = read_meta(out)
        assert meta is not None
        assert {split: each["files"] for split, each in meta["splits"].items()} == {
            "train": [{"file": "a.jsonl", "documents": 10}, {"file": "b.jsonl", "documents": 8}],
            "val": [
                {"file": "b.jsonl", "documents": 2},
                {"file": "more/b.jsonl", "documents": 3},
            ],
        }
        said: list[str] = []
        sets = open_data(config_of(out), log=said.append)
        assert said[-1].endswith(
            "one of each pair (of validation: more/b.jsonl line 1, more/b.jsonl line 3)"
        )
        places = {place for _, row in sets.origins(0) for place in row}
        assert places <= {f"{name}.jsonl line {i}" for name in "ab" for i in range(1, 11)}
    write("parts/b.jsonl", [*rows[10:20], {"q": "broken"}])
    words = ("--format", "examples", "--fields", str(FIELDS), "--out", "bad", "--input", "parts")
    assert main(["prepare", *words]) == 2
    assert (
        f"{Path('parts').resolve()}/b.jsonl, line 11, has no field 'a'" in capsys.readouterr().err
    )


def test_a_list_of_files_that_does_not_fit_is_not_used():
    for name in ("a", "b"):
        write(f"parts/{name}.jsonl", questions(10))
    files = {"train": sorted(Path("parts").iterdir())}
    prepare_examples(files, FIELDS, GPT2, "out", name="parts")
    meta = json.loads(Path("out/meta.json").read_text())
    for listed in (7, [7], [{"file": "a"}], [{"file": "a", "documents": 3}], [{"documents": -1}]):
        meta["splits"]["train"]["files"] = listed
        Path("out/meta.json").write_text(json.dumps(meta))
        train, _ = open_examples("out", "parts")
        assert train.places(np.arange(3)) == [1, 2, 3]
