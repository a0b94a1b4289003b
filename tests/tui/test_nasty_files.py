"""Files made by hand to be nasty, each opened by the command and in the wizard: both must tell the truth of the table.

A case is a file, the truth about it in words, and that truth as figures. The ledger is told with its counts, the lines of the
rows left out, its worst finding and whether the gate is open; a file that cannot be read is told with the card.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from finetui.core.draft import pairs_text
from finetui.core.recipe import Recipe
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.card import ErrorCard
from finetui.tui.screens.dataset import DatasetScreen
from finetui.tui.screens.ledger import LedgerScreen
from finetui.tui.screens.rows import RowsScreen
from tests.tui import nasty
from tests.tui.driving import at_step, press, seen, type_over, until, wizard
from tests.worker import tiny

MAX_LENGTH = 256
GROUPS = 4
"""A wizard is started once for every fourth file."""

TOOL_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Case:
    """One file and the truth about it."""

    build: nasty.Builder
    truth: str
    format: str = "messages"
    read: int = 30
    kept: int = 30
    dropped: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Each reason (or its beginning) with its lines, at most the first ten."""
    findings: tuple[str, ...] = ()
    """All codes, the worst first."""
    gate: str = ""
    """The code of the finding that shuts it."""
    says: tuple[str, ...] = ()
    """What the command and the screens say in words."""
    rows: tuple[str, ...] = ()
    """What stands in the first rows as the model sees them."""
    look: str = ""
    """What the rows screen shows, where it is opened as well."""
    card: str = ""
    """The code of the card where the file cannot be read; `says` is then of the card."""
    changes: Callable[[Path], dict[str, Any]] = lambda folder: {}
    """Fields of the dataset besides its source, in the folder of the file."""
    model: str = "plain"
    max_length: int = MAX_LENGTH

    @property
    def name(self) -> str:
        return self.build.__name__ + ("" if self.model == "plain" else f"_{self.model}")


def refused(build: nasty.Builder, code: str, truth: str, *says: str) -> Case:
    return Case(build, truth, card=f"dataset-{code}", says=says)


