"""The demo as a process, and a page of headless Chromium that reaches nothing but this machine."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REMEDY = (
    "install Chromium (Debian: `apt-get install chromium`) and the Python package playwright, which is part of "
    "`pip install headshare_hf[test]`"
)
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_START = 180


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def demo(folder: Path, log: Path, *options: str, app: Path = Path("app.py"), **environment: str) -> Iterator[str]:
    """Runs the demo in a folder until the end of the block; its address. What it prints goes to `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(app), "--port", str(port), *options]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, address, log)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def _wait(process: subprocess.Popen, address: str, log: Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the demo stopped with exit code {process.returncode}:\n{log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the demo did not answer within {_START} seconds:\n{log.read_text()[-2000:]}")


@contextmanager
def browser_page(profile: Path, refused: list[str], **options: Any) -> Iterator[Any]:
    """A page of Chromium. Requests to other machines are refused, and noted in `refused`."""
    from playwright.sync_api import sync_playwright

    def only_loopback(route: Any) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            route.continue_()
        else:
            refused.append(route.request.url)
            route.abort()

    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=find_browser(), headless=True, args=list(_FLAGS), **options
        )
        try:
            context.route("**/*", only_loopback)
            page = context.new_page()
            page.set_default_timeout(30_000)
            yield page
        finally:
            context.close()


def choose(page: Any, elem_id: str, value: str) -> None:
    """Types a value of one's own into a dropdown."""
    box = page.locator(f"#{elem_id} input")
    box.fill(value)
    box.press("Enter")
    box.blur()


def upload(page: Any, elem_id: str, *paths: Path) -> None:
    """Gives files to an upload box, and waits until the page lists them."""
    page.locator(f"#{elem_id} input[type=file]").set_input_files([str(path) for path in paths])
    page.locator(f"#{elem_id} .file-preview tr").nth(len(paths) - 1).wait_for()
