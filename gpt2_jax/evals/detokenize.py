"""Converts tokenized corpora to ordinary prose, and back without loss.

WikiText, the Penn Treebank, the One Billion Word benchmark and the Children's Book Test are
distributed as tokens: `It did n't help , he said .` The GPT-2 paper (section 3.1) scores them
through "invertible de-tokenizers" that it does not print; these are ours. Because nothing is lost,
the probability of the text is that of the tokens and may be divided by their number.

A check, not the rules, guarantees this for any line of tokens: tokens are joined only if
`retokenize` recovers the same tokens, and a token that `retokenize` would change even when it
stands alone is written with a backslash in front.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

_MARK = "\\"
_LONGEST = 16  # at most this many tokens are joined, so that no line takes quadratic time


class Detokenizer:
    """Joins tokens into prose, and splits the prose into the same tokens."""

    def __init__(
        self, *, cut: str, joined: str, written: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        """Takes the rules of a corpus, as verbose regular expressions.

        Args:
          cut: matches a token in prose; text that it does not match is a word.
          joined: matches two tokens, `before after`, that prose writes without a space. An opening
            straight quotation mark appears as « here, and a closing one as ».
          written: {name of a group in `cut`: (token, its form in prose)}.
        """
        written = written or {}
        self._written = {token: text for token, text in written.values()}
        self._names = {name: token for name, (token, _) in written.items()}
        unnamed = re.sub(r"\(\?P<\w+>", "(?:", cut)
        self._cut = re.compile(f"{cut} | (?: (?! {unnamed} ) . )+", re.VERBOSE | re.IGNORECASE)
        self._joined = re.compile(joined, re.VERBOSE | re.IGNORECASE)

    def detokenize(self, text: str) -> str:
        """Returns the text without the spaces that tokenization added, line by line.

        Args:
          text: lines of tokens, separated by any white space.
        """
        return "\n".join(self._detokenized(line.split()) for line in text.split("\n"))

    def retokenize(self, text: str) -> str:
        """Returns the tokens of prose, separated by spaces, line by line: the inverse."""
        return "\n".join(
            " ".join(token for chunk in line.split() for token in self._tokens(chunk))
            for line in text.split("\n")
        )

    def _detokenized(self, tokens: Sequence[str]) -> str:
        runs: list[list[str]] = []  # groups of tokens that the rules would join
        before, opened = "", False
        for token in tokens:
            name = token
            if token == '"':
                name, opened = "»" if opened else "«", not opened
            if runs and self._joined.fullmatch(f"{before} {name}"):
                runs[-1].append(token)
            else:
                runs.append([token])
            before = name
        return " ".join(piece for run in runs for piece in self._pieces(run))

    def _pieces(self, run: Sequence[str]) -> Iterator[str]:
        """Yields the longest pieces from which the tokens can be recovered, or marked tokens."""
        while run:
            sizes = range(min(len(run), _LONGEST), 0, -1)
            size = next((size for size in sizes if self._is_recovered(run[:size])), 0)
            yield self._text(run[:size]) if size else _MARK + run[0]
            run = run[max(size, 1) :]

    def _is_recovered(self, chunk: Sequence[str]) -> bool:
        return self._tokens(self._text(chunk)) == [*chunk]

    def _text(self, chunk: Sequence[str]) -> str:
        return "".join(self._written.get(token, token) for token in chunk)

    def _tokens(self, chunk: str) -> list[str]:
        """Returns the tokens of prose that has no spaces."""
        if chunk.startswith(_MARK):
            return [chunk.removeprefix(_MARK)]
        return [
            self._names.get(match.lastgroup or "", match.group())
            for match in self._cut.finditer(chunk)
        ]


# Words that include their period: abbreviations and initials.
_ABBREVIATIONS = r"""
    (?<!\w) (?-i: Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|Rev|Gen|Col|Capt|Lt|Sgt|Maj|Gov|Sen|Rep|Mt|Ft|No|Vol
        |vs|etc|Inc|Corp|Co|Ltd|Bros|Jan|Feb|Mar|Apr|Aug|Sept|Oct|Nov|Dec )\.
    | (?<!\w) (?: [^\W\d_]\. ){1,8} (?!\w)
"""
_MARKS = r"\.\.\. | [.,:;!?%()\[\]{}$£€]"
_CLOSING, _OPENING = r"\.\.\. | [.,:;!?%)\]}]", r"[(\[{$£€]"

# Moses style: a token may begin with ', as in didn 't, and quotation marks are straight.
_MOSES = rf""" {_ABBREVIATIONS} | {_MARKS} | " | '\w+ | (?<=s)'(?!\w) """
_MOSES_JOINED = rf"""
    .*\ (?: {_CLOSING} | » ) | (?: {_OPENING} | « )\ .*
    | .*[\w.%)\]>»]\ '\w+ | .*s\ '  # contractions, and the possessive of a plural
"""

WIKITEXT = Detokenizer(
    cut=rf"""
        (?P<hyphen> (?<=.) - (?=.) )
        | (?P<comma> (?<=\d) , (?=\d) ) | (?P<point> (?<=\d) \. (?=\d) )
        | = | {_MOSES}
    """,
    joined=rf""" {_MOSES_JOINED} | .*\ @[-,.]@ | @[-,.]@\ .* | =\ = """,
    written={"hyphen": ("@-@", "-"), "comma": ("@,@", ","), "point": ("@.@", ".")},
)
"""WikiText-2 and -103 (Merity et al. 2016), whose separators inside words are @-@, @,@ and @.@."""

# Repetitions are bounded, as for initials: otherwise one long token would take quadratic time.
_NUMBER = r"(?<!\d) \d{1,20} (?: [.,:] \d{1,20} ){1,8} (?!\d)"

LM1B = Detokenizer(
    cut=rf" {_NUMBER} | (?<!\w) (?: [^\W\d_]\. ){{1,8}} -\w{{1,20}} (?!\w) | {_MOSES} ",
    joined=_MOSES_JOINED,
)
"""The One Billion Word benchmark (Chelba et al. 2013)."""

# Treebank style: n't and 's are tokens of their own.
_CUT_OFF = r"(?: n't | '(?: s|re|ve|ll|d|m ) ) (?!\w)"

PTB = Detokenizer(
    cut=rf" (?<=.) {_CUT_OFF} | (?<=s)'(?!\w) | [$\#] ",
    joined=rf" .*\ {_CUT_OFF} | .*s\ ' | [$\#]\ .* ",
)
"""Mikolov's Penn Treebank: no punctuation, N for numbers and <unk> for rare words, which stay."""

CBT = Detokenizer(
    cut=rf"""
        (?<=\w) {_CUT_OFF} | {_ABBREVIATIONS}
        | (?P<left> \( ) | (?P<right> \) ) | {_MARKS}
        | (?P<open> (?<![^('"]) " ) | (?P<close> " )
        | (?P<single> (?<![^("]) ' ) | '(?!\w)
    """,
    joined=rf"""
        .*\ (?: {_CLOSING} | -RRB- | '' | ' | {_CUT_OFF} ) | (?: {_OPENING} | -LRB- | `` | ` )\ .*
    """,
    written={
        "left": ("-LRB-", "("),
        "right": ("-RRB-", ")"),
        "open": ("``", '"'),
        "close": ("''", '"'),
        "single": ("`", "'"),
    },
)
"""The Children's Book Test (Hill et al. 2015), in the Penn Treebank's full style."""