TEN = tuple(range(1, 11))
PAIRS = "prompt_completion"
CASES = (
    Case(
        nasty.utf16_with_crlf,
        "UTF-16 with a mark and CRLF: 30 good rows",
        rows=("question 0", "answer 0<|im_end|>"),
    ),
    Case(
        nasty.utf16_without_mark,
        "UTF-16 without a mark, known by its zeros",
        PAIRS,
        says=("coded as UTF-16",),
        rows=("wie 0?",),
    ),
    Case(
        nasty.spreadsheet_csv,
        "a spreadsheet's CSV: semicolons, a mark, line breaks and doubled quotes inside cells",
        PAIRS,
        says=("cells divided by semicolons", "frage and antwort"),
        rows=('Das "0", was sonst', "0;0?"),
    ),
    Case(
        nasty.windows_csv,
        "Windows-1252, accents and the euro sign whole",
        PAIRS,
        says=("Windows-1252",),
        rows=("où est le café 0?", "là-bas à droite – 0 €"),
    ),
    Case(
        nasty.japanese_tsv,
        "Shift-JIS by tabs",
        PAIRS,
        says=("Shift-JIS",),
        rows=("これは何ですか 0",),
        look="これは何ですか 0",
    ),
    Case(nasty.old_mac_csv, "a table whose lines end as on old Macs", PAIRS, rows=("how 0?",)),
    Case(nasty.old_mac_jsonl, "JSON Lines that end as on old Macs", rows=("question 0",)),
    Case(
        nasty.line_separators_in_text,
        "line separators in strings end no line; marks on every line are no text",
        rows=("d 0",),
    ),
    Case(
        nasty.headless_csv,
        "no header: the first line is a row; which column is what is a guess, and said to be one",
        PAIRS,
        findings=("format-unsure",),
        says=("no header: its first line is a row", "is a guess"),
        rows=("What is the capital of country 0, please?",),
    ),
    Case(
        nasty.bars_in_txt,
        "a table by bars under the name .txt, with an empty input",
        "alpaca",
        says=("cells divided by bars",),
        rows=("add 0 and one",),
    ),
    refused(
        nasty.unclosed_quote,
        "broken",
        "a quote opened on line 22 swallows the rest",
        "line 22",
        "never closed",
    ),
    Case(
        nasty.ragged_csv,
        "one row with too many cells, one without an answer",
        PAIRS,
        kept=28,
        dropped={"more cells than the header has columns": (6,), "empty answer": (10,)},
        findings=("rows-dropped",),
    ),
    refused(
        nasty.hostile_columns,
        "format",
        "three unknown columns, with escapes and markup in their names",
        "[@click=app.quit]y[/]",
        "zz",
    ),
    Case(
        nasty.nested_parquet,
        "Parquet with lists of structs and a null in row 7",
        "sharegpt",
        kept=29,
        dropped={"no messages": (7,)},
        findings=("rows-dropped",),
        rows=("q 0",),
    ),
    refused(nasty.cut_parquet, "broken", "Parquet without its end", "magic bytes not found", "cut off"),
    Case(
        nasty.arrow_stream,
        "an Arrow stream in batches, a null answer in row 5",
        PAIRS,
        kept=29,
        dropped={"empty answer": (5,)},
        findings=("rows-dropped",),
        rows=("write 0",),
    ),
    Case(nasty.not_parquet, "JSON Lines under the name .parquet", rows=("question 0",)),
    refused(
        nasty.workbook_named_csv,
        "broken",
        "a workbook under the name .csv",
        "Excel workbook",
        "save the sheet as CSV",
    ),
    refused(nasty.database_named_jsonl, "broken", "a database under the name .jsonl", "SQLite database"),
    Case(
        nasty.broken_line,
        "line 17 of 31 is cut off",
        read=31,
        dropped={"broken JSON": (17,)},
        findings=("rows-dropped",),
    ),
    Case(
        nasty.ten_megabyte_line,
        "line 4 has 11 MB",
        kept=29,
        dropped={"longer than 10 MB": (4,)},
        findings=("rows-dropped",),
    ),
    Case(
        nasty.deep_line,
        "line 5 is nested 200,000 deep",
        kept=29,
        dropped={"nested too deeply": (5,)},
        findings=("rows-dropped",),
    ),
    refused(nasty.deep_document, "broken", "one object, 200,000 deep", "nested too deeply"),
    refused(
        nasty.deep_in_a_list,
        "broken",
        "a list whose sixth element is 200,000 deep",
        "Element 6",
        "nested too deeply",
    ),
    Case(
        nasty.zeros_and_surrogates,
        "zeros and lone surrogates in text are mended; line 4 is nothing but zeros",
        kept=29,
        dropped={"nothing but zeros": (4,)},
        findings=("rows-dropped",),
    ),
    Case(
        nasty.escapes_everywhere,
        "escapes and markup in cells, keys, a role and the file's name: shown, not obeyed",
        kept=29,
        dropped={"unknown role": (3,)},
        findings=("rows-dropped",),
        rows=("[@click=app.quit]x[/] [bold]loud[/bold]",),
        look="[@click=app.quit]x[/] [bold]loud[/bold]",
    ),
    Case(
        nasty.numbers_only,
        "JSON, and no row in it",
        kept=0,
        dropped={"not a JSON object": TEN},
        findings=("no-usable-rows", "rows-dropped"),
        gate="no-usable-rows",
    ),
    Case(
        nasty.strange_numbers,
        "NaN and infinities are read; a key given twice counts as its last; 5,000 digits are refused",
        kept=28,
        dropped={"no messages": (1,), "broken JSON: a number with too many digits": (2,)},
        findings=("rows-dropped",),
    ),
    Case(nasty.pretty_splits, "one indented object of two splits: train is taken", rows=("question 0",)),
    refused(
        nasty.cut_list, "broken", "a list without its end", "element 28 of the list", "Unterminated string."
    ),
    refused(nasty.blank, "empty", "nothing but white space", "is empty", "white space"),
    Case(
        nasty.two_formats_in_one,
        "half messages, half instructions: one of them is taken, and the other half is counted as lost",
        "alpaca",
        read=40,
        kept=20,
        dropped={"no instruction column": tuple(range(2, 21, 2))},
        findings=("format-unsure", "rows-dropped", "few-rows"),
        says=("20 rows of 40 cannot be used",),
    ),
    Case(nasty.zstandard, "zstd", rows=("question 0",)),
    Case(nasty.gzip_without_its_name, "gzip under the name .csv", PAIRS, rows=("how 0?",)),
    refused(nasty.gzip_cut_off, "broken", "gzip without its end", "cannot be unpacked to its end"),
    refused(nasty.gzip_bomb, "broken", "200 MB in 200 kB", "more than 300 times its size"),
    refused(nasty.gzip_in_gzip, "broken", "packed twice", "packed twice"),
    Case(
        nasty.preference_pairs,
        "preference pairs, one without a chosen answer",
        "preference",
        kept=29,
        dropped={"empty answer": (8,)},
        findings=("rows-dropped", "preference"),
        says=("chosen answer is learned",),
        rows=("good 0<|im_end|>",),
    ),
    Case(
        nasty.wrong_order,
        "ShareGPT: an answer first, no answer, an unknown role, no turn; a late system turn is fine",
        "sharegpt",
        kept=25,
        dropped={
            "starts with an answer": (2, 4),
            "no assistant turn": (3,),
            "unknown role alien": (6,),
            "no messages": (7,),
        },
        findings=("rows-dropped",),
    ),
    Case(
        nasty.tools_and_reasoning,
        "tools and reasoning, and a template that writes neither: nothing would be learned of them",
        kept=0,
        dropped={"the chat template hides its tool call": TEN},
        findings=("nothing-trained", "rows-dropped", "tools-hidden", "reasoning-hidden"),
        gate="nothing-trained",
        says=("does not write tool definitions", "whose template writes tools"),
    ),
    Case(
        nasty.tools_and_reasoning,
        "the same for a model that knows them",
        says=("tools kept",),
        rows=("<tool_call>", "<think>the clock says 0</think>"),
        look="<tool_call>",
        model="tools",
        max_length=1024,
    ),
    Case(
        nasty.empty_answers,
        "three answers are empty or blank",
        kept=27,
        dropped={"empty answer": (5, 10, 22)},
        findings=("rows-dropped",),
    ),
    Case(
        nasty.only_empty_answers,
        "no answer at all",
        PAIRS,
        kept=0,
        dropped={"empty answer": tuple(range(2, 12))},
        findings=("no-usable-rows", "rows-dropped"),
        gate="no-usable-rows",
    ),
    Case(
        nasty.all_beyond_the_limit,
        "every answer lies past the maximum length",
        kept=0,
        dropped={"its answer is cut off": TEN},
        findings=("everything-cut", "cut"),
        gate="everything-cut",
        says=("51 % of all tokens lie past the cut", "Raise the sequence length to 576"),
    ),
    Case(
        nasty.copies,
        "ten rows four times",
        read=40,
        kept=40,
        findings=("duplicates",),
        says=("30 rows say exactly what an earlier one says",),
    ),
    Case(
        nasty.copies,
        "the held-out file asks what is trained on",
        read=43,
        kept=43,
        findings=("duplicates", "leaked"),
        says=("held out for evaluation ask what is also trained on",),
        changes=nasty.leaking,
        model="held",
    ),
    Case(
        nasty.secrets,
        "two keys and an address, counted and never printed",
        findings=("secrets", "personal-data"),
        says=("2 rows seem to hold keys", "1 row seems to hold personal data"),
    ),
    Case(
        nasty.control_tokens,
        "rendered before: the model's own tokens stand in the text",
        findings=("markers",),
        says=("control tokens in the text",),
    ),
    Case(
        nasty.prose,
        "a novel with commas is no table; most of it lies past the maximum length",
        "text",
        read=2,
        kept=2,
        findings=("cut", "few-rows"),
        says=("plain writing", "84 % of all tokens lie past the cut."),
        rows=("Chapter 0.",),
    ),
    refused(
        nasty.lfs_pointer,
        "broken",
        "a Git LFS pointer is not three lines of prose",
        "Git LFS pointer",
        "git lfs pull",
    ),
    refused(nasty.web_page, "broken", "a sign-in page under the name .csv", "web page", "logged in"),
    refused(nasty.picture_named_txt, "broken", "a picture under the name .txt", "binary, not text"),
    refused(nasty.only_zeros, "empty", "200 kB of zeros", "is empty", "zeros"),
    Case(
        nasty.mixed_folder,
        "a folder named like a file: three files in three forms; a test split, notes, an empty file, a loop and a pipe left out",
        says=(
            "3 files: a.jsonl, b.csv, c.tsv.gz",
            "empty.jsonl (empty)",
            "pipe.jsonl (no ordinary file)",
            "b.csv as prompt_completion",
        ),
    ),
    Case(
        nasty.utf16_with_crlf,
        "two sources mixed, of the other about every second row",
        read=50,
        kept=39,
        dropped={"left out by its source's weight": ()},
        changes=nasty.mixed_by_half,
        model="mix",
    ),
    refused(
        nasty.empty_folder, "missing", "an empty folder named like a file", "folder without files of rows"
    ),
    refused(
        nasty.symlink_loop, "missing", "two links to each other", "link that leads to no file", "two.jsonl"
    ),
    refused(nasty.pipe, "missing", "a pipe would wait for ever", "not an ordinary file", "It is a pipe"),
    refused(nasty.device, "missing", "zeros without end", "not an ordinary file", "It is a device"),
    refused(nasty.name_of_three_hundred, "missing", "no system has such a name", "File name too long"),
)
BY_NAME = {case.name: case for case in CASES}
assert len(BY_NAME) == len(CASES)

