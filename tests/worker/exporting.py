"""What the export tests share: a run with a trained-looking adapter, and answers from our side and llama.cpp's."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetui.core.recipe import DatasetSection, ExportSection, LoraSection, ModelSection, Recipe
from finetui.core.runs.store import RunFolder

CANARIES = (
    "apt",
    "apt-get",
    "sudo",
    "su",
    "git",
    "brew",
    "dnf",
    "yum",
    "curl",
    "wget",
    "cmake",
    "make",
    "ninja",
)

SYSTEM_PROMPT = "Answer in one word."


@dataclass(frozen=True)
class Tuned:
    """A finished run, as an export finds it."""

    run: RunFolder
    recipe: Recipe
    base: Path


def make_run(folder: Path, base: Path, name: str = "tiny", rslora: bool = False, seed: int = 7) -> Tuned:
    """A run folder whose adapter has random weights on both sides, so that it changes what the model says."""
    recipe = Recipe(
        name=name,
        model=ModelSection(source=str(base)),
        dataset=DatasetSection(system_prompt=SYSTEM_PROMPT),
        lora=LoraSection(rank=4, alpha=8, rslora=rslora),
        export=ExportSection(formats=("adapter",)),
    )
    run = RunFolder(folder)
    for path in (run.path, run.exports):
        path.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        use_rslora=rslora,
        target_modules=list(recipe.lora.target_modules),
        task_type="CAUSAL_LM",
    )
    tuned = get_peft_model(model, config)
    with torch.no_grad():
        for parameter_name, parameter in tuned.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(0, 0.1)
    tuned.save_pretrained(str(run.adapter))
    AutoTokenizer.from_pretrained(base).save_pretrained(str(run.adapter))
    return Tuned(run, recipe, base)


def prompt_ids(tuned: Tuned, question: str) -> list[int]:
    """The question as the model sees it, under the run's chat template."""
    tokenizer = AutoTokenizer.from_pretrained(tuned.run.adapter)
    messages = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]


def tuned_model(tuned: Tuned) -> PeftModel:
    base = AutoModelForCausalLM.from_pretrained(tuned.base, dtype=torch.float32)
    return PeftModel.from_pretrained(base, str(tuned.run.adapter)).eval()


def next_token_probabilities(tuned: Tuned, ids: list[int]) -> dict[int, float]:
    """For each token id, how probable the tuned model finds it after `ids`, by PEFT in 32 bit."""
    with torch.no_grad():
        logits = tuned_model(tuned)(torch.tensor([ids])).logits[0, -1]
    return dict(enumerate(torch.softmax(logits, -1).tolist()))


_ASK = """
import json, sys
import xllamacpp
parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.n_ctx = 256
parameters.n_parallel = 1
parameters.cpuparams.n_threads = 1
parameters.warmup = False
if sys.argv[3]:
    parameters.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(sys.argv[3], 1.0)]
server = xllamacpp.Server(parameters)
answer = server.handle_completions({
    "prompt": json.loads(sys.argv[2]), "n_predict": 8, "max_tokens": 8, "temperature": 0, "logprobs": 5, "n_probs": 5,
})
print("ANSWER" + json.dumps(answer))
"""


def llama_cpp_probabilities(file: Path, ids: list[int]) -> dict[int, float]:
    """The five likeliest tokens after `ids` and their probabilities, by llama.cpp in a process of its own."""
    return llama_cpp_answer(file, ids)[1]


def llama_cpp_answer(
    file: Path, ids: list[int], lora: Path | None = None
) -> tuple[list[int], dict[int, float]]:
    """The tokens that llama.cpp writes greedily after `ids`, with the adapter `lora` where there is one, and the likeliest first
    tokens with their probabilities."""
    ran = subprocess.run(
        [sys.executable, "-c", _ASK, str(file), json.dumps(ids), str(lora or "")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("ANSWER")]
    assert lines, ran.stderr[-2000:]
    answer = json.loads(lines[0].removeprefix("ANSWER"))
    content = answer["choices"][0]["logprobs"]["content"]
    first = {top["id"]: math.exp(top["logprob"]) for top in content[0]["top_logprobs"]}
    return [token["id"] for token in content], first
