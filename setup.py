"""Maps the folders core/ and tui/ to the packages finetui.core and finetui.tui, with all that is in them.

setuptools cannot find packages under a prefix from pyproject alone; a list there would need a line for each
new folder. Everything else about the project stands in pyproject.toml.
"""

from setuptools import find_namespace_packages, setup

found = find_namespace_packages(include=["core", "core.*", "tui", "tui.*"], exclude=["*__pycache__*"])

setup(
    packages=[f"finetui.{name}" for name in found],
    package_dir={"finetui.core": "core", "finetui.tui": "tui"},
    package_data={"": ["*"]},
)