_HOSTILE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def squeezed(text: str) -> str:
    """Without any white space: a line may be broken anywhere."""
    return re.sub(r"[\s│┃▌▐✗]", "", text)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    plain = tiny.make(tmp_path_factory.mktemp("plain"))
    tools = tiny.make(tmp_path_factory.mktemp("tools"), TOOL_TEMPLATE)
    return {"plain": plain, "tools": tools, "held": plain, "mix": plain}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every file, made once."""
    made: dict[str, Path] = {}
    for case in CASES:
        made[case.name] = case.build(tmp_path_factory.mktemp(case.name[:20]))
    return made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    yield tmp_path


def run_command(case: Case, path: Path, model: Path) -> tuple[int, str]:
    """The exit code and the output of `finetui inspect --json`. It is killed, with all that it started, when it hangs."""
    settings = {
        "model.max_length": case.max_length,
        **{f"dataset.{k}": v for k, v in case.changes(path.parent).items()},
    }
    given = [
        part
        for k, v in settings.items()
        for part in ("--set", f"{k}={pairs_text(v) if isinstance(v, dict) else v}")
    ]
    command = [
        sys.executable,
        "-m",
        "finetui.tui",
        "inspect",
        str(path),
        "--model",
        str(model),
        "--json",
        "--rows",
        "3",
        *given,
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in out + errors and not _HOSTILE.search(errors), errors
    assert out.isascii() and not _HOSTILE.search(out)
    return process.returncode, out


@pytest.fixture(scope="module")
def answers(places: dict[str, Path], models: dict[str, Path]) -> Iterator[dict[str, Future[tuple[int, str]]]]:
    """What the command says of every file; two of them run at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            case.name: pool.submit(run_command, case, places[case.name], models[case.model]) for case in CASES
        }


