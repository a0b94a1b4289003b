"""Turn the SVG that Textual exports into a PNG, with a headless Chromium and a font that has braille.

python tests/screenshots/render.py screen.svg screen.png
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FONT = "DejaVu Sans Mono"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class NoBrowser(RuntimeError):
    """No Chromium was found on PATH."""


def svg_to_png(svg: str, target: Path, scale: float = 1.0) -> Path:
    """Write `svg` (the text of `App.export_screenshot()`) as a PNG to `target` and return `target`.

    The web font that the SVG asks for is replaced by DejaVu Sans Mono, which is not fetched from anywhere and
    has every glyph that the product draws. `scale` is pixels per SVG unit.

    Raises:
        NoBrowser: no Chromium on PATH.
        RuntimeError: Chromium wrote no picture; the message carries what it said.
        ValueError: `svg` has no size.
    """
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        names = ", ".join(BROWSERS)
        raise NoBrowser(f"no Chromium on PATH (looked for {names}); install the package chromium")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if box is None:
        raise ValueError("the SVG has no viewBox")
    width, height = (round(float(value) + 0.5) for value in box.groups())
    svg = re.sub(r"@font-face\s*\{[^}]*\}", "", svg)
    svg = re.sub(r"font-family:\s*Fira Code,\s*monospace", f'font-family: "{FONT}", monospace', svg)
    page = (
        '<!doctype html><meta charset="utf-8">'
        "<style>html,body{margin:0;background:transparent;overflow:hidden}"
        f"svg{{display:block;width:{width}px;height:{height}px}}</style>{svg}"
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        html, picture = Path(folder, "page.html"), Path(folder, "page.png")
        html.write_text(page, encoding="utf-8")
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--default-background-color=00000000",
            f"--user-data-dir={folder}/profile",
            f"--force-device-scale-factor={scale}",
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            html.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if not picture.exists():
            raise RuntimeError(f"{browser} wrote no picture (exit {done.returncode}): {done.stderr[-800:]}")
        shutil.move(picture, target)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: render.py SCREEN.svg SCREEN.png")
    svg_to_png(Path(sys.argv[1]).read_text(encoding="utf-8"), Path(sys.argv[2]))
