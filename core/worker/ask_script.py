"""Asks the model in this folder: python ask.py "your question". Needs transformers, peft for an adapter, bitsandbytes for 4 bit."""

import sys
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer

if len(sys.argv) != 2:
    sys.exit(__doc__)
folder = Path(__file__).resolve().parent
tokenizer = AutoTokenizer.from_pretrained(folder)
model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map="auto")
if tokenizer.chat_template:
    messages = [{"role": "user", "content": sys.argv[1]}]
    system = folder / "system_prompt.txt"  # the one that it was trained with
    if system.exists():
        messages.insert(0, {"role": "system", "content": system.read_text(encoding="utf-8")})
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
else:  # it learned plain writing, and goes on with what it is given
    inputs = tokenizer(sys.argv[1], return_tensors="pt", return_token_type_ids=False)
inputs = inputs.to(model.device)
model.generate(
    **inputs,
    max_new_tokens=300,
    do_sample=False,
    streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True),
)
