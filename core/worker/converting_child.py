"""One of llama.cpp's converters, with what is better known here than from the files. A program: it runs in a child process.

    python -P converting_child.py SCRIPT NAME BEGINS ARGUMENT...

SCRIPT is the converter, the ARGUMENTs are its own, NAME is what programs call the model. BEGINS, `true` or `false`, is whether
whoever runs the GGUF puts the beginning-of-text token before what is asked; nobody puts an end token behind it. It is empty
for an adapter, which has no say in that.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main(script: str, name: str, begins: str, *arguments: str) -> None:
    """Settles it in place of the converter, just before that writes the header."""
    from gguf import GGUFWriter  # the converter's own

    write = GGUFWriter.write_header_to_file

    def settled(self: GGUFWriter, path: Path | None = None) -> None:
        self.add_name(name)
        if begins:
            self.add_add_bos_token(begins == "true")
            self.add_add_eos_token(False)
        write(self, path)

    GGUFWriter.write_header_to_file = settled
    sys.path.insert(0, str(Path(script).parent))
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
