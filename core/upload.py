"""Exports uploaded to the hub: what would go where, said before anything goes; then a process of its own that sends it.

Private unless asked otherwise. The upload outlives the wizard, as a run does, and goes on where it was when it was cut:
what has arrived is not sent twice, and the repository changes in one commit at the end.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import atomic, hub, hub_write, leaving, model_card, ollama_files, paths, recipe_file, transfer
from .errors import FinetuiError
from .model_card import License
from .runs import launch
from .runs.store import RunFolder
from .text import bytes_words, one_line
from .transfer import TransferState

MODULE = "finetui.core.worker.upload"
PLAN = "plan.txt"
"""In the upload's folder: what is to be sent, as JSON. No `.json`: those are the reports of its processes."""
LOG = "upload.log"

_HARMLESS = (".gitattributes",)
"""What the hub itself puts into a new repository."""


@dataclass(frozen=True)
class Plan:
    """What an upload would send, and where."""

    run: RunFolder
    repo: str
    private: bool
    formats: tuple[str, ...]
    items: tuple[leaving.Item, ...]
    license: License
    exists: bool = False
    """The repository is there already."""
    others: tuple[str, ...] = ()
    """Files in it that this run did not send."""
    verdicts: tuple[tuple[str, str], ...] = ()
    """The proof's verdict for each format; empty where none was made."""

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    @property
    def url(self) -> str:
        """The repository's page."""
        return hub.address(self.repo, "model")

    def lines(self) -> list[str]:
        """The plan for a person, a line each."""
        seen = "private" if self.private else "PUBLIC: anybody can see and download it"
        found = [
            f"To        {self.url}" + (" (is there already)" if self.exists else " (will be made)"),
            f"Seen by   {seen}",
            f"Licence   {self.license.words}"
            + (", from the base model" if self.license.license else " (the base model's card names none)"),
            f"Files     {len(self.items)}, {bytes_words(self.bytes)}",
        ]
        found += [f"          {item.name}  {bytes_words(item.bytes)}" for item in self.items]
        if self.others:
            found.append(
                f"It holds files already, {len(self.others)} of them not from this run: the same names are replaced, the rest stays."
            )
        for format, verdict in self.verdicts:
            if verdict in ("broken", "differs"):
                found.append(f"The proof says of {format}: {verdict}.")
        return found

    def as_json(self) -> dict[str, Any]:
        """The plan for a program."""
        return {
            "run": self.run.id,
            "repo": self.repo,
            "url": self.url,
            "private": self.private,
            "exists": self.exists,
            "license": self.license.license or None,
            "formats": list(self.formats),
            "bytes": self.bytes,
            "files": [{"name": item.name, "bytes": item.bytes} for item in self.items],
        }


def plan(
    run: RunFolder,
    formats: Sequence[str] = (),
    to: str = "",
    *,
    public: bool = False,
    replace: bool = False,
) -> Plan:
    """What an upload of `formats` (the adapter by default, else all that is there) to the repository `to` would do.

    Without an owner in `to` the token's own account is taken, without a name the run's. Asks the hub; blocking. Raises
    FinetuiError: export-missing, hub-name, upload-public (the repository is public and nobody said that it may be),
    upload-exists (it holds other files, and not `replace`), and those of `hub_write`.
    """
    recipe = recipe_file.load(run.recipe)
    exports = leaving.chosen(run, formats, "adapter")
    owner, _, name = to.rpartition("/")
    if to:
        check_name(to)
    account = hub_write.account()
    repo = f"{owner or account.name}/{name or hub_name(recipe.name)}"
    check_name(repo)
    licence = model_card.base_license(recipe)
    items = list(leaving.items(recipe, exports, model_card.write(run, exports, licence, repo)))
    modelfile = next((f for done in exports if done.gguf for f in done.files if f.name == "Modelfile"), None)
    if modelfile is not None:
        parts = ollama_files.of_modelfile(modelfile.read_text(encoding="utf-8"))
        items += [leaving.Item(name, modelfile, content) for name, content in parts.items()]
    there = _look(repo)
    private, others = not public, ()
    if there is not None:
        private, names = there
        ours = _sent_before(run, repo)
        others = tuple(name for name in names if name not in (*_HARMLESS, *ours))
        if not private and not public:
            raise FinetuiError(
                f"{one_line(repo, 100)} is public.",
                "Uploads are private unless you say otherwise, and anybody would see this one.",
                "Add --public where that is meant, or name another repository with --to.",
                code="upload-public",
            )
        if others and not replace:
            raise FinetuiError(
                f"{one_line(repo, 100)} holds other files already.",
                f"{len(others)} files that this run did not send, such as {one_line(others[0], 80)}.",
                "Name another repository with --to, or add --replace: files of the same names are replaced, the rest stays.",
                code="upload-exists",
            )
    return Plan(
        run=run,
        repo=repo,
        private=private,
        formats=tuple(done.format for done in exports),
        items=tuple(items),
        license=licence,
        exists=there is not None,
        others=others,
        verdicts=tuple((done.info.title, done.proof.verdict if done.proof else "") for done in exports),
    )


