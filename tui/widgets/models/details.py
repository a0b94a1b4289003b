"""What is known of the highlighted model: at the right in full, under the form in a few lines."""

from __future__ import annotations

from typing import Any

from textual.content import Content

from ....core.errors import FinetuiError
from ....core.model_download import DownloadState
from ....core.model_facts import AdapterFound, RemoteCodeFound
from ....core.text import bytes_words, clean, count_words, duration_words
from ...theme import glyphs
from ..bars import Load, bar
from ..text import literal
from .columns import FIT_STYLES, license_words
from .listing import Fits
from .rows import Look, Row, is_hub

TEMPLATE_CHARACTERS = 6000
Run = tuple[str, str]


def passing(error: FinetuiError) -> bool:
    """Whether `error` says nothing of the model itself: the hub could not be asked."""
    return error.code in ("hub-offline", "hub-busy", "hub-failed")


def offer(error: FinetuiError | None) -> str:
    """What Enter does about `error`, in words; empty where it can do nothing."""
    if error is None:
        return ""
    if isinstance(error, AdapterFound) and error.base:
        base = literal(error.base, 100)
        fetches = "fetches this adapter and " if is_hub(error.adapter) else ""
        return f"Enter {fetches}takes {base} with it, to go on training it."
    if isinstance(error, RemoteCodeFound):
        return "Enter asks whether its code may run."
    if error.code == "hub-gated":
        return "Enter takes a token (masked)."
    return ""


def card(error: FinetuiError, gap: bool) -> list[Content]:
    """What, why, fix, and what Enter offers. `gap`: with empty lines between."""
    marks = glyphs()
    lines = [
        Content.assemble((f"{marks.cross} ", "bold $error"), (clean(error.what, 600), "bold $text-error"))
    ]
    if error.why:
        lines.append(Content(clean(error.why, 2000)))
    if error.fix:
        lines.append(Content.assemble((f"{marks.right} ", "bold $accent"), clean(error.fix, 2000)))
    action = offer(error)
    if action:
        lines.append(Content.assemble((f"{marks.current} ", "bold $accent"), (action, "bold")))
    if not gap:
        return lines
    return [part for line in lines for part in (line, Content(""))]


def download_runs(state: DownloadState) -> list[Run]:
    """A download in one line: a bar, bytes, speed and the time left."""
    marks = glyphs()
    if state.state == "done":
        return [(f"{marks.check} downloaded", "$text-success")]
    if state.state == "cancelled":
        return [("download cancelled; d goes on with it", "$text-muted")]
    if state.state == "failed":
        return [(f"{marks.cross} the download failed; d tries again", "$text-error")]
    if state.state == "checking" or not state.total_bytes:
        return [(f"{marks.below} download: asking what is missing {marks.ellipsis}", "$accent")]
    words = f"{bytes_words(state.done_bytes)} of {bytes_words(state.total_bytes)}"
    if state.bytes_per_second:
        words += f" {marks.middot} {bytes_words(state.bytes_per_second)}/s"
    if state.eta_seconds is not None:
        words += f" {marks.middot} {duration_words(state.eta_seconds)} left"
    return [
        *bar(Load(state.done_bytes, state.total_bytes), 12, "$accent", marks),
        ("  ", ""),
        (words, "$foreground"),
    ]


