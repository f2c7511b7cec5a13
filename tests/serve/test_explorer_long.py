"""Tests how much the first view of a long text moves, for a model as deep and wide as GPT-2."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator

import numpy as np
import pytest

from gpt2_jax.serve import worker
from gpt2_jax.tokenizers.tokenizer import make_tokenizer
from tests.serve.serving import Client, serving, tiny_model

_TOKENS = 1024
# What is on the screen before anything is chosen: `query` of so many tokens is 590 KB by itself,
# and the page asks for one row in its place.
_FIRST = ("logits", "thumbs", "head_scores", f"row/0/0/{_TOKENS - 1}")


@pytest.fixture(scope="module")
def gpt2() -> Iterator[Client]:
    """12 layers of 12 heads, 50,257 tokens, and 1,024 positions; but 96 wide."""
    sizes = {"num_layers": 12, "num_heads": 12, "d_model": 96, "context_length": _TOKENS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "warm_start", lambda engine: None)
        with serving(tiny_model(make_tokenizer("gpt2"), **sizes)) as client:
            yield client


@pytest.mark.slow
def test_the_first_view_of_a_long_text_moves_400_kilobytes(gpt2: Client) -> None:
    tokens = np.random.default_rng(0).integers(0, 50257, _TOKENS).tolist()
    body = json.dumps({"tokens": tokens}).encode()
    headers = {"Content_Type": "application/json", "Accept_Encoding": "gzip"}
    reply = gpt2.send("POST", "/explore/v1/run", body, **headers)
    assert (reply.status, reply.headers["content-encoding"]) == (200, "gzip"), reply
    run = json.loads(gzip.decompress(reply.body))
    assert len(run["tokens"]) == _TOKENS
    moved = len(reply.body)
    for address in _FIRST:
        path = f"/explore/v1/run/{run['run']}/{address}.npy"
        reply = gpt2.send("GET", path, Accept_Encoding="gzip")
        assert reply.status == 200, reply
        moved += len(reply.body)
        content = reply.body
        if "content-encoding" in reply.headers:
            content = gzip.decompress(content)
        assert np.load(io.BytesIO(content)).size
    assert 200_000 < moved <= 400_000
