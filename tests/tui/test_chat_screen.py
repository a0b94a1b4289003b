"""The talk in the wizard and on the command line, with a real child and the tiny model."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from textual.pilot import Pilot
from textual.widgets import Markdown, TextArea

from finetui.core import proof_file, recipe_file, talk, talk_files, talk_score
from finetui.core.errors import FinetuiError
from finetui.core.proof import Reference, ReferencePrompt
from finetui.core.recipe import DatasetSection
from finetui.core.runs import event_log, events
from finetui.core.runs.store import RunFolder
from finetui.core.serving import MOST_WAITING, Server
from finetui.core.system import Gpu, Machine
from finetui.core.talk import Exchange, Reply, Sampling, Talk, Target
from finetui.core.talking import Talker
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.card import ErrorCard
from finetui.tui.modals.correct import CorrectModal
from finetui.tui.screens.blind import BlindScreen
from finetui.tui.screens.chat import ChatScreen
from finetui.tui.screens.run import RunScreen
from finetui.tui.widgets.chat import Answer
from tests import waiting
from tests.full_disk import Disk

from ..worker import exporting, tiny
from ..worker.conftest import tiny_model, tuned  # noqa: F401
from . import recorded
from .driving import SIZES, press, seen, until

HOSTILE = "\x1b]52;c;aGk=\x07\x1b[31mred [bold]x[/] [@click=app.quit]go[/] <script>s</script> [a](http://x.y) **fat** \u202e"


@pytest.fixture
def run(tuned: exporting.Tuned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:  # noqa: F811
    """A finished run of the tiny model, with two held-out prompts."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    monkeypatch.chdir(tmp_path)
    recording = recorded.new(tuned.recipe).started()
    recording.add(
        events.Sample(0, 0, "Item 1: which colour?", "", "blue 1"), events.Ended("train", "completed", 9.0)
    )
    shutil.copytree(tuned.run.adapter, recording.run.adapter)
    prompts = tuple(
        ReferencePrompt(
            (("system", "One word."), ("user", f"Item {n}: which colour?")), "", (), "", (), (), True
        )
        for n in (1, 2)
    )
    proof_file.save_reference(recording.run, Reference(prompts, "", "16bit", {}))
    return recording.run.path


@asynccontextmanager
async def chatting(
    run: Path, size: tuple[int, int]
) -> AsyncIterator[tuple[FinetuiApp, Pilot[Any], ChatScreen]]:
    app = FinetuiApp(attach=run)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.caught_up, "for the run")
        await press(pilot, "t")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen), "for the talk")
        screen = app.screen
        assert isinstance(screen, ChatScreen)
        screen.sampling = Sampling(max_new_tokens=12)
        await until(pilot, lambda: screen.ready, "for the model")
        yield app, pilot, screen


