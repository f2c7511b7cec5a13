"""Tests what detokenizers write, and that it can always be undone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2_jax.evals.detokenize import CBT, LM1B, PTB, WIKITEXT, Detokenizer

_ALL = {"wikitext": WIKITEXT, "lm1b": LM1B, "ptb": PTB, "cbt": CBT}

# Everything that a rule is about, and what looks like it.
_PARTS = r"""
    " ' `` '' ` , . ; : ! ? ... ( ) [ ] { } -LRB- -RRB- - -- @-@ @,@ @.@ = == $ £ % # & / \ \\ « »
    's 't 've n't N't 'an s s' years do did a I U.S. U.S p.m. Mr. Mr mr. no No. no. plan B 1 000
    3.5 1,000 10-year x-y o'clock 'T word <unk> N é 中 co.uk \/ a\/b .. .a a. ,a -a a- =a 'a' "a "a"
"""
_LINES = st.lists(
    st.one_of(
        st.sampled_from(_PARTS.split()),
        st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6).filter(
            lambda token: token.split() == [token]
        ),
    ),
    max_size=25,
)


@pytest.mark.parametrize("name", _ALL)
@settings(max_examples=300, deadline=None)
@given(lines=st.lists(_LINES, min_size=1, max_size=3))
def test_any_tokens_whatsoever_come_back(name: str, lines: list[list[str]]) -> None:
    text = "\n".join(" ".join(line) for line in lines)
    written = _ALL[name].detokenize(text)
    assert _ALL[name].retokenize(written) == text
    assert written.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("detokenizer", "tokens", "written"),
    [
        (WIKITEXT, " = = = 2000 -- 2005 = = = ", "=== 2000 -- 2005 ==="),
        (
            WIKITEXT,
            ' A " guest @-@ starring " role ( for $ 5 @.@ 2 million or 1 @,@ 000 times ; 50 % ) . ',
            'A "guest-starring" role (for $5.2 million or 1,000 times; 50%).',
        ),
        (
            WIKITEXT,
            " The brothers ' friend didn 't say <unk> 's name ; Mr. Fu , of the U.S. Navy , did . ",
            "The brothers' friend didn't say <unk>'s name; Mr. Fu, of the U.S. Navy, did.",
        ),
        (WIKITEXT, ' " One " and " two " ', '"One" and "two"'),
        # A period that would make an abbreviation of its word stays apart; odd tokens are marked.
        (WIKITEXT, " It was plan B . ", "It was plan B ."),
        (WIKITEXT, " a-b \\ c,d 1,2 ", r"\a-b \\ \c,d \1,2"),
        (WIKITEXT, " ", ""),
        (
            LM1B,
            '" I don \'t know , " he told the U.S.-based paper on Jan. 5 , 1,000 times .',
            '"I don\'t know," he told the U.S.-based paper on Jan. 5, 1,000 times.',
        ),
        (
            PTB,
            " the dow 's loss was n't felt by traders ' <unk> of hooker corp. 's $ N billion ",
            "the dow's loss wasn't felt by traders' <unk> of hooker corp.'s $N billion",
        ),
        (
            CBT,
            "`` Do n't , '' said the king -LRB- he had said : ` No ; go ! ' -RRB- .",
            "\"Don't,\" said the king (he had said: 'No; go!').",
        ),
        (CBT, "It was six o'clock -- or seven ?", "It was six o'clock -- or seven?"),
    ],
)
def test_what_is_written(detokenizer: Detokenizer, tokens: str, written: str) -> None:
    assert detokenizer.detokenize(tokens) == written
    assert detokenizer.retokenize(written) == " ".join(tokens.split())


@pytest.mark.slow
def test_hostile_lines_take_linear_time() -> None:
    def seconds(count: int) -> float:
        started = time.perf_counter()
        assert CBT.retokenize(CBT.detokenize("( " * count)) == "( " * (count - 1) + "("
        return time.perf_counter() - started

    seconds(10)
    assert seconds(8000) < 40 * seconds(1000) + 0.5
