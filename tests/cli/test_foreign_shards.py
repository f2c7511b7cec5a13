"""Tests that token files which llm.c and nanoGPT wrote (see tests/data/foreign) load and train."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiktoken

from gpt2_jax.cli.main import main
from gpt2_jax.data.shards import open_tokens
from gpt2_jax.errors import UserError
from gpt2_jax.prepare.prepare import prepare
from gpt2_jax.prepare.work_items import Document
from gpt2_jax.tokenizers import vocabulary

_FOREIGN = Path(__file__).parents[1] / "data" / "foreign"
_DOCUMENTS = json.loads((_FOREIGN / "documents.json").read_text("utf-8"))
_CONFIG = """
from gpt2_jax.config import default

def get_config():
    c = default()
    c.model.num_layers = 1
    c.model.num_heads = 1
    c.model.d_model = 4
    c.model.context_length = 16
    c.compute.dtype = "float32"
    c.compute.loss_chunk = 0
    c.schedule.warmup_steps = 1
    c.train.batch_size = 8
    c.train.total_steps = 2
    c.eval.sample_tokens = 0
    c.log.every = 1
    c.log.norms_every = 0
    c.log.tensorboard = False
    return c
"""


def _stream(folder: Path, split: str) -> list[int]:
    tokens = open_tokens(folder, split)
    return tokens.read(0, len(tokens)).tolist()


def _expected(documents: list[str]) -> list[list[int]]:
    encoding: tiktoken.Encoding = vocabulary.encoding(vocabulary.gpt2_vocabulary())
    return [encoding.encode_ordinary(document) for document in documents]


def test_llmcs_files_hold_each_document_after_its_end_of_text() -> None:
    first, *rest = _expected(_DOCUMENTS)
    assert _stream(_FOREIGN / "llmc", "val") == [50256, *first]
    assert _stream(_FOREIGN / "llmc", "train") == [t for each in rest for t in [50256, *each]]


def test_what_llmc_writes_is_what_we_write(tmp_path: Path) -> None:
    documents = [Document(str(i), text) for i, text in enumerate(_DOCUMENTS[1:4])]
    prepare(documents, "gpt2", tmp_path / "ours", val_fraction=0)
    theirs = (_FOREIGN / "llmc" / "fineweb_train_000001.bin").read_bytes()
    assert (tmp_path / "ours" / "train_000000.bin").read_bytes() == theirs


def test_nanogpts_files_hold_each_document_before_its_end_of_text() -> None:
    found = []
    for split in ("train", "val"):
        stream = _stream(_FOREIGN / "nanogpt", split)
        while stream:
            end = stream.index(50256)
            found.append(stream[:end])
            stream = stream[end + 1 :]
    assert sorted(found) == sorted(_expected(_DOCUMENTS))


def test_our_characters_have_nanogpts_ids_and_split(tmp_path: Path) -> None:
    # nanoGPT reads with newline translation.
    text = "".join(_DOCUMENTS).replace("\r\n", "\n")
    prepare([Document("all", text)], "char", tmp_path / "ours")
    for split in ("train", "val"):
        assert _stream(tmp_path / "ours", split) == _stream(_FOREIGN / "nanogpt_char", split)


@pytest.mark.slow
def test_a_model_trains_on_both_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.py").write_text(_CONFIG)
    words = ("--config", str(tmp_path / "tiny.py"), "--workdir", str(tmp_path / "run"))
    data = f"--config.data.mixture={_FOREIGN / 'llmc'}=1,{_FOREIGN / 'nanogpt'}=1"
    assert main(["train", *words, data, "--json"]) == 0, capsys.readouterr().err
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == 2
    # Hardly trained, the model knows little more than that there are 50,257 tokens.
    for name in ("eval/loss", "eval/llmc/loss", "eval/nanogpt/loss"):
        assert 10 < result[name] < 11.5


@pytest.mark.parametrize(
    ("made_by", "message"),
    [
        ("llama3", "not GPT-2 data: its header says Llama 3 tokens, uint32 (llm.c's 20240801)"),
        ("evaluation", "not GPT-2 data: its header says multiple-choice questions"),
    ],
)
def test_llmcs_other_files_are_refused_by_what_they_are(made_by: str, message: str) -> None:
    split = "train" if made_by == "llama3" else "val"
    with pytest.raises(UserError) as error:
        open_tokens(_FOREIGN / made_by, split)
    assert message in str(error.value)


def test_a_header_of_another_kind_is_no_nanogpt_file_either(tmp_path: Path) -> None:
    shutil.copy(_FOREIGN / "llama3" / "fineweb_train_000001.bin", tmp_path / "train.bin")
    with pytest.raises(UserError, match=r"train\.bin is not GPT-2 data"):
        open_tokens(tmp_path, "train")


def test_characters_of_unknown_meaning_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.py").write_text(_CONFIG)
    words = ("--config", str(tmp_path / "tiny.py"), "--workdir", str(tmp_path / "run"))
    data = f"--config.data.path={_FOREIGN / 'nanogpt_char'}"
    assert main(["train", *words, data, "--config.data.tokenizer=char"]) == 2
    assert "has no meta.json, so its characters are unknown" in capsys.readouterr().err
    for name in ("bpe", "ids"):
        assert main(["train", *words, data, f"--config.data.tokenizer={name}"]) == 2
        message = f"has no meta.json, which stores the vocabulary that data.tokenizer={name} needs"
        assert message in capsys.readouterr().err