@pytest.mark.parametrize("name", BY_NAME)
def test_the_command_tells_the_truth(name: str, answers: dict[str, Future[tuple[int, str]]]) -> None:
    case = BY_NAME[name]
    code, out = answers[name].result()
    told = json.loads(out)
    if case.card:
        assert told["error"]["code"] == case.card, told
        assert code == (4 if case.card == "dataset-missing" else 9)
        said = " ".join(str(told["error"][part]) for part in ("what", "why", "fix"))
        assert told["error"]["what"] and told["error"]["why"] and told["error"]["fix"], case.truth
        assert not [words for words in case.says if words not in said], said
        return
    ledger = told["ledger"]
    assert told["format"]["name"] == case.format, told["format"]
    assert (ledger["read"], ledger["kept"], ledger["dropped_rows"]) == (
        case.read,
        case.kept,
        case.read - case.kept,
    ), case.truth
    assert ledger["kept"] == ledger["train_rows"] + ledger["evaluation_rows"]
    assert len(ledger["dropped"]) == len(case.dropped), ledger["dropped"]
    for entry in ledger["dropped"]:
        lines = [at for reason, at in case.dropped.items() if entry["reason"].startswith(reason)]
        assert lines and (not lines[0] or tuple(entry["lines"]) == lines[0]), entry
    assert tuple(found["code"] for found in told["findings"]) == case.findings, case.truth
    worst = [found["severity"] for found in told["findings"]][:1]
    verdict = {"stop": ("unusable", 9), "warning": ("warnings", 8)}.get(
        worst[0] if worst else "", ("clean", 0)
    )
    assert (told["verdict"], code) == verdict and (verdict[1] == 9) == bool(case.gate)
    said = json.dumps([told["format"], told["findings"]], ensure_ascii=False)
    assert not [words for words in case.says if words not in said], said
    shown = "".join(span["text"] for row in told["rows"] for span in row["spans"])
    assert not [words for words in case.rows if words not in shown], shown
    assert "sk-" not in said and "hf_a" not in said and "jane" not in said