def pairs(row: Row, look: Look) -> list[tuple[str, str]]:
    """Every figure as (name, words), what is not known left out."""
    facts = look.facts
    parameters = facts.parameters if facts is not None and facts.parameters else row.parameters
    context = facts.context_length if facts is not None and facts.context_length else row.context_length
    license = (facts.license if facts is not None else "") or row.license
    base = facts.base if facts is not None and facts.base is not None else row.base
    found = [
        ("Weights", count_words(parameters) if parameters else ""),
        ("Licence", license_words(license)),
        ("Context", f"{context:,} tokens" if context else ""),
        ("Kind", "" if base is None else "base: no conversations yet" if base else "instruct"),
    ]
    if facts is not None:
        name = facts.architecture.removesuffix("ForCausalLM").removesuffix("ForConditionalGeneration")
        stored = facts.dtype + (f", {facts.quantization}" if facts.quantization else "")
        found += [
            ("Family", literal(name, 40)),
            ("Vocabulary", f"{facts.vocabulary:,}" if facts.vocabulary else ""),
            ("Stored as", literal(stored, 60)),
            ("Ends with", " ".join(literal(t, 40) for t in facts.eos_tokens[:4])),
            ("Template", _template_words(facts.chat_template, facts.template_text)),
        ]
        left = facts.download_bytes
        if facts.kind == "hub":
            size = facts.download_bytes if facts.download_bytes is not None else facts.weights_bytes
            found.append(
                (
                    "Download",
                    "nothing: it is here"
                    if facts.cached or left == 0
                    else bytes_words(size)
                    if size
                    else "not known",
                )
            )
        disk = facts.disk_bytes or facts.weights_bytes
        found += [
            ("On disk", bytes_words(disk) if disk else ""),
            ("4-bit ready", literal(facts.four_bit_variant or "", 100)),
            ("Changed", facts.updated.isoformat() if facts.updated else ""),
            ("Revision", f"{literal(facts.revision, 60)[:12]} pinned" if facts.revision else ""),
        ]
        if facts.remote_code_files:
            found.append(("Its code", ", ".join(literal(f, 60) for f in facts.remote_code_files[:4])))
    if row.downloads is not None:
        found.append(("Downloads", f"{count_words(row.downloads)} a month"))
    if row.likes is not None:
        found.append(("Likes", f"{row.likes:,}"))
    if (facts is None or facts.updated is None) and row.when and not row.on:
        found.append(("Changed", row.when.isoformat()))
    if look.adapter is not None:
        a = look.adapter
        found.append(("Adapter", f"rank {a.rank}, alpha {a.alpha}, {len(a.target_modules)} of 7 layers"))
    if row.loss is not None:
        found.append(("Best loss", f"{row.loss:.4f}"))
    return [(name, words) for name, words in found if words]


def _template_words(has: bool | None, text: str) -> str:
    if has is None:
        return ""
    return (
        (f"yes, {len(text):,} characters" if text else "yes") if has else "none: it learns plain writing only"
    )


def _fit_lines(fits: Fits) -> list[Content]:
    lines = []
    for name, fit in zip(("4-bit", "16-bit"), fits, strict=True):
        if fit is not None:
            style = FIT_STYLES[fit.level] if fit.bytes is not None else "$text-muted"
            words = literal(fit.words, 80).removesuffix(" free")
            lines.append(Content.assemble((f"{name:<8}", "$text-muted"), (words, style)))
    return [Content.assemble(("In the memory that is free now", "$text-muted")), *lines] if lines else []


def levels(row: Row, look: Look, fits: Fits, download: DownloadState | None) -> list[Content]:
    """What is known in several lengths, the longest first."""
    found = [compact(row, look, fits, download, most) for most in (None, 9, 7, 5, 3)]
    if look.error is not None:
        found.append(shorter(look.error))
    return [*found, briefest(row, look, fits, download)]


def _head(row: Row) -> list[Any]:
    title = literal(row.title, 200)
    parts: list[Any] = [(title, "bold $accent")]
    if row.gated:
        parts.append(("  gated", "bold $text-warning"))
    if row.base:
        parts.append(("  base", "bold $text-warning"))
    return parts


