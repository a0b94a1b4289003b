"""Finds a Python that finetui runs on, and makes `.venv` with it.

This file must parse and run on any Python 3 since 3.6: it is where a person with an old Python is told so.
"""

import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
NEWEST = (3, 13)
NEEDED = "finetui needs Python 3.11, 3.12 or 3.13"


def supported(version):
    """Whether a (major, minor) pair is a Python that finetui and its libraries install on."""
    return OLDEST <= tuple(version[:2]) <= NEWEST


def version_of(interpreter):
    """The (major, minor) that an interpreter answers with; None when it does not run."""
    command = [interpreter, "-ES", "-c", "import sys; print('%d %d' % sys.version_info[:2])"]
    try:
        answer = subprocess.check_output(command, stderr=subprocess.DEVNULL)
        major, minor = answer.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def other_interpreter():
    """The path of a supported Python on PATH, newest first; None when there is none."""
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which("python3.%d" % minor)
        if found and version_of(found) == (3, minor):
            return found
    return None


def main():
    """Run the installer in this interpreter, or hand over to one that it can run in."""
    if supported(sys.version_info):
        from .install import main as install

        return install(sys.argv[1:])
    mine = "%d.%d" % tuple(sys.version_info[:2])
    if os.environ.get("PYTHON"):
        print("finetui: %s, and PYTHON=%s is %s." % (NEEDED, os.environ["PYTHON"], mine), file=sys.stderr)
        return 1
    other = other_interpreter()
    if other is None:
        print(
            "finetui: %s, and the only one found is %s (%s). Install one, or name it: make run PYTHON=/path/to/python3.12"
            % (NEEDED, mine, sys.executable),
            file=sys.stderr,
        )
        return 1
    os.execv(other, [other, "-ES", "-m", "bootstrap"] + sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
