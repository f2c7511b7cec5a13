"""Tests of plain text: where slices end, and what is refused."""

from __future__ import annotations

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.prepare import pieces, plain_text
from gpt2_jax.prepare.inputs import read_inputs
from gpt2_jax.prepare.work_items import Document
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.prepare.reading import read
from tests.prepare.samples import COMPRESS, PACKED, pack

GPT2 = GPT2Tokenizer()
TEXTS = [f"Document {i}: naïve 日本 text.\r\n" * (i % 7) for i in range(60)]


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("item_bytes", [1 << 24, 999])
def test_a_file_is_one_document_however_it_is_compressed_and_split(
    tmp_path, monkeypatch, packed, item_bytes
):
    monkeypatch.setattr(plain_text, "_BLOCK", 501)  # blocks end inside characters
    text = "".join(TEXTS)
    path = tmp_path / f"x.txt{packed}"
    path.write_bytes(pack(text.encode(), path.name))
    for tokenizer in (GPT2, ByteTokenizer()):
        corpus = read_inputs([path])
        assert read(corpus, item_bytes, tokenizer) == [Document(str(path), text)]
    count = len(list(read_inputs([path]).work_items(item_bytes)))
    assert count == (1 if packed or item_bytes > 999 else -(-len(text.encode()) // 999))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "caf\u00e9 noir".encode("latin-1"), "is not UTF-8 text: byte 3 is 0xe9"),
        ("a.txt", "cut off é".encode()[:-1], "is not UTF-8 text: byte 8 is 0xc3"),
        ("a.txt.gz", COMPRESS[".gz"](b"abc\xff"), "UTF-8 text: decompressed byte 3 is 0xff"),
    ],
)
def test_text_that_is_not_utf8_is_refused_with_its_byte(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read(read_inputs([tmp_path / name]))
    assert message in str(error.value) and str(tmp_path / name) in str(error.value)


def test_text_without_a_border_is_refused_before_memory_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "_LONGEST_PIECE", 5000)
    monkeypatch.setattr(pieces, "_PIECE", 100)
    path = tmp_path / "a.txt"
    path.write_text("word " * 100 + "x" * 6000 + " word" * 100)
    for item_bytes in (1 << 24, 1000):
        with pytest.raises(UserError, match=r"a\.txt .*more than 5,000 characters in one word"):
            read(read_inputs([path]), item_bytes, GPT2)
    (document,) = read(read_inputs([path]), 1000, ByteTokenizer())
    assert document.text == path.read_text()
    path.write_text("word " * 100 + "x" * 4000 + " word" * 100)
    (document,) = read(read_inputs([path]), 1000, GPT2)
    assert document.text == path.read_text()
