"""Every view of every variant of the model: what it shows is what the model computes."""

from __future__ import annotations

import functools
import json

import jax
import numpy as np
import pytest

from gpt2_jax.api import LanguageModel
from gpt2_jax.errors import UserError
from gpt2_jax.formats.model import Model
from gpt2_jax.interpret import run as run_lib
from gpt2_jax.interpret.attribution import parts_of
from gpt2_jax.interpret.inspection import Inspection
from gpt2_jax.interpret.interventions import Interventions
from gpt2_jax.interpret.patterns import kinds
from gpt2_jax.interpret.run import Run, Subject
from gpt2_jax.interpret.views import VIEWS
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.inference.tiny import noisy_params, tiny_config

TOKENS = [10, 200, 7, 7, 10, 200, 31, 256, 0, 10]
T = len(TOKENS)
NUMBERS = {"l": 1, "h": 2, "t": T - 1, "i": 1, "n": 5, "token": 7, "which": 1, "k": 3, "d": 4}
VARIANTS = [
    {},
    {
        "norm_position": "post",
        "x0_residual": True,
        "value_residual": True,
        "bias": False,
        "qk_norm": "rms",
        "position": "rotary",
    },
    *(
        pytest.param(changes, marks=pytest.mark.slow)
        for changes in (
            {"norm_position": "post", "x0_residual": True, "bias": False, "position": "alibi"},
            {"norm": "rms", "value_residual": True, "qk_norm": "rms", "position": "rotary"},
            {"activation": "swiglu", "tie_embeddings": False, "position": "none"},
            {"position": "relative", "attention_window": 3, "logit_softcap": 4.0},
            {"mup_base_width": 16, "mup_input_alpha": 3.0, "mup_output_alpha": 2.0},
            {"scale_attn_by_inverse_layer_idx": True, "attention_scale": 0.3, "mlp_dim": 24},
            {"scale_attn_weights": False, "activation": "relu2", "layer_norm_epsilon": 0.1},
            {"lora_rank": 2, "lora_targets": "attn.c_attn,mlp.c_proj"},
            {"num_heads": 25, "d_model": 50, "num_layers": 1, "scan_unroll": 1},
            {"num_layers": 5, "scan_unroll": 1},
        )
    ),
]


@functools.cache
def language_model(*changes):
    config = tiny_config(**dict(changes))
    return LanguageModel(Model(config, noisy_params(config), ByteTokenizer(), 0, None))


@pytest.fixture(scope="module", params=VARIANTS, ids=lambda c: "-".join(map(str, c.values())))
def model(request):
    return language_model(*request.param.items())


@pytest.fixture(scope="module")
def inspection(model):
    return model.inspect(TOKENS)


def numbers(model):
    config = model.config.model
    return NUMBERS | {"l": config.num_layers - 1, "k": min(NUMBERS["k"], config.head_dim - 1)}


