"""Counts and times what the server does, in the text that Prometheus reads."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gpt2_jax.inference.text import FINISH_REASONS
from gpt2_jax.serve.job import Job, Part

if TYPE_CHECKING:
    from gpt2_jax.serve.worker import Worker

_PREFIX = "gpt2_jax:"
_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
CONTENT_TYPE = CONTENT_TYPE_LATEST
"""The content type of `Metrics.text`."""


class Metrics:
    """Holds the metrics of one server, under the names that vLLM gives them."""

    def __init__(self) -> None:
        """Starts every count at zero."""
        self._registry = CollectorRegistry()
        self._workers: dict[str, Worker] = {}
        gauges = {
            "num_requests_running": "Texts in a slot.",
            "num_requests_waiting": "Prompts and texts that wait for a slot.",
            "kv_cache_usage_perc": "Slots in use, 1 means all.",
            "compilations_total": "Programs compiled since the warm start; should stay 0.",
        }
        self._gauges = {name: self._make(Gauge, name, text) for name, text in gauges.items()}
        counters = {
            "prompt_tokens": "Tokens of prompts whose texts are finished.",
            "generation_tokens": "Tokens drawn.",
            "requests_cancelled": "Requests whose client left, or read too slowly.",
        }
        self._counters = {name: self._make(Counter, name, text) for name, text in counters.items()}
        self._success = self._make(
            Counter, "request_success", "Texts finished.", ["model_name", "finished_reason"]
        )
        self._rejected = self._make(
            Counter, "requests_rejected", "Requests answered with an error.", ["code"]
        )
        histograms = {
            "request_prompt_tokens": (_TOKENS, "Tokens of a prompt."),
            "request_generation_tokens": (_TOKENS, "Tokens drawn for a text."),
            "time_to_first_token_seconds": (_SECONDS, "From arrival to the first token."),
            "inter_token_latency_seconds": (_SECONDS, "Between tokens, as blocks bring them."),
            "e2e_request_latency_seconds": (_SECONDS, "From arrival to the end."),
            "request_queue_time_seconds": (_SECONDS, "From arrival to the engine."),
            "request_prefill_time_seconds": (_SECONDS, "From the engine to the first token."),
            "request_decode_time_seconds": (_SECONDS, "From the first token to the end."),
        }
        self._histograms = {
            name: self._make(Histogram, name, text, buckets=buckets)
            for name, (buckets, text) in histograms.items()
        }

    def _make(
        self, kind: Any, name: str, text: str, labels: Sequence[str] = ("model_name",), **more: Any
    ) -> Any:
        return kind(_PREFIX + name, text, list(labels), registry=self._registry, **more)

    def of_model(self, name: str) -> ModelMetrics:
        """Returns what is told of the prompts of one model."""
        return ModelMetrics(
            name,
            {key: counter.labels(name) for key, counter in self._counters.items()},
            {key: histogram.labels(name) for key, histogram in self._histograms.items()},
            self._success,
        )

    def watch(self, name: str, worker: Worker) -> None:
        """Reports the state of a model's worker from now on."""
        self._workers[name] = worker

    def forget(self, name: str) -> None:
        """Reports nothing of a model any more, which begins at zero if it comes back."""
        self._workers.pop(name, None)
        of_model = [self._gauges, self._counters, self._histograms]
        for metric in [metric for metrics in of_model for metric in metrics.values()]:
            with contextlib.suppress(KeyError):  # it was never counted
                metric.remove(name)
        for reason in FINISH_REASONS:
            with contextlib.suppress(KeyError):
                self._success.remove(name, reason)

    def reject(self, code: int) -> None:
        """Counts a request that was answered with an error."""
        self._rejected.labels(str(code)).inc()

    def text(self) -> bytes:
        """Returns all metrics as they are now."""
        for name, worker in [*self._workers.items()]:
            self._gauges["num_requests_running"].labels(name).set(worker.occupancy.running)
            self._gauges["num_requests_waiting"].labels(name).set(worker.num_waiting)
            used = worker.occupancy.running / worker.num_slots
            self._gauges["kv_cache_usage_perc"].labels(name).set(used)
            self._gauges["compilations_total"].labels(name).set(worker.compilations.count)
        return generate_latest(self._registry)


class ModelMetrics:
    """Observes the prompts of one model, as `worker.Observer` says."""

    def __init__(
        self, name: str, counters: dict[str, Any], histograms: dict[str, Any], success: Any
    ) -> None:
        """Takes the metrics with the model's label on them."""
        self._name, self._counters = name, counters
        self._histograms, self._success = histograms, success

    def tokens_drawn(self, part: Part, counts: Sequence[int], now: float) -> None:
        """Takes how many tokens each choice of a prompt got."""
        self._counters["generation_tokens"].inc(sum(counts))
        if part.first_token is None:
            self._histograms["time_to_first_token_seconds"].observe(now - part.queued)
            self._histograms["request_prefill_time_seconds"].observe(now - part.started)
            return
        for count in counts:
            for _ in range(count):
                self._histograms["inter_token_latency_seconds"].observe(
                    (now - part.last_token) / count
                )

    def finished(self, part: Part, now: float) -> None:
        """Takes a prompt all of whose choices are finished."""
        self._counters["prompt_tokens"].inc(len(part.request.prompt))
        observed = {
            "request_prompt_tokens": len(part.request.prompt),
            "e2e_request_latency_seconds": now - part.queued,
            "request_queue_time_seconds": part.started - part.queued,
            "request_decode_time_seconds": now - (part.first_token or now),
        }
        for name, value in observed.items():
            self._histograms[name].observe(value)
        for choice in part.choices:
            self._histograms["request_generation_tokens"].observe(len(choice.tokens))
            if choice.stream.sample:
                self._success.labels(self._name, choice.stream.sample.finish_reason).inc()

    def cancelled(self, job: Job) -> None:
        """Takes a job whose client left."""
        self._counters["requests_cancelled"].inc()
