"""Tests how the tokens of a text become certain text, and which of them end it."""

from __future__ import annotations

import codecs
import tracemalloc
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.inference.text import TextStream
from gpt2_jax.tokenizers.byte import ByteTokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer

_BYTES = ByteTokenizer()


def _feed(stream: TextStream, tokens: Sequence[int], size: int = 1) -> list[str]:
    """Returns what a stream emits for blocks of `size` tokens, including its finish."""
    pieces = [stream.push(tokens[at : at + size]) for at in range(0, len(tokens), size)]
    return [*pieces, stream.finish()]


def test_a_stop_string_across_blocks_is_found_and_never_shown() -> None:
    stream = TextStream(_BYTES, ["END"])
    assert stream.push(b"one E") == "one "
    assert stream.push(b"N") == ""
    assert stream.sample is None
    assert stream.push(b"D two") == ""
    assert stream.sample is not None
    assert stream.sample.text == "one "
    assert stream.sample.finish_reason == "stop"
    assert stream.sample.tokens == list(b"one END")
    assert stream.finish() == ""


def test_what_only_looked_like_a_stop_string_comes_after_all() -> None:
    stream = TextStream(_BYTES, ["END"])
    assert stream.push(b"EN") == ""
    assert stream.push(b"EN") == "EN"
    assert stream.push(b"!") == "EN!"
    stream.push(b"E")
    assert stream.finish() == "E"
    assert stream.sample is not None
    assert (stream.sample.text, stream.sample.finish_reason) == ("ENEN!E", "length")


def test_the_stop_string_that_begins_first_wins() -> None:
    for stops in (["bc", "abc"], ["abc", "bc"]):
        stream = TextStream(_BYTES, stops)
        _feed(stream, b"xabcd")
        assert stream.sample is not None
        assert stream.sample.text == "x"


def test_end_of_text_stops_and_lets_go_of_what_was_held_back() -> None:
    stream = TextStream(_BYTES, ["END"])
    pieces = [stream.push([*b"abE", 256, *b"never"])]
    assert stream.sample is not None
    assert stream.sample.text == "".join(pieces) == "abE"
    assert stream.sample.finish_reason == "stop"
    assert stream.sample.tokens == [*b"abE", 256]


def test_a_tokenizer_without_end_of_text_goes_on() -> None:
    tokenizer = CharTokenizer("\nab")
    stream = TextStream(tokenizer, [])
    assert stream.push([0, 1, 2]) == "\nab"
    assert stream.sample is None


def test_characters_of_several_bytes_are_never_split() -> None:
    text = "é😀ü"
    pieces = _feed(TextStream(_BYTES, []), text.encode())
    assert "".join(pieces) == text
    assert [piece for piece in pieces if piece] == list(text)


def test_a_stop_string_of_several_bytes_is_found() -> None:
    stream = TextStream(_BYTES, ["😀"])
    assert "".join(_feed(stream, "a😀b".encode())) == "a"
    assert stream.sample is not None
    assert stream.sample.finish_reason == "stop"


def test_half_a_character_at_the_end_is_marked_as_such() -> None:
    stream = TextStream(_BYTES, [])
    assert _feed(stream, "aé".encode()[:-1]) == ["a", "", "\ufffd"]
    assert stream.sample is not None
    assert stream.sample.text == "a\ufffd"


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
    stream = TextStream(_BYTES, stops)
    pieces = _feed(stream, tokens, size)
    assert stream.sample is not None
    assert "".join(pieces) == stream.sample.text
    assert (stream.sample.text, stream.sample.finish_reason) == _plain(tokens, stops, _BYTES)
    assert not any(stop in stream.sample.text for stop in stops)
    assert stream.sample.tokens == tokens[: len(stream.sample.tokens)]


def test_a_stop_string_of_a_mebibyte_costs_no_more_than_its_text() -> None:
    stream = TextStream(ByteTokenizer(), ["a" * 2**20])
    tracemalloc.start()
    try:
        pieces = [stream.push(ByteTokenizer().encode(text)) for text in ("aaaa", "aa", "b")]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pieces == ["", "", "aaaaaab"]
    assert most < 2**20
