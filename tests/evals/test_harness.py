"""Tests that lm-eval gets what plain forwards compute, and that its command line runs.

The file is long because all of its tests share one fake of lm-eval and one model.

A request's plain answer here comes from one uncached forward over what fits the context, and a
greedy text from one such forward per token.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_jax.errors import UserError
from gpt2_jax.evals import harness
from gpt2_jax.evals.harness import GPT2JaxLM
from gpt2_jax.evals.shared_contexts import group_by_context
from gpt2_jax.inference.batching import Request
from gpt2_jax.inference.generate import Sample
from gpt2_jax.inference.scoring import Likelihood, Scorer, windows
from gpt2_jax.model.build import build_model
from gpt2_jax.model.gpt2 import GPT2
from gpt2_jax.tokenizers.bpe import GPT2Tokenizer
from gpt2_jax.tokenizers.char import CharTokenizer
from tests.inference.tiny import make_run, noisy_params, tiny_config

_ROOT = Path(__file__).parents[2]
_EOT = 256
_CONFIG = tiny_config(context_length=37)  # no power of two, nor a multiple of eight
_LENGTH = _CONFIG.model.context_length

needs_lm_eval = pytest.mark.lm_eval


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("harness") / "run", _CONFIG)


@pytest.fixture(scope="module")
def model(run: Path) -> GPT2JaxLM:
    return GPT2JaxLM(run, batch_size=4)


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    """Returns lm-eval's requests with these arguments."""
    instance = importlib.import_module("lm_eval.api.instance").Instance
    return [instance(kind, {}, args, index) for index, args in enumerate(arguments)]


@functools.cache
def _params() -> Any:
    return noisy_params(_CONFIG)


@jax.jit
def _forward(params: Any, tokens: jax.Array) -> jax.Array:
    model = build_model(_CONFIG.model, _CONFIG.compute)
    return model.apply({"params": params}, tokens, method=GPT2.logits)[0]


def logits_after(tokens: Sequence[int]) -> np.ndarray:
    """Returns float64 logits [T, V] of one uncached forward pass."""
    inputs = np.zeros((1, _LENGTH), np.int32)
    inputs[0, : len(tokens)] = tokens
    return np.asarray(_forward(_params(), jnp.asarray(inputs))[0, : len(tokens)], np.float64)


