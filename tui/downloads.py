"""The downloads of this wizard: followed on every screen, while the person goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.signal import Signal
from textual.timer import Timer

from ..core.errors import FinetuiError
from ..core.text import one_line
from .theme import glyphs

if TYPE_CHECKING:
    from ..core.model_download import Download, DownloadState
    from .app import FinetuiApp

POLL_SECONDS = 0.5


class Downloads:
    """What is being downloaded, by repository. `changed` is published with the words for the header."""

    def __init__(self, app: FinetuiApp) -> None:
        self._app = app
        self._followed: dict[str, tuple[Download | None, DownloadState]] = {}
        self._timer: Timer | None = None
        self.changed: Signal[str] = Signal(app, "downloads")

    def state(self, repository: str) -> DownloadState | None:
        """How the download of `repository` stands; None where none was started."""
        found = self._followed.get(repository)
        return None if found is None else found[1]

    def live(self, repository: str) -> bool:
        state = self.state(repository)
        return state is not None and state.live

    def start(self, repository: str, revision: str | None = None, remote_code: str | None = None) -> None:
        """Starts the download of `repository`, or goes on with it. Returns at once."""
        from ..core.model_download import Download, DownloadState

        if self.live(repository):
            return
        self._set(repository, None, DownloadState())

        def failed(error: FinetuiError) -> None:
            self._set(repository, None, DownloadState(state="failed", error=error))
            self._ended(repository, self._followed[repository][1])

        self._app.in_background(
            f"download {repository}",
            lambda: Download.start(repository, revision, remote_code),
            lambda download: self._set(repository, download, DownloadState()),
            failed,
        )

    def adopt(self) -> None:
        """Follows the downloads that other wizards started."""
        from ..core.model_download import Download, DownloadState

        def found(downloads: tuple[Download, ...]) -> None:
            for download in downloads:
                if download.repo not in self._followed:
                    self._set(download.repo, download, DownloadState())

        self._app.in_background("downloads of others", Download.under_way, found, lambda _: None)

    def cancel(self, repository: str) -> None:
        """Ends the download of `repository`; what was fetched stays."""
        found = self._followed.get(repository)
        download = found[0] if found is not None else None
        if download is not None:
            self._app.in_background("download cancel", download.cancel, lambda _: None)

    def words(self) -> str:
        """What is under way in a few words for the header; empty where nothing is."""
        live = {name: state for name, (_, state) in self._followed.items() if state.live}
        if not live:
            return ""
        total = sum(state.total_bytes for state in live.values())
        done = sum(state.done_bytes for state in live.values())
        share = f"{100 * done // total} %" if total else glyphs().ellipsis
        name = one_line(next(iter(live)).rpartition("/")[2], 24) if len(live) == 1 else f"{len(live)} models"
        return f"{name} {share}"

    def _set(self, repository: str, download: Download | None, state: DownloadState) -> None:
        self._followed[repository] = (download, state)
        if self._timer is None:
            self._timer = self._app.set_interval(POLL_SECONDS, self._poll)
        self._publish()

    def _publish(self) -> None:
        self.changed.publish(self.words())
        self._app.changed.publish(None)

    def _poll(self) -> None:
        live = {n: d for n, (d, state) in self._followed.items() if d is not None and state.live}
        if not live:
            if self._timer is not None and not any(state.live for _, state in self._followed.values()):
                self._timer.stop()
                self._timer = None
            return
        self._app.in_background(
            "downloads", lambda: {name: (d, d.poll()) for name, d in live.items()}, self._seen
        )

    def _seen(self, told: dict[str, tuple[Download, DownloadState]]) -> None:
        ended = []
        for name, (download, state) in told.items():
            found = self._followed.get(name)
            if found is None or found[0] is not download:
                continue  # started again meanwhile
            self._followed[name] = (download, state)
            if not state.live:
                ended.append((name, state))
        self._publish()
        for name, state in ended:
            self._ended(name, state)

    def _ended(self, repository: str, state: DownloadState) -> None:
        """Tells how it ended, wherever the person is by now, and has the facts of the model looked at again."""
        short = one_line(repository, 60)
        if state.state == "done":
            self._app.notify("It is on this machine now.", title=f"{short} downloaded", markup=False)
        elif state.state == "failed" and state.error is not None:
            error = state.error
            self._app.notify(
                f"{error.why} {error.fix}", title=error.what, severity="error", timeout=15, markup=False
            )
        wizard = self._app.wizard
        gone = [key for key, look in wizard.models.looks.items() if key.partition("\n")[0] == repository]
        for key in gone:
            del wizard.models.looks[key]
        wizard.models.local = None
        if state.state == "done" and str(wizard.draft["model.source"]).strip() == repository:
            self._app.looking.inspect("model", at_once=True)
        self._app.changed.publish(None)
