"""The hub's token: used by this process, kept only when asked, forgotten when asked."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from finetui.core import hub, secrets
from finetui.core.errors import FinetuiError

TOKEN = "hf_canaryCanaryCanary"


@pytest.fixture(autouse=True)
def no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "x")  # so that what a test sets is taken back
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def test_a_used_token_is_written_nowhere(tmp_path: Path) -> None:
    hub.use_token(f"  {TOKEN}\n")
    assert secrets.hub_token() == TOKEN == os.environ["HF_TOKEN"]
    assert not list(tmp_path.rglob("*"))
    hub.forget_token()
    assert secrets.hub_token() is None


def test_a_kept_token_lies_where_the_hubs_own_login_keeps_it(tmp_path: Path) -> None:
    hub.keep_token(TOKEN)
    file = tmp_path / "hf" / "token"
    assert file.read_text() == TOKEN
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    del os.environ["HF_TOKEN"]
    assert secrets.hub_token() == TOKEN
    hub.forget_token()
    assert not file.exists() and secrets.hub_token() is None
    hub.forget_token()


@pytest.mark.parametrize("bad", ["", "   ", "two words", "hf_\x1b[31m", "ü", "x" * 501, "a\nb"])
def test_what_cannot_be_a_token_is_refused_and_not_repeated(bad: str) -> None:
    for take in (hub.use_token, hub.keep_token):
        with pytest.raises(FinetuiError) as caught:
            take(bad)
        assert caught.value.code == "hub-token"
        assert not bad.strip() or bad not in str(caught.value)
    assert "HF_TOKEN" not in os.environ


def test_a_token_that_cannot_be_kept_is_still_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    with pytest.raises(FinetuiError) as caught:
        hub.keep_token(TOKEN)
    assert caught.value.code == "hub-token" and TOKEN not in str(caught.value)
    assert secrets.hub_token() == TOKEN
