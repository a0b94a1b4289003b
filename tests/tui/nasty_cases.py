"""The truth about each nasty file, in words and in figures, as the command and the wizard must tell it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tui import nasty, nasty_rows

MAX_LENGTH = 256

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
        nasty_rows.preference_pairs,
        "preference pairs, one without a chosen answer",
        "preference",
        kept=29,
        dropped={"empty answer": (8,)},
        findings=("rows-dropped", "preference"),
        says=("chosen answer is learned",),
        rows=("good 0<|im_end|>",),
    ),
    Case(
        nasty_rows.wrong_order,
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
        nasty_rows.tools_and_reasoning,
        "tools and reasoning, and a template that writes neither: nothing would be learned of them",
        kept=0,
        dropped={"the chat template hides its tool call": TEN},
        findings=("nothing-trained", "rows-dropped", "tools-hidden", "reasoning-hidden"),
        gate="nothing-trained",
        says=("does not write tool definitions", "whose template writes tools"),
    ),
    Case(
        nasty_rows.tools_and_reasoning,
        "the same for a model that knows them",
        says=("tools kept",),
        rows=("<tool_call>", "<think>the clock says 0</think>"),
        look="<tool_call>",
        model="tools",
        max_length=1024,
    ),
    Case(
        nasty_rows.empty_answers,
        "three answers are empty or blank",
        kept=27,
        dropped={"empty answer": (5, 10, 22)},
        findings=("rows-dropped",),
    ),
    Case(
        nasty_rows.only_empty_answers,
        "no answer at all",
        PAIRS,
        kept=0,
        dropped={"empty answer": tuple(range(2, 12))},
        findings=("no-usable-rows", "rows-dropped"),
        gate="no-usable-rows",
    ),
    Case(
        nasty_rows.all_beyond_the_limit,
        "every answer lies past the maximum length",
        kept=0,
        dropped={"its answer is cut off": TEN},
        findings=("everything-cut", "cut"),
        gate="everything-cut",
        says=("51 % of all tokens lie past the cut", "Raise the sequence length to 576"),
    ),
    Case(
        nasty_rows.copies,
        "ten rows four times",
        read=40,
        kept=40,
        findings=("duplicates",),
        says=("30 rows say exactly what an earlier one says",),
    ),
    Case(
        nasty_rows.copies,
        "the held-out file asks what is trained on",
        read=43,
        kept=43,
        findings=("duplicates", "leaked"),
        says=("held out for evaluation ask what is also trained on",),
        changes=nasty_rows.leaking,
        model="held",
    ),
    Case(
        nasty_rows.secrets,
        "two keys and an address, counted and never printed",
        findings=("secrets", "personal-data"),
        says=("2 rows seem to hold keys", "1 row seems to hold personal data"),
    ),
    Case(
        nasty_rows.control_tokens,
        "rendered before: the model's own tokens stand in the text",
        findings=("markers",),
        says=("control tokens in the text",),
    ),
    Case(
        nasty_rows.prose,
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
        changes=nasty_rows.mixed_by_half,
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