def test_logits_are_those_of_the_model(model, inspection):
    expected = np.asarray(model._logits(TOKENS))
    for t in (0, T - 1):
        np.testing.assert_allclose(inspection[f"logits/{t}"], expected[t], rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(inspection["logits"], inspection[f"logits/{T - 1}"])


def test_every_view_has_its_dtype_and_shape(model, inspection):
    config = model.config.model
    sizes = {
        "T": T,
        "L": config.num_layers,
        "H": config.num_heads,
        "K": config.head_dim,
        "D": config.d_model,
        "F": config.mlp_width,
        "V": config.vocab_size,
        "n": T,
        "2L+1": 2 * config.num_layers + 1,
        "D+1": config.d_model + 1,
        "H+2": config.num_heads + 2,
        "LH+2L+4": config.num_layers * (config.num_heads + 2) + 4,
    }
    for view in VIEWS:
        address = view.address.format(**numbers(model))
        if address.startswith(("ln/f", "gain/f")) and config.norm_position == "post":
            with pytest.raises(UserError, match="no norm behind its last block"):
                inspection[address]
            continue
        shape = tuple(sizes.get(x) or int(x) for x in view.shape[1:-1].split(", "))
        if view.address.startswith("neurons"):
            shape = (T, min(32, config.mlp_width), 3)
        array = inspection[address]
        assert (str(array.dtype), array.shape) == (view.dtype, shape), address
        assert array.flags.c_contiguous


def test_attribution_sums_to_the_logit_before_its_cap(model, inspection):
    config = model.config.model
    for t, token in ((0, 3), (T - 1, 200)):
        parts = inspection[f"attribution/{t}/{token}"]
        logit, cap = float(inspection[f"logits/{t}"][token]), config.logit_softcap
        expected = cap * np.arctanh(logit / cap) if cap else logit
        assert abs(parts[-1] - expected) < 1e-4
        assert abs(parts[:-1].astype(np.float64).sum() - expected) < 1e-4


def test_a_logit_is_the_product_of_the_last_vector_and_the_tokens(model, inspection):
    config = model.config.model
    if config.norm_position == "post":
        return
    for t, token in ((0, 3), (T - 1, 200)):
        last, cap = inspection[f"ln/f/{t}"][1].astype(np.float64), config.logit_softcap
        logit = last @ inspection[f"output/{token}"]
        capped = cap * np.tanh(logit / cap) if cap else logit
        assert abs(inspection[f"logits/{t}"][token] - capped) < 1e-5 * max(1, abs(capped))


def test_the_last_row_of_the_lens_is_the_models_prediction(model, inspection):
    for t in (3, T - 1):
        lens = inspection[f"lens/{t}"]
        logits = inspection[f"logits/{t}"].astype(np.float64)
        logprobs = logits - logits.max()
        logprobs -= np.log(np.exp(logprobs).sum())
        order = np.argsort(-logprobs, kind="stable")[:10]
        np.testing.assert_array_equal(lens[-1, :10], order)
        np.testing.assert_allclose(lens[-1, 10:20], np.exp(logprobs[order]), rtol=1e-4)
        if t < T - 1:
            assert lens[-1, 20] == pytest.approx(logprobs[TOKENS[t + 1]], abs=1e-5)
            assert lens[-1, 21] == (logprobs > logprobs[TOKENS[t + 1]]).sum()
        else:
            assert np.isnan(lens[:, 20:22]).all()
        assert lens[-1, 22] == pytest.approx(-(np.exp(logprobs) * logprobs).sum(), rel=1e-4)
        assert lens[-1, 23] == 0 and (lens[:-1, 23] > 0).all()
        for i in range(len(lens)):
            row = inspection[f"lens_grid/{i}"][t]
            np.testing.assert_allclose(row, lens[i, [0, 10, 20, 22]], rtol=1e-4, atol=1e-5)


def test_parts_of_attention_and_mlp_are_what_the_stream_gains(model, inspection):
    t, post = T - 1, model.config.model.norm_position == "post"
    for layer in range(model.config.model.num_layers):
        before, middle, behind = (
            inspection.run.block(layer)[name][t]
            for name in ("resid_pre", "resid_mid", "resid_post")
        )
        # Norms stand behind the additions, or before what is added.
        sums = [inspection[f"ln/{layer}/{i}/{t}"][0] for i in (1, 2)] if post else [middle, behind]
        attention, mlp = inspection[f"heads/{layer}/{t}"][-1], inspection[f"mlp_out/{layer}/{t}"]
        np.testing.assert_allclose(sums[0] - before, attention, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(sums[1] - middle, mlp, rtol=1e-4, atol=1e-4)


def test_a_head_is_softmax_of_its_scores_over_what_it_sees(model, inspection):
    layer = model.config.model.num_layers - 1
    scores = inspection[f"head/{layer}/2"].astype(np.float64)
    pattern, z = inspection[f"pattern/{layer}/2"], inspection[f"z/{layer}/2"]
    value = inspection[f"qkv/{layer}/2"][2]
    for t in range(T):
        row = inspection[f"row/{layer}/2/{t}"]
        np.testing.assert_array_equal(row[0], scores[t].astype(np.float32))
        window = model.config.model.attention_window
        first = max(0, t - window + 1) if window else 0
        np.testing.assert_array_equal(row[1], (np.arange(T) <= t) & (np.arange(T) >= first))
        weights = np.where(row[1] > 0, np.exp(scores[t] - scores[t].max()), 0)
        np.testing.assert_allclose(pattern[t], weights / weights.sum(), rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(row[2], pattern[t])
        np.testing.assert_allclose(z[t], pattern[t] @ value, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(inspection[f"query/{t}"][layer, 2], pattern[t])


def test_a_factor_of_one_changes_no_logit_and_zero_takes_a_part_away(model, inspection):
    config = model.config.model
    layer = config.num_layers - 1

    def logits(**changes):
        return model.inspect(TOKENS, Interventions(**changes))["logits"]

    same = logits(heads={(layer, 1): 1.0}, mlps={layer: 1.0}, neurons={(layer, 3): 1.0})
    np.testing.assert_allclose(same, inspection["logits"], rtol=1e-5, atol=1e-5)
    without = model.inspect(TOKENS, Interventions(heads={(layer, 1): 0.0}))
    parts = without[f"attribution/{T - 1}/7"]
    assert parts[parts_of(config).heads][layer * config.num_heads + 1] == 0
    assert abs(without["logits"] - inspection["logits"]).max() > 1e-3
    assert abs(logits(mlps={layer: 0.0}) - inspection["logits"]).max() > 1e-3
    np.testing.assert_array_equal(without[f"heads/{layer}/{T - 1}"][1], 0)


def test_without_the_mask_a_query_sees_the_text_and_no_padding(model, inspection):
    layer = model.config.model.num_layers - 1
    seen = model.inspect(TOKENS, Interventions(unmasked=[layer]))[f"pattern/{layer}/0"]
    assert (seen[0, 1:] > 0).any() and (np.triu(seen, 1).sum(-1)[:-1] > 0).all()
    np.testing.assert_allclose(seen.sum(-1), 1, rtol=1e-5)


def test_queries_of_long_texts_are_those_of_short_ones(model, inspection, monkeypatch):
    subject, layer = inspection.run.subject, model.config.model.num_layers - 1
    for changes in (Interventions(), Interventions(unmasked=[layer], heads={(0, 0): 0.0})):
        expected = Inspection(Run(subject, TOKENS, changes))
        monkeypatch.setattr(run_lib, "_MOST_PATTERN_BYTES", 0)
        run = Run(subject, TOKENS, changes)
        has_bias = model.config.model.position in ("alibi", "relative")
        assert (run.queries_and_keys is None) == has_bias
        for t in range(T):
            address = f"query/{t}"
            # A rounding of the scores counts as often as they are large.
            np.testing.assert_allclose(
                Inspection(run)[address], expected[address], rtol=1e-4, atol=1e-6
            )
        monkeypatch.undo()


def test_all_that_a_run_keeps_is_counted_and_on_the_host(inspection, monkeypatch):
    for most_pattern_bytes in (run_lib._MOST_PATTERN_BYTES, 0):
        monkeypatch.setattr(run_lib, "_MOST_PATTERN_BYTES", most_pattern_bytes)
        run = Run(inspection.run.subject, TOKENS)
        kept = jax.tree.leaves({k: v for k, v in vars(run).items() if k != "subject"})
        arrays = [leaf for leaf in kept if hasattr(leaf, "nbytes")]
        assert all(isinstance(array, np.ndarray) for array in arrays)
        assert all(array.base is None for array in arrays)  # no part of a larger one
        assert run.num_bytes == sum(array.nbytes for array in arrays)
    inspection = Inspection(run)
    assert inspection.num_bytes == run.num_bytes
    written = json.dumps(inspection.summary(), separators=(",", ":"))  # as objects it takes more
    assert inspection.num_bytes > run.num_bytes + len(written)


def test_what_comes_later_changes_nothing_before(model, inspection):
    other = model.inspect([*TOKENS[:5], 99, 98, 97])
    for address in ("residual/4", "lens/3", "logits/4", "heads/0/4"):
        np.testing.assert_allclose(other[address], inspection[address], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("patern/0/0", "did you mean 'pattern'"),
        ("pattern/0", "it must be pattern/{l}/{h}"),
        ("pattern/2/0", "layer must be between 0 and 1, not 2"),
        ("row/0/4/0", "head must be between 0 and 3"),
        ("logits/10", "position must be between 0 and 9"),
        ("ln/0/3/0", "norm must be between 1 and 2"),
        ("attribution/0/257", "token must be between 0 and 256"),
        ("logits/99999999999999999999", "it must be"),
        ("logits/-1", "it must be"),
        ("", "no view"),
    ],
)
def test_a_wrong_address_is_one_line(address, words):
    with pytest.raises(UserError) as error:
        language_model().inspect(TOKENS)[address]
    assert words in str(error.value) and "\n" not in str(error.value)


def test_one_token_and_a_full_context():
    model = language_model()
    alone = model.inspect([5])
    assert alone["head_scores"].max() == 0 and alone["pattern/0/0"] == [[1.0]]
    assert alone.summary()["tokens"][0]["logprob"] is None
    full = model.inspect([*range(32)])
    np.testing.assert_allclose(
        full["logits"], np.asarray(model._logits([*range(32)]))[-1], rtol=1e-5, atol=1e-5
    )
    with pytest.raises(UserError, match="exceeds"):
        model.inspect([*range(33)])
    with pytest.raises(UserError, match="head has 300 x 300 numbers"):
        long = tiny_config(context_length=512, num_layers=1, scan_unroll=1)
        Inspection(Run(Subject(long, noisy_params(long), ByteTokenizer()), [1] * 300))["head/0/0"]


def test_head_scores_know_the_kinds():
    patterns = [
        np.eye(6, k=-1) + np.diag([1, 0, 0, 0, 0, 0]),  # the token before
        np.concatenate([np.ones((6, 1)), np.zeros((6, 5))], axis=1),  # the first token
        # Tokens 1 2 3 1 2 3: behind the first 1 is slot 1, behind the first 2 slot 2.
        np.array([[1, 0, 0, 0, 0, 0]] * 3 + [list(row) for row in np.eye(6)[1:4]]),
    ]
    previous, first, induction = kinds(np.asarray(patterns, np.float32), [1, 2, 3, 1, 2, 3]).T
    # Query 0 has no token before it and is left out; of the last head, queries 1 and 2 see slot 0.
    np.testing.assert_allclose(previous, [1, 0.2, 0.2], atol=1e-6)
    np.testing.assert_allclose(first, [0.2, 1, 0.4], atol=1e-6)
    np.testing.assert_allclose(induction, [0, 0, 1], atol=1e-6)


def test_the_summary_says_how_each_token_was_predicted():
    model = language_model()
    summary = model.inspect("héllo 🙂").summary()
    assert [entry["text"] for entry in summary["tokens"]][:3] == ["h", r"\xc3", r"\xa9"]
    assert [entry["start"] for entry in summary["tokens"]] == [0, 1, 1, 2, 3, 4, 5, 6, 6, 6, 6]
    score = model.score("héllo 🙂")
    got = [entry["logprob"] for entry in summary["tokens"]][1:]
    np.testing.assert_allclose(got, score.logprobs, rtol=1e-5, atol=1e-5)
    best = model.next_tokens("héllo 🙂", 10)
    assert [entry[0] for entry in summary["next"]] == [token.id for token in best]
    np.testing.assert_allclose(
        [entry[2] for entry in summary["next"]], [token.probability for token in best], rtol=1e-4
    )