def plain(context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
    """Returns (log-probability, greedy) of a continuation after as much context as fits."""
    tokens = [*context, *continuation][-(_LENGTH + 1) :]
    logits = logits_after(tokens[:-1])[-len(continuation) :]
    logprobs = jax.nn.log_softmax(logits, axis=-1)
    picked = np.asarray(logprobs)[np.arange(len(continuation)), list(continuation)]
    return float(picked.sum()), bool((logits.argmax(-1) == continuation).all())


def plain_greedy(prompt: Sequence[int], count: int) -> list[int]:
    tokens = [*prompt]
    for _ in range(count):
        tokens.append(int(logits_after(tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def the_most_probable_byte_after(text: bytes) -> str:
    best = int(logits_after([*text])[-1][:128].argmax())
    return chr(best)


# Log-likelihoods.


@needs_lm_eval
def test_log_likelihoods_equal_plain_forwards(model: GPT2JaxLM) -> None:
    long = "a long story that tells of many things, and goes on"
    asked = {
        ("the cat", " sat"): (b"the cat", b" sat"),
        ("the cat", " lay down"): (b"the cat", b" lay down"),
        # Spaces at the end of a context count to what follows.
        ("the cat  ", "sat"): (b"the cat", b"  sat"),
        ("", "sat"): ([_EOT], b"sat"),
        ("  ", "sat"): ([_EOT], b"  sat"),
        # Too long together by 17 and by 18: each loses its own beginning.
        (long, " x"): (long.encode(), b" x"),
        (long, " xy"): (long.encode(), b" xy"),
        ("", "z" * _LENGTH): ([_EOT], b"z" * _LENGTH),
        ("the cat", "!"): (b"the cat", b"!"),
    }
    found = model.loglikelihood(requests("loglikelihood", *asked))
    for answer, (context, continuation) in zip(found, asked.values(), strict=True):
        assert answer == (pytest.approx(plain(context, continuation)[0], rel=1e-5), answer[1])
        assert type(answer[0]) is float and type(answer[1]) is bool


@needs_lm_eval
def test_a_continuation_is_greedy_where_each_of_its_tokens_is(model: GPT2JaxLM) -> None:
    first, second = "", "ab"
    found = {}
    for _ in range(3):
        first += the_most_probable_byte_after(b"the" + first.encode())
    asked = [("the", first), ("the", first[:-1] + chr(ord(first[-1]) ^ 1)), ("the", second)]
    for pair, answer in zip(asked, model.loglikelihood(requests("", *asked)), strict=True):
        found[pair[1]] = answer[1]
        assert answer[1] == plain(pair[0].encode(), pair[1].encode())[1]
    assert not found[second]


@needs_lm_eval
def test_too_long_a_continuation_is_refused(model: GPT2JaxLM) -> None:
    with pytest.raises(UserError, match="38 tokens, more than the model's context of 37"):
        model.loglikelihood(requests("loglikelihood", ("a", "z" * 38)))


_tokens = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@given(st.lists(st.tuples(st.sampled_from([(1,), (1, 2), (2, 2), (1, 2, 3)]), _tokens)))
def test_neighbors_of_one_context_share_a_request(pairs: Any) -> None:
    shared = list(group_by_context(pairs))
    assert [place for _, places in shared for place in places] == list(range(len(pairs)))
    for request, places in shared:
        assert [(request.context, one) for one in request.continuations] == [
            pairs[place] for place in places
        ]
        assert 1 <= len(places) <= (1 if len(request.context) == 1 else 8)
    for (one, places), (other, _) in itertools.pairwise(shared):
        same = one.context == other.context and len(one.context) > 1
        assert not same or len(places) == 8


@needs_lm_eval
def test_the_contexts_of_multiple_choice_are_computed_once(
    model: GPT2JaxLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts: list[int] = []
    score = Scorer.score

    def counting(scorer: Scorer, asked: Any) -> Any:
        contexts.extend(len(request.continuations) for request in asked)
        return score(scorer, asked)

    monkeypatch.setattr(Scorer, "score", counting)
    pairs = [(context, f" {choice}") for context in ("one", "two") for choice in "abcd"]
    model.loglikelihood(requests("loglikelihood", *pairs))
    assert contexts == [4, 4]


@needs_lm_eval
def test_the_end_of_text_spelled_out_is_its_token(tmp_path: Path) -> None:
    """Converts it like transformers, unlike our tokenizers, since `prepare` must take any text."""
    tokenizer = GPT2Tokenizer()
    config = tiny_config(tokenizer, num_heads=1, d_model=4)
    model = GPT2JaxLM(make_run(tmp_path / "run", config, tokenizer))
    hello, world = tokenizer.encode("hello"), tokenizer.encode(" world")
    assert model.tok_encode("hello<|endoftext|> world") == [*hello, 50256, *world]
    assert model.tok_encode("<|endoftext|><|endoftext|>") == [50256, 50256]
    assert model.tok_encode("") == [] and model.tok_encode("hello") == hello
    # lm-eval scores the first token after it, not the end of text itself.
    (twice, once) = model.loglikelihood(requests("", ("", "<|endoftext|>hello"), ("", "hello")))
    assert twice == once


# Whole texts.


@needs_lm_eval
@given(length=st.integers(0, 100), context=st.integers(1, 40))
def test_windows_are_those_of_lm_eval(length: int, context: int) -> None:
    theirs = importlib.import_module("lm_eval.utils")
    tokens = list(range(1, length + 1))
    cut = theirs.get_rolling_token_windows(tokens, 0, context, context_len=1)
    expected = [tuple(map(tuple, theirs.make_disjoint_window(pair))) for pair in cut]
    found = windows(tokens, 0, context, stride=context)
    assert [(one.context, *one.continuations) for one in found] == expected


@needs_lm_eval
def test_whole_texts_equal_plain_forwards_over_their_windows(model: GPT2JaxLM) -> None:
    text = "of several windows, the last of which is filled up with what came before it"
    texts = [text[:1], text[:37], text[:38], text, "", text[:74]]
    assert len(text) == 75
    found = model.loglikelihood_rolling(requests("", *[(one,) for one in texts]))
    ids = text.encode()
    first = plain([_EOT], ids[:37])[0]
    second = plain(ids[36:37], ids[37:74])[0]
    assert found == [
        pytest.approx(plain([_EOT], ids[:1])[0], rel=1e-5),
        pytest.approx(first, rel=1e-5),
        pytest.approx(first + plain(ids[:37], ids[37:38])[0], rel=1e-5),
        pytest.approx(first + second + plain(ids[37:74], ids[74:])[0], rel=1e-5),
        0.0,
        pytest.approx(first + second, rel=1e-5),
    ]


# Generation.

_CHARS = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz.:")


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> GPT2JaxLM:
    """Makes a model whose tokens are characters, so that stop strings occur often."""
    config = tiny_config(_CHARS, context_length=_LENGTH)
    return GPT2JaxLM(make_run(tmp_path_factory.mktemp("harness") / "chars", config, _CHARS))


def generated(model: GPT2JaxLM, *asked: tuple[str, dict[str, Any]]) -> list[str]:
    return model.generate_until(requests("generate_until", *asked), disable_tqdm=True)


@needs_lm_eval
@pytest.mark.parametrize("batch_size", [1, "auto"])
def test_texts_are_plain_greedy_ones_in_the_order_asked_for(
    run: Path, batch_size: int | str
) -> None:
    model = GPT2JaxLM(run, batch_size=batch_size)
    contexts = ["a", "the cat sat", "", "a story that is too long to fit with all its text", "the"]
    counts = [8, 8, 8, 20, 20]
    asked = [
        (context, {"max_gen_toks": count, "until": []})
        for context, count in zip(contexts, counts, strict=True)
    ]
    found = generated(model, *asked)
    for (context, _), count, text in zip(asked, counts, found, strict=True):
        # A context loses its beginning where the new tokens would not fit behind it.
        prompt = list(context.encode())[-(_LENGTH - count) :] or [_EOT]
        tokens = plain_greedy(prompt, count)
        tokens = tokens[: tokens.index(_EOT)] if _EOT in tokens else tokens
        assert text == bytes(tokens).decode("utf-8", errors="replace")
    assert len({*found}) == len(found)


@needs_lm_eval
def test_a_text_ends_before_its_first_stop_string(writer: GPT2JaxLM) -> None:
    (whole,) = generated(writer, ("the cat", {"until": [], "max_gen_toks": 24}))
    assert len(whole) == 24
    for start in range(1, 20):
        stop = whole[start : start + 3]
        wanted = {"until": ["never", stop], "max_gen_toks": 24}
        assert generated(writer, ("the cat", wanted)) == [whole[: whole.index(stop)]]
        # One string for a list of it, as some tasks have it.
        assert generated(writer, ("the cat", wanted | {"until": stop})) == [
            whole[: whole.index(stop)]
        ]


@needs_lm_eval
def test_nothing_is_generated_after_a_stop_string(
    writer: GPT2JaxLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples: list[Sample] = []

    def generate_text(*args: Any, **options: Any) -> list[Sample]:
        samples.extend(original(*args, **options))
        return samples[-1:]

    original = harness.generate_text
    monkeypatch.setattr(harness, "generate_text", generate_text)
    (whole,) = generated(writer, ("the cat", {"until": [], "max_gen_toks": 24}))
    generated(writer, ("the cat", {"until": whole[3], "max_gen_toks": 24}))
    assert [sample.finish_reason for sample in samples] == ["length", "stop"]
    assert len(samples[1].tokens) == whole.index(whole[3]) + 1


@needs_lm_eval
def test_where_stop_strings_overlap_their_order_decides(writer: GPT2JaxLM) -> None:
    """Checks that lm-eval applies them in turn: a short one may remove part of a longer one."""
    (whole,) = generated(writer, ("the cat", {"until": [], "max_gen_toks": 24}))
    start = next(i for i in range(1, 20) if whole.index(whole[i : i + 4]) == i)
    long = whole[start : start + 4]
    short = long[1:]
    cut = {"short first": [short, long], "long first": [long, short]}
    found = {
        name: generated(writer, ("the cat", {"until": until, "max_gen_toks": 24}))[0]
        for name, until in cut.items()
    }
    assert found["short first"] == whole[: whole.index(short)]
    assert found["long first"] == whole[: min(start, whole.index(short))]


@needs_lm_eval
def test_the_end_of_text_ends_a_text_and_is_no_part_of_it(
    writer: GPT2JaxLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"until": [], "max_gen_toks": 24}
    (whole,) = generated(writer, ("the cat", wanted))
    # From now on the sixth of its characters is the end of text.
    monkeypatch.setattr(writer._model.tokenizer, "eot", _CHARS.encode(whole[5])[0])
    assert generated(writer, ("the cat", wanted)) == [whole[: whole.index(whole[5])]]


@needs_lm_eval
def test_sampling_is_asked_for_by_do_sample_or_a_temperature(writer: GPT2JaxLM) -> None:
    def some(**wanted: Any) -> list[str]:
        same = {"until": [], "max_gen_toks": 16} | wanted
        return generated(writer, *[("the cat", same)] * 12)

    (greedy,) = {*some()}
    assert {*some(do_sample=False, temperature=0.7, top_p=0.9)} == {greedy}
    assert {*some(temperature=0.0)} == {greedy}
    # One candidate is left: the same texts, by another path.
    assert {*some(do_sample=True, top_k=1)} == {greedy}
    assert {*some(temperature=2.0, top_p=0.0)} == {greedy}
    hot = some(temperature=2.0)
    assert len({*hot}) == 12, "copies of a request, and its batches, are drawn apart"
    assert hot == some(temperature=2.0) == some(do_sample=True, temperature=2.0)
    assert hot != some(do_sample=True)


@needs_lm_eval
def test_batches_draw_apart_and_the_seed_decides(run: Path) -> None:
    wanted = {"until": [], "max_gen_toks": 16, "do_sample": True}
    found = {
        seed: generated(GPT2JaxLM(run, batch_size=1, seed=seed), *[("a", wanted)] * 3)
        for seed in (0, 1)
    }
    assert len({*found[0], *found[1]}) == 6


@needs_lm_eval
def test_a_wrong_request_is_refused_before_any_text_is_generated(
    model: GPT2JaxLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "generate_text", None)
    with pytest.raises(UserError, match="num_beams"):
        generated(model, ("a", {"max_gen_toks": 4}), ("a", {"max_gen_toks": 4, "num_beams": 2}))
    # lm-eval's default of 256 new tokens is more than this model can hold.
    with pytest.raises(UserError, match=r"max_gen_toks=256 must .* context of 37"):
        generated(model, ("a", {}))


# What lm-eval does around it.


@needs_lm_eval
def test_what_is_cached_is_not_computed_again_even_after_a_stop(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replaces the model's answers by ones that are computed from the tokens."""
    computed: list[Any] = []
    allowed = 10**6

    def compute(what: Any) -> None:
        if len(computed) == allowed:
            raise KeyboardInterrupt
        computed.append(what)

    def score(self: Scorer, asked: Sequence[Request]) -> Any:
        for index in reversed(range(len(asked))):
            request = asked[index]
            compute(request)
            yield (
                index,
                [
                    Likelihood(
                        np.float32([-sum(request.context), *one]),
                        greedy=np.array([one[0] % 2]),
                        allowed=np.array([one[0] % 2]),
                    )
                    for one in request.continuations
                ],
            )

    def write(decoder: Any, params: Any, tokenizer: Any, prompts: Any, **how: Any) -> Any:
        compute(prompts)
        return [Sample("", [*map(int, prompt)][::-1], "length") for prompt in prompts]

    monkeypatch.setattr(Scorer, "score", score)
    monkeypatch.setattr(harness, "generate_text", write)
    asked = {
        "loglikelihood": [(c * 5, f" {choice}") for c in "abcde" for choice in "xyz"],
        "loglikelihood_rolling": [("ab" * n,) for n in (9, 30, 40, 60)],
        "generate_until": [(c * 3, {"until": ["x"], "max_gen_toks": 5}) for c in "abcde"],
    }
    model = GPT2JaxLM(run, batch_size=2)
    expected = {kind: getattr(model, kind)(requests(kind, *args)) for kind, args in asked.items()}
    cached = importlib.import_module("lm_eval.api.model").CachingLM(model, f"{tmp_path}/cache.db")
    # Computations before the stop, answers kept of them, computations left: of contexts with three
    # continuations each, of windows, the last of which make one text, and of batches.
    stops = {
        "loglikelihood": (3, 9, 2),
        "loglikelihood_rolling": (5, 1, 6),
        "generate_until": (2, 4, 1),
    }
    for kind, (before, kept, left) in stops.items():
        already = len(cached.dbdict)
        computed, allowed = [], before
        with pytest.raises(KeyboardInterrupt):
            getattr(cached, kind)(requests(kind, *asked[kind]))
        assert len(cached.dbdict) == already + kept
        computed, allowed = [], 10**6
        for _ in range(2):
            found = getattr(cached, kind)(requests(kind, *asked[kind]))
            assert json.dumps(found) == json.dumps(expected[kind])
        assert len(computed) == left


@needs_lm_eval
def test_bars_are_shown_unless_disabled(
    model: GPT2JaxLM, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = {
        "loglikelihood": [("a", "b"), ("a", "c")],
        "loglikelihood_rolling": [("x" * 50,)],
        "generate_until": [("a", {"until": ["x"], "max_gen_toks": 2})],
    }
    for kind, arguments in calls.items():
        getattr(model, kind)(requests(kind, *arguments), disable_tqdm=True)
        assert capsys.readouterr().err == ""
        getattr(model, kind)(requests(kind, *arguments))
        shown = capsys.readouterr().err
        total = {"loglikelihood": 2, "loglikelihood_rolling": 2, "generate_until": 1}[kind]
        assert f"Running {kind} requests: 100%" in shown and f"{total}/{total}" in shown


@needs_lm_eval
def test_the_constructor_takes_what_lm_eval_passes_and_refuses_the_rest(run: Path) -> None:
    extra = {"batch_size": "auto:4", "max_batch_size": 3, "device": "cuda:0"}
    made = GPT2JaxLM.create_from_arg_string(f"model={run},dtype=bfloat16,seed=3", extra)
    assert made.get_model_info()["model_dtype"] == "bfloat16" and made._rows == 3
    made = GPT2JaxLM.create_from_arg_obj(
        {"model": str(run), "trust_remote_code": True}, {"batch_size": "7", "device": None}
    )
    assert made._rows == 7 and made.get_model_info()["model_step"] == 2
    wrong = {
        "no argument pretrained, peft;": {"pretrained": "x", "peft": "y"},
        "dtype must be one of auto, float32, bfloat16, not 'half'": {"dtype": "half"},
        "batch_size must be": {"batch_size": 0},
        "tokens_per_batch must be": {"tokens_per_batch": 0},
        "seed must be": {"seed": 1.5},
        "device=cuda:1, but JAX runs on cpu": {"device": "cuda:1"},
        "no model at": {"model": "/nowhere/at/all"},
    }
    for message, arguments in wrong.items():
        with pytest.raises(UserError, match=message):
            GPT2JaxLM(**({"model": run} | arguments))
    with pytest.raises(UserError, match="--model_args model=M"):
        GPT2JaxLM()


@needs_lm_eval
def test_a_chat_template_is_refused(model: GPT2JaxLM) -> None:
    with pytest.raises(UserError, match="leave --apply_chat_template out"):
        model.apply_chat_template([{"role": "user", "content": "hello"}])


_TASKS = {
    "choice": """
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: "{{c}}"
doc_to_target: "{{a}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "words": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{q}}"
metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]
""",
    "ends": """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{t}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 6, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
""",
}


@needs_lm_eval
def test_the_command_line_runs_every_kind_of_task(run: Path, tmp_path: Path) -> None:
    questions = ["the sky is", "snow is", "grass is often", "x" * 60]
    choices = [" blue", " white", " green", " so"]
    docs = []
    for question in questions:
        ids = question.encode()
        text = bytes(plain_greedy([*ids][-31:], 6)).decode("utf-8", errors="replace")
        best = max(range(4), key=lambda i: plain(ids, choices[i].encode())[0])
        docs.append({"q": question, "c": choices, "a": best, "t": text.partition("\n")[0]})
    docs[-1] |= {"a": (docs[-1]["a"] + 1) % 4, "t": "something else"}
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    head = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/docs.jsonl}}}}\n"
    for name, text in _TASKS.items():
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\ntest_split: test\n{head}{text}")
    offline = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    quick = {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gpt2_jax.evals.harness", "--model", "gpt2_jax"),
            *("--model_args", f"model={run}", "--include_path", str(tmp_path)),
            *("--tasks", ",".join(_TASKS), "--output_path", str(tmp_path / "out.json")),
        ],
        cwd=_ROOT,
        env=os.environ | offline | quick,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("out*.json")
    found = json.loads(written.read_text())
    assert found["results"]["choice"]["acc,none"] == 0.75
    assert found["results"]["ends"]["exact_match,none"] == 0.75
    nats = -sum(
        plain(one.context, one.continuations[0])[0]
        for question in questions
        for one in windows([*question.encode()], _EOT, _LENGTH, _LENGTH)
    )
    bits = nats / np.log(2) / sum(map(len, questions))
    assert found["results"]["words"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-5)
    assert found["config"]["model_step"] == 2
    assert "|choice|" in done.stdout


@needs_lm_eval
def test_mistakes_on_the_command_line_are_one_line_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command_line = importlib.import_module("lm_eval.__main__")
    monkeypatch.setattr(command_line, "cli_evaluate", lambda: GPT2JaxLM("/nowhere/at/all"))
    monkeypatch.setattr(harness, "keep_freed_memory", lambda: None)
    assert harness.main() == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no model at /nowhere/at/all") and error.count("\n") == 1


def test_without_lm_eval_its_extra_is_named_and_nothing_else_breaks() -> None:
    code = """
import sys
sys.modules["lm_eval"] = None
from gpt2_jax.errors import UserError
from gpt2_jax.evals import harness
print(harness.main())
try:
    harness.GPT2JaxLM("runs/none")
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)
    status, error = done.stdout.splitlines()
    assert status == "2" and "pip install 'gpt2_jax[eval]'" in error
    assert done.stderr.count("\n") == 1 and error in done.stderr
