"""Tests that squeezed files mean the same."""

from __future__ import annotations

from gpt2_jax.serve.squeeze import squeezed


def test_javascript_loses_its_comments_and_indents_and_lines_that_end_within_code() -> None:
    code = """// What it is.

import { a } from "./a.js"; // stays: it shares its line

export function b() {
  // Why.
  const c = [
    1, // stays,
    a,
  ];
  return a
    ? `//  ${"  two  "}`
    : "http://x  y";
}
"""
    assert squeezed(code, ".js") == (
        'import { a } from "./a.js"; // stays: it shares its line\nexport function b() {'
        'const c = [1, // stays,\na,];return a\n? `//  ${"  two  "}`\n: "http://x  y";\n}\n'
    )


def test_styles_lose_their_comments_and_spaces_between_words_of_the_syntax() -> None:
    style = """/* Tokens:
   all of them */
.strip .token:hover > b, a :focus { margin: 0 -3px calc(8px - 2px); content: "\u2713 "; }
@media (max-width: 820px) { a { color: light-dark(#fff, #000); } }
"""
    assert squeezed(style, ".css") == (
        '.strip .token:hover>b,a :focus{margin:0 -3px calc(8px - 2px);content:"\u2713 ";}'
        "@media (max-width:820px){a{color:light-dark(#fff,#000);}}"
    )


def test_json_loses_its_spaces_between_texts_and_keeps_those_within() -> None:
    assert (
        squeezed('{\n"a": "b: c,  d",\n"é": [1, 2]\n}\n', ".json") == '{"a":"b: c,  d","é":[1,2]}'
    )