def recipe_of(case: Case, path: Path, model: Path) -> Recipe:
    plain = Recipe()
    return Recipe(
        model=plain.model.model_copy(update={"source": str(model), "max_length": case.max_length}),
        dataset=plain.dataset.model_copy(update={"source": str(path), **case.changes(path.parent)}),
    )


async def opened(app: FinetuiApp, pilot: Pilot[Any], case: Case, path: Path, model: Path) -> None:
    """The dataset step with `path`, once it knows all that it will ever know."""
    recipe = recipe_of(case, path, model)
    changed = bool(app.wizard.value("dataset.mix") or app.wizard.value("dataset.evaluation_source")) or (
        app.wizard.value("model.source") != str(model)
    )
    if getattr(app.screen, "step", "") == "dataset" and case.model == "plain" and not changed:
        screen = app.screen
        assert isinstance(screen, DatasetScreen)
        screen.query_one(f"#source-{screen.picker.kind} TextControl").focus()
        await pilot.pause()
        await type_over(pilot, str(path))
    else:
        app.go_home()
        await pilot.pause()
        app.begin(recipe, step="dataset")
        await at_step(app, pilot, "dataset")
    known = app.wizard
    await until(pilot, lambda: str(known.value("dataset.source")) == str(path), "for the choice")
    await until(
        pilot,
        lambda: (
            not known.dataset_busy
            and (known.dataset_error is not None or known.inspection.state in ("done", "failed"))
        ),
        "for the truth",
    )
    await pilot.pause()


async def check(app: FinetuiApp, pilot: Pilot[Any], case: Case) -> None:
    """What the dataset step, the ledger and the way on say of `case`."""
    error, inspection = app.wizard.dataset_error, app.wizard.inspection
    if error is not None or case.card:
        assert error is not None and error.code in (case.card, "dataset-format"), (error, inspection)
        await shows(app, pilot, error.what)
        if case.card:
            said = f"{error.what} {error.why} {error.fix}"
            assert error.why and error.fix and not [words for words in case.says if words not in said], said
        else:  # the look already finds that no row can be used; the command counts them all
            assert case.gate == "no-usable-rows" and all(reason in error.why for reason in case.dropped), (
                error
            )
        await stopped(app, pilot)
        return
    ledger, gate = inspection.complete, inspection.gate
    assert ledger is not None, inspection.error
    assert (ledger.format, ledger.read, ledger.kept) == (case.format, case.read, case.kept), case.truth
    assert tuple(found.code for found in ledger.findings) == case.findings, case.truth
    assert (gate.code if gate is not None else "") == (f"gate-{case.gate}" if case.gate else "")
    if ledger.train_rows or case.gate != "no-usable-rows":
        await shows(app, pilot, f"{ledger.train_rows:,} rows to learn from")
    worst = [found.sentence for found in ledger.findings if found.severity != "note"]
    await shows(app, pilot, worst[0][:40] if worst else "Nothing to mend")
    if case.gate or len(worst) > 1 or case.look:
        await press(pilot, "f4")
        await until(pilot, lambda: isinstance(app.screen, LedgerScreen), "for the ledger")
        left_out = case.read - case.kept
        await shows(
            app, pilot, f"{case.read:,} rows read = {case.kept:,} kept + {left_out:,} dropped", *worst[:1]
        )
        await press(pilot, "escape")
        await at_step(app, pilot, "dataset")
    if case.look:
        await press(pilot, "f3")
        await until(pilot, lambda: isinstance(app.screen, RowsScreen), "for the rows")
        await shows(app, pilot, case.look)
        await press(pilot, "escape")
        await at_step(app, pilot, "dataset")
    if gate is not None:
        await stopped(app, pilot)
    else:
        assert app.wizard.trouble("dataset") is None


