"""Handing a GGUF to Ollama, against a stand-in for its program and its API that records what it was asked."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetui.core import ollama, ollama_files
from finetui.core.errors import FinetuiError
from finetui.core.runs.store import RunFolder

from ..outgoing import MODELFILE, finished_run

TOKEN = "hf_canaryCanaryCanary"

PROGRAM = """#!{python}
import json, os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
told = json.load(open(here + "/told.json"))
if sys.argv[1:] == ["--version"]:
    print(told["version"])
    sys.exit()
seen = {{"argv": sys.argv[1:], "cwd": os.getcwd(), "env": dict(os.environ), "modelfile": open(sys.argv[4]).read()}}
json.dump(seen, open(here + "/seen.json", "w"))
print("gathering model components\\rcopying file sha256:1 50%\\rcopying file sha256:1 100%", flush=True)
time.sleep(told["seconds"])
print(told["last"])
sys.exit(told["code"])
"""


class Standin:
    """An `ollama` on the PATH and its API on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models: list[str] = []
        self.tell()
        program = folder / "ollama"
        program.write_text(PROGRAM.format(python=sys.executable))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def tell(
        self,
        version: str = "ollama version is 0.12.3",
        last: str = "success",
        code: int = 0,
        seconds: float = 0,
    ) -> None:
        told = {"version": version, "last": last, "code": code, "seconds": seconds}
        (self.folder / "told.json").write_text(json.dumps(told))

    def seen(self) -> dict[str, Any]:
        return json.loads((self.folder / "seen.json").read_text())


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    (tmp_path / "bin").mkdir()
    made = Standin(tmp_path / "bin")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

        def do_GET(self) -> None:
            content = json.dumps({"models": [{"name": name} for name in made.models]}).encode()
            self.send_response(200 if self.path == "/api/tags" else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    monkeypatch.setenv("PATH", str(made.folder))
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    yield made
    server.shutdown()
    server.server_close()
    thread.join(10)


def refused(run: RunFolder, code: str, *arguments: str) -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        ollama.create(ollama.plan(run, *arguments))
    assert caught.value.code == code, str(caught.value)
    return caught.value


def test_ollama_gets_this_models_own_modelfile(standin: Standin) -> None:
    run = finished_run(("adapter", "gguf_q8_0", "gguf_q4_k_m"))
    plan = ollama.plan(run)
    assert (plan.format, plan.name, plan.version) == ("gguf_q4_k_m", "demo", "0.12.3")
    said: list[str] = []
    ollama.create(plan, said.append)
    seen = standin.seen()
    assert seen["argv"] == ["create", "demo", "-f", "Modelfile"]
    assert Path(seen["cwd"]) == run.exports / "gguf_q4_k_m", "so that FROM ./… is found"
    assert seen["modelfile"] == MODELFILE.replace("Q8_0", "Q4_K_M")
    assert "HF_TOKEN" not in seen["env"] and TOKEN not in json.dumps(seen)
    assert said == [
        "gathering model components",
        "copying file sha256:1 50%",
        "copying file sha256:1 100%",
        "success",
    ]


def test_without_ollama_there_are_the_commands(standin: Standin) -> None:
    run = finished_run(("gguf_q8_0",))
    (standin.folder / "ollama").unlink()
    plan = ollama.plan(run)
    assert plan.program is None
    assert plan.commands[0] == f"ollama create demo -f {run.exports}/gguf_q8_0/Modelfile"


def test_a_model_of_the_same_name_is_seen(standin: Standin) -> None:
    run = finished_run(("gguf_q8_0",))
    standin.models = ["demo:latest", "mine:v1"]
    assert ollama.plan(run).replaces and ollama.plan(run, "", "mine:v1").replaces
    assert not ollama.plan(run, "", "mine").replaces


def test_old_odd_and_silent_programs(standin: Standin) -> None:
    run = finished_run(("gguf_q8_0",))
    standin.tell("ollama version is 0.1.48")
    assert "0.1.48" in refused(run, "ollama-old").what
    standin.tell("ollama version is 0.12.0\nWarning: client version is 0.2.1")
    refused(run, "ollama-old")
    standin.tell("ollama version is 0.2.5")
    refused(run, "ollama-old")
    standin.tell("ollama version is 0.2.6")
    assert ollama.plan(run).version == "0.2.6", "the first that speaks to it as in training"
    standin.tell("ollama version is 0.0.0")
    assert ollama.plan(run).version == "0.0.0", "somebody's own build"
    standin.tell("\x1b[31mSegmentation fault")
    card = refused(run, "ollama-failed")
    assert "Segmentation fault" in card.why and "\x1b" not in card.why


def test_ollama_that_is_not_running_or_elsewhere(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    run = finished_run(("gguf_q8_0",))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("OLLAMA_HOST", f"http://0.0.0.0:{port}")
    assert "ollama serve" in refused(run, "ollama-down").fix
    monkeypatch.setenv("OLLAMA_HOST", "gpu-box:11434")
    assert "gpu-box" in refused(run, "ollama-elsewhere").why


def test_a_create_that_fails(standin: Standin) -> None:
    run = finished_run(("gguf_q8_0",))
    standin.tell(last="Error: unsupported architecture [bold]", code=1)
    assert "unsupported architecture [bold]" in refused(run, "ollama-failed").why
    standin.tell(last="Error: write /root/.ollama: no space left on device", code=1)
    refused(run, "no-space")
    standin.tell(last="Error: could not connect to ollama app, is it running?", code=1)
    refused(run, "ollama-down")


def test_stopping_ends_the_program(standin: Standin) -> None:
    standin.tell(seconds=300)
    plan = ollama.plan(finished_run(("gguf_q8_0",)))

    def stop(line: str) -> None:
        if "100%" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ollama.create(plan, stop)


@pytest.mark.parametrize(
    "name", ["-f", "../x", "a b", "UPPER", "x;reboot", "", "a/b/c", "a..b", "$(id)", "x\n"]
)
def test_names_that_are_none(standin: Standin, name: str) -> None:
    with pytest.raises(FinetuiError) as caught:
        ollama.check_name(name)
    assert caught.value.code == "ollama-name"


def test_formats_that_are_not_there_or_no_gguf(standin: Standin) -> None:
    run = finished_run(("adapter", "gguf_q8_0"))
    refused(run, "export-missing", "gguf_f16")
    refused(run, "ollama-format", "adapter")
    (run.exports / "gguf_q8_0/Modelfile").unlink()
    refused(run, "export-missing")


OVER = "# over\nFROM ./BASE.gguf\nADAPTER ./demo-lora.gguf\n" + MODELFILE.split("\n", 1)[1]


def with_adapter() -> RunFolder:
    run = finished_run(("gguf_q8_0",))
    folder = run.exports / "adapter_gguf"
    folder.mkdir()
    (folder / "demo-lora.gguf").write_bytes(b"GGUF")
    (folder / "Modelfile").write_text(OVER)
    return run


def test_an_adapter_goes_over_the_base_that_the_person_names(standin: Standin, tmp_path: Path) -> None:
    run, base = with_adapter(), tmp_path / "my & base|1.gguf"
    base.write_bytes(b"GGUF")
    plan = ollama.plan(run, base=str(base))
    assert (plan.format, plan.name, plan.base) == ("adapter_gguf", "demo", str(base))
    ollama.create(plan)
    seen = standin.seen()
    assert Path(seen["cwd"]) == run.exports / "adapter_gguf", "so that ADAPTER ./… is found"
    assert seen["modelfile"] == OVER.replace("./BASE.gguf", str(base))
    assert sorted(path.name for path in plan.folder.iterdir()) == ["Modelfile", "demo-lora.gguf"]
    assert (plan.folder / "Modelfile").read_text() == OVER
    ollama.create(ollama.plan(run, "adapter_gguf", "mine", "qwen2.5:0.5b"))
    assert standin.seen()["modelfile"] == OVER.replace("./BASE.gguf", "qwen2.5:0.5b")


def test_the_commands_for_elsewhere_make_the_same_modelfile(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, base = with_adapter(), tmp_path / "my & base|1.gguf"
    base.write_bytes(b"GGUF")
    program = standin.folder / "ollama"
    program.rename(standin.folder / "aside")
    create, _run = ollama.plan(run, base=str(base)).commands
    (standin.folder / "aside").rename(program)
    monkeypatch.setenv("PATH", f"{standin.folder}:/usr/bin:/bin")
    subprocess.run(create, shell=True, check=True)
    assert standin.seen()["modelfile"] == OVER.replace("./BASE.gguf", str(base))
    assert Path(standin.seen()["argv"][3]).parent == run.exports / "adapter_gguf"


def test_bases_that_are_none(standin: Standin, tmp_path: Path) -> None:
    run = with_adapter()
    (tmp_path / "x.gguf").write_bytes(b"none")
    own = str(run.exports / "gguf_q8_0" / "demo-Q8_0.gguf")
    assert "--base" in refused(run, "ollama-base", "adapter_gguf").fix
    for base, why in (
        (str(tmp_path / "x.gguf"), "is no GGUF"),
        (str(tmp_path / "gone.gguf"), "is no file"),
        ("-x", "is no file"),
        ("qwen\nFROM evil", "is no file"),
        (own, "holds what was learned already"),
    ):
        assert why in refused(run, "ollama-base", "adapter_gguf", "", base).why, base
    refused(run, "ollama-base", "gguf_q8_0", "", "qwen2.5:0.5b")
    (run.exports / "adapter_gguf" / "Modelfile").unlink()
    refused(run, "export-missing", "", "", "qwen2.5:0.5b")
    assert ollama.plan(run).format == "gguf_q8_0", "an adapter is never taken unasked"


def test_the_modelfile_as_files_for_the_hub() -> None:
    more = 'SYSTEM """Say "yes".\nOr no.\nPARAMETER num_ctx 7\n """\nPARAMETER num_ctx 4096\nPARAMETER temperature 0\n'
    told = ollama_files.of_modelfile(MODELFILE + more)
    assert told["system"] == b'Say "yes".\nOr no.\nPARAMETER num_ctx 7\n '
    assert json.loads(told["params"]) == {"num_ctx": 4096, "temperature": 0, "stop": ["<|im_end|>"]}
    assert told["template"].endswith(b"<|im_start|>assistant\n")
