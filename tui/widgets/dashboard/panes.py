"""What each pane of the dashboard says, as lines for a width."""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual.content import Content

from ....core.fields import fields as declared_fields
from ....core.recipe import Recipe
from ....core.runs.events import Card, Device
from ....core.runs.state import RunStatus
from ....core.text import bytes_words, count_words, duration_words, one_line
from ...theme import glyphs
from ..bars import Load, bar, sparkline
from ..form import value_words
from ..text import clip, clip_middle, literal, spread
from .lines import Run, flowing, hanging, wrapped
from .story import MEANINGS, STAGES, Asked, Story, number, progress_words, rate

GIB = 1024**3


def figures(story: Story, width: int, most: int) -> list[Content]:
    """The figures of the newest step, as many as fit in `most` lines."""
    step, marks = story.step, glyphs()
    if step is None:
        return []
    parts: list[list[Run]] = [[("loss ", "$text-muted"), (number(story.smoothed_loss), "bold $accent")]]
    raw = f" raw {number(step.loss)}"
    parts[0].append((raw, "$text-muted"))
    evaluation, best = story.evaluation, story.curves.best
    if evaluation is not None:
        part = [("eval ", "$text-muted"), (number(evaluation.loss), "bold $success")]
        if best is not None and best[0] != evaluation.step:
            part.append((f" best {number(best[1])} at {best[0]:,.0f}", "$text-muted"))
        parts.append(part)
    else:
        parts.append([("eval ", "$text-muted"), (marks.dash, "$text-disabled")])
    parts.append([("rate ", "$text-muted"), (literal(rate(step.learning_rate)), "$foreground")])
    parts.append([("grad norm ", "$text-muted"), (literal(number(step.grad_norm, 2)), "$foreground")])
    speed = step.tokens_per_second
    told = (
        marks.dash if speed is None or speed != speed else f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}"
    )
    parts.append([(told, "bold $foreground"), (" tok/s trained", "$text-muted")])
    share = story.share_seen
    if share is not None:
        words = f"{share * 100:.1f} % of" if share < 0.995 else f"{share:.2f} {marks.times}"
        parts.append([("seen ", "$text-muted"), (words, "$foreground"), (" your data", "$text-muted")])
    if step.tokens:
        part = [("tokens ", "$text-muted"), (count_words(step.tokens), "$foreground")]
        part.append((f", {100 * step.trained_tokens / step.tokens:.0f} % trained on", "$text-muted"))
        parts.append(part)
    return flowing(parts, width, most)


def _gib(count: int | float | None) -> str:
    return glyphs().dash if count is None else f"{count / GIB:.1f}"


def _on_gpu(story: Story) -> bool:
    return story.device is not None and story.device.device.startswith("cuda")


def machine_line(story: Story, predicted_bytes: int | None, width: int) -> list[Content]:
    """The machine in one line, for a narrow terminal."""
    device, marks = story.device, glyphs()
    if device is None:
        return []
    gpu = _on_gpu(story)
    busy = device.utilization_percent if gpu else device.cpu_percent
    parts: list[list[Run]] = [
        [
            ("GPU " if gpu else "CPU ", "$text-muted"),
            (marks.dash if busy is None else f"{busy:.0f} %", "bold $success"),
        ],
        [
            ("VRAM " if gpu else "RAM ", "$text-muted"),
            (f"run {_gib(story.run_bytes)}", "bold $accent"),
            (f" + others {_gib(device.others_bytes)} of {_gib(device.total_bytes)} GiB", "$text-muted"),
        ],
        [(_most(story, predicted_bytes), "$text-muted")],
    ]
    if gpu:
        heat = (
            marks.dash
            if device.temperature_celsius is None
            else f"{device.temperature_celsius:.0f} {marks.degree}C"
        )
        parts.append([(heat, "$foreground")])
        power = marks.dash if device.power_watts is None else f"{device.power_watts:.0f} W"
        parts.append([(power, "$foreground")])
    return flowing(parts, width, 1)


def _most(story: Story, predicted_bytes: int | None) -> str:
    """The training's memory, predicted and at its peak; once it exports, which is not predicted here, both peaks."""
    peak = f"peak {_gib(story.peak_bytes)}"
    if story.export_peak_bytes is not None:
        return f"{peak}, exporting {_gib(story.export_peak_bytes)}"
    return f"predicted {_gib(predicted_bytes)} {glyphs().middot} {peak}"


