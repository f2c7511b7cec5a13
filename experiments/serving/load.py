r"""Measures a server of `gpt2-jax serve` as its clients see it, and writes one JSON file.

    python experiments/serving/load.py streams --model M --out FILE.json
    python experiments/serving/load.py soak --model M --minutes 10 --requests 5000 --out FILE.json

`streams` has many clients read streams at once, and one client as many streams one after another;
then it has a long prompt join the streams that run, and compares the longest gap between two pieces
with the medians of one chunk of a prompt and one block of decoding, as clients can see them.
`soak` sends requests of all kinds, of which a part is broken off, and reads the memory of the
server's process and the number of texts that run at the end.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import http.client
import itertools
import json
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TIMEOUT = 600


def main() -> None:
    """Starts a server, measures it, ends it, and writes what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    streams = verbs.add_parser("streams", help="many streams at once, and one after another")
    streams.add_argument("--clients", type=int, default=32)
    streams.add_argument("--tokens", type=int, default=64, help="of each text")
    streams.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    streams.add_argument("--long_prompt", type=int, default=900, help="tokens of the last one")
    soak = verbs.add_parser("soak", help="many requests, some of which are broken off")
    soak.add_argument("--minutes", type=float, default=10)
    soak.add_argument("--requests", type=int, default=5000, help="at least so many")
    soak.add_argument("--clients", type=int, default=16)
    for verb in (streams, soak):
        verb.add_argument("--model", required=True, help="any model that gpt2-jax serve takes")
        verb.add_argument("--slots", type=int, default=8)
        verb.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    with served(args.model, args.slots) as (server, port):
        measure = measure_streams if args.verb == "streams" else measure_soak
        found = measure(args, server, port)
        server.send_signal(signal.SIGTERM)
        found["exit_status"] = server.wait(timeout=60)
    settings = {key: value for key, value in vars(args).items() if key not in ("out", "model")}
    machine = {"machine": platform.processor() or platform.machine(), "python": sys.version[:6]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(machine | settings | found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found))


@contextlib.contextmanager
def served(model: str, slots: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Runs a server of one model named `model`; gives its process and its port."""
    words = ["serve", "--model", f"model={model}", "--slots", str(slots), "--port", "0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "gpt2_jax", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            print(line, end="", file=sys.stderr)
            if found := re.search(r"^serving .* on http://.*:(\d+)", line):
                break
        else:
            sys.exit("error: the server did not start")
        port = int(found[1])
        while ask(port, "GET", "/healthz")[0] != 200:
            time.sleep(0.2)
        yield server, port
    finally:
        server.kill()
        server.wait()


def ask(port: int, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    """Returns the status and the body of an answer."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, _TIMEOUT)) as connection:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def stream(port: int, body: dict[str, Any], leave_after: int | None = None) -> list[float]:
    """Reads a stream of a completion; returns when each of its pieces came.

    Args:
      leave_after: close the connection after so many pieces.
    """
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, _TIMEOUT)) as connection:
        fields = {"model": "model", "stream": True} | body
        connection.request(
            "POST", "/v1/completions", json.dumps(fields), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {answer.read().decode()}")
        times = []
        for line in answer:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                times.append(time.perf_counter())
                if leave_after is not None and len(times) >= leave_after:
                    return times
            elif line.startswith(b"data: [DONE]"):
                return times
    raise RuntimeError("the stream ended before [DONE]")


def metric(port: int, name: str) -> float:
    """Returns the sum of a metric over its labels."""
    text = ask(port, "GET", "/metrics")[1].decode()
    values = re.findall(rf"^gpt2_jax:{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, values))


def measure_streams(
    args: argparse.Namespace, server: subprocess.Popen[str], port: int
) -> dict[str, Any]:
    """Returns tokens a second, many at once and one after another, and the gaps between pieces."""
    rng = random.Random(0)

    def body(length: int, tokens: int) -> dict[str, Any]:
        prompt = [rng.randrange(200) for _ in range(length)]
        return {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "seed": 1}

    def timed(clients: int, count: int) -> float:
        bodies = [body(args.prompt, args.tokens) for _ in range(count)]
        before, started = metric(port, "generation_tokens_total"), time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda each: stream(port, each), bodies))
        seconds = time.perf_counter() - started
        assert metric(port, "generation_tokens_total") - before == count * args.tokens
        return count * args.tokens / seconds

    compiled = metric(port, "compilations_total")
    timed(1, 1)
    one = timed(1, 4)
    many = timed(args.clients, args.clients)
    found = {
        "tokens_per_second_one_at_a_time": round(one, 2),
        "tokens_per_second_at_once": round(many, 2),
        "ratio": round(many / one, 2),
    }
    return (
        found
        | _joining(args, port, body)
        | {"compilations": metric(port, "compilations_total") - compiled}
    )


