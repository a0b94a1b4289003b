"""What a Modelfile says, as the three files that Ollama reads from a hub repository: template, system and params.

With them `ollama run hf.co/owner/name` speaks to the model as the Modelfile would have it.
Source: the hub's documentation on Ollama.
"""

from __future__ import annotations

import json
import re

_PART = re.compile(
    r'^(?P<word>TEMPLATE|SYSTEM|PARAMETER stop) (?:"""(?P<long>.*?)"""|"(?P<short>[^"\n]*)")$'
    r"|^PARAMETER (?P<name>num_ctx|temperature) (?P<number>\d+)$",
    re.M | re.S,
)


def of_modelfile(text: str) -> dict[str, bytes]:
    """File names and contents for a Modelfile that finetui wrote."""
    found: dict[str, bytes] = {}
    stops: list[str] = []
    numbers: dict[str, int] = {}
    for part in _PART.finditer(text):
        value = part["long"] if part["long"] is not None else part["short"]
        if part["name"]:
            numbers[part["name"]] = int(part["number"])
        elif part["word"] == "PARAMETER stop":
            stops.append(value)
        else:
            found[part["word"].lower()] = value.encode()
    params = {**numbers, **({"stop": stops} if stops else {})}
    if params:
        found["params"] = json.dumps(params, indent=2).encode()
    return found
