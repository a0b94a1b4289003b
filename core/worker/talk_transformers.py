"""Answers through Transformers: a model folder, or an adapter over its base, which is the same model with it switched off.
After full fine-tuning the base is a model of its own, loaded when it is first asked."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import paths, recipe_file, system
from ..conversation import Turn
from ..errors import FinetuiError
from ..recipe import ModelSection, Recipe
from ..runs import checkpoints
from ..runs.store import RunFolder
from ..talk import Reply, Side, Target
from ..text import bytes_words
from . import base_weights, failures, loftq, samples
from .answering import cpu_dtype
from .chat import Chat
from .talk import Request, Stopped, Tell, Told, Writer, too_long


class Transformers:
    """A loaded model. Plain Transformers and PEFT: ready in a fraction of the time that Unsloth's import takes, and its
    first token is that of a bare `generate`."""

    def __init__(self, target: Target, stage: Callable[[str], None]) -> None:
        self.target = target
        stage("importing Transformers")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        self.torch = torch
        gpu = torch.cuda.is_available()
        adapter: Path | None = None
        copied: Path | None = None
        step: int | None = None
        code = False
        learned = source = target.path
        try:
            if target.kind == "checkpoint":
                stage("copying the newest checkpoint")
                copied, step = _checkpoint(target.path)
                run = RunFolder(target.path.parent)
                loftq.leave(copied, recipe_file.load(run.recipe), run)
                learned = source = copied
            if target.whole or target.kind != "merged":
                from . import model

                section = ModelSection(
                    source=target.base, revision=target.revision, remote_code=target.remote_code
                )
                self.recipe = Recipe(model=section)
                code = model.runs_code(self.recipe)
            if not target.whole and target.kind != "merged":
                stage("looking for the base model")
                adapter, source = learned, base_weights.folder(self.recipe)
            stage("loading the weights")
            options: dict[str, Any] = {
                "local_files_only": True,
                "use_safetensors": True,
                "trust_remote_code": code,
            }
            if target.precision == "4bit" and gpu and target.kind != "merged":
                from transformers import BitsAndBytesConfig

                options["quantization_config"] = BitsAndBytesConfig(
                    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                    bnb_4bit_compute_dtype=torch.bfloat16,
                )  # fmt: skip
            if gpu:
                options["device_map"] = {"": 0}
            if not gpu:
                options["dtype"] = cpu_dtype(Path(source))
            else:
                options["dtype"] = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
            self.options, self.base = options, None
            try:
                self.model: Any = AutoModelForCausalLM.from_pretrained(str(source), **options)
                words = (
                    adapter
                    if adapter is not None and (adapter / "tokenizer_config.json").is_file()
                    else source
                )
                self.tokenizer: Any = AutoTokenizer.from_pretrained(
                    str(words), local_files_only=True, trust_remote_code=code
                )
                if adapter is not None:
                    from peft import PeftModel

                    stage("putting the adapter on")
                    self.model = PeftModel.from_pretrained(self.model, str(adapter))
            except Exception as error:  # the edge of the libraries that load
                if failures.is_known(error):
                    raise
                raise failures.not_loaded(error, target.title) from error
        finally:
            if copied is not None:
                shutil.rmtree(copied, ignore_errors=True)
        self.model.eval()
        ends = samples.end_tokens(self.model, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        self.ends = ends
        # Whatever else the model's own settings ask for (temperatures, penalties) would come unasked.
        self.settings = self.model.generation_config = GenerationConfig(
            eos_token_id=ends, pad_token_id=pad if pad is not None else (ends or [0])[0]
        )
        context = int(getattr(self.model.config, "max_position_embeddings", 0) or 1 << 20)
        self.chat = Chat(self.tokenizer, context)
        device = torch.cuda.get_device_name() if gpu else "CPU"
        self.told = Told(device, context, not self.chat.has_template, step)
        warm = torch.tensor([[(ends or [0])[0]]], device=self.model.device)
        with torch.no_grad():
            self.model.generate(input_ids=warm, attention_mask=torch.ones_like(warm), max_new_tokens=2)

    def answer(self, request: Request, tell: Tell, stopped: Stopped) -> tuple[Reply, int]:
        from transformers import StoppingCriteriaList

        torch, sampling, context = self.torch, request.sampling, self.told.context
        model = self._model(request.side)
        ids = self._ids(request)
        room = context - len(ids)
        if room < 1:
            raise too_long(len(ids), context)
        writer = Writer(tell, request.stop)
        stream = _Stream(self.tokenizer, writer, self.ends)

        def over(input_ids: Any, scores: Any, **_rest: Any) -> Any:
            ended = writer.stopped or stopped()
            return torch.full((input_ids.shape[0],), ended, device=input_ids.device, dtype=torch.bool)

        given = torch.tensor([ids], device=model.device)
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        sampled = sampling.temperature > 0
        with torch.no_grad(), self._as(request.side):
            model.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=min(sampling.max_new_tokens, room),
                do_sample=sampled,
                temperature=sampling.temperature if sampled else None,
                top_p=sampling.top_p if sampled else None,
                top_k=sampling.top_k if sampled else None,
                repetition_penalty=sampling.repetition_penalty,
                stopping_criteria=StoppingCriteriaList([over]),
                streamer=stream,
                use_cache=True,
            )
        writer.grow(self.tokenizer.decode(stream.answer, skip_special_tokens=True), last=True)
        by_itself = writer.stopped or stream.ended
        reason = "end" if by_itself else "stopped" if stopped() else "length"
        return writer.reply(len(stream.ids), reason, tuple(stream.ids)), len(ids)

    def _ids(self, request: Request) -> list[int]:
        if not self.chat.has_template:
            return self.chat.prompt_ids([Turn("text", request.messages[-1][1])])
        turns = [Turn(role, text) for role, text in request.messages]  # type: ignore[arg-type]
        return self.chat.prompt_ids(turns)

    def _model(self, side: Side) -> Any:
        """Who answers for `side`. Raises FinetuiError (talk-memory) where the base is a model of its own without room."""
        if side == "tuned" or not self.target.whole:
            return self.model
        if self.base is None:
            from transformers import AutoModelForCausalLM

            folder = base_weights.folder(self.recipe)
            need = base_weights.count(folder) * self.options["dtype"].itemsize
            gpu = self.model.device.type == "cuda"
            free = self.torch.cuda.mem_get_info()[0] if gpu else system.snapshot().memory_available_bytes
            if need > free:
                raise FinetuiError(
                    "There is no room for the base model beside the tuned one.",
                    f"After full fine-tuning they are two models. It takes {bytes_words(need)}, and {bytes_words(free)} is free.",
                    "Ask the tuned one alone (--side tuned, or /tuned in the talk), or free some memory.",
                    code="talk-memory",
                )
            self.base = AutoModelForCausalLM.from_pretrained(str(folder), **self.options).eval()
            self.base.generation_config = self.settings
        return self.base

    @contextlib.contextmanager
    def _as(self, side: Side) -> Iterator[None]:
        if side == "base" and hasattr(self.model, "disable_adapter"):
            with self.model.disable_adapter():
                yield
        else:
            yield


class _Stream:
    """Takes tokens from `generate` and tells their text once it is whole: a character may be several tokens."""

    def __init__(self, tokenizer: Any, writer: Writer, ends: list[int]) -> None:
        self.ids: list[int] = []
        self._tokenizer, self._writer, self._ends = tokenizer, writer, ends
        self._prompt_seen = False
        self._whole = ""
        self._from = 0

    @property
    def ended(self) -> bool:
        return self.ids[-1:] != [] and self.ids[-1] in self._ends

    @property
    def answer(self) -> list[int]:
        """The tokens without the one that ends the answer."""
        return self.ids[:-1] if self.ended else self.ids

    def put(self, value: Any) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self.ids += [int(token) for token in value.flatten().tolist()]
        if self.ended:
            return
        tail = self._tokenizer.decode(self.ids[self._from :], skip_special_tokens=True)
        if tail.endswith("\ufffd"):
            return
        self._writer.grow(self._whole + tail)
        if len(self.ids) - self._from > 64 and tail.endswith("\n"):  # decode no more than the last lines anew
            self._whole += tail
            self._from = len(self.ids)

    def end(self) -> None:
        pass


def _checkpoint(folder: Path) -> tuple[Path, int]:
    """A copy of what the newest whole checkpoint learned, and its step. Raises FinetuiError (adapter-missing)."""
    parent = paths.private_dir(paths.cache() / "talk")
    for checkpoint in checkpoints.newest_first(folder):
        into = Path(tempfile.mkdtemp(dir=parent))
        if checkpoints.copy_model(checkpoint, into):
            return into, checkpoints.step_of(checkpoint)
        shutil.rmtree(into, ignore_errors=True)
    raise FinetuiError(
        "There is no whole checkpoint to talk to.",
        "Those that were there are damaged, or have been removed meanwhile.",
        "Wait for the next one, then try again.",
        code="adapter-missing",
    )
