"""`finetui serve`: a model for the programs of this machine."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from ...core.errors import FinetuiError
from . import output
from .opening import DeviceOption, TargetArgument, opened


def serve(
    target: TargetArgument,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8333,
    device: DeviceOption = "auto",
) -> None:
    """Serve a model to programs on this machine, by OpenAI's chat protocol. Ctrl+C ends it.

    Only 127.0.0.1 listens. The models are named as the run, and with :base for the untouched one. One answer is written at a
    time; up to 16 wait.
    """
    from ...core.serving import Server

    talker = opened(target, device)
    try:
        name = "".join(c if c.isalnum() or c in "-._" else "-" for c in talker.target.title)
        try:
            server = Server(talker, name, port, lambda said: output.line(said, sys.stderr))
        except OSError as error:
            raise FinetuiError(
                f"Port {port} cannot be used.", f"{error.strerror or error}.", "Name another: --port 0 takes a free one.",
                code="port",
            ) from error  # fmt: skip
        output.line(f"base URL  {server.address}")
        output.line(f"models    {', '.join(server.models)}")
        output.line("API key   any text. Ctrl+C ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
        server.server_close()
    finally:
        talker.close()
