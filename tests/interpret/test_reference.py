"""Every view of GPT-2, computed again in NumPy's float64 from the parameters alone."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.run import Run, Subject
from gpt2_jax.interpret.views import VIEWS
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.tiny import noisy_params, tiny_config

TOKENS = [10, 200, 7, 7, 10, 200, 31, 256, 0, 10, 66, 4]
T, L, H, D, K, V = len(TOKENS), 2, 4, 32, 8, 257


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def norm(x, p):
    centered = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
    return centered / spread * p["scale"] + p["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


class Reference:
    """GPT-2 of one text; every attribute has a leading axis of layers or rows."""

    def __init__(self, params):
        p = self.params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        x = self.token_rows = p["wte"][TOKENS]
        x = x + p["wpe"][:T]
        self.rows, self.blocks = [x], []
        for layer in range(L):
            q = p[f"h_{layer}"]
            block = {"attn_in": norm(x, q["ln_1"])}
            kernel, bias = q["attn"]["c_attn"]["kernel"], q["attn"]["c_attn"]["bias"]
            qkv = block["attn_in"] @ kernel.reshape(D, 3 * D) + bias.reshape(3 * D)
            block["qkv"] = qkv.reshape(T, 3, H, K).transpose(1, 2, 0, 3)
            queries, keys, values = block["qkv"]
            block["scores"] = queries @ keys.transpose(0, 2, 1) / np.sqrt(K)
            seen = np.tri(T, dtype=bool)
            block["pattern"] = softmax(np.where(seen, block["scores"], -np.inf))
            block["z"] = block["pattern"] @ values
            matrices = q["attn"]["c_proj"]["kernel"].reshape(H, K, D)
            block["heads"] = np.einsum("htk,hkd->htd", block["z"], matrices)
            block["written"] = np.linalg.norm(values @ matrices, axis=-1)
            x = x + block["heads"].sum(0) + q["attn"]["c_proj"]["bias"]
            self.rows.append(x)
            block["mlp_in"] = norm(x, q["ln_2"])
            block["pre"] = block["mlp_in"] @ q["mlp"]["c_fc"]["kernel"] + q["mlp"]["c_fc"]["bias"]
            block["neurons"] = gelu(block["pre"])
            block["mlp_out"] = (
                block["neurons"] @ q["mlp"]["c_proj"]["kernel"] + q["mlp"]["c_proj"]["bias"]
            )
            x = x + block["mlp_out"]
            self.rows.append(x)
            self.blocks.append(block)
        self.rows = np.stack(self.rows)
        self.logits = norm(self.rows, p["ln_f"]) @ p["wte"][:V].T  # of every row

    def lens(self, t):
        logprobs = np.log(softmax(self.logits[:, t]))
        rows = []
        for row in logprobs:
            best = np.argsort(-row, kind="stable")[:10]
            target = row[TOKENS[t + 1]]
            entropy, kl = -(np.exp(row) * row).sum(), np.exp(logprobs[-1]) @ (logprobs[-1] - row)
            rows.append([*best, *np.exp(row[best]), target, (row > target).sum(), entropy, kl])
        return np.asarray(rows)

    def attribution(self, t, token):
        last, scale = self.rows[-1, t], self.params["ln_f"]["scale"]
        spread = np.sqrt(last.var() + 1e-5)

        def of(part):
            return (part - part.mean()) / spread * scale @ self.params["wte"][token]

        heads = [of(block["heads"][h, t]) for block in self.blocks for h in range(H)]
        biases = [of(self.params[f"h_{i}"]["attn"]["c_proj"]["bias"]) for i in range(L)]
        mlps = [of(block["mlp_out"][t]) for block in self.blocks]
        embeddings = [of(self.token_rows[t]), of(self.params["wpe"][t])]
        bias = self.params["ln_f"]["bias"] @ self.params["wte"][token]
        return np.asarray([*heads, *biases, *mlps, *embeddings, bias, self.logits[-1, t, token]])

    def neuron_words(self, layer, neuron):
        mlp, table = self.params[f"h_{layer}"]["mlp"], self.params["wte"][:V]
        rows = []
        for vector in (mlp["c_fc"]["kernel"][:, neuron], mlp["c_proj"]["kernel"][neuron]):
            products = table @ vector
            ids = np.argsort(-products, kind="stable")[:10]
            rows += [ids, products[ids]]
        return np.stack(rows)

    def strongest(self, layer):
        block = self.blocks[layer]
        lengths = np.linalg.norm(self.params[f"h_{layer}"]["mlp"]["c_proj"]["kernel"], axis=-1)
        written = np.abs(block["neurons"]) * lengths
        ids = np.argsort(-written, axis=-1, kind="stable")[:, :32]
        parts = [np.take_along_axis(x, ids, -1) for x in (block["neurons"], written)]
        return np.stack([ids, *parts], -1)

    def head_scores(self):
        kinds = np.zeros((L, H, 3))
        earlier = [[s for s in range(t - 1) if TOKENS[s] == TOKENS[t]] for t in range(T)]
        for layer, block in enumerate(self.blocks):
            for h, weights in enumerate(block["pattern"]):
                kinds[layer, h, 0] = np.mean([weights[t, t - 1] for t in range(1, T)])
                kinds[layer, h, 1] = np.mean([weights[t, 0] for t in range(1, T)])
                kinds[layer, h, 2] = np.mean(
                    [
                        sum(weights[t, s + 1] for s in before)
                        for t, before in enumerate(earlier)
                        if before
                    ]
                )
        return kinds


def expectations(r: Reference):
    """Yields (address, what is expected)."""
    patterns = np.stack([block["pattern"] for block in r.blocks])
    yield "tokens", TOKENS
    yield "logits", r.logits[-1, -1]
    yield "norms", np.linalg.norm(r.rows, axis=-1)
    yield "thumbs", np.rint(255 * patterns)
    yield "head_scores", r.head_scores()
    for t in (0, 5, T - 1):
        yield f"logits/{t}", r.logits[-1, t]
        yield f"embedding/{t}", [r.token_rows[t], r.params["wpe"][t], r.rows[0, t]]
        yield f"residual/{t}", r.rows[:, t]
        yield f"query/{t}", patterns[:, :, t]
        yield f"sources/{t}", patterns[:, :, t].mean(1)
        yield f"ln/f/{t}", [r.rows[-1, t], norm(r.rows[-1, t], r.params["ln_f"])]
        yield f"attribution/{t}/{7 * t}", r.attribution(t, 7 * t)
    for t in (0, 5):
        yield f"lens/{t}", r.lens(t)
    yield "output/9", r.params["wte"][9]
    yield "gain/f", [r.params["ln_f"][name] for name in ("scale", "bias")]
    for i in range(2 * L + 1):
        logprobs = np.log(softmax(r.logits[i]))
        targets = np.append(logprobs[np.arange(T - 1), TOKENS[1:]], np.nan)
        entropies = -(np.exp(logprobs) * logprobs).sum(-1)
        best = logprobs.argmax(-1)
        yield f"lens_grid/{i}", np.stack([best, np.exp(logprobs.max(-1)), targets, entropies], 1)
    for layer, block in enumerate(r.blocks):
        bias = r.params[f"h_{layer}"]["attn"]["c_proj"]["bias"]
        for h in range(H):
            place = f"{layer}/{h}"
            yield f"head/{place}", block["scores"][h]
            yield f"pattern/{place}", block["pattern"][h]
            yield f"pooled/{place}", np.rint(255 * block["pattern"][h])
            yield f"weighted/{place}", block["pattern"][h] * block["written"][h]
            yield f"qkv/{place}", block["qkv"][:, h]
            yield f"z/{place}", block["z"][h]
            attn = r.params[f"h_{layer}"]["attn"]
            columns = [attn["c_attn"][name][..., h, 2] for name in ("kernel", "bias")]
            yield f"w_qkv/{place}/2", np.vstack(columns).T
            yield f"w_o/{place}/5", attn["c_proj"]["kernel"].reshape(H, K, D)[h, :, 5]
            for t in (0, 5):
                weights = block["pattern"][h, t]
                rows = [
                    block["scores"][h, t],
                    np.arange(T) <= t,
                    weights,
                    weights * block["written"][h],
                ]
                yield f"row/{place}/{t}", rows
        for t in (0, T - 1):
            parts = block["heads"][:, t]
            yield f"heads/{layer}/{t}", [*parts, bias, parts.sum(0) + bias]
            yield f"ln/{layer}/1/{t}", [r.rows[2 * layer, t], block["attn_in"][t]]
            yield f"ln/{layer}/2/{t}", [r.rows[2 * layer + 1, t], block["mlp_in"][t]]
            yield f"mlp/{layer}/{t}", [block["pre"][t], block["neurons"][t]]
            yield f"mlp_out/{layer}/{t}", block["mlp_out"][t]
        for which in (1, 2):
            params = r.params[f"h_{layer}"][f"ln_{which}"]
            yield f"gain/{layer}/{which}", [params["scale"], params["bias"]]
        yield f"neurons/{layer}", r.strongest(layer)
        yield f"neuron/{layer}/3", r.neuron_words(layer, 3)


@pytest.fixture(scope="module")
def both():
    config = tiny_config()
    subject = Subject(config, noisy_params(config), ByteTokenizer())
    return Inspection(Run(subject, TOKENS)), Reference(subject.params)


def test_every_number_is_that_of_an_independent_gpt2(both):
    inspection, reference = both
    checked = set()
    for address, expected in expectations(reference):
        got = inspection[address]
        # Near a half, rounding to uint8 may go either way.
        atol = 1.0 if got.dtype == np.uint8 else 2e-5
        got = got.astype(np.float64)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=atol, err_msg=address)
        checked.add(address.split("/")[0])
    assert checked == {view.address.split("/")[0] for view in VIEWS}


def test_the_neighbors_of_a_number_would_be_noticed(both):
    inspection, reference = both
    expected = dict(expectations(reference))
    for address, other in (("pattern/0/1", "pattern/0/2"), ("logits/0", "logits/5")):
        assert abs(inspection[address] - expected[other]).max() > 0.01
