"""A real server in a thread of the test, on a tiny model, and a client that hides nothing."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gpt2_jax.config import Config
from gpt2_jax.formats.load import Model
from gpt2_jax.serve import served as served_lib
from gpt2_jax.serve.app import Policy, make_app
from gpt2_jax.serve.explorer import Explorer
from gpt2_jax.serve.metrics import Metrics
from gpt2_jax.serve.models import Models
from gpt2_jax.serve.served import Limits
from gpt2_jax.serve.server import Server, bound_socket
from gpt2_jax.serve.worker import State
from gpt2_jax.tokenizers.bpe import BPETokenizer
from gpt2_jax.tokenizers.tokenizer import Tokenizer
from gpt2_jax.tokenizers.vocabulary import END_OF_TEXT, Vocabulary
from tests.inference.tiny import noisy_params, tiny_config

CONTEXT = 32
SLOTS = 4
# Bytes have their own ids, and some tokens are more, or parts of a character.
PIECES = (b"ab", b"cd", b"cde f", b"\xf0\x9f", b"\x98\x80")
AB, CD, CDE_F, EMOJI_1, EMOJI_2 = range(256, 256 + len(PIECES))
EOT = 256 + len(PIECES)

_LIMITS, _POLICY = Limits(num_slots=SLOTS), Policy()


def pieces_tokenizer() -> BPETokenizer:
    ranks = {bytes([i]): i for i in range(256)}
    ranks |= {piece: 256 + i for i, piece in enumerate(PIECES)}
    return BPETokenizer(Vocabulary(ranks, {END_OF_TEXT: EOT}), EOT)


def saying(*tokens: int | bytes) -> dict[str, Any]:
    """Returns fields with which the model says exactly these tokens, all of them different."""
    ids = [t for token in tokens for t in ([token] if isinstance(token, int) else token)]
    assert len({*ids}) == len(ids) <= 9
    return {
        "prompt": [1, 2, 3],
        "temperature": 0,
        "no_repeat_ngram_size": 1,
        "logit_bias": {str(token): 100 - 10 * i for i, token in enumerate(ids)},
        "max_tokens": len(ids),
    }


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


class Client:
    """Sends requests to a server, each over a connection of its own."""

    def __init__(
        self, port: int, models: Models, server: Server, explorer: Explorer | None
    ) -> None:
        self.port, self.models, self.server = port, models, server
        self._explorer = explorer

    @property
    def worker(self) -> Any:
        return self.models.default.worker

    @property
    def explorer(self) -> Explorer:
        assert self._explorer is not None
        return self._explorer

    @property
    def engine(self) -> Any:
        return self.worker._engine

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        with contextlib.closing(self.connect()) as connection:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            got = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, got, response.read())

    def get(self, path: str) -> Reply:
        return self.send("GET", path)

    def post(self, path: str, **fields: Any) -> Reply:
        body = json.dumps(fields).encode()
        return self.send("POST", path, body, Content_Type="application/json")

    def complete(self, prompt: Any = "ab", **fields: Any) -> dict[str, Any]:
        reply = self.post("/v1/completions", model="tiny", prompt=prompt, **fields)
        assert reply.status == 200, reply
        return reply.json

    def refusal(self, **fields: Any) -> tuple[int, str | None, str]:
        fields = {"model": "tiny", "prompt": "ab"} | fields
        reply = self.post("/v1/completions", **fields)
        return reply.status, reply.error["param"], reply.error["message"]

    def stream(self, prompt: Any = "ab", **fields: Any) -> list[dict[str, Any]]:
        reply = self.post("/v1/completions", model="tiny", prompt=prompt, stream=True, **fields)
        assert reply.status == 200, reply
        assert reply.headers["content-type"].startswith("text/event-stream")
        return chunks(reply.body)

    def explore(self, **fields: Any) -> dict[str, Any]:
        """Returns the summary of a run."""
        reply = self.post("/explore/v1/run", **fields)
        assert reply.status == 200, reply
        return reply.json

    def array(self, run: str, address: str) -> np.ndarray:
        """Returns an array of a run."""
        reply = self.get(f"/explore/v1/run/{run}/{address}.npy")
        assert reply.status == 200, reply
        return np.load(io.BytesIO(reply.body), allow_pickle=False)

    def metric(self, name: str, **labels: str) -> float:
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for line in self.get("/metrics").body.decode().splitlines():
            head, _, value = line.rpartition(" ")
            if head.partition("{")[0] == f"gpt2_jax:{name}" and all(w in head for w in wanted):
                return float(value)
        raise AssertionError(f"no metric {name}")

    def wait_until_idle(self, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not (self.worker.idle and not self.engine.busy):
            assert time.monotonic() < end, "the engine does not come to rest"
            time.sleep(0.005)
        assert self.engine.num_running == self.engine.num_waiting == 0


def chunks(body: bytes) -> list[dict[str, Any]]:
    """Returns the chunks of a stream, read as clients do that know all line ends of Unicode."""
    lines = [line for line in body.decode().splitlines() if line]
    assert all(line.startswith("data: ") for line in lines), lines
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def joined(found: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Returns the choices of a stream as a plain answer has them."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in found:
        for choice in chunk["choices"]:
            whole = choices.setdefault(
                choice["index"],
                {"index": choice["index"], "text": "", "logprobs": None, "finish_reason": None},
            )
            assert whole["finish_reason"] is None, "a choice goes on behind its end"
            whole["text"] += choice["text"]
            whole["finish_reason"] = choice["finish_reason"]
            if choice["logprobs"] is not None:
                whole["logprobs"] = whole["logprobs"] or {key: [] for key in choice["logprobs"]}
                for key, values in choice["logprobs"].items():
                    whole["logprobs"][key] += values
    return choices


def served_config(tokenizer: Tokenizer, **changes: Any) -> Config:
    """One layer, which compiles in half the time of two."""
    sizes = {"context_length": CONTEXT, "num_layers": 1, "scan_unroll": 1}
    return tiny_config(tokenizer, **sizes | changes)


def tiny_model(tokenizer: Tokenizer | None = None, seed: int = 0, **changes: Any) -> Model:
    tokenizer = tokenizer or pieces_tokenizer()
    config = served_config(tokenizer, **changes)
    # Restored parameters are bound to a device; those that are not would compile programs again.
    params = jax.device_put(noisy_params(config, seed), jax.devices()[0])
    return Model(config, params, tokenizer, 0, Path("/nowhere"))


@contextlib.contextmanager
def serving(
    model: Model | None = None,
    *,
    limits: Limits = _LIMITS,
    policy: Policy = _POLICY,
    path: Path | None = None,
    ready: bool = True,
    explored: bool = True,
    others: Mapping[str, Model] | None = None,
) -> Iterator[Client]:
    """Serves a model under the name tiny, or the run at `path`, and others by their names."""
    metrics = Metrics()
    if path is not None:
        served = served_lib.load_served("tiny", path, limits, metrics)
    else:
        served = served_lib.served("tiny", model or tiny_model(), limits, metrics)
    more = [served_lib.served(name, each, limits, metrics) for name, each in (others or {}).items()]
    models = Models([served, *more], limits, metrics)
    urls: list[str] = []
    explorer = Explorer(models, policy) if explored else None
    server = Server(make_app(models, metrics, policy, explorer), models, on_start=urls.append)
    sockets = [bound_socket("127.0.0.1", 0)]
    thread = threading.Thread(target=server.run, args=(sockets,), daemon=True)
    thread.start()
    while not urls:
        assert thread.is_alive()
        time.sleep(0.002)
    client = Client(int(urls[0].rpartition(":")[2]), models, server, explorer)
    try:
        while ready and served.worker.state is State.WARMING:
            time.sleep(0.002)
        if served.worker.startup_error:
            raise served.worker.startup_error
        yield client
    finally:
        server.should_exit = True
        thread.join(20)
        if explorer is not None:
            explorer.close()
        for each in models.all:
            each.worker.stop()
            each.worker.join(20)
    assert not thread.is_alive()
