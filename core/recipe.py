"""The Recipe: every decision of one fine-tune, in one strict, versioned model.

A field is declared once, in its section's file (the export's here), with its unit, bounds, default, one-line help and
longer explanation. The screens, the command line's help, the JSON schema and the docs are generated from these
declarations, through `fields.py`.
Reading and writing the YAML stands in `recipe_file.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from .recipe_dataset import DatasetSection
from .recipe_declare import DEMO, Section, declare, printable, step_as_text, without_repeats
from .recipe_lora import TARGET_MODULES, LoraSection, TargetModule
from .recipe_model import ModelSection
from .recipe_training import TrainingSection

__all__ = (
    "DEMO",
    "DatasetSection",
    "ExportFormat",
    "ExportSection",
    "LoraSection",
    "ModelSection",
    "Recipe",
    "SECTIONS",
    "STEPS",
    "TARGET_MODULES",
    "TargetModule",
    "TrainingSection",
    "VERSION",
)

VERSION = 1
"""The newest recipe version that this finetui reads and writes."""

STEPS = ("model", "dataset", "lora", "training", "export")
"""The five steps, in order; each is a section of the recipe, a screen, and a module in each layer."""

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
    "adapter_gguf",
    "merged_4bit",
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
    "gguf_iq3_xs",
    "gguf_iq3_xxs",
    "gguf_q2_k_s",
    "gguf_iq2_m",
    "gguf_iq2_s",
    "gguf_iq2_xs",
    "gguf_iq2_xxs",
    "gguf_iq1_m",
    "gguf_iq1_s",
]


class ExportSection(Section):
    """In which form the result leaves."""

    formats: Annotated[tuple[ExportFormat, ...], AfterValidator(without_repeats)] = declare(
        ("adapter",),
        "Formats",
        "what is written when training ends; more can be exported later",
        "adapter: only what was learned, small, used together with the base model. adapter_gguf: the same for llama-server, over "
        "a GGUF of the base. merged: a whole model in 16 bit, or merged_4bit in NF4, for Transformers and vLLM. GGUF: one file "
        "for llama.cpp, Ollama and LM Studio.\n"
        "F16 is exact, Q8_0 half of it and as good as exact. The K-quants are smaller still and need llama.cpp's tool, "
        "which finetui fetches once (21 MB).",
        min_length=1,
        strict=False,
    )
    checkpoint: Annotated[str, BeforeValidator(step_as_text)] = declare(
        "result",
        "Weights",
        "whose weights leave: result, last, best, or the step of a checkpoint",
        "result is what the run ended with: the lowest held-out loss where the last step's is clearly worse (Keep best on the "
        "training step), else the last step. "
        "best is the lowest held-out loss among the weights that are still there, last the highest step, and a number one "
        "checkpoint. Which step it came to is said, and an export is proved against the answers of the same weights.",
        advanced=True,
        form="result, last, best or the step of a checkpoint",
        pattern=r"^(result|last|best|[1-9][0-9]{0,8})$",
    )
    importance: bool = declare(
        False,
        "Importance",
        "let quantizations spare what the training data needs most",
        "llama.cpp reads some rows of the training data through the tuned model and notes which inputs of each weight are large: "
        "the quantization is then exact where that counts. From Q4_K_M up it changes little, below a good deal. It reads about "
        "32,000 tokens on the CPU, with the whole F16 model in memory: a minute for a small model, hours for a large one on few "
        "cores. IQ3_XS and what is smaller cannot be made without, and get one whether this is on or not.",
        advanced=True,
    )
    prove: bool = declare(
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
    name: Annotated[str, AfterValidator(printable)] = Field(
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