def machine(
    story: Story, predicted_bytes: int | None, width: int, compact: bool = False, brief: bool = False
) -> list[Content]:
    """The machine as a pane: how busy it is, whose its memory is, heat and power, host and disk; then its other GPUs, with
    `brief` in a line each."""
    history_rows = 1 if compact else 2
    device, marks = story.device, glyphs()
    if device is None:
        return [Content.assemble(("The first reading comes once Unsloth is imported.", "$text-muted"))]
    gpu = _on_gpu(story)
    busy = device.utilization_percent if gpu else device.cpu_percent
    name = literal(device.name or device.device, 60).removeprefix("NVIDIA ").removeprefix("GeForce ")
    title = f"GPU {device.device.rpartition(':')[2]} " if gpu else ""
    shown = marks.dash if busy is None else f"{busy:.0f} % busy"
    lines = [
        spread(
            [(title, "$text-muted"), (clip(name, max(4, width - 18)), "bold $foreground")],
            [(shown, "bold $success")],
            width,
        )
    ]
    lines += [
        Content.assemble((row, "$success"))
        for row in sparkline(story.busy(), width, 0.0, 100.0, history_rows, marks)
    ]
    run, others, total = story.run_bytes, device.others_bytes, device.total_bytes
    load = Load(
        None if run is None else run / GIB,
        None if total is None else total / GIB,
        others=(others or 0) / GIB,
        predicted=None if predicted_bytes is None else predicted_bytes / GIB,
    )
    if not compact:
        lines.append(Content(""))
    right = f"{_gib(run)} of {_gib(total)} GiB"
    lines.append(
        spread([("GPU memory" if gpu else "Memory", "$text-muted")], [(right, "$foreground")], width)
    )
    lines.append(Content.assemble(*bar(load, width, "$accent", marks)))
    free = None if total is None or run is None or others is None else max(0, total - run - others)
    legend = [
        [("this run ", "$text-muted"), (_gib(run), "$accent")],
        [("others ", "$text-muted"), (_gib(others), "$foreground")],
        [("free ", "$text-muted"), (_gib(free), "$foreground")],
        [("predicted ", "$text-muted"), (_gib(predicted_bytes), "$foreground")],
        [("peak ", "$text-muted"), (_gib(story.peak_bytes), "$foreground")],
    ]
    if story.export_peak_bytes is not None:
        legend.append([("exporting ", "$text-muted"), (_gib(story.export_peak_bytes), "$foreground")])
    lines += flowing(legend, width, 3, gap=2)
    if gpu:
        lines.append(
            spread([("Heat, power", "$text-muted")], [(_heat_and_power(device), "$foreground")], width)
        )
        slowed, how = _speed(device)
        clock = "" if device.clock_mhz is None else f" {marks.middot} {device.clock_mhz:,} MHz"
        lines.append(spread([("Clock", "$text-muted")], [(slowed + clock, how)], width))
        cpu = marks.dash if device.cpu_percent is None else f"{device.cpu_percent:.0f} %"
        lines.append(spread([("Host CPU", "$text-muted")], [(cpu, "$foreground")], width))
        host = f"{_gib(device.host_used_bytes)} of {_gib(device.host_total_bytes)} GiB"
        lines.append(spread([("Host RAM", "$text-muted")], [(host, "$foreground")], width))
    disk = marks.dash if device.disk_free_bytes is None else bytes_words(device.disk_free_bytes)
    lines.append(spread([("Disk free", "$text-muted")], [(disk, "$foreground")], width))
    for index, card in sorted(story.cards.items()):
        if brief:
            lines.append(_card_line(card, width))
            continue
        if not compact:
            lines.append(Content(""))
        lines += _card(card, story.cards_busy[index], width)
    return lines


def _heat_and_power(device: Device | Card) -> str:
    marks = glyphs()
    celsius, watts, limit = device.temperature_celsius, device.power_watts, device.power_limit_watts
    heat = marks.dash if celsius is None else f"{celsius:.0f} {marks.degree}C"
    power = marks.dash if watts is None else f"{watts:.0f}"
    return f"{heat} {marks.middot} {power}{'' if limit is None else f' of {limit:.0f}'} W"


