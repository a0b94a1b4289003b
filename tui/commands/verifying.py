"""`finetui verify`: whether a run's exports answer as the trained model did."""

from __future__ import annotations

from typing import Annotated

import typer

from . import exits, output
from .exporting import formats_of
from .training import JsonOption, RunArgument


def verify(
    run: RunArgument,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", metavar="FORMAT", help="Only this export; may be given again. All otherwise."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that a run's exports answer as the trained model did.

    Each is opened by what will use it (Transformers, PEFT, llama.cpp) and asked what the trained model was asked. The
    verdict and its table are kept beside the export, in proof.json. Exit code 0 where all are the same, 1 otherwise.
    """
    from ...core import proof_file
    from ...core.runs import launch, store
    from ...core.runs.follow import Follower
    from . import following

    folder = store.find(run)
    wanted = formats_of(formats) if formats else ()
    if proof_file.load_reference(folder) is None:
        raise proof_file.no_reference(folder)
    follower, raw = Follower(folder), following.RawEvents.from_now(folder)
    follower.poll()
    launch.start(folder, "verify", wanted)
    code = following.follow(folder, as_json=as_json, ask_to_stop=True, follower=follower, raw=raw)
    verdicts = [found.verdict for found in follower.status.proofs if not wanted or found.format in wanted]
    if code == exits.OK and any(verdict != "same" for verdict in verdicts):
        code = exits.FAILED
    if not as_json:
        output.line(f"Kept beside each export as {proof_file.FILE}, with every answer.")
    raise typer.Exit(code)
