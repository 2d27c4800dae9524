"""
Draws docs/screenshots anew, after `make quickstart` and `make quickstart-verification`.

    PYTHONPATH=tests .venv/bin/python tests/spaces/make_screenshots.py

The demo runs on folders, and shows drawings of the embedded set that no network was trained on. The second command
prints which of its folders has stored thresholds; another one than that of TH-KD is named with `--verification-model`.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from browser_page import browser_page, demo, upload
from datasets import load_dataset
from PIL import Image


ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "data" / "omniglot-8alphabets"
# Rows of the test split: two of trained characters, and two drawings of one that was held out.
CLASSIFIED, COMPARED = (300, 905), ("Latin/character06", (0, 1))
COLORS = 128


def save_drawings(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images that are classified, and those that are compared, as files."""
    test = load_dataset(str(DATA), split="test")
    names = test.features["label"].names
    label, numbers = COMPARED
    held_out = [row for row, value in enumerate(test["label"]) if names[value] == label]
    paths = []
    for row in (*CLASSIFIED, *(held_out[number] for number in numbers)):
        paths.append(folder / f"{names[test[row]['label']].replace('/', '-')}-{row}.png")
        test[row]["image"].save(paths[-1])
    return paths[:2], paths[2:]


def save_picture(page: Any, path: Path) -> None:
    """The whole page, with few colors: the file is in the repository."""
    page.evaluate("document.fonts.ready")
    page.screenshot(path=path, full_page=True)
    with Image.open(path) as image:
        image.convert("RGB").quantize(COLORS).save(path, optimize=True)


def draw(page: Any, address: str, images: tuple[list[Path], list[Path]], output: Path) -> None:
    page.goto(address)
    upload(page, "images", *images[0])
    page.locator("#classify").click()
    page.locator("#classes .answer").nth(len(images[0]) - 1).wait_for()
    save_picture(page, output / "classify.png")
    page.get_by_role("tab", name="Verify").click()
    page.locator("#far label").first.wait_for()
    for elem_id, path in zip(("first-image", "second-image"), images[1], strict=True):
        upload(page, elem_id, path)
    page.locator("#compare").click()
    page.locator("#comparison .comparison").wait_for()
    save_picture(page, output / "verify.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that the names below are relative to")
    parser.add_argument("--model", default="./outputs/quickstart/seed_42/th_kd")
    parser.add_argument("--teacher", default="./outputs/quickstart/seed_42/teacher")
    parser.add_argument("--verification-model", default="./outputs/verification/seed_42/th_kd")
    options = parser.parse_args()
    output = ROOT / "docs" / "screenshots"
    output.mkdir(exist_ok=True)
    given = (
        "--models",
        options.model,
        "--teacher",
        options.teacher,
        "--verification-models",
        options.verification_model,
    )
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        environment = {
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
            "HF_HUB_OFFLINE": "1",
            "GRADIO_TEMP_DIR": str(work / "uploads"),
        }
        with (
            demo(options.root, work / "log", *given, app=ROOT / "spaces" / "app.py", **environment) as address,
            browser_page(work / "profile", [], viewport={"width": 1200, "height": 800}) as page,
        ):
            draw(page, address, save_drawings(work), output)


if __name__ == "__main__":
    main()
