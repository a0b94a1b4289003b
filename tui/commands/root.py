"""All commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from . import (
    again,
    asking,
    care,
    chatting,
    comparing,
    diagnosis,
    estimate,
    exits,
    exporting,
    fit,
    inspect,
    leaving,
    listing,
    models,
    output,
    presets,
    queueing,
    recipes,
    reporting,
    scoring,
    scripting,
    serving,
    training,
    verifying,
)

app = typer.Typer(
    name="finetui",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=exits.EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(training.demo)
app.command("train")(training.train)
app.command("runs")(listing.runs)
app.command("compare")(comparing.compare)
app.command("attach")(training.attach)
app.command("stop")(training.stop)
app.command("resume")(training.resume)
app.command("pause")(asking.pause)
app.command("continue")(asking.go_on)
app.command("save")(asking.save)
app.command("evaluate")(asking.evaluate)
app.command("sample")(asking.sample)
app.command("longer")(again.longer)
app.command("duplicate")(again.duplicate)
app.command("retry")(again.retry)
app.command("back")(again.back)
app.command("export")(exporting.export)
app.command("verify")(verifying.verify)
app.command("upload")(leaving.upload)
app.command("ollama")(leaving.ollama)
app.command("copy")(leaving.copy)
app.command("chat")(chatting.chat)
app.command("eval")(scoring.evaluate)
app.command("serve")(serving.serve)
app.command("inspect")(inspect.inspect)
app.command("rename")(care.rename)
app.command("note")(care.note)
app.command("tag")(care.tag)
app.command("archive")(care.archive)
app.command("clean")(care.clean)
app.command("delete")(care.delete)
app.command("models")(models.models)
app.command("presets")(presets.presets)
app.command("estimate")(estimate.estimate)
app.command("fit")(fit.fit)
app.command("probe")(fit.probe)
app.command("script")(scripting.script)
app.command("report")(reporting.report)
app.command("doctor")(diagnosis.doctor)
app.add_typer(queueing.app, name="queue")
app.add_typer(recipes.app, name="recipe")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        output.line(f"finetui {version('finetui')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
    ascii: Annotated[
        bool, typer.Option("--ascii", help="Draw and write with ASCII characters only.")
    ] = False,
) -> None:
    """Fine-tune language models with Unsloth, in five steps. Without a command, the wizard opens."""
    output.ascii_only = output.ascii_only or ascii
    if context.invoked_subcommand is not None:
        return
    if not output.interactive():
        raise recipes.usage(
            "There is no terminal here for the wizard to open in.",
            "Input or output is a pipe or a file, or TERM is dumb.",
            "finetui demo runs the demo in plain lines, and finetui train RECIPE a recipe. finetui --help lists all.",
        )
    raise typer.Exit(training.open_wizard())
