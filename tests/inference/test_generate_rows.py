"""Tests how the tokens of a row become certain text, and which of them end it."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.inference.generate import _Row
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_BYTES = ByteTokenizer()


def _feed(row: _Row, tokens: Sequence[int], size: int = 1) -> list[str]:
    """Returns what a row emits for blocks of `size` tokens, including its finish."""
    pieces = [row.push(tokens[at : at + size]) for at in range(0, len(tokens), size)]
    return [*pieces, row.finish()]


def test_a_stop_string_across_blocks_is_found_and_never_shown() -> None:
    row = _Row(_BYTES, ["END"])
    assert row.push(b"one E") == "one "
    assert row.push(b"N") == ""
    assert row.sample is None
    assert row.push(b"D two") == ""
    assert row.sample is not None
    assert row.sample.text == "one "
    assert row.sample.finish_reason == "stop"
    assert row.sample.tokens == list(b"one END")
    assert row.finish() == ""


def test_what_only_looked_like_a_stop_string_comes_after_all() -> None:
    row = _Row(_BYTES, ["END"])
    assert row.push(b"EN") == ""
    assert row.push(b"EN") == "EN"
    assert row.push(b"!") == "EN!"
    row.push(b"E")
    assert row.finish() == "E"
    assert row.sample is not None
    assert (row.sample.text, row.sample.finish_reason) == ("ENEN!E", "length")


def test_the_stop_string_that_begins_first_wins() -> None:
    for stops in (["bc", "abc"], ["abc", "bc"]):
        row = _Row(_BYTES, stops)
        _feed(row, b"xabcd")
        assert row.sample is not None
        assert row.sample.text == "x"


def test_end_of_text_stops_and_lets_go_of_what_was_held_back() -> None:
    row = _Row(_BYTES, ["END"])
    pieces = [row.push([*b"abE", 256, *b"never"])]
    assert row.sample is not None
    assert row.sample.text == "".join(pieces) == "abE"
    assert row.sample.finish_reason == "stop"
    assert row.sample.tokens == [*b"abE", 256]


def test_a_tokenizer_without_end_of_text_goes_on() -> None:
    tokenizer = CharTokenizer("\nab")
    row = _Row(tokenizer, [])
    assert row.push([0, 1, 2]) == "\nab"
    assert row.sample is None


def test_characters_of_several_bytes_are_never_split() -> None:
    text = "é😀ü"
    pieces = _feed(_Row(_BYTES, []), text.encode())
    assert "".join(pieces) == text
    assert [piece for piece in pieces if piece] == list(text)


def test_a_stop_string_of_several_bytes_is_found() -> None:
    row = _Row(_BYTES, ["😀"])
    assert "".join(_feed(row, "a😀b".encode())) == "a"
    assert row.sample is not None
    assert row.sample.finish_reason == "stop"


def test_half_a_character_at_the_end_is_marked_as_such() -> None:
    row = _Row(_BYTES, [])
    assert _feed(row, "aé".encode()[:-1]) == ["a", "", "\ufffd"]
    assert row.sample is not None
    assert row.sample.text == "a\ufffd"


def _plain(tokens: Sequence[int], stops: Sequence[str], tokenizer: Tokenizer) -> tuple[str, str]:
    """(text, finish_reason) by looking at every prefix from its start: slow and plain."""
    for count in range(1, len(tokens) + 1):
        if tokens[count - 1] == tokenizer.eot:
            return _certain(tokens[: count - 1]), "stop"
        text = _certain(tokens[:count])
        if found := [text.index(stop) for stop in stops if stop in text]:
            return text[: min(found)], "stop"
    return tokenizer.decode(tokens), "length"


def _certain(tokens: Sequence[int]) -> str:
    """The text of bytes, without a character at its end that more bytes could complete."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(tokens))


# Few letters and short stops, so that stops, near misses and broken characters are common.
_TOKEN = st.sampled_from([*b"aab", *"é😀".encode(), 256])
_STOP = st.text("abé", min_size=1, max_size=4)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    tokens=st.lists(_TOKEN, max_size=24),
    stops=st.lists(_STOP, max_size=3),
    size=st.integers(1, 7),
)
def test_pieces_joined_are_the_text_whatever_the_blocks(
    tokens: list[int], stops: list[str], size: int
) -> None:
    row = _Row(_BYTES, stops)
    pieces = _feed(row, tokens, size)
    assert row.sample is not None
    assert "".join(pieces) == row.sample.text
    assert (row.sample.text, row.sample.finish_reason) == _plain(tokens, stops, _BYTES)
    assert not any(stop in row.sample.text for stop in stops)
    assert row.sample.tokens == tokens[: len(row.sample.tokens)]
