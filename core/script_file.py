"""A script in cells, as the file that it becomes: Python source, or a notebook."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from .script_text import Cell, comment, file_stem

_PACKAGES = ("unsloth", "unsloth_zoo", "trl", "transformers", "peft", "datasets")


@dataclass(frozen=True)
class Script:
    """A script in cells, and the files that belong beside it."""

    name: str
    cells: tuple[Cell, ...]
    files: tuple[tuple[str, bytes], ...] = ()
    """Name and contents of each file that the script reads and that is nowhere else (the demo's rows)."""
    uploads: tuple[str, ...] = ()
    """Names of files of this machine that a notebook elsewhere needs."""

    @property
    def file_name(self) -> str:
        return f"{file_stem(self.name)}.py"

    @property
    def text(self) -> str:
        """The script as Python source, which ends with a newline."""
        head = [
            f'"""{self.name}: a language model fine-tuned with Unsloth and TRL.',
            "",
            f"Run it with:  python {self.file_name}",
            *_versions_words(),
            '"""',
        ]
        blocks = ["\n".join(head)]
        for cell in self.cells:
            title = f"# ── {cell.heading} " + "─" * max(2, 76 - len(cell.heading))
            words = f"{comment(cell.words)}\n" if cell.words else ""
            blocks.append(f"{title}\n{words}\n{cell.code}" if cell.heading else cell.code)
        return _spaced("\n\n".join(blocks)) + "\n"

    def notebook(self) -> str:
        """The script as a notebook (nbformat 4.5) that opens in Colab: an install cell first, then a cell each part."""
        versions = " ".join(f'"{name}=={version}"' for name, version in _versions())
        cells = [
            _markdown(
                f"# {self.name}\n\nA language model fine-tuned with [Unsloth](https://unsloth.ai) and TRL. "
                "In Colab, choose *Runtime → Change runtime type → T4 GPU* first."
            ),
            _code(f"%pip install --quiet {versions or 'unsloth trl'}"),
        ]
        for name, content in self.files:
            cells += [_markdown("### The rows"), _code(f"%%writefile {name}\n{content.decode().rstrip()}")]
        if self.uploads:
            wanted = ", ".join(map(repr, self.uploads))
            cells += [
                _markdown("### Your files\n\nUpload what is not here yet."),
                _code(
                    f"from pathlib import Path\n\nmissing = [name for name in ({wanted},) if not Path(name).exists()]\n"
                    "if missing:\n    from google.colab import files\n\n    print('Upload:', *missing)\n    files.upload()"
                ),
            ]
        for cell in self.cells:
            if cell.heading:
                words = f"\n\n{_escaped(cell.words)}" if cell.words else ""
                cells.append(_markdown(f"## {cell.heading}{words}"))
            cells.append(_code(_spaced(cell.code)))
        book = {
            "cells": [{"id": f"cell-{index}", **cell} for index, cell in enumerate(cells)],
            "metadata": {
                "accelerator": "GPU",
                "colab": {"name": f"{file_stem(self.name)}.ipynb", "provenance": []},
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": text.splitlines(keepends=True),
    }


def _escaped(words: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_[]<>#$" else c for c in words)


def _versions() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def _versions_words() -> list[str]:
    found = [
        f"{name} {version}" for name, version in _versions() if name in ("unsloth", "trl", "transformers")
    ]
    return [f"Written for {', '.join(found)}."] if found else ["It needs: pip install unsloth"]


def _spaced(code: str) -> str:
    """`code` without lines of nothing but spaces, and never with more than two empty lines."""
    lines: list[str] = []
    for line in code.split("\n"):
        if line.strip() or lines[-2:] != ["", ""]:
            lines.append(line.rstrip() if not line.strip() else line)
    return "\n".join(lines).strip("\n")
