"""What the counts of a ledger mean: findings in words, each with its severity and what can be done about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .dataset_ledger import Action, Finding, Ledger, Severity
from .dataset_walk import DUPLICATE
from .errors import FinetuiError
from .recipe import Recipe
from .text import counted, one_line

Marked = tuple[int, tuple[int, ...]]
"""How many rows, and the first lines."""

CLEANABLE = ("secrets", "personal-data", "duplicates", "leaked", "cut", "markers")
"""Finding codes whose rows a clean copy can leave out."""

_ORDER: dict[Severity, int] = {"stop": 0, "warning": 1, "note": 2}
_LONGEST = 131_072
_NONE: Marked = (0, ())
_LOOK = Action("look", "Look at these rows")


@dataclass(frozen=True)
class Circumstances:
    """What the findings are drawn from: the recipe, the ledger without findings, and the marked rows."""

    recipe: Recipe
    ledger: Ledger
    refusal: FinetuiError | None = None
    """Why the reading alone finds no usable row."""
    evaluation_refusal: FinetuiError | None = None
    """The same for held-out rows of their own."""
    has_template: bool = True
    plain_text: bool = False
    renderable: int = 0
    """Rows that the template renders, kept or not."""
    rendered_tokens: int = 0
    """Of those rows, before any cut."""
    cut: Marked = _NONE
    answers_lost: Marked = _NONE
    too_long: Marked = _NONE
    faulty: Marked = _NONE
    """Dropped for a fault of their own: not by choice, not for their length."""
    unended: Marked = _NONE
    """Kept whole, and yet no end-of-text token is learned."""
    other_end: Marked = _NONE
    double_bos: Marked = _NONE
    folded: Marked = _NONE
    duplicates: Marked = _NONE
    leaked: Marked = _NONE
    secret: Marked = _NONE
    personal: Marked = _NONE
    markers: Marked = _NONE
    tools_hidden: Marked = _NONE
    reasoning_hidden: Marked = _NONE
    rejected: Marked = _NONE


def findings(c: Circumstances) -> tuple[Finding, ...]:
    """All findings, the worst first; within a severity, those with the most rows first."""
    found = [*_stops(c), *_losses(c), *_ends(c), *_rows(c), *_private(c)]
    return tuple(sorted(found, key=lambda f: (_ORDER[f.severity], -f.count)))


def _stops(c: Circumstances) -> Iterator[Finding]:
    ledger, recipe = c.ledger, c.recipe
    if not ledger.complete:
        return  # the rows still to come may change it
    if not ledger.read:
        yield _stop("empty", 0, "The dataset has no rows.", "There is nothing to learn from.")
    elif c.refusal is not None:
        yield _stop(
            "no-usable-rows",
            ledger.read,
            c.refusal.what,
            f"{c.refusal.why} {c.refusal.fix}".strip(),
            Action("map", "Say which column is what"),
            _LOOK,
        )
    elif c.evaluation_refusal is not None:
        yield _stop(
            "no-held-out-rows",
            ledger.read,
            c.evaluation_refusal.what,
            c.evaluation_refusal.why,
            Action(
                "drop",
                "Hold out a share of the rows instead",
                (("dataset.evaluation_source", None), ("dataset.evaluation_split", None)),
            ),
        )
    elif not c.has_template and not c.plain_text:
        yield _stop(
            "no-template",
            ledger.read,
            "This model has no chat template, and the rows are conversations.",
            "It is a base model: it does not know where a question ends and an answer begins.",
            Action("change-model", "Choose an instruct model"),
        )
    elif not ledger.train_rows or not ledger.trained_tokens:
        lost = c.answers_lost[0] + c.too_long[0]
        if lost and lost == c.renderable:
            yield _stop(
                "everything-cut",
                lost,
                f"At {ledger.max_length:,} tokens every answer is cut off: nothing is left to learn.",
                f"The shortest row has {ledger.quantiles.least:,} tokens, the middle one {ledger.quantiles.p50:,}.",
                *_raise(c),
            )
        else:
            why = "; ".join(f"{one_line(d.reason, 60)} ({d.count:,})" for d in ledger.dropped[:3])
            yield _stop(
                "nothing-trained",
                ledger.read,
                "In no row is a token to be learned.",
                f"{why}." if why else "Every row is held out.",
                *(
                    (Action("change-model", "Choose a model whose template writes tools"),)
                    if c.tools_hidden[0] > ledger.read / 2
                    else ()
                ),
                Action("map", "Say which column is what"),
                _LOOK,
            )
    elif not ledger.ends_trained and not c.plain_text:
        all_cut = c.cut[0] >= ledger.kept
        yield _stop(
            "no-end",
            ledger.kept,
            "No row teaches the model to stop.",
            f"All rows are longer than {ledger.max_length:,} tokens, and their ends are cut off."
            if all_cut
            else "In none of them is an end-of-text token learned.",
            *(
                _raise(c)
                if all_cut
                else (Action("change-model", "Choose a model whose template ends its turns"),)
            ),
        )
    if recipe.dataset.row_limit is None and 0 < ledger.train_rows < 20:
        yield Finding(
            "few-rows",
            "note",
            ledger.train_rows,
            f"{counted(ledger.train_rows, 'row')} to train on: few to learn a skill from.",
            "A hundred good rows are a start, a thousand are better.",
        )


def _losses(c: Circumstances) -> Iterator[Finding]:
    ledger = c.ledger
    dropping = c.recipe.dataset.long_rows == "drop"
    if dropping and c.too_long[0]:
        yield Finding(
            "too-long",
            _more_than(c.too_long[0], c.renderable, 0.05),
            c.too_long[0],
            f"{counted(c.too_long[0], 'row')} longer than {ledger.max_length:,} tokens {_are(c.too_long[0])} left out.",
            f"The longest has {ledger.quantiles.most:,} tokens; 95 of 100 have at most {ledger.quantiles.p95:,}.",
            c.too_long[1],
            (*_raise(c), _LOOK),
        )
    elif c.cut[0]:
        share = ledger.cut_tokens / max(1, c.rendered_tokens)
        lost = c.answers_lost[0]
        yield Finding(
            "cut",
            "note" if c.plain_text and share < 0.05 else "warning",
            c.cut[0],
            f"{counted(c.cut[0], 'row')} {_are(c.cut[0])} cut at {ledger.max_length:,} tokens"
            + (f"; {lost:,} lose the whole answer and are left out." if lost else "."),
            f"{_percent(share)} of all tokens lie past the cut{'' if c.plain_text else ', and with them the ends of answers'}. "
            f"The longest row has "
            f"{ledger.quantiles.most:,} tokens, 95 of 100 at most {ledger.quantiles.p95:,}.",
            c.cut[1],
            (
                *_raise(c),
                Action("drop", "Leave out rows that are too long", (("dataset.long_rows", "drop"),)),
                _LOOK,
            ),
        )
    if c.faulty[0]:
        reasons = [d for d in ledger.dropped if d.lines and d.reason != DUPLICATE]  # copies go by choice
        why = "; ".join(f"{one_line(d.reason, 60)} ({d.count:,})" for d in reasons[:4])
        most = c.faulty[0] > 0.5 * ledger.read
        yield Finding(
            "rows-dropped",
            "warning",
            c.faulty[0],
            f"{counted(c.faulty[0], 'row')} of {ledger.read:,} cannot be used and {_are(c.faulty[0])} left out.",
            f"{why}.",
            c.faulty[1],
            (Action("map", "Say which column is what"), _LOOK) if most else (_LOOK,),
        )
    if 0 < ledger.format_confidence < 0.6 and c.recipe.dataset.format == "auto":
        yield Finding(
            "format-unsure",
            "warning",
            ledger.read,
            f"The format is a guess: {one_line(ledger.format, 40)} ({_percent(ledger.format_confidence)} sure).",
            one_line(ledger.format_reason, 300),
            actions=(Action("map", "Say which column is what"), _LOOK),
        )


def _ends(c: Circumstances) -> Iterator[Finding]:
    ledger = c.ledger
    if c.unended[0] and ledger.ends_trained:
        yield Finding(
            "end-not-learned",
            "warning",
            c.unended[0],
            f"{counted(c.unended[0], 'row')} {_do(c.unended[0])} not teach the model to stop.",
            "They end with something else than an answer, or their end-of-text token is not learned.",
            c.unended[1],
            (_LOOK,),
        )
    if c.other_end[0]:
        yield Finding(
            "end-unknown",
            "warning",
            c.other_end[0],
            "The chat template ends its turns with a token at which this model does not stop.",
            "The tuned model may write on after its answer: its settings name another end-of-text token.",
            c.other_end[1],
            (Action("change-model", "Choose the instruct version of this model"), _LOOK),
        )
    if c.double_bos[0]:
        yield Finding(
            "double-bos",
            "note",
            c.double_bos[0],
            "The chat template writes the beginning-of-text token twice; one is taken out.",
            "Programs that use the finished model may not do the same: check the first tokens of a prompt there.",
            c.double_bos[1],
        )
    if c.folded[0]:
        yield Finding(
            "system-folded",
            "note",
            c.folded[0],
            "This model's chat template has no system turn: system prompts go to the head of the first question.",
            "Do the same when you use the finished model.",
            c.folded[1],
            (Action("drop", "Train without system prompts", (("dataset.system_mode", "none"),)), _LOOK),
        )
    for code, marked, noun, it in (
        ("tools-hidden", c.tools_hidden, "tool definitions", "them"),
        ("reasoning-hidden", c.reasoning_hidden, "the reasoning before an answer", "it"),
    ):
        if marked[0]:
            yield Finding(
                code,
                "warning",
                marked[0],
                f"This model's chat template does not write {noun}: the model never sees {it}.",
                f"{counted(marked[0], 'row')} {'has' if marked[0] == 1 else 'have'} {it}.",
                marked[1],
                (Action("change-model", "Choose a model whose template does"), _LOOK),
            )


def _rows(c: Circumstances) -> Iterator[Finding]:
    ledger, dataset = c.ledger, c.recipe.dataset
    if c.duplicates[0] and not dataset.deduplicate:
        yield Finding(
            "duplicates",
            _more_than(c.duplicates[0], ledger.kept, 0.01),
            c.duplicates[0],
            f"{counted(c.duplicates[0], 'row')} {'says' if c.duplicates[0] == 1 else 'say'} exactly what an earlier one says.",
            "A row that stands ten times is learned ten times as hard.",
            c.duplicates[1],
            (
                Action("deduplicate", "Leave out copies", (("dataset.deduplicate", True),)),
                Action("clean-copy", "Write a copy without them", codes=("duplicates",)),
            ),
        )
    if c.leaked[0]:
        own = dataset.evaluation_source or dataset.evaluation_split
        share: tuple[Action, ...] = ()
        if own:
            share = (
                Action(
                    "drop",
                    "Hold out a share of the rows instead",
                    (("dataset.evaluation_source", None), ("dataset.evaluation_split", None)),
                ),
            )
        yield Finding(
            "leaked",
            "warning",
            c.leaked[0],
            f"{counted(c.leaked[0], 'row')} held out for evaluation {'asks' if c.leaked[0] == 1 else 'ask'} what is also trained on.",
            "Their loss then shows what was memorised, not what was learned.",
            c.leaked[1],
            (*share, _LOOK),
        )
    if c.markers[0]:
        yield Finding(
            "markers",
            "warning",
            c.markers[0],
            f"{counted(c.markers[0], 'row')} {'has' if c.markers[0] == 1 else 'have'} the model's own control tokens in the text.",
            "They look as if a turn began or ended there. Often the rows were rendered with a chat template before.",
            c.markers[1],
            (_LOOK, Action("clean-copy", "Write a copy without them", codes=("markers",))),
        )
    if c.rejected[0]:
        yield Finding(
            "preference",
            "note",
            c.rejected[0],
            f"{counted(c.rejected[0], 'row')} {'is a preference pair' if c.rejected[0] == 1 else 'are preference pairs'}: "
            "the chosen answer is learned.",
            "The rejected answer is kept with the row and not trained on.",
        )
    if ledger.complete and 0 < ledger.trained_share < 0.02:
        yield Finding(
            "little-learned",
            "note",
            ledger.train_rows,
            f"Only {_percent(ledger.trained_share)} of the tokens are learned; the rest is read as what is given.",
            "That is right where answers are short. Otherwise look at what is masked.",
            actions=(_LOOK,),
        )


def _private(c: Circumstances) -> Iterator[Finding]:
    for code, marked, severity in (
        ("secrets", c.secret, "warning"),
        ("personal-data", c.personal, "note"),
    ):
        if not marked[0]:
            continue
        kinds = ", ".join(f"{s.kind} ({s.count:,})" for s in c.ledger.secrets if s.severity == severity)
        yield Finding(
            code,
            "warning" if severity == "warning" else "note",
            marked[0],
            f"{counted(marked[0], 'row')} {'seems' if marked[0] == 1 else 'seem'} to hold "
            + ("keys or login tokens." if code == "secrets" else "personal data."),
            f"Found by their form: {kinds}. A model can repeat word for word what it was trained on.",
            marked[1],
            (Action("clean-copy", "Write a copy without them", codes=(code,)), _LOOK),
        )


def _stop(code: str, count: int, sentence: str, why: str, *actions: Action) -> Finding:
    return Finding(code, "stop", count, sentence, why, actions=actions)


def _raise(c: Circumstances) -> tuple[Action, ...]:
    """Sequence lengths that would help: for 99 of 100 rows, and for all where that is not much more."""
    q, limit = c.ledger.quantiles, c.ledger.max_length
    wanted = [length for length in dict.fromkeys((_rounded(q.p99), _rounded(q.most))) if limit < length]
    if len(wanted) == 2 and wanted[1] > 4 * wanted[0]:
        wanted = wanted[:1]
    return tuple(
        Action("raise-length", f"Raise the sequence length to {length:,}", (("model.max_length", length),))
        for length in wanted
        if length <= _LONGEST
    )


def _rounded(length: int) -> int:
    """The next multiple of 64."""
    return -(-length // 64) * 64


def _more_than(count: int, of: int, share: float) -> Severity:
    return "warning" if count > share * of else "note"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _do(count: int) -> str:
    return "does" if count == 1 else "do"


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"