def _speed(device: Device | Card) -> tuple[str, str]:
    """Whether it is held back, and a style."""
    if device.throttling is None:
        return glyphs().dash, "$foreground"
    if not device.throttling:
        return "full speed", "$success"
    return f"{glyphs().warn} {', '.join(literal(reason, 30) for reason in device.throttling)}", "$warning"


def _card_line(card: Card, width: int) -> Content:
    """Another GPU in one line."""
    marks = glyphs()
    busy = marks.dash if card.utilization_percent is None else f"{card.utilization_percent:.0f} %"
    celsius = card.temperature_celsius
    heat = marks.dash if celsius is None else f"{celsius:.0f} {marks.degree}C"
    total = marks.dash if card.total_bytes is None else f"{card.total_bytes / GIB:.0f}"
    held = f"{_gib(card.used_bytes)}/{total} GiB"
    slowed = f" {marks.warn}" if card.throttling else ""
    return spread(
        [(f"GPU {card.index} ", "$text-muted"), (busy, "$success")],
        [(held, "$foreground"), (f" {heat}", "$text-muted"), (slowed, "$warning")],
        width,
    )


def _card(card: Card, busy: Sequence[float | None], width: int) -> list[Content]:
    """Another GPU of the machine: its use, and what others hold of its memory."""
    marks = glyphs()
    name = literal(card.name, 60).removeprefix("NVIDIA ").removeprefix("GeForce ")
    now = marks.dash if card.utilization_percent is None else f"{card.utilization_percent:.0f} % busy"
    used, total = card.used_bytes, card.total_bytes
    load = Load(0.0 if used is not None else None, (total or 0) / GIB, others=(used or 0) / GIB)
    slowed, how = _speed(card)
    free = None if used is None or total is None else max(0, total - used)
    return [
        spread(
            [(f"GPU {card.index} ", "$text-muted"), (clip(name, max(4, width - 20)), "$foreground")],
            [(now, "$success")],
            width,
        ),
        *(Content.assemble((row, "$success")) for row in sparkline(list(busy), width, 0.0, 100.0, 1, marks)),
        Content.assemble(*bar(load, width, "$accent", marks)),
        *flowing(
            [
                [("others ", "$text-muted"), (f"{_gib(used)} of {_gib(total)} GiB", "$foreground")],
                [("free ", "$text-muted"), (_gib(free), "$foreground")],
                [(_heat_and_power(card), "$foreground")],
                [(slowed, how)],
            ],
            width,
            3,
            gap=2,
        ),
    ]


def samples(
    story: Story, prompt_at: int, back: int, width: int, *, rows: int = 0, compact: bool = False
) -> list[Content]:
    """One prompt with its answer before training and now, and those that follow it as far as `rows` lines take them whole.
    `back` counts answers back from the newest. `compact` leaves the room to what the model says now."""
    prompts, marks = story.prompts(), glyphs()
    if not prompts:
        words = "The model answers a few held-out prompts before training and at each evaluation. Nothing is written yet."
        return [Content.assemble((line, "$text-muted")) for line in wrapped(words, width)]
    place = prompt_at % len(prompts)
    asked = story.asked[prompts[place]]
    steps = sorted(asked.answers)
    later = [step for step in steps if step > 0]
    shown = later[max(0, len(later) - 1 - back)] if later else None
    first: list[Run] = [(f"Prompt {place + 1} of {len(prompts)}", "bold $foreground")]
    if len(prompts) > 1:
        first.append((f" {marks.up} {marks.down}", "$accent"))
    second: list[Run] = []
    if shown is not None:
        at = later.index(shown)
        newest = " (newest)" if at == len(later) - 1 else f" ({at + 1} of {len(later)})"
        second.append((f"answer of step {shown:,}{newest}", "$text-muted"))
        if len(later) > 1:
            second.append((f" {marks.previous} {marks.next}", "$accent"))
    lines = flowing([first, second], width, 2) + _answered(asked, shown, width, compact)
    for on in range(1, len(prompts)):
        at = (place + on) % len(prompts)
        head = Content.assemble((f"Prompt {at + 1}", "bold $foreground"))
        more = [Content(""), head, *_answered(story.asked[prompts[at]], shown, width, compact)]
        if len(lines) + len(more) > rows:
            break
        lines += more
    return lines