def _pid(screen: ChatScreen) -> int:
    assert screen.talker is not None and screen.talker.pid is not None
    return screen.talker.pid


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
async def test_a_talk_from_question_to_correction(run: Path, size: tuple[int, int]) -> None:
    async with chatting(run, size) as (app, pilot, screen):
        await press(pilot, *"which?", "enter")
        await until(
            pilot, lambda: screen.talk.exchanges and len(screen.talk.exchanges[0].replies) == 2, "for answers"
        )
        text = seen(app)
        assert "You  which?" in text and "12 tokens" in text and "Tuned" in text and "Base" in text
        assert screen.talk.exchanges[0].replies["base"].ids != screen.talk.exchanges[0].replies["tuned"].ids
        assert ("Tab turns" in text) == (size[0] < 100)
        await press(pilot, "f2")
        await until(
            pilot, lambda: len(screen.talk.exchanges) == 2 and len(screen.talk.exchanges[1].replies) == 2
        )
        assert screen.talk.messages("tuned") == (("system", "One word."), ("user", "Item 1: which colour?"))
        assert screen.talk.exchanges[1].expected == "blue 1"
        await until(pilot, lambda: "(expected: 6)" in seen(app), "for the score beside the dataset's answer")
        if size[0] > 100:
            await press(pilot, "f3")
            await until(pilot, lambda: screen.ready, "for another answer")
            await press(pilot, "f4")
            assert app.focused is not None and getattr(app.focused, "text", "") == "Item 1: which colour?"
            await press(pilot, "f9")
            await until(pilot, lambda: list((run / "talks").glob("*.jsonl")), "for the saved talk")
            await press(pilot, "f8")
            assert isinstance(app.screen, CorrectModal)
            app.screen.query_one(TextArea).text = "blue"
            os.kill(_pid(screen), signal.SIGKILL)  # while the row is kept
            await press(pilot, "f8")
            await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
            await press(pilot, "escape")
            if isinstance(app.screen, CorrectModal):  # the card came first
                await press(pilot, "f8")
            file = Path("tiny-corrections.jsonl")
            await until(pilot, lambda: file.exists() and file.read_bytes().endswith(b"\n"), "for the row")
            assert json.loads(file.read_text())["messages"][-1] == {"role": "assistant", "content": "blue"}
            return
        await press(pilot, "f8")
        assert isinstance(app.screen, CorrectModal)
        app.screen.query_one(TextArea).text = "blue"
        await press(pilot, "f8")
        file = Path("tiny-corrections.jsonl")
        await until(pilot, lambda: file.exists() and file.stat().st_size, "for the row")
        assert json.loads(file.read_text())["messages"][-1] == {"role": "assistant", "content": "blue"}
        whole = file.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for key in ("f8", "f9"):  # a disk that takes half of the row, and nothing of the talk
            await press(pilot, key)
            if key == "f8":
                assert isinstance(app.screen, CorrectModal)
                app.screen.query_one(TextArea).text = "green " * 2000
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 5000 if key == "f8" else 0, hard))
            try:
                if key == "f8":
                    await press(pilot, "f8")
                else:
                    screen.action_save()
                await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert "It could not be written." in seen(app)
            await press(pilot, "escape")
            assert file.read_bytes() == whole
        await press(pilot, "f10")
        blind = app.screen
        assert isinstance(blind, BlindScreen)
        for key in ("1", "0"):
            await until(pilot, lambda: blind.ready, "for both answers")
            assert "tuned" not in seen(app).lower() and "base" not in seen(app).lower()
            await press(pilot, key)
        await until(pilot, lambda: blind.kept, "for the tally")
        assert sum(blind.tally().values()) == 2 and blind.tally()["tie"] == 1
        [kept] = (run / "talks").glob("blind-*.jsonl")
        assert [json.loads(line)["better"] for line in kept.read_text().splitlines()][1] == "tie"
        pid = _pid(screen)
        await press(pilot, "escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "for the run")
        await until(
            pilot,
            lambda: (
                not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
            ),
        )


async def test_a_hostile_answer_is_only_text() -> None:
    app = FinetuiApp()
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.screen.query("#menu"))
        answer = Answer()
        await app.screen.mount(answer)
        answer.grow(HOSTILE)
        await pilot.pause()
        answer.finish(Reply(HOSTILE, 9, 1.0, 0.1, "length"))
        await until(pilot, lambda: answer.query(Markdown) and "fat" in seen(app))
        text = seen(app)
        assert "\x1b" not in text and "\u202e" not in text and "[bold]x[/]" in text and "<script>" in text
        opened: list[str] = []
        app.open_url = lambda url, **_: opened.append(url)  # type: ignore[method-assign, assignment]
        for y in range(36):
            for x in range(0, 120, 3):
                if app.screen.get_style_at(x, y).meta.get("@click"):
                    await pilot.click(offset=(x, y))
        assert not opened and app.is_running


