"""Trying a model: what can be tried (a run, a checkpoint, a folder, a GGUF), how it answers, and the talk itself. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from . import model_adapter, proof_file, recipe_file, system_prompt
from .errors import FinetuiError
from .recipe import Recipe
from .runs import checkpoints, event_log, events, state, store
from .runs.at_work import at_work
from .runs.chosen import holds_weights, result_folder, settle
from .runs.store import RunFolder
from .system import Machine
from .text import bytes_words, one_line

Side = Literal["base", "tuned"]
Kind = Literal["adapter", "checkpoint", "merged", "gguf"]
Device = Literal["cpu", "gpu"]
Messages = tuple[tuple[str, str], ...]
"""Role (system, user, assistant) and text of each turn."""


class Sampling(BaseModel):
    """How the next token is chosen. The default is greedy: the same answer each time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=0.0, ge=0, le=2, description="0 is the likeliest; higher varies")
    top_p: float = Field(default=1.0, gt=0, le=1, description="the likeliest words of this share")
    top_k: int = Field(default=0, ge=0, le=1000, description="so many likeliest words; 0 is all")
    repetition_penalty: float = Field(default=1.0, ge=0.5, le=2, description="above 1 repeats itself less")
    max_new_tokens: int = Field(
        default=512, ge=1, le=32_768, description="the answer ends here at the latest"
    )
    seed: int | None = Field(default=None, ge=0, lt=2**31, description="same seed, same answer")


@dataclass(frozen=True)
class Target:
    """Something to try. `path`: the adapter's folder, the checkpoints' folder, the model's folder or the GGUF."""

    kind: Kind
    path: Path
    title: str
    run: Path | None = None
    base: str = ""
    """The model under an adapter: demo, a folder or a hub id."""
    revision: str | None = None
    remote_code: str | None = None
    precision: str = "16bit"
    system_prompt: str = ""
    whole: bool = False
    """The run trained every weight: its result and its checkpoints are models, beside which the base is another."""

    @property
    def sides(self) -> tuple[Side, ...]:
        """Who can answer: an adapter can be switched off, what is merged cannot."""
        return ("base", "tuned") if self.whole or self.kind in ("adapter", "checkpoint") else ("tuned",)


def find(text: str) -> Target:
    """What `text` names: a run, a run's, adapter's or model's folder, or a GGUF. Raises FinetuiError (…-missing)."""
    path: Path | None = Path(text).expanduser() if text else None
    try:
        there = path is not None and path.exists()
    except (OSError, ValueError):
        there = False
    if path is None or not there or (path / "recipe.yaml").is_file():
        return of_run(store.find(text))
    path = path.absolute()
    if path.is_file():
        if path.suffix.lower() == ".gguf":
            return _in_run(Target("gguf", path, path.name))
        raise _nothing(path, "A file that can be tried is a GGUF.")
    if (path / "adapter_config.json").is_file():
        facts = model_adapter.read_adapter(path)
        return _in_run(Target("adapter", path, path.name, base=facts.base))
    if (path / "config.json").is_file():
        return _in_run(Target("merged", path, path.name))
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return _in_run(Target("gguf", files[0], files[0].name))
    why = "It holds several GGUF files: name one." if files else "It holds no adapter, no model and no GGUF."
    raise _nothing(path, why)


def _nothing(path: Path, why: str) -> FinetuiError:
    return FinetuiError(
        f"{one_line(path.name, 100)} cannot be talked to.",
        why,
        "Name a run, an adapter's or a model's folder, or a GGUF file.",
        code="talk-missing",
    )


def _in_run(target: Target) -> Target:
    """`target` with what its run knows, where it lies in one."""
    for folder in target.path.parents[:4]:
        if (folder / "recipe.yaml").is_file() and (folder / "events.jsonl").is_file():
            try:
                recipe = recipe_file.load(folder / "recipe.yaml")
            except FinetuiError:
                break
            run = RunFolder(folder)
            name = f"{recipe.name}, {target.path.name}"
            return Target(
                target.kind, target.path, name, folder, target.base or recipe.model.source, recipe.model.revision,
                recipe.model.remote_code, _precision(recipe), system_prompt.of_run(run, recipe),
            )  # fmt: skip
    return target


def of_run(run: RunFolder) -> Target:
    """What the run ended with, or the newest whole checkpoint while it trains or where it saved nothing else.

    Raises FinetuiError (adapter-missing) where it has learned nothing yet.
    """
    recipe = recipe_file.load(run.recipe)
    status = state.status(run)
    settle(run)
    sealed = any((p / checkpoints.SEAL).is_file() for p in checkpoints.newest_first(run.checkpoints))
    result, whole = result_folder(recipe, run), recipe.lora.method == "full"
    saved = holds_weights(recipe, result)
    training = status.live and status.job in ("train", "resume")
    if not saved and not sealed:
        raise FinetuiError(
            f"{one_line(recipe.name, 60)} has nothing to talk to yet.",
            "It has saved neither what it learned nor a whole checkpoint.",
            "Wait for its first checkpoint, or press S on its dashboard to save one now.",
            code="adapter-missing",
        )
    kind: Kind = "merged" if whole else "adapter"
    if sealed and (training or not saved):
        kind = "checkpoint"
    model = recipe.model
    return Target(
        kind, run.checkpoints if kind == "checkpoint" else result, recipe.name, run.path, model.source,
        model.revision, model.remote_code, _precision(recipe), system_prompt.of_run(run, recipe), whole,
    )  # fmt: skip


