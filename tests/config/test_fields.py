"""Tests the fields of examples."""

from __future__ import annotations

import pytest

from gpt2_jax.config.fields import Fields, parse_fields
from gpt2_jax.errors import UserError


@pytest.mark.parametrize("text", ["prompt:q,answer:a:b", " answer : a:b , prompt:q"])
def test_fields_are_named_in_any_order(text):
    fields = parse_fields(text)
    assert fields == Fields("q", "a:b")
    assert parse_fields(str(fields)) == fields


@pytest.mark.parametrize("text", ["", "prompt", "prompt:q", "prompt:q,prompt:r", "x:a,answer:b"])
def test_other_strings_are_refused(text):
    with pytest.raises(UserError, match=r"data\.fields="):
        parse_fields(text)
