"""Pictures of the gallery of 2-D classes on a page that is being served, for people to look at and for documents.

``python -m beamsieve.tests.class_pictures http://localhost:8080/#token=… FOLDER``: the address as ``beamsieve page``
prints it, or without the token, and then as those see it who are not signed in.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from beamsieve.tests.operators import NAME, chromium

SIZES = ((1400, 1000, False), (800, 1000, False), (360, 740, True))
PATIENCE_S = 30.0


def taken(address: str, folder: Path) -> list[Path]:
    """PNGs of the gallery in three widths, and of the members of its largest class. Waits for the first classes."""
    with tempfile.TemporaryDirectory() as profile:
        driver = chromium(Path(profile))
        try:
            driver.get(address)
            if "#token=" in address:
                _sign_in(driver)
            _until(driver, "return document.querySelectorAll('.class-tile').length > 0")
            found = [_picture(driver, folder / f"classes-{size[0]}.png", size) for size in SIZES]
            driver.execute_script("document.querySelector('.class-open').click()")
            _until(driver, "return document.querySelectorAll('.class-members li').length > 0")
            return [*found, _picture(driver, folder / "class-members.png", SIZES[0])]
        finally:
            driver.quit()


def _sign_in(driver: Any) -> None:
    field = "dialog[open] input[name=name]"
    _until(driver, f"return document.querySelector('{field}') !== null")
    driver.find_element("css selector", field).send_keys(NAME, "\ue007")
    _until(driver, "return document.querySelector('dialog[open]') === null")


def _picture(driver: Any, path: Path, size: tuple[int, int, bool]) -> Path:
    width, height, mobile = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.execute_script("document.querySelector('#panel-classes').scrollIntoView()")
    below = "tile => tile.getBoundingClientRect().top > innerHeight"
    _until(driver, f"return [...document.querySelectorAll('.class-tile.empty')].every({below})")
    time.sleep(0.5)  # what came last is drawn with the next frame
    path.write_bytes(driver.get_screenshot_as_png())
    return path


def _until(driver: Any, script: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not driver.execute_script(script):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE_S:g} s: {script}")
        time.sleep(0.1)


if __name__ == "__main__":
    for made in taken(sys.argv[1], Path(sys.argv[2])):
        sys.stdout.write(f"{made}\n")