def _precision(recipe: Recipe) -> str:
    """How the base is held: as in training, but whole where LoftQ repaired it, which its adapter leaves to the base."""
    return "16bit" if recipe.lora.initialization == "loftq" else recipe.model.precision


# ---- Held-out prompts ----


@dataclass(frozen=True)
class HeldOut:
    """A prompt that was never trained on. `messages` end with the question; `expected` is the dataset's own answer."""

    messages: Messages
    expected: str = ""

    @property
    def question(self) -> str:
        return self.messages[-1][1]

    @property
    def system(self) -> str:
        return self.messages[0][1] if self.messages[0][0] == "system" else ""


def held_out(target: Target) -> tuple[HeldOut, ...]:
    """The run's held-out prompts: those of its proofs, else those of its samples. Empty for what lies in no run."""
    if target.run is None:
        return ()
    run = RunFolder(target.run)
    known: dict[str, str] = {}
    for record in event_log.read_all(run.events):
        if isinstance(record.event, events.Sample):
            known[record.event.prompt] = record.event.reference
        elif isinstance(record.event, events.Scored):
            known.update((one.prompt, one.reference) for one in record.event.examples)
    reference = proof_file.load_reference(run)
    if reference is not None:
        return tuple(
            HeldOut(
                asked.messages or (("user", asked.text),), asked.expected or known.get(asked.question, "")
            )
            for asked in reference.prompts
        )
    system: Messages = (("system", target.system_prompt),) if target.system_prompt else ()
    return tuple(HeldOut((*system, ("user", prompt)), answer) for prompt, answer in known.items())


# ---- Where it runs ----


@dataclass(frozen=True)
class Plan:
    """Where a model would be loaded. `choices` has both where the person may decide; `why` is empty where nothing is to say."""

    device: Device
    choices: tuple[Device, ...]
    why: str = ""


def plan(target: Target, machine: Machine, training: tuple[str, ...], needs_bytes: int | None) -> Plan:
    """Where `target` is loaded by default. `training`: names of the runs that train here now; `needs_bytes`: what it takes.

    On a GPU that trains, or that lacks the room, the CPU is the default, and the reason is said.
    """
    if target.kind == "gguf" or not machine.has_gpu:
        return Plan("cpu", ("cpu",))
    free = machine.free_bytes
    size = f"about {bytes_words(needs_bytes)}" if needs_bytes else "an unknown amount"
    if training:
        names = one_line(", ".join(training), 80)
        why = f"{names} is training on the GPU. Loading this there takes {size} of the {bytes_words(free)} that are free."
        return Plan("cpu", ("cpu", "gpu"), why)
    if needs_bytes is not None and needs_bytes > free:
        why = f"It takes {size}, and {bytes_words(free)} of the GPU are free."
        return Plan("cpu", ("cpu", "gpu"), why)
    return Plan("gpu", ("gpu", "cpu"))


def plan_here(target: Target) -> Plan:
    """As `plan`, from this machine and its runs as they are now. Blocking; for a thread."""
    from . import system

    machine = system.snapshot()
    if target.kind == "gguf" or not machine.has_gpu:
        return plan(target, machine, (), None)
    training = tuple(s.name or r.id for r, s in at_work() if s.job in ("train", "resume") and not s.elsewhere)
    return plan(target, machine, training, needed_bytes(target))


def needed_bytes(target: Target) -> int | None:
    """Memory for the weights as they are loaded, the answers' cache and the libraries; None where that is not known."""
    from . import model

    try:
        if target.kind == "merged" and not target.whole:
            weights: int | None = sum(p.stat().st_size for p in target.path.glob("*.safetensors"))
        else:
            weights = model.inspect(target.base, target.revision, target.remote_code).weights_bytes
    except (FinetuiError, OSError):
        return None
    if not weights:
        return None
    if target.whole:
        weights *= 2
    return int(weights * (0.35 if target.precision == "4bit" and target.kind != "merged" else 1.05)) + 1024**3


# ---- The talk ----


@dataclass(frozen=True)
class Reply:
    """An answer. `reason`: end (by itself), length, stopped, or failed; empty while it is written."""

    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    first_seconds: float = 0.0
    """Until the first token."""
    reason: str = ""
    ids: tuple[int, ...] = ()
    """The answer's tokens, the one that ends it included; none where llama.cpp writes."""

    @property
    def tokens_per_second(self) -> float:
        later = self.seconds - self.first_seconds
        return (self.tokens - 1) / later if self.tokens > 1 and later > 0 else 0.0


@dataclass
class Exchange:
    """A question and what each side answered. A `fresh` one starts anew: nothing before it is seen by the model."""

    question: str
    system: str = ""
    before: Messages = ()
    fresh: bool = False
    expected: str = ""
    replies: dict[Side, Reply] = field(default_factory=dict)


@dataclass
class Talk:
    """A talk with both sides: the same questions, and to each side its own answers."""

    exchanges: list[Exchange] = field(default_factory=list)

    def messages(self, side: Side, at: int = -1) -> Messages:
        """What `side` is given to answer the exchange `at`."""
        at = at % len(self.exchanges)
        start = next((i for i in range(at, -1, -1) if self.exchanges[i].fresh), 0)
        asked = self.exchanges[start : at + 1]
        found: list[tuple[str, str]] = [("system", asked[-1].system)] if asked[-1].system else []
        found += asked[0].before
        for exchange in asked[:-1]:
            reply = exchange.replies.get(side)
            if reply is not None and reply.text:
                found += [("user", exchange.question), ("assistant", reply.text)]
        return (*found, ("user", asked[-1].question))
