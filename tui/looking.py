"""Looks at what the draft names: the model, the dataset, and the machine that it would run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.timer import Timer

from ..core.errors import FinetuiError
from ..core.fields import fields
from ..core.recipe import DatasetSection

if TYPE_CHECKING:
    from .app import FinetuiApp
    from .widgets.header import MachineLine

GIB = 1024**3
INSPECT_AFTER_SECONDS = 0.5
"""How long the person must pause before what was typed is looked at."""


class Looking:
    """Fills the facts of `app.wizard`, each look in a thread, the newest answer only."""

    def __init__(self, app: FinetuiApp) -> None:
        self._app = app
        self._timers: dict[str, Timer] = {}

    def inspect(self, step: str, at_once: bool = False) -> None:
        """Looks at the model or the dataset that the draft names, after a moment without another change."""
        timer = self._timers.pop(step, None)
        if timer is not None:
            timer.stop()
        self._app.forget(step)
        look = self._inspect_model if step == "model" else self._inspect_dataset
        self._seen(step, None, None, busy=not self._app.wizard.problems(step), keep=True)
        if at_once:
            look()
        else:
            self._timers[step] = self._app.set_timer(INSPECT_AFTER_SECONDS, look)

    def found(self, step: str, facts: Any) -> None:
        """Takes `facts` that were found already for what the draft names now, in place of another look."""
        timer = self._timers.pop(step, None)
        if timer is not None:
            timer.stop()
        self._app.forget(step)
        self._seen(step, facts, None)

    def _seen(
        self, step: str, facts: Any, error: FinetuiError | None, busy: bool = False, keep: bool = False
    ) -> None:
        wizard = self._app.wizard
        setattr(wizard, f"{step}_busy", busy)
        setattr(wizard, f"{step}_error", error)
        if not keep or not busy:
            setattr(wizard, f"{step}_facts", facts)
        self._app.inspecting.refresh()
        self._app.changed.publish(None)

    def _inspect_model(self) -> None:
        from ..core import model

        draft = self._app.wizard.draft
        if self._app.wizard.problem("model.source") or self._app.wizard.problem("model.revision"):
            self._seen("model", None, None)
            return
        source, revision = str(draft["model.source"]).strip(), draft["model.revision"]
        code = draft["model.remote_code"]
        self._app.in_background(
            "model",
            lambda: model.inspect(source, revision, code),
            lambda facts: self._seen("model", facts, None),
            lambda error: self._seen("model", None, error),
        )

    def _inspect_dataset(self) -> None:
        from ..core import dataset

        values = {spec.path.split(".")[1]: self._app.wizard.draft[spec.path] for spec in fields("dataset")}
        try:
            section = DatasetSection.model_validate(values)
        except ValueError:
            self._seen("dataset", None, None)
            return
        self._app.in_background(
            "dataset",
            lambda: dataset.inspect(section),
            lambda facts: self._seen("dataset", facts, None),
            lambda error: self._seen("dataset", None, error),
        )

    def machine(self) -> None:
        """Reads the machine. Not while a run at work is followed: its worker's readings are shown, and each reading of a GPU
        holds up its training."""
        from ..core import system

        if getattr(self._app.screen, "live", False):
            return

        def seen(machine: Any) -> None:
            self._app.wizard.machine = machine
            self._app.changed.publish(None)

        self._app.in_background("machine", system.snapshot, seen, lambda _: None)

    @property
    def has_gpu(self) -> bool:
        """Whether a GPU was seen on the machine."""
        return self._app.wizard.machine is not None and self._app.wizard.machine.has_gpu

    def machine_line(self) -> MachineLine | None:
        """The machine for the header."""
        from .widgets.header import MachineLine

        machine = self._app.wizard.machine
        if machine is None:
            return None
        if (gpu := machine.freest_gpu) is not None:
            name = gpu.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
            if len(machine.gpus) > 1:
                name = f"{len(machine.gpus)} × {name}"
            used = None if gpu.used_bytes is None else gpu.used_bytes / GIB
            return MachineLine(name, used, None if gpu.total_bytes is None else gpu.total_bytes / GIB, "GiB")
        used_bytes = machine.memory_total_bytes - machine.memory_available_bytes
        return MachineLine(
            f"CPU, {machine.cores} cores",
            used_bytes / GIB,
            round(machine.memory_total_bytes / GIB, 1),
            "GiB RAM",
        )
