"""A local server that speaks OpenAI's chat protocol, so that the person's own program can try the model.

Loopback only. A browser page of another place cannot reach it: Host and Origin must be loopback names (DNS rebinding).
One answer is written at a time; others wait their turn.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import ValidationError

from .errors import FinetuiError
from .talk import Messages, Sampling, Side
from .talking import Talker, Writing
from .text import one_line

MOST_BODY_BYTES = 1024 * 1024
MOST_WAITING = 16
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FINISH = {"end": "stop", "length": "length", "stopped": "stop"}


class _Refused(Exception):
    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param = status, message, kind, param


class Server(ThreadingHTTPServer):
    """Answers at 127.0.0.1:`port`; 0 takes a free one. `name` is the tuned model's, `name`:base the other's."""

    daemon_threads = True
    request_queue_size = 4 * MOST_WAITING
    """Connections that the system holds until they are taken up: it resets those beyond, and Python's five are soon full."""

    def __init__(
        self, talker: Talker, name: str, port: int = 0, tell: Callable[[str], None] = lambda _said: None
    ) -> None:
        """`talker` is closed with it. `tell` is given what the person should know. Raises OSError where the port is taken."""
        self.talker, self.name, self.tell = talker, name, tell
        self.waiting = threading.Semaphore(MOST_WAITING)
        self.writing = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def address(self) -> str:
        """What a client takes as its base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @property
    def models(self) -> dict[str, Side]:
        """The models by name."""
        return {
            self.name if side == "tuned" else f"{self.name}:base": side
            for side in reversed(self.talker.target.sides)
        }

    def awake(self) -> Talker:
        """The talker; where its child has died, another in its place, loaded. For who holds `writing`. Raises FinetuiError."""
        error = self.talker.loading().error
        if error is not None:
            self.tell(f"{error.what} {error.why} It is started again.")
            self.talker.close()
            self.talker = Talker(self.talker.target, self.talker.device)
            self.talker.wait_ready()
        return self.talker

    def server_close(self) -> None:
        super().server_close()
        self.talker.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60

    @property
    def ours(self) -> Server:
        return cast(Server, self.server)

    def log_message(self, format: str, *args: Any) -> None:
        """Questions are nobody's business: nothing is logged."""

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def do_OPTIONS(self) -> None:
        self._guarded(lambda: self._send(204, b""))

    def _guarded(self, work: Any) -> None:
        try:
            self._refuse_strangers()
            work()
        except _Refused as refused:
            self._error(refused)
        except FinetuiError as error:
            status = 400 if error.code == "talk-too-long" else 500
            self._error(
                _Refused(status, str(error), "server_error" if status == 500 else "invalid_request_error")
            )
        except (BrokenPipeError, ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # the edge of a request: whoever asked is answered
            self.close_connection = True
            self._error(_Refused(500, f"finetui failed: {type(error).__name__}.", "server_error"))

    def _refuse_strangers(self) -> None:
        host = self.headers.get("Host", "")
        origin = self.headers.get("Origin")
        for named in (f"//{host}", *([origin] if origin is not None else [])):
            try:
                known = urlsplit(named).hostname in _LOOPBACK
            except ValueError:
                known = False
            if not known:
                self.close_connection = True
                raise _Refused(
                    403, "Only programs on this machine may ask, by the name 127.0.0.1 or localhost."
                )

    def _get(self) -> None:
        path = urlsplit(self.path).path.rstrip("/")
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": "finetui"} for name in self.ours.models
        ]
        if path == "/v1/models":
            self._json(200, {"object": "list", "data": models})
            return
        one = next((m for m in models if path == f"/v1/models/{m['id']}"), None)
        if one is None:
            raise _Refused(404, "There is GET /v1/models and POST /v1/chat/completions.")
        self._json(200, one)

    def _post(self) -> None:
        body = self._body()
        if urlsplit(self.path).path.rstrip("/") != "/v1/chat/completions":
            raise _Refused(404, "There is GET /v1/models and POST /v1/chat/completions.")
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Refused(400, "The body is no JSON.") from error
        if not isinstance(asked, dict):
            raise _Refused(400, "The body must be an object.")
        side = self._side(asked)
        messages, sampling, stops = _messages(asked), _sampling(asked), _stops(asked)
        options = asked.get("stream_options") or {}
        if not isinstance(options, dict):
            raise _Refused(400, "stream_options must be an object.", param="stream_options")
        usage = bool(options.get("include_usage"))
        if not self.ours.waiting.acquire(blocking=False):
            raise _Refused(429, f"{MOST_WAITING} requests are waiting already.", "rate_limit_error")
        try:
            with self.ours.writing:
                talker = self.ours.awake()
                writing = talker.ask(side, messages, sampling, stops)
                try:
                    if asked.get("stream"):
                        self._stream(writing, str(asked["model"]), usage)
                    else:
                        self._whole(writing, str(asked["model"]))
                finally:
                    if not writing.over:
                        talker.stop(writing)
        finally:
            self.ours.waiting.release()

    def _body(self) -> bytes:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError as error:
            self.close_connection = True
            raise _Refused(411, "Content-Length is missing.") from error
        if not 0 <= length <= MOST_BODY_BYTES:
            self.close_connection = True
            raise _Refused(413, f"The body may have {MOST_BODY_BYTES:,} bytes.")
        return self.rfile.read(length)

    def _side(self, asked: dict[str, Any]) -> Side:
        models, name = self.ours.models, asked.get("model")
        if not isinstance(name, str) or name not in models:
            known = ", ".join(models)
            raise _Refused(
                404, f"There is no model {one_line(str(name), 80)!r}; there is {known}.", param="model"
            )
        for field, wanted in (("tools", None), ("functions", None), ("n", 1)):
            if asked.get(field) not in (None, [], wanted):
                raise _Refused(400, f"{field} is not supported here.", param=field)
        return models[name]

    def _whole(self, writing: Writing, model: str) -> None:
        reply = writing.wait()
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text},
            "finish_reason": _FINISH.get(reply.reason, "stop"),
        }
        self._json(200, _head(model, "chat.completion") | {"choices": [choice], "usage": _usage(writing)})

    def _stream(self, writing: Writing, model: str, usage: bool) -> None:
        pieces = writing.pieces()
        first = next(pieces, "")  # an answer that fails before its first word is an ordinary error
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self._allow()
        self.end_headers()
        self.close_connection = True
        head = _head(model, "chat.completion.chunk")

        def chunk(delta: dict[str, str], finish: str | None = None) -> None:
            self._event(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

        try:
            chunk({"role": "assistant", "content": first})
            for piece in pieces:
                chunk({"content": piece})
            chunk({}, _FINISH.get(writing.wait().reason, "stop"))
            if usage:
                self._event(head | {"choices": [], "usage": _usage(writing)})
        except FinetuiError as error:
            self._event(
                {"error": {"message": str(error), "type": "server_error", "param": None, "code": error.code}}
            )
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, value: Any) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    def _json(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode())

    def _error(self, refused: _Refused) -> None:
        told = {"message": refused.message, "type": refused.kind, "param": refused.param, "code": None}
        try:
            self._json(refused.status, {"error": told})
        except OSError:
            self.close_connection = True

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self._allow()
        self.end_headers()
        self.wfile.write(body)

    def _allow(self) -> None:
        """A page that this machine itself serves may read the answer."""
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).hostname in _LOOPBACK:
            self.send_header("Access-Control-Allow-Origin", origin)
            self.send_header("Access-Control-Allow-Headers", "authorization, content-type")
            self.send_header("Access-Control-Allow-Methods", "GET, POST")


