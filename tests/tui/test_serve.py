"""The server that speaks OpenAI's API, with a real child and the tiny model."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from finetui.core import talk
from finetui.core.serving import MOST_WAITING, Server
from finetui.core.talk import Sampling
from finetui.core.talking import Talker
from tests import waiting

from .talked import run, tiny_model, tuned

__all__ = ["run", "tiny_model", "tuned"]


@pytest.fixture
def told() -> list[str]:
    """What the server says to the person."""
    return []


@pytest.fixture
def server(run: Path, told: list[str]) -> Iterator[Server]:
    talker = Talker(talk.find(str(run)))
    talker.wait_ready()
    made = Server(talker, "tiny", tell=told.append)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def request(server: Server, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json", **headers})
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text if "event-stream" in (reply.getheader("Content-Type") or "") else json.loads(
        text or "null"
    )


def free(server: Server, places: int) -> None:
    """Waits until so many requests more may wait."""
    waiting.until(lambda: server.waiting._value == places, "for free places")


def test_the_server_speaks_openai_and_refuses_strangers(server: Server, told: list[str]) -> None:
    path = "/v1/chat/completions"
    asked = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "which?"}],
        "temperature": 0,
        "max_tokens": 8,
    }
    status, listed = request(server, "GET", "/v1/models")
    assert status == 200 and [m["id"] for m in listed["data"]] == ["tiny", "tiny:base"]
    status, whole = request(server, "POST", path, asked)
    assert status == 200 and whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 8
    direct = server.talker.ask("tuned", (("user", "which?"),), Sampling(max_new_tokens=8)).wait()
    assert whole["choices"][0]["message"]["content"] == direct.text
    status, stream = request(server, "POST", path, asked | {"stream": True, "model": "tiny:base"})
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    assert status == 200 and stream.rstrip().endswith("data: [DONE]")
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert request(server, "POST", path, asked, **headers)[0] == 403
    assert request(server, "POST", path, asked, Origin="http://localhost:3000")[0] == 200
    for status, body in (
        (404, asked | {"model": "gpt-4"}), (400, b"{"), (400, asked | {"messages": []}), (400, asked | {"temperature": 9}),
        (404, asked | {"model": ["tiny"]}), (400, asked | {"stream": True, "stream_options": [1]}), (400, asked | {"stop": {"a": 1}}),
        (400, asked | {"n": 2}), (400, asked | {"messages": [{"role": "user", "content": "x" * 9000}]}),
    ):  # fmt: skip
        found, error = request(server, "POST", path, body)
        assert found == status and error["error"]["message"], (body, error)
    assert request(server, "POST", path, b"", **{"Content-Length": "99999999"})[0] == 413
    torn = asked | {"messages": [{"role": "user", "content": "which \ud800?"}]}
    assert request(server, "POST", path, torn)[0] == 200, "half a character is one that nobody can read"

    # A full queue: one more is turned away at once, the others are all served; and none hangs once the model is killed:
    # it is started again.
    with ThreadPoolExecutor(MOST_WAITING) as clients:
        with server.writing:
            waiting = [clients.submit(request, server, "POST", path, asked) for _ in range(MOST_WAITING)]
            free(server, 0)
            found, error = request(server, "POST", path, asked)
            assert found == 429 and error["error"]["type"] == "rate_limit_error"
        assert {one.result(120)[0] for one in waiting} == {200}
        free(server, MOST_WAITING)  # a place is given back after its answer was sent
        with server.writing:
            waiting = [clients.submit(request, server, "POST", path, asked) for _ in range(MOST_WAITING)]
            free(server, 0)
            assert server.talker.pid
            os.kill(server.talker.pid, signal.SIGKILL)
        answers = [one.result(120) for one in waiting]
    assert 200 in {status for status, _ in answers} <= {200, 500}
    assert all("Traceback" not in error["error"]["message"] for status, error in answers if status == 500)
    assert request(server, "POST", path, asked)[1]["choices"] == whole["choices"]
    assert told == [
        "The model's process has ended. The system ended it, most likely for want of memory, or somebody did. It is started again."
    ]


def test_connections_that_come_at_once_are_held_until_they_are_taken_up(server: Server) -> None:
    busy = Server(server.talker, "tiny")  # it does not take up any yet
    with contextlib.closing(busy.socket), contextlib.ExitStack() as clients:
        for _ in range(2 * MOST_WAITING):
            connection = socket.create_connection(("127.0.0.1", busy.server_port), timeout=10)
            clients.enter_context(contextlib.closing(connection))