def finetui(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "finetui.tui", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_commands(run: Path, tmp_path: Path) -> None:
    said = finetui("chat", run.name, "--max-new-tokens", "6", "--json", stdin="which?")
    assert said.returncode == 0, said
    assert json.loads(said.stdout)["tokens"] == 6
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"prompt": "a?", "completion": "b"}\n{"prompt": "c?", "completion": "{\\"d\\": 1}"}\n'
    )
    said = finetui("eval", run.name, str(prompts), "--max-new-tokens", "4", "--json")
    assert said.returncode == 0, said
    told = json.loads(said.stdout)
    assert told["prompts"] == 2 and told["base"]["count"] == told["tuned"]["count"] == 2
    assert [json.loads(line)["expected"] for line in Path(told["rows"]).read_text().splitlines()] == [
        "b",
        '{"d": 1}',
    ]
    prompts.write_text(
        '{"prompt": "a?", "completion": "b"}\n{"prompt": "", "completion": "b"}\n'
        + '{"prompt": "c?", "completion": ""}\n{"prompt": "d?", "completion": "e"}'
    )
    said = finetui("eval", run.name, str(prompts), "--max-new-tokens", "1")
    assert said.returncode == 0 and said.stdout.startswith("2 prompts"), said
    assert "Not asked: row 2: " in said.stderr and "Not asked: row 3: empty answer" in said.stderr
    assert finetui("eval", run.name, "nowhere.jsonl").returncode == 4
    assert finetui("chat", "nowhere", stdin="x").returncode == 4
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    said = finetui("chat", str(tmp_path / "broken.gguf"), stdin="x")
    assert said.returncode == 6 and "Traceback" not in said.stderr and "no GGUF" in said.stderr