def check_name(name: str) -> None:
    """Raises FinetuiError (hub-name) for what cannot be a repository's id, or the name in one."""
    parts = name.split("/")
    sound = hub.is_id(name) and all(part[-1:] not in ".-" and part[:1] not in ".-" for part in parts)
    if not sound or name.endswith(".git"):
        raise FinetuiError(
            f"{one_line(name, 100)!r} cannot be a repository's name.",
            "A name has letters, digits, . _ and -, no two dashes or dots together, and none at its ends.",
            "Write it as owner/name, such as --to me/my-model.",
            code="hub-name",
        )


def hub_name(name: str) -> str:
    """A run's name as the hub takes it."""
    return re.sub(r"-{2,}|\.{2,}", "-", name).strip("-.")[:90] or "model"


def _look(repo: str) -> tuple[bool, tuple[str, ...]] | None:
    """Whether the repository is private, and its files; None where it is not there."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = hub_write.api().model_info(repo, timeout=hub.TIMEOUT_SECONDS)
    except RepositoryNotFoundError:
        return None
    except FinetuiError:
        raise
    except Exception as error:  # the edge of huggingface_hub
        raise hub_write.card(error, repo) from error
    return bool(info.private), tuple(s.rfilename for s in info.siblings or ())


@dataclass(frozen=True)
class Upload:
    """An upload that was started, here or by another wizard."""

    run: RunFolder
    repo: str
    pid: int
    create_time: float
    folder: Path = field(repr=False)
    """Where its plan, its log and its reports stand."""

    @classmethod
    def start(cls, plan: Plan) -> Upload:
        """Starts the upload, or follows the one to this repository that is under way. Returns within milliseconds.

        Raises FinetuiError: worker-start, no-space.
        """
        folder = _folder(plan.run, plan.repo)
        try:
            paths.private_dir(folder)
            for other in cls.of_run(plan.run):
                if other.repo == plan.repo and other.poll().live:
                    return other
            for file in folder.glob("*.json"):
                transfer.forget(file)
            before = _sent_before(plan.run, plan.repo)
            body = {
                "v": 1,
                "repo": plan.repo,
                "private": plan.private,
                "formats": plan.formats,
                "files": [
                    {
                        "name": item.name,
                        "source": None if item.content is not None else str(item.source),
                        "content": item.content.decode("utf-8") if item.content is not None else None,
                    }
                    for item in plan.items
                ],
                "sent": sorted({*before, *(item.name for item in plan.items)}),
            }
            atomic.write_text(folder / PLAN, json.dumps(body))
            # huggingface_hub tells no progress where bars are forbidden; none is drawn (see the worker).
            pid = transfer.spawn(
                MODULE, [str(folder)], folder / LOG, folder, ("HF_HUB_DISABLE_PROGRESS_BARS",)
            )
            started = cls(plan.run, plan.repo, pid, launch.create_time(pid), folder)
            transfer.sign(started._file, pid, started.create_time, plan.repo)
        except OSError as error:
            raise transfer.not_started("The upload cannot be started.", error) from error
        return started

    @classmethod
    def of_run(cls, run: RunFolder) -> tuple[Upload, ...]:
        """The uploads of `run` that were ever started, the newest of each repository."""
        found: list[Upload] = []
        with contextlib.suppress(OSError):
            for folder in sorted((run.path / "uploads").iterdir()):
                for told in transfer.known(folder):
                    with contextlib.suppress(KeyError, TypeError, ValueError):
                        found.append(
                            cls(run, str(told["repo"]), told["pid"], float(told["create_time"]), folder)
                        )
        return tuple(found)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self.pid}.json"

    def poll(self) -> TransferState:
        """Where it stands: one small file is read."""
        vanished = FinetuiError(
            f"The upload to {one_line(self.repo, 100)} ended before its end.",
            "Its process is gone.",
            "Start it again: what has arrived is not sent twice.",
            code="upload-ended",
        )
        return transfer.poll(self._file, self.pid, self.create_time, vanished)

    def cancel(self) -> None:
        """Ends it. What has arrived stays on the hub's side, and the next start goes on from there."""
        transfer.end(self._file, self.pid, self.create_time)


def _folder(run: RunFolder, repo: str) -> Path:
    return run.path / "uploads" / repo.replace("/", "--")


def _sent_before(run: RunFolder, repo: str) -> tuple[str, ...]:
    """The names of the files that this run has begun to send to `repo`."""
    try:
        told = json.loads((_folder(run, repo) / PLAN).read_bytes())
        return tuple(str(name) for name in told["sent"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()
