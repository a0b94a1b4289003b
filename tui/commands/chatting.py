"""`finetui chat`: a talk with a model, line by line."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...core.errors import FinetuiError
from . import exits, output
from .opening import DeviceOption, TargetArgument, opened, sampling_of, sides_of
from .recipes import JsonOption, usage

if TYPE_CHECKING:
    from ...core.talk import Messages, Reply, Sampling, Side
    from ...core.talking import Talker

COMMANDS = {
    "/help": "these commands",
    "/base /tuned /both": "who answers",
    "/system TEXT": "another system prompt, and a new talk",
    "/set NAME VALUE": "temperature, top_p, top_k, repetition_penalty, max_new_tokens, seed",
    "/held": "the next held-out prompt of the run",
    "/again": "another answer to the last question",
    "/new": "forget what was said",
    "/save": "keep the talk as JSONL and Markdown",
    "/quit": "leave; so does Ctrl+D",
}


def chat(
    target: TargetArgument,
    side: Annotated[
        str | None,
        typer.Option("--side", metavar="both|base|tuned", help="Who answers; in a pipe tuned alone."),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="TEXT", help="The system prompt; that of the training otherwise."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="0 (the default) is the likeliest answer.")
    ] = None,
    top_p: Annotated[float | None, typer.Option("--top-p")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k")] = None,
    repetition_penalty: Annotated[float | None, typer.Option("--repetition-penalty")] = None,
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens")] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Talk to a trained model, line by line; base and tuned answer one after the other.

    What is piped in is one question, and its answer is all that is written. In the talk, /help lists the commands, and
    Ctrl+C ends an answer.
    """
    sampling = sampling_of(
        {
            "temperature": temperature, "top_p": top_p, "top_k": top_k, "repetition_penalty": repetition_penalty,
            "max_new_tokens": max_new_tokens, "seed": seed,
        }
    )  # fmt: skip
    alone = not sys.stdin.isatty()
    question = sys.stdin.read().strip() if alone else ""
    if alone and not question:
        raise usage("There is no question.", "Standard input is empty.", "echo 'Hello!' | finetui chat RUN")
    talker = opened(target, device)
    try:
        sides = sides_of(talker.target, side or ("tuned" if alone else "both"))
        prompt = talker.target.system_prompt if system is None else system
        if alone:
            _once(talker, sides, question, prompt, sampling, as_json)
        else:
            _Line(talker, sides, prompt, sampling).run()
    finally:
        talker.close()


def _once(
    talker: Talker, sides: tuple[Side, ...], question: str, system: str, sampling: Sampling, as_json: bool
) -> None:
    messages: Messages = (*((("system", system),) if system else ()), ("user", question))
    for side in sides:
        if as_json:
            reply = talker.ask(side, messages, sampling).wait()
            output.data({"side": side, **dataclasses.asdict(reply)})
            continue
        if len(sides) > 1:
            output.line(f"{side}:")
        _written(talker.ask(side, messages, sampling).pieces())


def _written(pieces: Any) -> None:
    """Writes pieces as they come. Nothing in them reaches the terminal but text."""
    from ...core.text import clean

    for piece in pieces:
        sys.stdout.write(clean(piece, 1_000_000))
        sys.stdout.flush()
    output.line()


class _Line:
    """The talk in a terminal, a line at a time."""

    def __init__(self, talker: Talker, sides: tuple[Side, ...], system: str, sampling: Sampling) -> None:
        from ...core import talk

        self.talker, self.sides, self.system, self.sampling = talker, sides, system, sampling
        self.talk = talk.Talk()
        self.held = talk.held_out(talker.target)
        self.held_at = 0
        self.fresh = False

    def run(self) -> None:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # arrows and history in input()
        target, now = self.talker.target, self.talker.loading()
        at = f", the checkpoint of step {now.step:,}" if now.step is not None else ""
        output.line(f"{target.title}{at}, on {now.device}. /help lists the commands.")
        while True:
            try:
                words = input("\nyou › " if not output.ascii_only else "\nyou > ").strip()
            except (EOFError, KeyboardInterrupt):
                output.line()
                return
            if words in ("/quit", "/exit"):
                return
            try:
                if words.startswith("/"):
                    self.command(words)
                elif words:
                    self.ask(words)
            except FinetuiError as error:
                output.card(error)
                if self.talker.loading().error is not None:
                    raise typer.Exit(exits.FAILED) from error

    def ask(self, question: str) -> None:
        from ...core.talk import Exchange

        self.talk.exchanges.append(
            Exchange(question, self.system, fresh=self.fresh or not self.talk.exchanges)
        )
        self.fresh = False
        self.answer(self.sampling)

    def answer(self, sampling: Sampling) -> None:
        from ...core import talk_score

        exchange = self.talk.exchanges[-1]
        for side in self.sides:
            output.line(f"\n{side}:" if len(self.sides) > 1 else "")
            writing = self.talker.ask(side, self.talk.messages(side), sampling)
            try:
                _written(writing.pieces())
            except KeyboardInterrupt:
                self.talker.stop(writing)
                output.line()
            reply: Reply = writing.wait()
            exchange.replies[side] = reply
            mark = {"length": ", cut at the limit", "stopped": ", stopped"}.get(reply.reason, "")
            output.line(f"({reply.tokens:,} tokens, {reply.tokens_per_second:.0f} a second{mark})")
            if exchange.expected:
                output.line(f"({talk_score.words(reply.text, exchange.expected)})")
        if exchange.expected:
            output.line(f"\nthe dataset's own answer:\n{exchange.expected}")

    def command(self, words: str) -> None:
        from ...core import talk_files
        from ...core.talk import Exchange

        name, _, rest = words.partition(" ")
        rest = rest.strip()
        if name in ("/base", "/tuned", "/both"):
            self.sides = sides_of(self.talker.target, name[1:])
        elif name == "/system":
            self.system, self.fresh = rest, True
            output.line(
                "A new talk, with this system prompt." if rest else "A new talk, without a system prompt."
            )
        elif name == "/set":
            key, _, value = rest.partition(" ")
            self.sampling = sampling_of({key: value.strip() or None}, self.sampling)
            output.line(", ".join(f"{k} {v}" for k, v in self.sampling.model_dump().items() if v is not None))
        elif name == "/held" and self.held:
            prompt = self.held[self.held_at % len(self.held)]
            self.held_at += 1
            output.line(prompt.question)
            before = prompt.messages[1 if prompt.system else 0 : -1]
            self.talk.exchanges.append(
                Exchange(prompt.question, prompt.system, before, True, prompt.expected)
            )
            self.answer(self.sampling)
        elif name == "/held":
            output.line("There are no held-out prompts: this is no run's, or the run kept none.")
        elif name == "/again" and self.talk.exchanges:
            warmer = {"temperature": 0.7} if self.sampling.temperature == 0 else {}
            if warmer:
                output.line("At temperature 0 it would be the same again; this one is at 0.7.")
            self.answer(sampling_of(warmer, self.sampling))
        elif name == "/new":
            self.fresh = True
            output.line("A new talk.")
        elif name == "/save" and self.talk.exchanges:
            for file in talk_files.save(self.talker.target, self.talk):
                output.line(f"Kept as {file}")
        else:
            for command, meaning in COMMANDS.items():
                output.line(f"{command:<20} {meaning}")