def test_an_eval_without_a_file_scores_the_runs_own_held_out_rows(run: Path, tmp_path: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", 40)
    recipe = recipe_file.load(run / "recipe.yaml")
    section = DatasetSection(source=str(rows), evaluation_share=0.1)
    recipe_file.save(recipe.model_copy(update={"dataset": section}), run / "recipe.yaml")
    (run / "reference.json").unlink()
    (run / "events.jsonl").unlink()
    said = finetui("eval", run.name, "--max-new-tokens", "2", "--json")
    assert said.returncode == 0, said
    told = json.loads(said.stdout)
    assert told["prompts"] == told["asked"] == 4 and told["left_out"] == []
    held = {one.question for one in talk_score.own(talk.find(str(run))).asked}
    assert held < {row["messages"][0]["content"] for row in tiny.rows(40)}
    kept = ReferencePrompt((("user", "Item 99: which colour?"),), "", (), "", (), (), True)
    proof_file.save_reference(RunFolder(run), Reference((kept,), "", "16bit", {}))
    changed = talk_score.own(talk.find(str(run)))
    assert [one.question for one in changed.asked] == ["Item 99: which colour?"] and changed.left_out
    event = events.DatasetReady("messages", 40, 0, 0, 400, 100)
    (run / "events.jsonl").write_bytes(event_log.encode(event_log.Record(1, 1.0, event)))
    said = finetui("eval", run.name)
    assert said.returncode == 4 and "held no rows out" in said.stderr


def test_an_interrupted_eval_keeps_what_was_scored(run: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "Item {n}?", "completion": "b"}}\n' for n in range(400)))
    argv = [sys.executable, "-m", "finetui.tui", "eval", run.name, str(prompts), "--max-new-tokens", "4"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    waiting.until(lambda: [f for f in run.glob("talks/eval-*.jsonl") if f.read_text().count("\n") > 1])
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    (kept,) = run.glob("talks/eval-*.jsonl")
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert process.returncode == 130 and 1 < len(rows) < 400, err
    assert out.startswith(f"{len(rows)} of 400 prompts") and str(kept) in out and "Traceback" not in err


def test_an_eval_goes_on_after_a_full_disk_and_a_kill(run: Path, tmp_path: Path, disk: Disk) -> None:
    prompts = tmp_path / "prompts.jsonl"
    count = 100
    prompts.write_text("".join(f'{{"prompt": "Item {n}?", "completion": "b"}}\n' for n in range(count)))
    shutil.copytree(run, disk.here / "data/runs" / run.name)
    argv = [sys.executable, "-m", "finetui.tui", "eval", run.name, str(prompts), "--max-new-tokens", "4"]
    options = {"env": {**os.environ, "FINETUI_HOME": str(disk.path)}}
    heard = {**options, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def kept() -> list[str]:
        """The rows on the disk, all of them whole."""
        files = list(disk.here.glob(f"data/runs/{run.name}/talks/eval-*.jsonl"))
        assert len(files) < 2
        lines = files[0].read_text().splitlines(keepends=True) if files else []
        return [json.loads(line)["messages"][-1]["content"] for line in lines if line.endswith("\n")]

    process = disk.start(argv, **heard)
    waiting.until(lambda: len(kept()) > 1)
    disk.fill()
    out, err = process.communicate(timeout=300)
    there = kept()
    assert process.returncode == 6 and out.startswith(f"{count} prompts"), err
    assert os.strerror(28) in err or os.strerror(27) in err, err
    assert "Traceback" not in err and err.count("could not be written") == 1 and 1 < len(there) < count, err
    again = [*argv, "--resume", err.split("--resume ")[1].strip()]

    disk.empty()
    process = disk.start(again, **heard)
    waiting.until(lambda: len(kept()) > len(there))
    [model] = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    waiting.until(lambda: waiting.has_ended(model.pid), "for the end of the model's process")
    assert len(kept()) < count

    said = disk.run([*again, "--json"], **options)
    assert said.returncode == 0 and json.loads(said.stdout)["prompts"] == count, said
    assert kept() == [f"Item {n}?" for n in range(count)], "each once, in order"
    prompts.write_text('{"prompt": "Another?", "completion": "b"}\n')
    said = disk.run(again, **options)
    assert said.returncode == 2 and "Row 1 of the score is of another prompt" in said.stderr, said


# ── The server ──


@pytest.fixture
def told() -> list[str]:
    """What the server says to the person."""
    return []


@pytest.fixture
def server(run: Path, told: list[str]) -> Iterator[Server]:
    talker = Talker(talk.find(str(run)))
    talker.wait_ready()
    made = Server(talker, "tiny", tell=told.append)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def request(server: Server, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": "application/json", **headers})
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text if "event-stream" in (reply.getheader("Content-Type") or "") else json.loads(
        text or "null"
    )


def free(server: Server, places: int) -> None:
    """Waits until so many requests more may wait."""
    waiting.until(lambda: server.waiting._value == places, "for free places")


def test_the_server_speaks_openai_and_refuses_strangers(server: Server, told: list[str]) -> None:
    path = "/v1/chat/completions"
    asked = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "which?"}],
        "temperature": 0,
        "max_tokens": 8,
    }
    status, listed = request(server, "GET", "/v1/models")
    assert status == 200 and [m["id"] for m in listed["data"]] == ["tiny", "tiny:base"]
    status, whole = request(server, "POST", path, asked)
    assert status == 200 and whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 8
    direct = server.talker.ask("tuned", (("user", "which?"),), Sampling(max_new_tokens=8)).wait()
    assert whole["choices"][0]["message"]["content"] == direct.text
    status, stream = request(server, "POST", path, asked | {"stream": True, "model": "tiny:base"})
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    assert status == 200 and stream.rstrip().endswith("data: [DONE]")
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert request(server, "POST", path, asked, **headers)[0] == 403
    assert request(server, "POST", path, asked, Origin="http://localhost:3000")[0] == 200
    for status, body in (
        (404, asked | {"model": "gpt-4"}), (400, b"{"), (400, asked | {"messages": []}), (400, asked | {"temperature": 9}),
        (404, asked | {"model": ["tiny"]}), (400, asked | {"stream": True, "stream_options": [1]}), (400, asked | {"stop": {"a": 1}}),
        (400, asked | {"n": 2}), (400, asked | {"messages": [{"role": "user", "content": "x" * 9000}]}),
    ):  # fmt: skip
        found, error = request(server, "POST", path, body)
        assert found == status and error["error"]["message"], (body, error)
    assert request(server, "POST", path, b"", **{"Content-Length": "99999999"})[0] == 413
    torn = asked | {"messages": [{"role": "user", "content": "which \ud800?"}]}
    assert request(server, "POST", path, torn)[0] == 200, "half a character is one that nobody can read"

    # A full queue: one more is turned away at once, the others are all served; and none hangs once the model is killed:
    # it is started again.
    with ThreadPoolExecutor(MOST_WAITING) as clients:
        with server.writing:
            waiting = [clients.submit(request, server, "POST", path, asked) for _ in range(MOST_WAITING)]
            free(server, 0)
            found, error = request(server, "POST", path, asked)
            assert found == 429 and error["error"]["type"] == "rate_limit_error"
        assert {one.result(120)[0] for one in waiting} == {200}
        free(server, MOST_WAITING)  # a place is given back after its answer was sent
        with server.writing:
            waiting = [clients.submit(request, server, "POST", path, asked) for _ in range(MOST_WAITING)]
            free(server, 0)
            assert server.talker.pid
            os.kill(server.talker.pid, signal.SIGKILL)
        answers = [one.result(120) for one in waiting]
    assert 200 in {status for status, _ in answers} <= {200, 500}
    assert all("Traceback" not in error["error"]["message"] for status, error in answers if status == 500)
    assert request(server, "POST", path, asked)[1]["choices"] == whole["choices"]
    assert told == [
        "The model's process has ended. The system ended it, most likely for want of memory, or somebody did. It is started again."
    ]


