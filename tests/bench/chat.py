"""The talk's first token against that of a bare `generate` in a loaded process, with the demo's model."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from finetui.core.runs.launch import worker_environment
from finetui.core.talk import Sampling, Target
from finetui.core.talking import Talker

from .measure import Result, paired_ratio

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
import sys, time, torch
from pathlib import Path
from finetui.core.worker.answering import cpu_dtype
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, adapter, question = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
dtype = torch.bfloat16 if torch.cuda.is_available() else cpu_dtype(Path(folder))
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), adapter).eval()
if torch.cuda.is_available():
    model = model.to("cuda")
for _ in sys.stdin:
    began = time.perf_counter()
    with torch.no_grad():
        given = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        model.generate(**given, max_new_tokens=1, do_sample=False)
    print(time.perf_counter() - began, flush=True)
"""


def measure() -> list[Result]:
    """First token, seen where the answer is read, that is with the pipes, in turn with a bare script that is loaded too."""
    environment = worker_environment()  # the same threads for both
    with tempfile.TemporaryDirectory() as adapter:
        made = subprocess.run(
            [sys.executable, "-c", PREPARE, adapter], capture_output=True, text=True, check=True
        )
        base = made.stdout.strip().splitlines()[-1]
        bare = subprocess.Popen(
            [sys.executable, "-c", BARE, base, adapter, QUESTION], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip
        talker = Talker(Target("adapter", Path(adapter), "demo", base=base))

        def theirs() -> float:
            assert bare.stdin is not None and bare.stdout is not None
            bare.stdin.write("\n")
            bare.stdin.flush()
            return float(bare.stdout.readline())

        try:
            talker.wait_ready()
            ratio, ours, other = paired_ratio(lambda: _first(talker), theirs, ROUNDS)
        finally:
            talker.close()
            bare.kill()
            bare.communicate()
    return [
        Result("chat: first token", ratio, 1.3, "×", f"{ours:.3f} s against {other:.3f} s of a bare generate")
    ]


def _first(talker: Talker) -> float:
    writing = talker.ask("tuned", (("user", QUESTION),), Sampling(max_new_tokens=4))
    writing.wait()
    assert writing.first is not None
    return writing.first
