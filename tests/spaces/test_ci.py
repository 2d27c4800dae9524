"""The browser of the continuous integration: which one it takes, and what it says without one."""

import shutil
import subprocess
from pathlib import Path

import pytest
from browser_page import BROWSERS


RUN = Path(__file__).parents[2] / ".ci" / "run"
STEPS = ("quality", "docs", "test", "clean")


def _run(root, *commands, user=0):
    """Runs a copy of the script where these commands, `make` and `id` do nothing but succeed, and no others exist."""
    (root / ".ci").mkdir()
    (root / "bin").mkdir()
    shutil.copy(RUN, root / ".ci" / "run")
    (root / "bin" / "dirname").symlink_to(shutil.which("dirname"))
    for name, line in {**dict.fromkeys(commands, "exit 0"), "make": 'echo "make $1"', "id": f"echo {user}"}.items():
        (root / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (root / "bin" / name).chmod(0o755)
    command = [shutil.which("bash"), str(root / ".ci" / "run")]
    return subprocess.run(command, env={"PATH": str(root / "bin")}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("browser", BROWSERS)
def test_every_browser_of_the_tests_will_do(browser, tmp_path):
    done = _run(tmp_path, browser, user=1000)
    assert done.returncode == 0 and done.stdout.split("\n") == [*map("make {}".format, STEPS), ""]


@pytest.mark.parametrize("commands, user", [((), 0), (("apt-get",), 1000)])
def test_where_none_can_be_installed_the_remedy_is_said(commands, user, tmp_path):
    done = _run(tmp_path, *commands, user=user)
    assert done.returncode == 1 and "make" not in done.stdout
    assert "have chromium, chromium-browser or google-chrome installed" in done.stderr


def test_root_installs_one(tmp_path):
    assert "make test" in _run(tmp_path, "apt-get").stdout