def test_connections_that_come_at_once_are_held_until_they_are_taken_up(server: Server) -> None:
    busy = Server(server.talker, "tiny")  # it does not take up any yet
    with contextlib.closing(busy.socket), contextlib.ExitStack() as clients:
        for _ in range(2 * MOST_WAITING):
            connection = socket.create_connection(("127.0.0.1", busy.server_port), timeout=10)
            clients.enter_context(contextlib.closing(connection))


# ── Without a model ──


def test_a_gpu_that_trains_is_left_alone() -> None:
    target = Target("adapter", Path("x"), "x", base="demo")
    gib = 1024**3
    gpu = Machine(8, None, 64 * gib, 60 * gib, None, (Gpu(0, "card", 24 * gib, 4 * gib),))
    assert talk.plan(target, gpu, (), 2 * gib).device == "gpu"
    busy = talk.plan(target, gpu, ("kiosk",), 2 * gib)
    assert busy.device == "cpu" and busy.choices == ("cpu", "gpu") and "2.0 GiB of the 20.0 GiB" in busy.why
    assert talk.plan(target, gpu, (), 30 * gib).device == "cpu"
    none = Machine(8, None, 64 * gib, 60 * gib, None)
    assert talk.plan(target, none, ("kiosk",), gib) == talk.Plan("cpu", ("cpu",))


def test_each_side_sees_its_own_answers_since_the_last_beginning() -> None:
    made = Talk(
        [
            Exchange("a", "S", fresh=True),
            Exchange("b", "S"),
            Exchange("c", "T", fresh=True),
            Exchange("d", "T"),
        ]
    )
    made.exchanges[0].replies |= {"base": Reply("A0"), "tuned": Reply("A1")}
    made.exchanges[2].replies |= {"base": Reply("C0"), "tuned": Reply("")}
    assert made.messages("base", 1) == (("system", "S"), ("user", "a"), ("assistant", "A0"), ("user", "b"))
    assert made.messages("tuned") == (("system", "T"), ("user", "d"))
    assert made.messages("base")[2] == ("assistant", "C0")


def test_a_row_is_appended_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"torn": 1}')
    assert talk_files.append(file, (("user", "q"), ("assistant", "a\nb"))) == 2
    assert [json.loads(line) for line in file.read_text().splitlines()][1]["messages"][1]["content"] == "a\nb"
    for wrong in (tmp_path / "rows.json", tmp_path, tmp_path / "no" / "rows.jsonl"):
        with pytest.raises(FinetuiError):
            talk_files.append(wrong, (("user", "q"),))


def test_marks() -> None:
    assert talk_score.mark(" a  b ", "a b").exact
    assert not talk_score.mark("a", "b").exact and talk_score.mark("It is A.", "a").contains
    structured = talk_score.mark('{"b": 2, "a": 1}', '{"a": 1, "b": 3}')
    assert structured.json_valid and structured.json_keys and not structured.exact
    assert talk_score.mark("{", '{"a": 1}').json_valid is False
    assert talk_score.mark("x", "y").json_valid is None
    assert talk_score.words("a b", "a  b") == "Exact, 3 characters (expected: 4)"
    assert (
        talk_score.words('{"a": 2}', '{"a": 1}')
        == "Not exact, valid JSON, same keys, 8 characters (expected: 8)"
    )
    assert talk_score.words("It is a.", "a") == "Not exact, but contained, 8 characters (expected: 1)"
