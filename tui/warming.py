"""The warm worker of this wizard: it imports Unsloth while the person is still choosing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.runs.warm import Warm
    from .app import FinetuiApp


class Warming:
    """Starts one worker ahead of its job, and ends it with the wizard."""

    def __init__(self, app: FinetuiApp) -> None:
        self._app = app
        self._warm: Warm | None = None
        self._warming = False

    @property
    def worker(self) -> Warm | None:
        """The worker that has its imports done, or does them."""
        return self._warm

    def start(self) -> None:
        """Starts one in the background, where there is none yet."""
        if self._warming or os.environ.get("FINETUI_NO_WARM"):
            return
        self._warming = True

        def started(warm: Warm) -> None:
            self._warm = warm

        def work() -> Warm:
            from ..core.runs.warm import Warm

            return Warm.start()

        self._app.in_background("warm", work, started, lambda _: None)

    def look(self) -> None:
        """Lets go of one that is at work by now, or has ended: the next draft gets another."""
        if self._warm is not None and not self._warm.alive:
            self._warm, self._warming = None, False

    def restart(self) -> None:
        """Another one takes its place: it was started without the token that is in use now."""
        if self._warming:
            self._app.forget("warm")
            self.close()
            self._warming = False
            self.start()

    def close(self) -> None:
        """Ends it, unless it was given a job."""
        warm, self._warm = self._warm, None
        if warm is not None:
            warm.close()