def full(row: Row, look: Look, fits: Fits, download: DownloadState | None, width: int = 32) -> Content:
    """Everything, a line each."""
    lines: list[Content] = [Content.assemble(*_head(row))]
    if row.source not in (row.title, "demo"):
        lines.append(Content.assemble((literal(row.source, 200), "$text-muted")))
    if row.words:
        lines.append(Content(literal(row.words, 300)))
    lines.append(Content(""))
    if download is not None:
        lines += [Content.assemble(*download_runs(download)), Content("")]
    if look.error is not None and not passing(look.error):
        lines += card(look.error, gap=True)
    elif row.problem and not look.facts:
        lines += [Content.assemble((literal(row.problem, 400), "$text-error")), Content("")]
    if any(fits) and (look.error is None or passing(look.error)):
        lines += [*_fit_lines(fits), Content("")]
    for name, words in pairs(row, look):
        lines.append(Content.assemble((f"{name:<12}", "$text-muted"), (words, "$foreground")))
    if look.busy:
        lines.append(Content.assemble((f"looking for more {glyphs().ellipsis}", "$text-muted")))
    if look.error is not None and passing(look.error):
        lines += [Content(""), *card(look.error, gap=True)]
    facts = look.facts
    if facts is not None and facts.template_text:
        lines += [
            Content(""),
            Content.assemble(("Chat template", "bold $text-muted")),
            Content.assemble((clean(facts.template_text, TEMPLATE_CHARACTERS), "$text-muted")),
        ]
    return Content("\n").join(lines)


def shorter(error: FinetuiError) -> Content:
    """A card without its fix, for where not all of it has room."""
    what, why, *_ = [*card(error, gap=False), Content("")]
    lines = [what, *([why] if error.why else [])]
    action = offer(error)
    tail = f"{glyphs().current} {action}" if action else "? tells all of it."
    return Content("\n").join([*lines, Content.assemble((tail, "bold"))])


def compact(
    row: Row, look: Look, fits: Fits, download: DownloadState | None, most: int | None = None
) -> Content:
    """About five lines: the card of what is wrong, or the figures, `most` of them at most."""
    marks = glyphs()
    between = f" {marks.middot} "
    head = _head(row)
    if row.source not in (row.title, "demo") and not row.words.endswith("."):
        head.append((f"  {literal(row.source, 100)}", "$text-muted"))
    if look.error is not None and not passing(look.error):
        return Content("\n").join(card(look.error, gap=False))
    lines = [Content.assemble(*head, ("  " + literal(row.words, 200) if row.words else "", "$foreground"))]
    if look.error is not None:
        words = f"{look.error.what} {look.error.why}"
        lines.append(
            Content.assemble((f"{marks.cross} ", "bold $error"), (literal(words, 300), "$text-error"))
        )
    if download is not None:
        lines.append(Content.assemble(*download_runs(download)))
    elif row.problem and not look.facts:
        lines.append(Content.assemble((literal(row.problem, 300), "$text-error")))
    words = [f"{name} {fit.words}" for name, fit in zip(("4-bit", "16-bit"), fits, strict=True) if fit]
    if words:
        runs: list[Run] = []
        for name, fit in zip(("4-bit", "16-bit"), fits, strict=True):
            if fit is not None:
                style = FIT_STYLES[fit.level] if fit.bytes is not None else "$text-muted"
                runs += [(between if runs else "", "$text-muted"), (f"{name} ", "$text-muted")]
                runs.append((literal(fit.words, 80), style))
        lines.append(Content.assemble(*runs))
    figures = [f"{name.lower() if name[0].isalpha() else name} {words}" for name, words in pairs(row, look)]
    if most is not None and len(figures) > most:
        figures = [*figures[:most], "? tells all"]
    if look.busy:
        figures.append(f"looking for more {marks.ellipsis}")
    if figures:
        lines.append(Content.assemble((between.join(figures), "$text-muted")))
    return Content("\n").join(lines)


def briefest(row: Row, look: Look, fits: Fits, download: DownloadState | None) -> Content:
    """One line or two."""
    if download is not None and download.live:
        return Content.assemble(*_head(row), "  ", *download_runs(download))
    if look.error is not None:
        action = offer(look.error)
        tail = f"  {action or '? tells more.'}"
        return Content.assemble((clean(look.error.what, 300), "$text-error"), (tail, "bold"))
    words = [f"{name} {fit.words}" for name, fit in zip(("4-bit", "16-bit"), fits, strict=True) if fit]
    return Content.assemble(*_head(row), ("  " + f" {glyphs().middot} ".join(words), "$text-muted"))
