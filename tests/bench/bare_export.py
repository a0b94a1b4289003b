"""The baseline: an adapter merged by Unsloth, converted and quantized by llama.cpp, with nothing of finetui.

`python bare_export.py ADAPTER_FOLDER WORK_FOLDER COMMANDS.json`: COMMANDS holds the programs to run after the merge, in
order, each with the folder that it imports from; MERGED and WORK stand for the folders.
"""

import json
import os
import subprocess
import sys

import unsloth  # noqa: F401  must be first
from unsloth import FastLanguageModel

adapter, work, commands = sys.argv[1:]
merged = os.path.join(work, "merged")
model, tokenizer = FastLanguageModel.from_pretrained(adapter, max_seq_length=256, load_in_4bit=False)
model.save_pretrained_merged(merged, tokenizer, save_method="merged_16bit", safe_serialization=None)
with open(commands, encoding="utf-8") as file:
    for imports, argv in json.load(file):
        named = [part.replace("MERGED", merged).replace("WORK", work) for part in argv]
        subprocess.run(
            named, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": imports}
        )