def clean(app: FinetuiApp) -> None:
    assert not _HOSTILE.search(seen(app)) and "Traceback" not in seen(app), seen(app)


async def shows(app: FinetuiApp, pilot: Pilot[Any], *words: str) -> None:
    """Waits for `words` on the screen, wherever its lines are broken; nothing hostile stands there."""
    for text in words:
        await until(pilot, lambda text=text: squeezed(text)[:60] in squeezed(seen(app)), f"for {text}")
    clean(app)


async def stopped(app: FinetuiApp, pilot: Pilot[Any]) -> None:
    """The way on is shut, with a card that says why."""
    await press(pilot, "ctrl+n")
    await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
    clean(app)
    await press(pilot, "escape")
    await at_step(app, pilot, "dataset")


@pytest.mark.parametrize("group", range(GROUPS))
async def test_the_screen_tells_the_truth(
    group: int, places: dict[str, Path], models: dict[str, Path]
) -> None:
    async with wizard((80, 24)) as (app, pilot):
        for case in CASES[group::GROUPS]:
            await opened(app, pilot, case, places[case.name], models[case.model])
            try:
                await check(app, pilot, case)
            except AssertionError as error:
                raise AssertionError(f"{case.name}: {case.truth}\n{error}\n{seen(app)}") from error


async def test_files_that_change_while_they_are_read(home: Path, models: dict[str, Path]) -> None:
    """One grows, one is cut short, one vanishes in the middle, one between the look and the reading. The account adds up for
    each, or a card says what happened; what was read can be looked at."""
    rows = "".join(json.dumps(nasty.chat(f"question {n}", f"answer {n}")) + "\n" for n in range(30_000))
    async with wizard((80, 24)) as (app, pilot):
        for change in ("grows", "is cut", "vanishes", "is gone"):
            path = home / f"{change}.jsonl"
            path.write_text(rows)
            case = Case(nasty.blank, change)
            app.go_home()
            await pilot.pause()
            app.begin(recipe_of(case, path, models["plain"]), step="dataset")
            await at_step(app, pilot, "dataset")
            state = ("waiting", "reading", "done") if change == "is gone" else ("reading", "done")
            await until(
                pilot, lambda state=state: app.wizard.inspection.state in state, f"for a file that {change}"
            )
            if change == "grows":
                with path.open("a") as more:
                    more.write(rows[:100_000])
            elif change == "is cut":
                os.truncate(path, 200_000)
            else:
                path.unlink()
            await until(pilot, lambda: app.wizard.inspection.state in ("done", "failed"), "for the end")
            inspection = app.wizard.inspection
            if inspection.error is not None:
                assert change == "is gone" and inspection.error.code == "dataset-missing", inspection.error
                await shows(app, pilot, inspection.error.what)
                continue
            ledger = inspection.complete
            assert ledger is not None and ledger.read == ledger.kept + ledger.dropped_rows
            assert ledger.read <= 30_000 or change == "grows"
            assert ledger.dropped_rows <= 1  # the row at which it was cut
            await press(pilot, "f3")
            await until(pilot, lambda: isinstance(app.screen, RowsScreen), "for the rows")
            await shows(app, pilot, "question 0")
            await press(pilot, "escape")
            await at_step(app, pilot, "dataset")