def _joining(args: argparse.Namespace, port: int, body: Any) -> dict[str, float]:
    """Measures the gaps of streams while a long prompt joins them, and while none does."""
    streams = args.slots - 1
    with concurrent.futures.ThreadPoolExecutor(streams + 1) as pool:
        tokens = 4 * args.tokens
        running = [pool.submit(stream, port, body(args.prompt, tokens)) for _ in range(streams)]
        while metric(port, "num_requests_running") < streams:
            time.sleep(0.05)
        time.sleep(3)
        started = time.perf_counter()
        first = stream(port, body(args.long_prompt, 1))[0]
        times = [each.result() for each in running]
    while_joining = [
        later - earlier
        for each in times
        for earlier, later in itertools.pairwise(each)
        if later > started and earlier < first
    ]
    alone = [
        later - earlier
        for each in times
        for earlier, later in itertools.pairwise(each)
        if later < started and earlier > started - 3
    ]
    if not alone or not while_joining:
        sys.exit("error: the streams ended before the long prompt joined them: raise --tokens")
    return {
        "gap_median_seconds": round(statistics.median(alone), 3),
        "gap_longest_seconds": round(max(alone), 3),
        "gap_longest_while_a_long_prompt_joins_seconds": round(max(while_joining), 3),
        "long_prompt_seconds_to_first_token": round(first - started, 3),
    }


def measure_soak(
    args: argparse.Namespace, server: subprocess.Popen[str], port: int
) -> dict[str, Any]:
    """Returns the counts of requests and the memory over time."""
    deadline = time.monotonic() + 60 * args.minutes
    memory: list[tuple[int, int]] = []
    counts = {"answered": 0, "broken_off": 0, "refused": 0}
    numbers = itertools.count()

    def client(seed: int) -> None:
        rng = random.Random(seed)
        while (number := next(numbers)) < args.requests or time.monotonic() < deadline:
            if number % 500 == 0:
                memory.append((number, _resident(server.pid)))
            body = _any_body(rng)
            kind = rng.random()
            if kind < 0.05:
                status, _ = ask(port, "POST", "/v1/completions", body | {"max_tokens": -1})
                assert status == 400, status
                counts["refused"] += 1
            elif kind < 0.25:
                stream(port, body, leave_after=rng.randrange(1, 4))
                counts["broken_off"] += 1
            elif kind < 0.6:
                stream(port, body)
                counts["answered"] += 1
            else:
                status, data = ask(port, "POST", "/v1/completions", {"model": "model"} | body)
                assert status == 200, data
                counts["answered"] += 1

    with concurrent.futures.ThreadPoolExecutor(args.clients) as pool:
        for each in [pool.submit(client, seed) for seed in range(args.clients)]:
            each.result()
    waited = time.monotonic() + 10
    while metric(port, "num_requests_running") and time.monotonic() < waited:
        time.sleep(0.1)
    return counts | {
        "running_at_the_end": metric(port, "num_requests_running"),
        "waiting_at_the_end": metric(port, "num_requests_waiting"),
        "megabytes_by_request": [[number, size >> 20] for number, size in sorted(memory)],
        "compilations": metric(port, "compilations_total"),
    }


def _any_body(rng: random.Random) -> dict[str, Any]:
    prompt = [rng.randrange(200) for _ in range(rng.randrange(1, 20))]
    body: dict[str, Any] = {"prompt": prompt, "max_tokens": rng.randrange(1, 12)}
    if rng.random() < 0.5:
        body |= {"temperature": rng.choice([0, 0.5, 1.5]), "seed": rng.randrange(100)}
    if rng.random() < 0.3:
        body |= {"top_k": rng.randrange(0, 40), "top_p": rng.uniform(0.1, 1)}
    if rng.random() < 0.3:
        body |= {"logprobs": rng.randrange(0, 6), "echo": rng.random() < 0.5}
    if rng.random() < 0.2:
        body |= {"n": 2, "stop": ["a", "\n\n"]}
    if rng.random() < 0.2:
        body |= {"presence_penalty": 1, "repetition_penalty": 1.2, "no_repeat_ngram_size": 3}
    return body


def _resident(pid: int) -> int:
    """Returns the bytes of memory that a process has, on Linux."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


if __name__ == "__main__":
    main()
