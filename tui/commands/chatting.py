"""`finetui chat`, `finetui eval` and `finetui serve`: trying a model without the wizard."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...core.errors import FinetuiError
from . import exits, output
from .recipes import JsonOption, given_path, usage

if TYPE_CHECKING:
    from ...core.talk import Messages, Reply, Sampling, Side, Target
    from ...core.talking import Talker

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FOLDER|GGUF",
        help="A run (also one that trains), an adapter's or model's folder, or a GGUF.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|gpu", help="auto leaves a GPU alone that is training.")
]
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


def _open(name: str, device: str) -> Talker:
    """The loaded target, what takes time said on standard error. Raises FinetuiError."""
    from ...core import talk
    from ...core.talking import Talker

    if device not in ("auto", "cpu", "gpu"):
        raise usage(f"{device} is no device.", "There are auto, cpu and gpu.", "Leave --device out.")
    target = talk.find(name)
    if device == "auto":
        plan = talk.plan_here(target)
        device = plan.device
        if plan.why:
            output.line(f"{plan.why} The CPU is used; --device gpu insists.", sys.stderr)
    talker = Talker(target, "cpu" if device == "cpu" else "gpu")
    try:
        watched, said = sys.stderr.isatty(), ""
        while not (now := talker.loading()).ready:
            if now.error is not None:
                raise now.error
            if watched and now.words != said:
                said = now.words
                output.line(f"{said} …", sys.stderr)
            talker.wait(0.2)
    except BaseException:
        talker.close()
        raise
    return talker


def _sides(target: Target, wanted: str) -> tuple[Side, ...]:
    if wanted == "both":
        return target.sides
    side: Side = "base" if wanted == "base" else "tuned"
    if wanted not in ("base", "tuned") or side not in target.sides:
        raise usage(
            f"{wanted} cannot answer here.", f"There is {', '.join(target.sides)}.", "Leave --side out."
        )
    return (side,)


def _sampling(values: dict[str, Any], before: Sampling | None = None) -> Sampling:
    from pydantic import ValidationError

    from ...core.talk import Sampling

    known = before.model_dump() if before is not None else {}
    try:
        return Sampling.model_validate(known | {k: v for k, v in values.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise usage(
            f"{first['loc'][0]} cannot be used.", f"{first['msg']}.", "finetui chat --help tells them."
        ) from error


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
    sampling = _sampling(
        {
            "temperature": temperature, "top_p": top_p, "top_k": top_k, "repetition_penalty": repetition_penalty,
            "max_new_tokens": max_new_tokens, "seed": seed,
        }
    )  # fmt: skip
    alone = not sys.stdin.isatty()
    question = sys.stdin.read().strip() if alone else ""
    if alone and not question:
        raise usage("There is no question.", "Standard input is empty.", "echo 'Hello!' | finetui chat RUN")
    talker = _open(target, device)
    try:
        sides = _sides(talker.target, side or ("tuned" if alone else "both"))
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
            output.line(f"\nthe dataset's own answer:\n{exchange.expected}")

    def command(self, words: str) -> None:
        from ...core import talk_files
        from ...core.talk import Exchange

        name, _, rest = words.partition(" ")
        rest = rest.strip()
        if name in ("/base", "/tuned", "/both"):
            self.sides = _sides(self.talker.target, name[1:])
        elif name == "/system":
            self.system, self.fresh = rest, True
            output.line(
                "A new talk, with this system prompt." if rest else "A new talk, without a system prompt."
            )
        elif name == "/set":
            key, _, value = rest.partition(" ")
            self.sampling = _sampling({key: value.strip() or None}, self.sampling)
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
            self.answer(_sampling(warmer, self.sampling))
        elif name == "/new":
            self.fresh = True
            output.line("A new talk.")
        elif name == "/save" and self.talk.exchanges:
            for file in talk_files.save(self.talker.target, self.talk):
                output.line(f"Kept as {file}")
        else:
            for command, meaning in COMMANDS.items():
                output.line(f"{command:<20} {meaning}")


def evaluate(
    target: TargetArgument,
    prompts: Annotated[
        str,
        typer.Argument(
            metavar="PROMPTS", help="A dataset file in any format; a row's last answer is what is expected."
        ),
    ],
    side: Annotated[str, typer.Option("--side", metavar="both|base|tuned", help="Who is asked.")] = "both",
    system: Annotated[
        str | None,
        typer.Option(
            "--system", metavar="TEXT", help="For rows without one; that of the training otherwise."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens")] = 256,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Ask base and tuned the same prompts, greedily, and score both.

    Exact (but for white space), contains what is expected, valid JSON, JSON with the same keys, and length. Every row is
    kept with the run, under talks/. Exit code 0 when all were answered, 4 where a file or run is missing, 6 where the model
    cannot be loaded, 1 where it ended on the way.
    """
    from ...core import talk_files, talk_score

    file = given_path(prompts)
    if not file.exists():
        raise FinetuiError(f"{file} is not there.", "", "Check the path.", code="prompts-missing")
    asked = talk_score.read(file)
    talker = _open(target, device)
    try:
        sides = _sides(talker.target, side)
        sampling = _sampling({"max_new_tokens": max_new_tokens})
        default = talker.target.system_prompt if system is None else system
        rows: list[dict[str, Any]] = []
        marks: dict[Side, list[talk_score.Marks]] = {one: [] for one in sides}
        tell = _counter(len(asked))
        for number, prompt in enumerate(asked, 1):
            messages = (
                prompt.messages if prompt.system or not default else (("system", default), *prompt.messages)
            )
            row: dict[str, Any] = {**talk_files.row(messages), "expected": prompt.expected}
            for one in sides:
                reply = talker.ask(one, messages, sampling).wait()
                judged = talk_score.mark(reply.text, prompt.expected)
                marks[one].append(judged)
                row[one] = {
                    "answer": reply.text,
                    "tokens": reply.tokens,
                    "reason": reply.reason,
                    **dataclasses.asdict(judged),
                }
            rows.append(row)
            tell(number)
        kept = talk_files.keep(talker.target, "eval", rows)
    except FinetuiError as error:
        if error.code != "talk-ended":
            raise
        output.card(error, as_json)
        raise typer.Exit(exits.FAILED) from error
    finally:
        talker.close()
    sums = {one: talk_score.summary(marks[one]) for one in sides}
    if as_json:
        output.data(
            {"prompts": len(asked), "rows": str(kept), **{k: dataclasses.asdict(v) for k, v in sums.items()}}
        )
        return
    output.line(f"{len(asked):,} prompts".ljust(24) + "".join(one.rjust(16) for one in sides))
    names = {
        "exact": "exact",
        "contains": "contains",
        "json_valid": "valid JSON",
        "json_keys": "JSON, same keys",
    }
    for name, words in names.items():
        line = words.ljust(24)
        for one in sides:
            judged = [v for m in marks[one] if (v := getattr(m, name)) is not None]
            line += (
                f"{sum(judged):,}/{len(judged):,} ({sum(judged) / len(judged):.0%})" if judged else "-"
            ).rjust(16)
        output.line(line)
    output.line(
        "characters, mean".ljust(24) + "".join(f"{sums[one].mean_characters:,.0f}".rjust(16) for one in sides)
    )
    output.line(f"Every row: {kept}")


def _counter(total: int) -> Callable[[int], None]:
    watched = sys.stderr.isatty()

    def tell(done: int) -> None:
        if watched:
            sys.stderr.write(f"\r{done:,} of {total:,} answered" + ("\n" if done == total else ""))
            sys.stderr.flush()

    return tell


def serve(
    target: TargetArgument,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8333,
    device: DeviceOption = "auto",
) -> None:
    """Serve a model to programs on this machine, by OpenAI's chat protocol. Ctrl+C ends it.

    Only 127.0.0.1 listens. The models are named as the run, and with :base for the untouched one. One answer is written at a
    time; up to 16 wait.
    """
    from ...core.serving import Server

    talker = _open(target, device)
    try:
        name = "".join(c if c.isalnum() or c in "-._" else "-" for c in talker.target.title)
        try:
            server = Server(talker, name, port)
        except OSError as error:
            raise FinetuiError(
                f"Port {port} cannot be used.", f"{error.strerror or error}.", "Name another: --port 0 takes a free one.",
                code="port",
            ) from error  # fmt: skip
        output.line(f"base URL  {server.address}")
        output.line(f"models    {', '.join(server.models)}")
        output.line("API key   any text. Ctrl+C ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        server.server_close()
    finally:
        talker.close()