def _head(model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _usage(writing: Writing) -> dict[str, int]:
    answer = writing.now().tokens
    prompt = writing.prompt_tokens
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _messages(asked: dict[str, Any]) -> Messages:
    given = asked.get("messages")
    if not isinstance(given, list) or not given:
        raise _Refused(400, "messages must be a list with at least one message.", param="messages")
    found: list[tuple[str, str]] = []
    for message in given:
        role = message.get("role") if isinstance(message, dict) else None
        role = "system" if role == "developer" else role
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and all(
            isinstance(p, dict) and p.get("type") == "text" for p in content
        ):
            content = "".join(str(part.get("text", "")) for part in content)
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise _Refused(
                400, "A message has a role (system, user, assistant) and a text.", param="messages"
            )
        found.append((str(role), content))
    return tuple(found)


def _sampling(asked: dict[str, Any]) -> Sampling:
    names = {
        "temperature": "temperature",
        "top_p": "top_p",
        "top_k": "top_k",
        "seed": "seed",
        "repetition_penalty": "",
    }
    values = {name: asked[name] for name in names if asked.get(name) is not None}
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens")
    if limit is not None:
        values["max_new_tokens"] = limit
    try:
        return Sampling.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise _Refused(400, f"{name}: {first['msg']}.", param=name) from error


def _stops(asked: dict[str, Any]) -> tuple[str, ...]:
    stop = asked.get("stop")
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or len(stops) > 8 or not all(isinstance(one, str) for one in stops):
        raise _Refused(400, "stop is a text or a list of at most eight.", param="stop")
    return tuple(stops)
