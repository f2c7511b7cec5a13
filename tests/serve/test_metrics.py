from __future__ import annotations

from gpt2_jax.inference.requests import Choice, Request
from gpt2_jax.serve.job import Job, Part
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.tokenizers.byte import ByteTokenizer
from tests.serve.serving import Client, saying


def test_requests_are_counted_and_timed(client: Client) -> None:
    counted = {
        "prompt_tokens_total": 6,
        "generation_tokens_total": 12,
        "request_prompt_tokens_count": 2,
        "request_generation_tokens_sum": 12,
        "time_to_first_token_seconds_count": 2,
        "e2e_request_latency_seconds_count": 2,
        "request_queue_time_seconds_count": 2,
        "request_prefill_time_seconds_count": 2,
        "request_decode_time_seconds_count": 2,
        "requests_cancelled_total": 0,
    }
    client.complete(max_tokens=1, stop="zzz")
    before = {name: client.metric(name) for name in counted}
    success = client.metric("request_success_total", finished_reason="length")
    client.complete([1, 2, 3], n=2, max_tokens=4, ignore_eos=True)
    client.complete(**saying(b"wxyz"), stop="zq")
    client.wait_until_idle()
    assert {name: client.metric(name) - before[name] for name in counted} == counted
    assert client.metric("request_success_total", finished_reason="length") == success + 3
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "compilations_total",
    ):
        assert client.metric(name, model_name="tiny") == 0
    assert client.metric("inter_token_latency_seconds_count") > 0


def test_a_model_that_is_gone_is_in_no_metric() -> None:
    metrics = Metrics()
    kept, gone = metrics.of_model("a"), metrics.of_model("a@2")
    part = Part(Job.__new__(Job), Request([1], 1), 0)
    part.choices = [Choice(part.request, 0, ByteTokenizer())]
    part.choices[0].stream.finish()
    for of_model in (kept, gone):
        of_model.tokens_drawn(part, [1], 1.0)
        of_model.finished(part, 2.0)
    assert b'"a@2"' in metrics.text()
    metrics.forget("a@2")
    assert b'"a@2"' not in metrics.text() and b'"a"' in metrics.text()
    metrics.forget("never seen")


def test_refusals_are_counted_by_status(client: Client) -> None:
    client.refusal(n=0)
    client.get("/none")
    client.send("GET", "/healthz", Host="evil.example")
    before = {
        code: client.metric("requests_rejected_total", code=code) for code in ("400", "403", "404")
    }
    client.refusal(n=0)
    client.get("/none")
    client.send("GET", "/healthz", Host="evil.example")
    for code, count in before.items():
        assert client.metric("requests_rejected_total", code=code) == count + 1
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")
