"""The talk's first token against that of a bare `generate` in a loaded process, with the demo's model; median of several."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from finetui.core.talk import Sampling, Target
from finetui.core.talking import Talker

from .measure import Result

ROUNDS = 9
QUESTION = "My kettle leaks since Tuesday, I want my money back!"
PREPARE = """
import sys, torch
from finetui.core.worker import demo_model
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
folder = demo_model.prepare()
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")).save_pretrained(sys.argv[1])
print(folder)
"""
BARE = """
import json, sys, time, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, adapter, question, rounds = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16), adapter).eval()
if torch.cuda.is_available():
    model = model.to("cuda")
taken = []
with torch.no_grad():
    for _ in range(int(rounds) + 1):
        began = time.perf_counter()
        given = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        model.generate(**given, max_new_tokens=1, do_sample=False)
        taken.append(time.perf_counter() - began)
print(json.dumps(taken[1:]))
"""


def measure() -> list[Result]:
    """First token, seen where the answer is read, that is with the pipes, against a bare script."""
    with tempfile.TemporaryDirectory() as adapter:
        base = _python(PREPARE, adapter).splitlines()[-1]
        bare = statistics.median(
            json.loads(_python(BARE, base, adapter, QUESTION, str(ROUNDS)).splitlines()[-1])
        )
        talker = Talker(Target("adapter", Path(adapter), "demo", base=base))
        try:
            talker.wait_ready()
            taken = [_first(talker) for _ in range(ROUNDS + 1)][1:]
        finally:
            talker.close()
    return [
        Result(
            "chat: first token",
            statistics.median(taken) / bare,
            1.3,
            "×",
            "against a bare generate of one token",
        )
    ]


def _first(talker: Talker) -> float:
    writing = talker.ask("tuned", (("user", QUESTION),), Sampling(max_new_tokens=4))
    writing.wait()
    assert writing.first is not None
    return writing.first


def _python(code: str, *arguments: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return ran.stdout.strip()
