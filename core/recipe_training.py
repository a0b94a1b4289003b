"""The training section of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from .recipe_declare import Section, Text, declare, without_repeats

Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "inverse_sqrt"
]
Optimizer = Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "lion_8bit", "adafactor"]
MOST_ACCUMULATED = 1024 * 1024
"""Batches behind one step: where memory runs out, 1,024 batches of 1,024 rows become batches of one row each."""

Prompt = Annotated[Text, Field(min_length=1, max_length=4000)]


class TrainingSection(Section):
    """How the adapter learns: how long, how fast, how many rows at once."""

    epochs: float = declare(
        1.0,
        "Epochs",
        "how many times all rows are seen",
        "One epoch shows each row once. One to three is usual; more begins to memorise. With very few rows a few more "
        "do no harm as long as the held-out loss falls.",
        unit="× the rows",
        gt=0.0,
        le=1000.0,
    )
    max_steps: int | None = declare(
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
    batch_size: int = declare(
        8,
        "Batch size",
        "rows worked on at once; memory grows with it",
        "How many rows go through the model side by side. On a GPU a larger batch is faster until memory is full. "
        "What matters for learning is batch size × accumulation, the effective batch.",
        unit="rows",
        ge=1,
        le=1024,
    )
    gradient_accumulation_steps: int = declare(
        1,
        "Accumulation",
        "batches added up before one step; costs time, not memory",
        "Makes a small batch learn like a large one: 2 × 8 updates like 16 × 1 in an eighth of the memory. An effective "
        "batch of 8 to 32 rows is a good range.",
        unit="batches",
        ge=1,
        le=MOST_ACCUMULATED,
    )
    learning_rate: float = declare(
        2e-4,
        "Learning rate",
        "the size of a step; 2e-4 for LoRA, up to 1e-3 for very small models",
        "Too high: the loss jumps or becomes NaN. Too low: it hardly falls. LoRA wants about ten times the rate of full "
        "fine-tuning: 2e-4 is a good start, 1e-3 for a model as small as the demo's.",
        gt=0.0,
        le=0.1,
    )
    embedding_learning_rate: float | None = declare(
        None,
        "Table rate",
        "the learning rate of the embeddings and the output layer; empty takes the rate above",
        "Only where Also trained names one of them. Whole tables want smaller steps than an adapter: a half to a tenth of "
        "its rate.",
        advanced=True,
        gt=0.0,
        le=0.1,
    )
    schedule: Schedule = declare(
        "linear",
        "Schedule",
        "how the learning rate falls over the run",
        "linear and cosine fall to zero, so the last steps settle. cosine_with_restarts does so several times and starts "
        "high again. constant keeps the rate from the first step on, constant_with_warmup after a warm-up; use them when "
        "you mean to train on later. inverse_sqrt falls ever more slowly and never ends.",
        advanced=True,
    )
    schedule_cycles: int = declare(
        2,
        "Restarts",
        "how many times cosine_with_restarts falls to zero; other schedules take no notice",
        "Each fall is a chance to settle, each start one to leave a poor spot. Two or three are plenty.",
        unit="falls",
        advanced=True,
        ge=1,
        le=100,
    )
    warmup_share: float = declare(
        0.05,
        "Warm-up",
        "the share of steps over which the rate rises from zero",
        "The first steps are the wildest. Letting the rate rise over 5–10 % of the run keeps them from doing harm.",
        advanced=True,
        ge=0.0,
        le=0.5,
    )
    warmup_steps: int | None = declare(
        None,
        "Warm-up steps",
        "the warm-up in steps, in place of a share; empty takes the share",
        "Where you know how many steps the rate should take to rise. 0 starts at the full rate.",
        unit="steps",
        advanced=True,
        ge=0,
        le=1_000_000,
    )
    max_grad_norm: float = declare(
        1.0,
        "Gradient limit",
        "gradients longer than this are shortened to it; 0 sets no limit",
        "One strange row can pull very hard. The limit (gradient clipping, max_grad_norm) keeps such a step from doing "
        "harm. 1 is customary; 0.3 where the loss jumps.",
        advanced=True,
        ge=0.0,
        le=1000.0,
    )
    weight_decay: float = declare(
        0.01,
        "Weight decay",
        "a gentle pull of the adapter's weights towards zero",
        "A mild brake against memorising. 0.01 is customary; it rarely decides anything.",
        advanced=True,
        ge=0.0,
        le=1.0,
    )
    optimizer: Optimizer = declare(
        "adamw_torch",
        "Optimizer",
        "adamw_torch; the 8-bit forms hold a quarter of its memory (GPU only); adafactor almost none",
        "They learn alike. adamw_8bit holds its state in a quarter of the memory, paged_adamw_8bit moves it to the host "
        "when the GPU is short, lion_8bit holds half of that again and wants a third of the learning rate. adafactor "
        "keeps next to nothing and runs anywhere.\n"
        "With LoRA the adapter is small, so this saves little unless the rank is high; with full fine-tuning it decides.",
        advanced=True,
    )
    neftune_noise_alpha: float | None = declare(
        None,
        "NEFTune",
        "noise on the embeddings while training, such as 5; empty adds none",
        "A little noise on the input keeps the model from learning small sets by heart and can make answers fuller "
        "(NEFTune, arXiv 2310.05914). 5 is customary, 15 is much.",
        advanced=True,
        gt=0.0,
        le=100.0,
    )
    packing: bool = declare(
        False,
        "Packing",
        "put several short rows into one sequence (needs a GPU)",
        "Short rows waste most of a batch on padding. Packing fills the sequence length with several rows, which can be "
        "several times faster. Unsloth packs only on a GPU.",
        advanced=True,
    )
    evaluate_every_steps: int = declare(
        20,
        "Evaluate every",
        "steps between two looks at the held-out rows; 0 looks only at the end",
        "Each look costs the time of a pass over the held-out rows. Ten looks in a run draw a good curve.",
        unit="steps",
        advanced=True,
        ge=0,
        le=1_000_000,
    )
    evaluation_batch_size: int | None = declare(
        None,
        "Held-out batch",
        "held-out rows worked on at once; empty takes the batch size",
        "Evaluation keeps no gradients, so twice the batch size usually fits and is faster.",
        unit="rows",
        advanced=True,
        ge=1,
        le=1024,
    )
    early_stopping_patience: int | None = declare(
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
    keep_best: bool = declare(
        True,
        "Keep best",
        "end with the weights of the lowest held-out loss where the last ones are clearly worse",
        "An evaluation with a new low is saved as a checkpoint; with full fine-tuning, whose checkpoints are large, and with "
        "Checkpoint every 0 only one that is due anyway is kept. A run whose held-out loss has risen since by more than noise ends with the best of them: it is "
        "scored, answers, is exported and talks with those weights. Resumed or trained longer it goes on from the last ones. "
        "Without held-out rows or evaluations on the way it does nothing.",
        advanced=True,
    )
    save_every_steps: int = declare(
        50,
        "Checkpoint every",
        "steps between checkpoints; 0 saves only at a stop and at the end",
        "A checkpoint is what a run goes on from after a crash: at most this many steps are lost.",
        unit="steps",
        advanced=True,
        ge=0,
        le=1_000_000,
    )
    checkpoints_kept: int = declare(
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
    sample_count: int = declare(
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
    sample_prompts: Annotated[tuple[Prompt, ...], AfterValidator(without_repeats)] = declare(
        (),
        "Own prompts",
        "questions of your own that it answers at each evaluation, before the held-out ones",
        "Ask what you will really ask, also what it should not have changed: “What is 2 + 2?”. Several are parted by a "
        "semicolon; put one that holds a semicolon in quotes.",
        advanced=True,
        max_length=20,
        strict=False,
    )
    on_out_of_memory: Literal["smaller", "skip", "stop"] = declare(
        "smaller",
        "Out of memory",
        "what happens when memory runs out in the run: smaller steps, skip what cannot fit, or stop",
        "smaller: the step is done again with half the rows at once and the same effective batch, then with checkpointing; "
        "nothing is lost and the same is learned. skip: the same, and rows that do not fit even one by one are left out of "
        "their step. stop: the run ends at once; its last checkpoint is kept.",
        advanced=True,
    )
    seed: int = declare(
        3407,
        "Seed",
        "where the run's random numbers start; the same seed repeats the run",
        "Shuffling, the held-out split and the adapter's first weights follow from it.",
        advanced=True,
        ge=0,
        le=2**31 - 1,
    )
