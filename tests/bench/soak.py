"""One run of a tiny real model whose wizards and workers are killed again and again, at random moments and by random signals.

After each death the run is brought back by one of the ways that a person has, and at its end its losses must be those of a run
that was never touched, step by step. FINETUI_SOAK_KILLS is how many deaths (200), FINETUI_SOAK_MINUTES ends them earlier, FINETUI_SOAK_SEED makes the
choices again.
"""

from __future__ import annotations

import collections
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from finetui.core import recipe_file
from finetui.core.runs import checkpoints, state, store, turns
from finetui.core.runs.event_log import read_all
from finetui.core.runs.events import Checkpoint
from finetui.core.runs.store import RunFolder

from ..worker import harness, tiny
from .measure import FINETUI, Result
from .paint import Terminal

KILLS = int(os.environ.get("FINETUI_SOAK_KILLS", "200"))
SEED = int(os.environ.get("FINETUI_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
MINUTES = float(os.environ.get("FINETUI_SOAK_MINUTES", "inf"))
STEPS = int(os.environ.get("FINETUI_SOAK_STEPS", "0")) or max(60, 25 * KILLS)
PATIENCE = 300.0
"""Seconds. A busy machine takes a minute for Unsloth's import alone."""

SHORT_MOMENT = 30.0
"""Seconds that a kill waits for a moment that may pass within milliseconds."""

MOST_FAULTS = 20
WORKER_SIGNALS = (
    signal.SIGKILL,
    signal.SIGKILL,
    signal.SIGKILL,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
)
WIZARD_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, None)
"""None closes the terminal under it."""

MOMENTS = ("import", "import", "load", "train", "train", "save", "save", "evaluate")


class Soak:
    """One run and all that befalls it."""

    def __init__(self, folder: Path) -> None:
        self.random = random.Random(SEED)
        self.faults: list[str] = []
        self.died: collections.Counter[str] = collections.Counter()
        self.recipe = harness.recipe(
            tiny.make(folder / "model"),
            tiny.write_rows(folder / "rows.jsonl", 40),
            max_steps=STEPS,
            epochs=1000.0,
            save_every_steps=5,
            evaluate_every_steps=7,
            gradient_accumulation_steps=2,
            dropout=0.1,
        )
        recipe_file.save(self.recipe, folder / "recipe.yaml")
        self.untouched = harness.make_run(self.recipe)
        if harness.start(
            "train", self.untouched
        ).wait():  # beside the soak, a wizard would ask whose turn it is
            raise RuntimeError(harness.ended(self.untouched))
        self.run = self.begin(folder / "recipe.yaml")
        self.kept = 0
        """The step of the newest whole checkpoint that was seen."""

    @property
    def kills(self) -> int:
        return sum(self.died.values())

    def fault(self, text: str) -> None:
        self.faults.append(text)
        self.say(f"FAULT: {text}")
        if len(self.faults) > MOST_FAULTS:
            raise RuntimeError("too much goes wrong to go on")

    def say(self, text: str) -> None:
        print(f"  {self.kills:4} {text}", file=sys.stderr, flush=True)

    # ---- bringing it back ------------------------------------------------------------------------------------

    def bring_back(self, last: bool = False) -> None:
        """Starts the run, or resumes it, as a person does; `last`: nobody kills it any more."""
        if not checkpoints.newest_first(self.run.checkpoints):
            self.run = self.begin(self.run.recipe)
            self.kept = 0
            self.say("begun anew: nothing was saved yet")
            return
        way = "detach" if last else self.random.choice(("detach", "queue", "follow", "key"))
        if way in ("detach", "queue"):
            self._finetui("resume", self.run.id, f"--{way}")
        else:
            words = ["attach", self.run.id] if way == "key" else ["resume", self.run.id]
            terminal = Terminal([FINETUI, *words])
            if way == "key":
                terminal.until(b"Resume", PATIENCE)
                terminal.press(b"r")
            end = time.monotonic() + PATIENCE
            while not self.live():
                watch(terminal, 0.1)
                if time.monotonic() > end:
                    self.fault(f"{way} did not resume: {terminal.seen[-500:]!r}")
                    break
            self._kill_wizard(terminal, way)  # a follower that is interrupted asks the run to stop

    def begin(self, recipe: Path) -> RunFolder:
        """Starts a run of `recipe`."""
        return store.find(json.loads(self._finetui("train", str(recipe), "--detach", "--json"))["run"])

    def _finetui(self, *words: str) -> str:
        done = subprocess.run([FINETUI, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            self.fault(f"finetui {' '.join(words)} ended with {done.returncode}: {done.stdout} {done.stderr}")
        return done.stdout

    def live(self) -> bool:
        return state.status(self.run).live

    # ---- deaths ----------------------------------------------------------------------------------------------

    def kill_a_wizard(self) -> None:
        """A wizard on the run, or a follower of it, is killed within its first seconds."""
        words = self.random.choice(
            (["attach", self.run.id], ["attach", self.run.id, "--plain"], ["attach", self.run.id], [])
        )
        terminal = Terminal([FINETUI, *words])
        watch(terminal, self.random.uniform(0.0, 4.0))
        self._kill_wizard(terminal, " ".join(words[:1]) or "home")

    def _kill_wizard(self, terminal: Terminal, what: str) -> None:
        number = self.random.choice(WIZARD_SIGNALS)
        if number is None:
            os.close(terminal.fd)
        else:
            os.kill(terminal.pid, number)
        end = time.monotonic() + PATIENCE
        while os.waitpid(terminal.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                self.fault(f"a wizard ({what}) outlived {number}")
                os.kill(terminal.pid, signal.SIGKILL)
                os.waitpid(terminal.pid, 0)
                break
            if number is None:
                time.sleep(0.05)
            else:
                watch(terminal, 0.05)
        if number is not None:
            watch(terminal, 0.05)
            os.close(terminal.fd)
        seen = terminal.seen
        if b"Traceback" in seen and b"Fatal Python error: init" not in seen:  # none of our code has run there
            self.fault(f"a traceback on the screen ({what}, {number}): {seen[-1500:]!r}")
        if number not in (None, signal.SIGKILL) and b"\x1b[?1049h" in seen and b"\x1b[?1049l" not in seen:
            self.fault(f"the terminal was not given back ({what}, {number})")
        self.died[f"wizard {number.name if number else 'closed'}"] += 1

    def kill_the_worker(self) -> None:
        """Waits for some moment in the worker's life, and kills it there."""
        number, moment = self.random.choice(WORKER_SIGNALS), self.random.choice(MOMENTS)
        spread = self.random.random()
        if not self._await(moment, spread):
            return
        now = state.status(self.run)
        if (
            not now.live
            or now.pid is None
            or now.create_time is None
            or not state.worker_alive(now.pid, now.create_time, now.host)
        ):
            return
        os.kill(now.pid, number)
        self.died[f"worker {number.name}"] += 1
        at = now.stage_text or now.stage
        if number == signal.SIGHUP:  # which is nothing to it, once Python stands
            time.sleep(1)
            if state.status(self.run).state == "crashed" and now.state == "running":
                self.fault(f"a worker died of a hangup at {at}")
            return
        gone = time.monotonic() + PATIENCE
        while state.worker_alive(now.pid, now.create_time, now.host):
            if time.monotonic() > gone:
                self.fault(f"a worker outlived {number.name} at {at}")
                os.kill(now.pid, signal.SIGKILL)
            time.sleep(0.05)
        after = state.status(self.run)
        self.say(f"{number.name} at {moment} ({at}, step {now.step}): {after.state}, step {after.step}")
        if (
            number != signal.SIGKILL
            and now.state == "running"
            and after.state not in ("stopped", "completed")
        ):
            self.fault(f"{number.name} at {at} left the run {after.state}: {after.card}")
        self._look_at_checkpoints()

    def _await(self, moment: str, spread: float) -> bool:
        """Whether that moment came while the worker lived."""
        if moment == "import":
            time.sleep(12 * spread)
            return True
        first = state.status(self.run).step
        newest = time.monotonic() + PATIENCE

        def training() -> bool:
            return state.status(self.run).state == "running" and state.status(self.run).step > first

        def unsealed() -> bool:
            return any(
                not (path / checkpoints.SEAL).exists()
                for path in checkpoints.newest_first(self.run.checkpoints)[:1]
            )

        come: dict[str, Callable[[], bool]] = {
            "load": lambda: (
                state.status(self.run).stage in ("load", "dataset", "tokenize", "tools", "baseline", "probe")
            ),
            "train": lambda: True,
            "save": unsealed,
            "evaluate": lambda: state.status(self.run).stage == "evaluate",
        }
        if moment in ("train", "save", "evaluate") and not self._until(training, newest, 0.05):
            if self.live():
                self.fault(f"no step came: {state.status(self.run)}")
            return False
        soon = time.monotonic() + SHORT_MOMENT
        if not self._until(come[moment], min(newest, soon), 0.001):
            return self.live()  # too short to be seen on a busy machine: then at whatever moment this is
        time.sleep(spread * {"load": 1.0, "train": 4.0, "save": 0.05, "evaluate": 0.05}[moment])
        return True

    def _until(self, come: Callable[[], bool], end: float, pause: float) -> bool:
        looked = time.monotonic()
        while not come():
            if time.monotonic() - looked > 0.3:
                looked = time.monotonic()
                turns.tend()  # as whoever looks at the queue does: its waiting processes are killed too
                if not self.live():
                    return False
            if time.monotonic() > end:
                return False
            time.sleep(pause)
        return True

    def _look_at_checkpoints(self) -> None:
        chosen, _damaged = checkpoints.choose(self.run.checkpoints)
        step = checkpoints.step_of(chosen) if chosen else 0
        if step < self.kept:
            self.fault(f"the checkpoint of step {self.kept} is gone; the newest whole one is of step {step}")
        told = [e.step for e in harness.events(self.run, Checkpoint)]
        if step and told and step < told[-1]:
            self.fault(
                f"a checkpoint was told at step {told[-1]}, and the newest whole one is of step {step}"
            )
        self.kept = step

    # ---- the whole -------------------------------------------------------------------------------------------

    def soak(self) -> None:
        end = time.monotonic() + 60 * MINUTES
        while self.kills < KILLS and time.monotonic() < end and not state.status(self.run).trained:
            if not self.live():
                self.bring_back()
            killer = threading.Thread(target=self.kill_the_worker)
            killer.start()
            wizards = self.random.randrange(1, 5)
            while killer.is_alive() and wizards and self.kills < KILLS:
                self.kill_a_wizard()
                wizards -= 1
            killer.join()
        while not state.status(self.run).trained:
            if not self.live():
                self.bring_back(last=True)
            harness.until(lambda: not self.live())

    def compare(self) -> float:
        """The greatest difference of any step's loss."""
        found, expected = harness.losses(self.run), harness.losses(self.untouched)
        if sorted(found) != sorted(expected) or sorted(found) != list(range(1, STEPS + 1)):
            self.fault(f"{len(found)} steps against {len(expected)}")
        records = read_all(self.run.events)
        if [r.seq for r in records] != list(range(1, len(records) + 1)):
            self.fault("the events are not numbered without gaps")
        worst = max((abs(found[s] - expected[s]), s) for s in found.keys() & expected.keys())
        if worst[0] > 0:
            self.say(f"the worst difference is at step {worst[1]}")
        return worst[0]

    def left_behind(self, home: str) -> None:
        """Processes that still work for this soak, once everything has ended."""
        time.sleep(2)
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if home in words and process.pid != os.getpid():
                self.fault(f"left behind: {words}")
                process.kill()


def watch(terminal: Terminal, seconds: float) -> None:
    """Reads what the terminal shows for so long, and is content where its program has gone."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal.fd], [], [], left)[0]:
            try:
                terminal.seen += os.read(terminal.fd, 65536)
            except OSError:
                time.sleep(min(left, 0.02))


def measure() -> list[Result]:
    print(f"  seed {SEED}, {KILLS} kills, {STEPS} steps", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(
            FINETUI_HOME=home,
            FINETUI_NO_WARM="1",
            HF_HUB_OFFLINE="1",
            UNSLOTH_FORCE_CPU="1",
            OMP_NUM_THREADS="1",
        )
        soak = Soak(Path(home))
        began = time.monotonic()
        soak.soak()
        worst = soak.compare()
        soak.left_behind(home)
        minutes = (time.monotonic() - began) / 60
        told = ", ".join(f"{count} {name}" for name, count in sorted(soak.died.items()))
        deaths = sum(count for name, count in soak.died.items() if re.match("worker", name))
    return [
        Result(
            "soak, drift",
            worst,
            1e-6,
            "nats",
            f"largest difference of a step's loss over {STEPS} steps; seed {SEED}",
        ),
        Result(
            "soak, faults",
            len(soak.faults),
            0,
            "",
            "; ".join(soak.faults) or f"{soak.kills} kills in {minutes:.0f} min: {told}",
        ),
        Result(
            "soak, kills left",
            KILLS - soak.kills,
            0,
            "",
            f"{soak.kills} of {KILLS} were done, {deaths} of them on the worker",
        ),
    ]
