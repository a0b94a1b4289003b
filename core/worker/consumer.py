"""Whoever will use an export, in a process of its own: `python -m finetui.core.worker.consumer KIND PATH [OTHER]`.

Reads a `Reference` as JSON on standard input and writes a `Heard` on standard output. KIND is `merged` or
`merged_4bit` (Transformers), `adapter` (PEFT over the base in OTHER) or `gguf` (llama.cpp, with the adapter OTHER where there is one). Nothing of the worker's own code renders, tokenizes or answers here: the
export brings its own template and tokenizer, and is used as a stranger would use it.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
import sys
import urllib.request
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ..proof import NEW_TOKENS, Heard, HeardPrompt, Reference, ReferencePrompt, gpu_room_bytes
from .answering import cpu_dtype

_TOP = 40
_FLOOR = -20.0
_FREE_RUNS = 3
"""Prompts that Transformers answers freely even where it agrees with every token: whether it stops is seen there."""
_FREE_TAIL = 4
"""Tokens before the end at which it is let go then. What it would write before them is known: it agrees with them."""


def _messages(asked: ReferencePrompt) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in asked.messages]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


class _Transformers:
    """A merged folder, or an adapter over its base, as Transformers and PEFT load them."""

    def __init__(self, kind: str, path: Path, base: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        torch.manual_seed(0)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        source = base if kind == "adapter" else str(path)
        device = self._device(_size(Path(source)))
        model: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=cpu_dtype(Path(source)) if device == "cpu" else torch.bfloat16,
            local_files_only=True,
            # bitsandbytes unpacks only on the device that it was loaded to.
            device_map={"": device} if kind == "merged_4bit" else None,
        )
        if kind == "adapter":
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(path))
        self.model = (model if kind == "merged_4bit" else model.to(device)).eval()
        self.name = "PEFT" if kind == "adapter" else "Transformers"

    def _device(self, size: int) -> str:
        """The GPU where it has room for a model of `size` bytes; else the CPU."""
        cuda = self.torch.cuda
        if not cuda.is_available():
            return "cpu"
        return "cuda" if cuda.mem_get_info()[0] > gpu_room_bytes(size) else "cpu"

    def heard(self, reference: Reference) -> Heard:
        ends = self._ends()
        prompts = tuple(self._one(asked, ends, index) for index, asked in enumerate(reference.prompts))
        special = {"bos": self.tokenizer.bos_token_id, "eos": self.tokenizer.eos_token_id}
        return Heard(
            prompts,
            str(self.tokenizer.chat_template or ""),
            {name: token for name, token in special.items() if token is not None},
            self.name,
        )

    def _ends(self) -> set[int]:
        found = getattr(self.model.generation_config, "eos_token_id", None)
        return {int(t) for t in (found if isinstance(found, list) else [found]) if t is not None}

    def _one(self, asked: ReferencePrompt, ends: set[int], index: int) -> HeardPrompt:
        torch = self.torch
        text, ids = self._given(asked)
        answer = list(asked.answer_ids)
        with torch.no_grad():
            given = torch.tensor([ids + answer], device=self.model.device)
            logits = self.model(given).logits[0, len(ids) - 1 : len(ids) - 1 + len(answer)].float()
            logprobs = torch.log_softmax(logits, -1)
            chosen = logits.argmax(-1).tolist()
            told = logprobs[range(len(answer)), answer]
            behind = tuple((logprobs.amax(-1) - told).tolist())
        same = next((at for at, (a, b) in enumerate(zip(chosen, answer, strict=True)) if a != b), len(answer))
        if same == len(answer):
            if index >= _FREE_RUNS:
                return HeardPrompt(text, tuple(ids), tuple(told.tolist()), behind, asked.answer, asked.ended)
            same = max(0, same - _FREE_TAIL)
        written = answer[:same] + self._free_run(ids + answer[:same], NEW_TOKENS - same)
        ended = bool(ends & set(written[-1:]))
        words = self.tokenizer.decode(written, skip_special_tokens=True)
        return HeardPrompt(text, tuple(ids), tuple(told.tolist()), behind, words, ended)

    def _given(self, asked: ReferencePrompt) -> tuple[str, list[int]]:
        """The prompt as this tokenizer writes and cuts it. Plain writing gets no template, and the beginning-of-text token
        that the tokenizer puts there by itself."""
        if asked.messages:
            text = str(
                self.tokenizer.apply_chat_template(
                    _messages(asked), tokenize=False, add_generation_prompt=True
                )
            )
            return text, self.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids: list[int] = self.tokenizer(asked.text, add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        begins = bos is not None and self.tokenizer("a")["input_ids"][:1] == [bos] and ids[:1] != [bos]
        return asked.text, [int(bos), *ids] if begins and bos is not None else ids

    def _free_run(self, ids: Sequence[int], most: int) -> list[int]:
        given = self.torch.tensor([list(ids)], device=self.model.device)
        with self.torch.no_grad():
            written = self.model.generate(
                input_ids=given,
                attention_mask=self.torch.ones_like(given),
                max_new_tokens=most,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
            )
        return [int(t) for t in written[0, len(ids) :].tolist()]


class _LlamaCpp:
    """A GGUF behind llama.cpp's own server, on loopback, as Ollama and LM Studio would run it."""

    name = "llama.cpp"

    def __init__(self, path: Path, context: int, lora: str = "") -> None:
        xllamacpp: Any = importlib.import_module("xllamacpp")
        parameters: Any = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        if lora:
            parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(lora, 1.0)]
        parameters.n_ctx = context
        parameters.n_parallel = 1
        parameters.warmup = False
        parameters.use_jinja = True
        # Its threads wait for one another spinning: on a machine with other work one core fewer is faster.
        parameters.cpuparams.n_threads = min(8, max(1, len(os.sched_getaffinity(0)) - 1))
        self._bos = ""
        self._server = xllamacpp.Server(parameters)
        self._address = str(self._server.listening_address)
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({})
        ).open  # loopback, never a proxy

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"} if data else {}
        )
        with self._open(request, timeout=600) as reply:
            return json.load(reply)

    def heard(self, reference: Reference) -> Heard:
        properties = self._ask("/props")
        self._bos = str(properties.get("bos_token") or "")
        prompts = tuple(self._one(asked, reference.template) for asked in reference.prompts)
        return Heard(
            prompts, str(properties.get("chat_template") or ""), self._special(properties), self.name
        )

    def _special(self, properties: Any) -> dict[str, int]:
        found: dict[str, int] = {}
        for name in ("bos", "eos"):
            token = properties.get(f"{name}_token")
            if token:
                ids = self._tokens(str(token))
                if len(ids) == 1:
                    found[name] = ids[0]
        return found

    def _tokens(self, text: str, asked: bool = False) -> list[int]:
        """The tokens of `text`; of what is `asked`, with those that the file has llama.cpp put around it."""
        body = {"content": text, "add_special": asked, "parse_special": True}
        return [int(token) for token in self._ask("/tokenize", body)["tokens"]]

    def _one(self, asked: ReferencePrompt, template: str) -> HeardPrompt:
        if not asked.messages:
            return self._gone_on(asked, template)
        text = str(self._ask("/apply-template", {"messages": _messages(asked)})["prompt"])
        ids = self._tokens(text, asked=True)
        if asked.text == self._bos + text:  # taken off the template's text, as llama.cpp puts it there itself
            text = asked.text
        logprobs, behind = self._against(ids, list(asked.answer_ids))
        body = {
            "messages": _messages(asked),
            "temperature": 0,
            "max_tokens": NEW_TOKENS,
            "cache_prompt": True,
        }
        reply = self._ask("/v1/chat/completions", body)["choices"][0]
        message = reply["message"]
        said = str(message.get("content") or "")
        return HeardPrompt(
            text, tuple(ids), tuple(logprobs), tuple(behind), said, reply.get("finish_reason") == "stop"
        )

    def _gone_on(self, asked: ReferencePrompt, template: str) -> HeardPrompt:
        """Plain writing, gone on with. Where there is a `template` too, a beginning-of-text token is as that has it, and here
        as trained."""
        ids = self._tokens(asked.text, asked=not template)
        if template and ids[:1] != list(asked.ids[:1]) and len(asked.ids) == len(ids) + 1:
            ids = [asked.ids[0], *ids]
        logprobs, behind = self._against(ids, list(asked.answer_ids))
        body = {"prompt": ids, "n_predict": NEW_TOKENS, "temperature": 0, "cache_prompt": True}
        reply = self._ask("/completion", body)
        ended = reply.get("stop_type") == "eos"
        return HeardPrompt(
            asked.text, tuple(ids), tuple(logprobs), tuple(behind), str(reply.get("content") or ""), ended
        )

    def _against(self, ids: list[int], answer: list[int]) -> tuple[list[float | None], list[float]]:
        """For each token of `answer`, how probable it is after those before it, and how far it lies below the likeliest.

        The server writes greedily and tells the likeliest tokens at each place; where it turns another way than
        `answer`, it is asked again from there. It says nothing of a token that ends within a character (half an emoji):
        there is no probability, and only whether it wrote the same.
        """
        logprobs: list[float | None] = []
        behind: list[float] = []
        while len(behind) < len(answer):
            at = len(behind)
            reply = self._ask(
                "/completion",
                {
                    "prompt": ids + answer[:at],
                    "n_predict": len(answer) - at,
                    "temperature": 0,
                    "n_probs": _TOP,
                    "return_tokens": True,
                    "cache_prompt": True,
                },
            )
            written: list[int] = reply.get("tokens") or []
            if not written:
                break
            told = deque(reply.get("completion_probabilities") or [])
            for token, wanted in zip(written, answer[at:], strict=False):
                if told and told[0]["id"] == token:
                    top = {int(one["id"]): _finite(one["logprob"]) for one in told.popleft()["top_logprobs"]}
                    logprob = max(_FLOOR, top.get(wanted, _FLOOR))
                    logprobs.append(logprob)
                    behind.append(max(top.values()) - logprob)
                else:
                    logprobs.append(None)
                    behind.append(0.0 if token == wanted else -_FLOOR)
                if token != wanted:
                    break
        return logprobs, behind


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else _FLOOR


def main(arguments: Sequence[str]) -> None:
    """Opens the export, answers, and writes what was heard. Ends with 1 and its reason on standard error otherwise."""
    answer_to = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    kind, path, *rest = arguments
    reference: Reference = TypeAdapter(Reference).validate_json(sys.stdin.buffer.read())
    if kind == "gguf":
        longest = max(len(asked.ids) + len(asked.answer_ids) for asked in reference.prompts)
        consumer: Any = _LlamaCpp(Path(path), -(-(longest + NEW_TOKENS + 16) // 256) * 256, "".join(rest))
    else:
        consumer = _Transformers(kind, Path(path), rest[0] if rest else "")
    heard = consumer.heard(reference)
    with answer_to:
        answer_to.write(json.dumps(dataclasses.asdict(heard), ensure_ascii=True).encode())
    sys.stderr.flush()
    os._exit(0)  # llama.cpp's threads would keep the process


if __name__ == "__main__":
    main(sys.argv[1:])
