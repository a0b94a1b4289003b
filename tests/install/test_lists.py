"""The pinned lists: names and versions only, agreeing with each other and with the ranges in pyproject."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bootstrap import stamp
from tests.install.project import ROOT

LISTS = ["cpu.txt", "cuda.txt", "dev.txt"]


def pins(name: str) -> dict[str, str]:
    """Package to version, from one list."""
    lines = stamp.requirements(ROOT / "requirements" / name)
    return {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_holds_names_and_versions_only(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    for line in stamp.requirements(ROOT / "requirements" / name):
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line
    assert stamp.disk_gigabytes(ROOT / "requirements" / name) > 0


def test_cuda_has_all_that_cpu_has_at_the_same_versions() -> None:
    assert pins("cpu.txt").items() <= pins("cuda.txt").items()
    assert {"bitsandbytes", "triton"} <= pins("cuda.txt").keys() - pins("cpu.txt").keys()


def test_the_tools_are_not_in_the_product() -> None:
    assert not pins("dev.txt").keys() & pins("cuda.txt").keys()


def test_the_pins_are_within_the_ranges_of_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = pins("cuda.txt")
    for text in project["dependencies"]:
        requirement = Requirement(text)
        version = pinned[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{text} excludes {version}"
