"""`finetui recipe …`, and what other commands need to make a recipe from a file and `--set`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...core.errors import FinetuiError
from ...core.named_files import given_path, write_new
from . import output

if TYPE_CHECKING:
    from ...core.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make, check and explain recipes (a fine-tune as one YAML file).",
)

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one field, such as training.epochs=2; may be given again. 'finetui recipe fields' lists them.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, for a program to read.")]


def usage(what: str, why: str, fix: str) -> FinetuiError:
    """An error in what was typed."""
    return FinetuiError(what, why, fix, code="usage")


def changed(recipe: Recipe, settings: list[str] | None) -> Recipe:
    """`recipe` with each KEY=VALUE of `settings` applied in order. Raises RecipeError naming every bad one."""
    if not settings:
        return recipe
    import difflib

    from ...core.draft import Draft
    from ...core.errors import RecipeError
    from ...core.fields import fields

    draft = Draft(recipe)
    known = ("name", *(spec.path for spec in fields()))
    problems: list[str] = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        key = key.strip()
        if not equals:
            problems.append(f"--set {setting}: write it as KEY=VALUE, such as training.epochs=2")
        elif key == "name":
            draft.name = value.strip()
        elif key not in known:
            endings = [path for path in known if path.split(".")[-1] == key]
            near = endings or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "'finetui recipe fields' lists them all."
            problems.append(f"--set {setting}: there is no field {key}; {hint}")
        else:
            wrong = draft.set(key, value)
            if wrong:
                problems.append(f"--set {setting}: {key} {wrong}")
    if problems:
        raise RecipeError("A setting on the command line cannot be used.", tuple(problems))
    return draft.recipe()


def read(source: str) -> tuple[Recipe, Path]:
    """The recipe in the file `source` (`-` is standard input), and the folder that its relative paths start from."""
    from ...core import recipe_file

    if source == "-":
        return recipe_file.parse(sys.stdin.read(recipe_file.MAX_BYTES + 1), "standard input"), Path.cwd()
    path = given_path(source)
    return recipe_file.load(path), path.absolute().parent


def commented(recipe: Recipe) -> str:
    """`recipe` as YAML with each field's help above it. Reads back as the same recipe."""
    from ...core import recipe_file
    from ...core.fields import field

    rows: list[str] = []
    section = ""
    for row in recipe_file.dump(recipe).splitlines():
        key = row.partition(":")[0]
        if row and not row[0].isspace() and not row.startswith("-"):
            section = key
            if rows and not row.partition(":")[2].strip():
                rows.append("")
        elif row.startswith("  ") and not row[2:3].isspace() and ":" in row:
            try:
                spec = field(f"{section}.{key.strip()}")
            except KeyError:
                pass
            else:
                rows.append(
                    f"  # {spec.help} ({spec.allowed})" if spec.kind != "text" else f"  # {spec.help}"
                )
        rows.append(row)
    return "\n".join(rows) + "\n"


def with_preset(recipe: Recipe, name: str) -> Recipe:
    """`recipe` with the settings of the preset called `name`."""
    from ...core import presets_own
    from ...core.draft import Draft

    draft = Draft(recipe)
    for path, value in presets_own.find(name).values.items():
        draft.set(path, value)
    return draft.recipe()


@app.command("init")
def init(
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="Where to write it; - is standard output.")
    ] = "recipe.yaml",
    demo: Annotated[bool, typer.Option("--demo", help="Start from the demo's settings.")] = False,
    preset: Annotated[
        str,
        typer.Option(
            "--preset", metavar="NAME", help="Take a preset's settings; 'finetui presets' lists them."
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    settings: SetOption = None,
) -> None:
    """Write a recipe with every field, its value and what it means."""
    from ...core.recipe import Recipe

    recipe = Recipe()
    if demo:
        from ...core.demo.recipe import demo_recipe

        recipe = demo_recipe()
    if preset:
        recipe = with_preset(recipe, preset)
    text = commented(changed(recipe, settings))
    if file == "-":
        sys.stdout.write(text)
        return
    path = given_path(file)
    write_new([(path.absolute(), text.encode())], force)
    output.line(f"Wrote {path}. Edit it, then: finetui train {path}")


@app.command("check")
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The recipe; - is standard input.")],
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say every mistake in a recipe, with its line, and settings that do not go together on any machine.

    The exit code is 3 where there is one.
    """
    from ...core import refusals
    from ...core.errors import RecipeError

    recipe, _ = read(file)
    recipe = changed(recipe, settings)
    if found := refusals.of_settings(recipe):
        said = tuple(f"{path}: {error.what} {error.why} {error.fix}".rstrip() for path, error in found)
        raise RecipeError(f"{file} cannot be trained as it is.", said, "Change the settings that are named.")
    if as_json:
        output.data({"valid": True, "recipe": recipe.model_dump(mode="json")})
    else:
        output.line(
            f"{file} is a valid recipe: {recipe.name}, {recipe.model.source} on {recipe.dataset.source}, "
            f"rank {recipe.lora.rank}, effective batch {recipe.effective_batch_size}."
        )


@app.command("schema")
def schema() -> None:
    """Write the JSON schema of recipes, for editors."""
    from ...core import recipe_file

    output.data(recipe_file.schema(), indent=2)


@app.command("fields")
def list_fields(
    section: Annotated[
        str | None, typer.Argument(metavar="[SECTION]", help="model, dataset, lora, training or export.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List every field: its default, what it takes, what it does."""
    import textwrap

    from ...core.fields import FieldSpec, fields
    from ...core.recipe import SECTIONS

    if section is not None and section not in SECTIONS:
        raise usage(
            f"There is no section {section!r}.", f"Sections: {', '.join(SECTIONS)}.", "finetui recipe fields"
        )
    specs = fields(section)

    def default(spec: FieldSpec) -> str:
        if isinstance(spec.default, tuple):
            return ",".join(spec.default)
        if isinstance(spec.default, bool):
            return "true" if spec.default else "false"
        return "empty" if spec.default is None else str(spec.default)

    if as_json:
        output.data(
            [
                {
                    "path": spec.path,
                    "title": spec.title,
                    "kind": spec.kind,
                    "default": list(spec.default) if isinstance(spec.default, tuple) else spec.default,
                    "unit": spec.unit,
                    "allowed": spec.allowed,
                    "optional": spec.optional,
                    "advanced": spec.advanced,
                    "help": spec.help,
                    "explain": spec.explain,
                }
                for spec in specs
            ]
        )
        return
    for spec in specs:
        output.line(f"{spec.path}={default(spec)}")
        words = f"{spec.help} ({spec.allowed}{', ' + spec.unit if spec.unit else ''})"
        for row in textwrap.wrap(words, output.width() - 4):
            output.line(f"    {row}")