def _answered(asked: Asked, shown: int | None, width: int, compact: bool) -> list[Content]:
    """A prompt, the answer before training and that of the step `shown`, and the dataset's."""
    most = 1 if compact and shown is not None else 4
    lines: list[Content] = []
    lines += hanging("prompt", asked.prompt, width, most=most)
    before, unasked = asked.answers.get(0, ""), "(not asked before training)"
    lines += hanging("before", before, width, "$text-muted", most=most, empty=unasked)
    if shown is not None:
        empty = "(an empty answer)" if shown in asked.answers else "(not asked at this step)"
        lines += hanging("now", asked.answers.get(shown, ""), width, "$success", most=6, empty=empty)
    else:
        lines += hanging("now", "", width, empty="comes with the first evaluation")
    if asked.reference:
        lines += hanging("wanted", asked.reference, width, "$text-muted", most=3)
    return lines


def log(story: Story, width: int, rows: int | None = None) -> list[Content]:
    """The events in words, the newest last; with `rows`, the newest that fit."""
    lines: list[Content] = []
    for line in list(story.log)[-(rows or 80) :]:
        stamp = time.strftime("%H:%M:%S", time.localtime(line.ts))
        lines += hanging(stamp, literal(line.words, 300), width, line.style, cells=9, most=2)
    if not lines:
        return [Content.assemble(("Nothing yet.", "$text-muted"))]
    return lines if rows is None else lines[-rows:]


def settings(recipe: Recipe | None, width: int, path: str) -> list[Content]:
    """The recipe: what differs from the defaults first, then the rest."""
    if recipe is None:
        return [Content.assemble(("The recipe cannot be read.", "$text-muted"))]
    from ....core.fields import get

    changed: list[Content] = []
    same: list[Content] = []
    for spec in declared_fields():
        value = get(recipe, spec.path)
        told = value_words(spec.path, value)
        own = value != spec.default
        line = hanging(
            spec.title, one_line(told, 600), width, "$foreground" if own else "$text-muted", cells=24, most=4
        )
        (changed if own else same).extend(line)
    lines = [
        Content.assemble(
            ("Chosen", "bold $accent"),
            (f"   {clip_middle(literal(path), max(10, width - 10))}", "$text-disabled"),
        )
    ]
    return [*lines, *changed, Content(""), Content.assemble(("Defaults", "bold $text-muted")), *same]


def stages(order: Sequence[str], status: RunStatus, width: int, rows: int) -> list[Content]:
    """The way to the first step: what is done, what happens now and how far it is, what is to come."""
    marks = glyphs()
    now = status.stage or "start"
    at = order.index(now) if now in order else 0
    lines: list[Content] = []
    for index, stage in enumerate(order):
        name = STAGES[stage]
        if index < at:
            lines.append(Content.assemble((f"{marks.check} ", "$success"), (name, "$text-muted")))
        elif index > at:
            lines.append(Content.assemble((f"{marks.todo} ", "$text-disabled"), (name, "$text-disabled")))
        else:
            amount = progress_words(status.stage_done, status.stage_total, status.stage_unit)
            text = f"place {status.queue_place}" if status.queue_place else one_line(status.stage_text, 120)
            right = "  ".join(part for part in (text, amount, duration_words(status.seconds)) if part)
            lines.append(
                spread(
                    [(f"{marks.current} {name}", "bold $accent")],
                    [(clip(literal(right), max(8, width // 2)), "$foreground")],
                    width,
                )
            )
            if status.stage_total > 0:
                load = Load(status.stage_done, status.stage_total)
                lines.append(Content.assemble("  ", *bar(load, max(4, width - 2), "$accent", marks)))
            for line in wrapped(MEANINGS[stage], width - 2):
                lines.append(Content.assemble("  ", (line, "$text-muted")))
    if len(lines) > rows:  # what is done goes first
        drop = min(at, len(lines) - rows)
        lines = lines[drop:]
    return lines[: max(1, rows)]
