"""What text each token of a text stands for, by every kind of tokenizer."""

from __future__ import annotations

import numpy as np
import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.errors import UserError
from gpt2_jax.formats.model import Model
from gpt2_jax.interpret.comparison import compare
from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.run import Run, Subject
from gpt2_jax.interpret.text import pieces
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.ids import IdsTokenizer
from tests.inference.tiny import noisy_params, tiny_config

TEXT = "it 🙂 שלום\n\té"
BPE = GPT2Tokenizer()
TOKENIZERS = [ByteTokenizer(), CharTokenizer(TEXT), BPE]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=lambda t: t.name)
def test_pieces_are_the_text(tokenizer):
    tokens = tokenizer.encode(TEXT)
    found = pieces(tokenizer, tokens)
    assert b"".join(piece.data for piece in found) == TEXT.encode()
    before = 0
    for piece in found:
        # The character that the token's first byte is of.
        assert piece.start == len(TEXT.encode()[: before + 1].decode(errors="replace")) - 1
        before += len(piece.data)
        try:
            assert piece.text == piece.data.decode()
        except UnicodeDecodeError:
            assert piece.text.startswith(r"\x") or "\\x" in piece.text


@pytest.mark.parametrize(
    "data", [b"\xc3a", b"\xe2\x82 \xff\xfeb", b"\x80\xf0\x9f\x99", b"\xed\xa0a"]
)
def test_bytes_that_are_no_text_are_counted_as_they_are_shown(data):
    found = pieces(ByteTokenizer(), list(data))
    for end, piece in enumerate(found, start=1):
        assert piece.start == len(data[:end].decode(errors="replace")) - 1
        assert piece.text == (
            chr(data[end - 1]) if data[end - 1] < 128 else f"\\x{piece.data.hex()}"
        )


def test_ids_without_text_have_numbers_for_names():
    tokenizer = IdsTokenizer(300, "unknown")
    assert [tuple(piece) for piece in pieces(tokenizer, [7, 299])] == [
        ("<7>", b"", 0),
        ("<299>", b"", 0),
    ]
    # The model may have more ids than its tokenizer.
    assert pieces(ByteTokenizer(), [65, 290])[1] == ("<290>", b"", 1)


@pytest.fixture(scope="module")
def without_text():
    tokenizer = IdsTokenizer(257, "unknown")
    config = tiny_config(num_layers=1, scan_unroll=1)
    return [Subject(config, noisy_params(config, seed), tokenizer) for seed in (0, 1)]


def test_a_model_of_ids_is_looked_into_by_ids(without_text):
    summary = Inspection(Run(without_text[0], [1, 2, 3])).summary()
    assert [entry["text"] for entry in summary["tokens"]] == ["<1>", "<2>", "<3>"]
    assert [entry["bytes"] for entry in summary["tokens"]] == [[], [], []]
    config = tiny_config(num_layers=1, scan_unroll=1)
    tokenizer = without_text[0].tokenizer
    model = LanguageModel(Model(config, noisy_params(config), tokenizer, 0, None))
    np.testing.assert_array_equal(model.inspect([1, 2, 3])["tokens"], [1, 2, 3])
    with pytest.raises(UserError, match="token ids and no text"):
        model.inspect("abc")


def test_ids_are_compared_with_the_same_ids_only(without_text):
    a, b = (Run(subject, [1, 2, 3]) for subject in without_text)
    assert compare(a, b)["aligned"] == "tokens"
    with pytest.raises(UserError, match="what text these stand for is unknown"):
        compare(a, Run(without_text[1], [1, 2]))


def test_the_same_ids_of_other_tokenizers_are_other_texts():
    subjects = []
    for characters in ("abc", "xyz"):
        tokenizer = CharTokenizer(characters)
        config = tiny_config(tokenizer, num_layers=1, scan_unroll=1)
        subjects.append(Subject(config, noisy_params(config), tokenizer))
    with pytest.raises(UserError, match="different texts"):
        compare(*(Run(subject, [0, 1]) for subject in subjects))


@pytest.mark.slow
def test_a_model_of_bpe_is_summed_up():
    config = tiny_config(BPE, num_layers=1, scan_unroll=1)
    model = LanguageModel(Model(config, noisy_params(config), BPE, 0, None))
    summary = model.inspect("Hello 🙂 world").summary()
    assert "".join(entry["text"] for entry in summary["tokens"][:1]) == "Hello"
    data = bytes(byte for entry in summary["tokens"] for byte in entry["bytes"])
    assert data.decode() == "Hello 🙂 world" and summary["config"]["vocab_size"] == 50257
