"""The dataset section of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .recipe_declare import DEMO, Section, Text, declare

ColumnRole = Literal["user", "assistant", "system", "context", "messages", "text", "chosen", "rejected"]
Columns = dict[ColumnRole, Annotated[Text, Field(min_length=1, max_length=200)]]
Mix = dict[Annotated[Text, Field(min_length=1, max_length=1000)], Annotated[float, Field(gt=0.0, le=100.0)]]


class DatasetSection(Section):
    """What the model learns from."""

    source: Text = declare(
        DEMO,
        "Dataset",
        "demo, a file or a folder of files, or a hub dataset such as mlabonne/FineTome-100k",
        "Example conversations: what somebody says, and the answer that you want. The model picks up format, tone "
        "and skill from them; it does not become an encyclopedia.\n"
        "demo is a few hundred customer messages, each turned into one line of JSON. A hundred good rows are a start, "
        "a thousand are better, and a thousand careful rows beat fifty thousand careless ones.",
        min_length=1,
        max_length=1000,
    )
    config: Text | None = declare(
        None,
        "Configuration",
        "a hub dataset's configuration (subset), where it has several",
        "Some hub datasets hold several tables under one name. Name the one that you want.",
        advanced=True,
        max_length=200,
    )
    split: Text = declare(
        "train",
        "Split",
        "the part of a hub dataset to train on",
        "Hub datasets are cut into parts: train, validation, test. Local files are always read whole.",
        advanced=True,
        min_length=1,
        max_length=200,
    )
    format: Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference"] = (
        declare(
            "auto",
            "Format",
            "how rows are read; auto finds it from their contents",
            "messages: a list of role and content. sharegpt: conversations of from and value. alpaca: instruction, input, "
            "output. prompt_completion: a question and an answer, under any usual names. text: plain writing, learned whole. "
            "preference: a chosen and a rejected answer; the chosen one is learned.\n"
            "auto looks at the first rows and says what it found, and how sure it is.",
        )
    )
    columns: Columns | None = declare(
        None,
        "Columns",
        "which column is what, such as user = question; assistant = answer",
        "Where the columns have names that nobody could guess, say here which one holds what: user, assistant, system, "
        "context (put after the question), messages, text, chosen, rejected.",
        advanced=True,
        min_length=1,
    )
    mix: Mix | None = declare(
        None,
        "Mixed with",
        "further files or hub datasets with weights, such as faq.jsonl = 0.5; chat.csv = 2",
        "Rows of several sources, trained on together. A weight of 1 takes each row once, 0.5 takes half of the rows "
        "(chosen by the seed), 2 takes each row twice. The dataset itself has weight 1.",
        advanced=True,
        min_length=1,
    )
    system_mode: Literal["keep", "add", "replace", "none"] = declare(
        "keep",
        "System prompts",
        "keep the rows' own and fill in yours; add yours before; replace all; or none",
        "keep: a row's own system prompt stays, and the one below goes to rows that have none. add: yours is put before "
        "a row's own. replace: every row gets yours. none: no row has one.\n"
        "Whatever is trained here must be said again when you use the finished model.",
        advanced=True,
    )
    system_prompt: Text | None = declare(
        None,
        "System prompt",
        "an instruction put before each conversation that has none; empty adds nothing",
        "A sentence that sets the scene, such as “You answer in one line of JSON.” It is trained with every row that "
        "has no system message of its own, so give the finished model the same sentence when you use it.",
        max_length=8000,
    )
    train_on: Literal["answers", "last_answer", "everything"] = declare(
        "answers",
        "Train on",
        "answers: all that the assistant says; last_answer: only its last word; everything",
        "The loss is counted only on the tokens that are marked as learned. answers masks the questions, so that the "
        "model learns to answer and not to ask; it usually adds a little accuracy.\n"
        "last_answer learns only the end of each conversation, with the turns before it as given. everything also "
        "learns to write the questions.",
    )
    multi_turn: Literal["keep", "split"] = declare(
        "keep",
        "Long talks",
        "keep a conversation whole, or split it: one row per answer",
        "split makes a row of each answer, with all turns before it as what is given, and learns that answer alone. "
        "More rows, and later turns are seen again and again; use it where only the next answer counts.",
        advanced=True,
    )
    join_rows: int = declare(
        1,
        "Join rows",
        "single questions joined into one conversation of so many; 1 joins none",
        "Rows of one question and one answer teach nothing about talks that go on. Joining three makes a conversation "
        "of three questions, so that the model stays itself over several turns.",
        unit="rows",
        advanced=True,
        ge=1,
        le=20,
    )
    long_rows: Literal["cut", "drop"] = declare(
        "cut",
        "Too long",
        "rows longer than the sequence length: cut them there, or drop them",
        "A cut row loses the end of its last answer, and with it the token that says stop. Where many rows are too "
        "long, raise the sequence length; where a few are, drop them.",
        advanced=True,
    )
    deduplicate: bool = declare(
        False,
        "Drop copies",
        "leave out rows that say exactly what an earlier one says",
        "A row that stands ten times is learned ten times as hard. Sometimes that is meant; mostly it is an accident.",
        advanced=True,
    )
    shuffle: bool = declare(
        True,
        "Shuffle",
        "train on the rows in random order (by the seed), not as they stand",
        "Files are often sorted, and a model that sees all of one kind last remembers that kind best. Turn it off only "
        "where the order is the lesson. With a row limit, shuffled rows are a fair sample; unshuffled, the first ones.",
        advanced=True,
    )
    evaluation_share: float = declare(
        0.1,
        "Held-out share",
        "the share of rows kept aside to test on, from 0 to 0.5",
        "These rows are never trained on. Their loss tells whether the model learned the skill or merely memorised "
        "the rows: when it rises while the training loss falls, stop.\n"
        "Rows that ask the same stay on the same side, so nothing leaks. 0.1 is a good start; 0 turns evaluation off.",
        ge=0.0,
        le=0.5,
    )
    evaluation_split: Text | None = declare(
        None,
        "Held-out split",
        "a split of the same dataset to test on, such as validation, in place of a share",
        "Many hub datasets bring a part that was set aside for testing. Name it, and nothing is taken from the training "
        "rows.",
        advanced=True,
        max_length=200,
    )
    evaluation_source: Text | None = declare(
        None,
        "Held-out file",
        "a file of rows to test on, in place of a share of the rows",
        "If you already have a test set, name it here, and nothing is taken from the training rows. For the demo, "
        "demo names its 40 held-out messages.",
        advanced=True,
        max_length=1000,
    )
    row_limit: int | None = declare(
        None,
        "Row limit",
        "train on at most this many rows; empty takes all",
        "A short trial on a few hundred rows shows in minutes whether format and settings are right.",
        unit="rows",
        advanced=True,
        ge=1,
        le=1_000_000_000,
    )

    @property
    def holds_out(self) -> bool:
        """Whether any rows are kept aside to test on; a share of very few rows may still be none."""
        return bool(self.evaluation_share > 0 or self.evaluation_source or self.evaluation_split)
