"""The primer: what fine-tuning is, in a few pages. The text stands in primer.md; this reads it into pages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Page:
    """One page: its title, and its body as Markdown."""

    title: str
    body: str

    @property
    def words(self) -> int:
        return len(self.body.split())


def pages() -> tuple[Page, ...]:
    """The pages in order: each second-level heading of primer.md begins one."""
    text = Path(__file__).with_name("primer.md").read_text("utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return tuple(
        Page(title.strip(), body.strip()) for title, body in zip(parts[1::2], parts[2::2], strict=True)
    )
