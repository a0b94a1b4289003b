"""A worker killed while it saves: at each operation on files, and inside the writes of the libraries themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from . import harness


def test_a_kill_at_any_write_leaves_a_whole_checkpoint_and_a_whole_adapter(
    tiny_model: Path, tiny_rows: Path
) -> None:
    run = harness.make_run(
        harness.recipe(tiny_model, tiny_rows, max_steps=3, save_every_steps=1, checkpoints_kept=1)
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.worker.killed_saving", str(run.path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "UNSLOTH_FORCE_CPU": "1"},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["wrong"]
    assert set(found["steps"]) == {
        str(found["last"]),
        str(found["last"] + 1),
    }  # the one before, or the new one
    assert found["operations"] > 50 and found["sizes"] >= 5
    adapters = found["adapters"]
    assert adapters["changed"] and adapters["old"] + adapters["new"] == adapters["all"] > 10
    assert adapters["new"] > 1  # some deaths come after the change
