"""Tests of GPT-2's vocabulary files, and of merges in the order of ids."""

from __future__ import annotations

import hashlib

import pytest

from gpt2_jax.errors import UserError
from gpt2_jax.tokenizers import vocabulary

_BYTES = {vocabulary.to_visible(bytes([i])): i for i in range(256)}


def test_vocabulary_files_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vocab.bpe", "encoder.json"):
        content = vocabulary.gpt2_file(name)
        assert hashlib.sha256(content).hexdigest() == vocabulary._GPT2_SHA256[name]
        monkeypatch.setitem(vocabulary._GPT2_SHA256, name, "0" * 64)
        with pytest.raises(UserError, match=f"is damaged.* GPT-2's {name}.*pip install"):
            vocabulary.gpt2_file(name)
    with pytest.raises(UserError, match=r"absent\.bpe is missing.*pip install"):
        vocabulary.gpt2_file("absent.bpe")


def test_every_byte_has_a_visible_character_of_its_own() -> None:
    every = bytes(range(256))
    visible = vocabulary.to_visible(every)
    assert len(set(visible)) == 256 and visible.isprintable()
    assert vocabulary.from_visible(visible) == every
    assert vocabulary.to_visible(b" the\n") == "\u0120the\u010a"
    with pytest.raises(UserError, match="stands for no byte"):
        vocabulary.from_visible("a b")


def test_merges_and_vocabulary_are_each_others_inverse() -> None:
    merges = [("a", "b"), ("ab", "c"), ("c", "ab"), ("abc", "abc")]
    tokens = _BYTES | {left + right: 256 + i for i, (left, right) in enumerate(merges)}
    made = vocabulary.from_merges(tokens | {"<pad>": 260}, merges, {"<end>": 261})
    assert made.added == {"<pad>": 260, "<end>": 261}
    assert made.ranks[b"abcabc"] == 259
    assert vocabulary.merges(made) == merges
    assert vocabulary.Vocabulary.from_dict(made.to_dict()) == made
    assert vocabulary.encoding(made).encode_ordinary("abcab") == [257, 256]


@pytest.mark.parametrize(
    ("tokens", "merges", "message"),
    [
        ({"ab": 256, "bc": 257}, [("b", "c"), ("a", "b")], "order"),
        ({"ab": 256}, [("a", "b"), ("a", "b")], "order"),
        ({"ab": 256}, [("a", "b"), ("ab", "c")], "'abc', which has no id"),
        ({"a": -1}, [("b", "c")], "no id"),
    ],
)
def test_merges_that_ids_do_not_follow_are_refused(
    tokens: dict[str, int], merges: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        vocabulary.from_merges(_BYTES | tokens, merges, {})


def test_a_token_that_no_merges_make_is_refused() -> None:
    ranks = {bytes([i]): i for i in range(256)} | {b"abc": 256}
    with pytest.raises(UserError, match="no sequence of merges makes the token 'abc'"):
        vocabulary.merges(vocabulary.Vocabulary(ranks, {}))
