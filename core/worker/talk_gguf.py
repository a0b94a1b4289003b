"""Answers through llama.cpp: a GGUF with the template that it carries, as Ollama and LM Studio run it."""

from __future__ import annotations

import importlib
import json
import os
import re
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from ..errors import FinetuiError
from ..talk import Reply, Target
from . import llama_runtime
from .child import go_on
from .gguf_header import Header
from .talk import Request, Stopped, Tell, Told, Writer, too_long

_MOST_CONTEXT = 8192
"""Tokens of a talk that memory is set aside for."""


class Gguf:
    """The file behind llama.cpp's own server, on loopback, under a key that only this process knows."""

    def __init__(self, target: Target, stage: Callable[[str], None]) -> None:
        stated = _read(target)
        where = llama_runtime.folder(go_on, stage)
        if where is not None:
            sys.path.append(str(where))
        stage("opening it with llama.cpp")
        xllamacpp: Any = importlib.import_module("xllamacpp")
        architecture = str(stated.get("general.architecture", ""))
        context = min(_MOST_CONTEXT, int(stated.get(f"{architecture}.context_length") or _MOST_CONTEXT))
        key = secrets.token_urlsafe(24)
        parameters: Any = xllamacpp.CommonParams()
        parameters.model.path = str(target.path)
        parameters.n_ctx = context
        parameters.n_parallel = 1
        parameters.warmup = False
        parameters.use_jinja = True
        parameters.api_keys = [key]
        parameters.cpuparams.n_threads = min(8, max(1, len(os.sched_getaffinity(0)) - 1))
        self._server = xllamacpp.Server(parameters)
        self._address = str(self._server.listening_address)
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self.told = Told("CPU, llama.cpp", context, "tokenizer.chat_template" not in stated)

    def answer(self, request: Request, tell: Tell, stopped: Stopped) -> tuple[Reply, int]:
        sampling, plain = request.sampling, self.told.plain
        asked: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": 0,
            "repeat_penalty": sampling.repetition_penalty,
            "n_predict" if plain else "max_tokens": sampling.max_new_tokens,
            "stream": True,
            "timings_per_token": True,  # a character may take several tokens, and a stop may come at any of them
            "cache_prompt": True,
            "reasoning_format": "none",
        }
        if sampling.seed is not None:
            asked["seed"] = sampling.seed
        if plain:
            asked["prompt"] = request.messages[-1][1]
        else:
            asked["messages"] = [{"role": role, "content": text} for role, text in request.messages]
        writer = Writer(tell, request.stop)
        text, tokens, prompt_tokens, reason = "", 0, 0, ""
        path = "/completion" if plain else "/v1/chat/completions"
        sent = urllib.request.Request(self._address + path, json.dumps(asked).encode(), self._headers)
        try:
            with self._open(sent, timeout=600) as reply:
                for line in reply:
                    if stopped():
                        reason = "stopped"
                        break
                    if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                        continue
                    told = json.loads(line[6:])
                    if plain:
                        piece, ended = str(told.get("content") or ""), told.get("stop_type") or ""
                        reason = {"eos": "end", "word": "end", "limit": "length"}.get(str(ended), reason)
                    else:
                        choice = (told.get("choices") or [{}])[0]
                        piece = str((choice.get("delta") or {}).get("content") or "")
                        reason = {"stop": "end", "length": "length"}.get(
                            str(choice.get("finish_reason")), reason
                        )
                    timings = told.get("timings") or {}
                    prompt_tokens = (
                        int(timings.get("prompt_n") or 0) + int(timings.get("cache_n") or 0) or prompt_tokens
                    )
                    tokens = int(timings.get("predicted_n") or 0) or tokens
                    if piece:
                        text += piece
                        writer.grow(text)
                    if writer.stopped:
                        reason = "end"
                        break
        except urllib.error.HTTPError as error:
            said = error.read(4000).decode("utf-8", "replace")
            if found := re.search(r'"n_prompt_tokens":\s*(\d+)', said):
                raise too_long(int(found[1]), self.told.context) from error
            raise FinetuiError(
                "llama.cpp refused the talk.", said[:300], "Start a new talk.", code="talk-failed"
            ) from error
        if not writer.stopped:
            writer.grow(text, last=True)
        return writer.reply(tokens, reason or "end"), prompt_tokens


def _read(target: Target) -> dict[str, Any]:
    """What the header states. Raises FinetuiError (gguf-broken) where it is no sound GGUF."""
    found: dict[str, Any] = {}
    try:
        with target.path.open("rb") as opened:
            header = Header(opened)
            _, keys = header.begin()
            for _ in range(keys):
                key, kind = header.text(), header.number("I")
                if kind == 9:
                    header.skip(kind)
                else:
                    found[key] = header.value(kind)
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise FinetuiError(
            f"{target.path.name} is no GGUF that can be opened.",
            f"{error}.".capitalize(),
            "Export or download it again.",
            code="gguf-broken",
        ) from error
    return found
