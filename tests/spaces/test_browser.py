"""The published Space as a visitor uses it, in headless Chromium."""

import importlib.util
import os

import huggingface_hub
import push_space
import pytest
import torch
from browser_page import REMEDY, browser_page, choose, demo, find_browser, upload
from PIL import Image

from headshare_hf import HeadShareForImageClassification, HeadShareImageProcessor


def _require_browser():
    if find_browser() and importlib.util.find_spec("playwright"):
        return
    if os.environ.get("HEADSHARE_REQUIRE_BROWSER") == "1":
        pytest.fail(f"HEADSHARE_REQUIRE_BROWSER is 1 and there is no browser to test with: {REMEDY}")
    pytest.skip(f"there is no browser to test with: {REMEDY}")


@pytest.fixture(scope="module")
def site(hub, tmp_path_factory):
    """Address of the demo, run from a Space that was published and downloaded again."""
    _require_browser()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", hub.alice)
        push_space.push("alice/demo")
    folder = huggingface_hub.snapshot_download("alice/demo", repo_type="space", local_dir=tmp_path_factory.mktemp("x"))
    home = tmp_path_factory.mktemp("home")
    settings = {"DEMO_MODELS": "alice/student", "DEMO_VERIFICATION_MODELS": "alice/faces"}
    with demo(
        folder,
        home / "log",
        **settings,
        HF_HOME=str(home),
        HF_HUB_OFFLINE="0",
        GRADIO_TEMP_DIR=str(home / "uploads"),
        PYTHONPATH="",
        OMP_NUM_THREADS="1",
    ) as address:
        yield address


@pytest.fixture(scope="module")
def refused():
    """Addresses outside of this machine that the page wanted."""
    return []


@pytest.fixture(scope="module")
def browser(site, refused, tmp_path_factory):
    with browser_page(tmp_path_factory.mktemp("profile"), refused) as page:
        yield page


@pytest.fixture
def page(browser, site):
    """The page, loaded anew."""
    browser.goto(site)
    browser.locator("#classify").wait_for()
    return browser


def _expected(hub, name, path):
    """The likeliest classes of a model, computed here."""
    model = HeadShareForImageClassification.from_pretrained(name).eval()
    processor = HeadShareImageProcessor.from_pretrained(name)
    with torch.no_grad():
        scores = model(**processor(Image.open(path), return_tensors="pt")).logits[0].softmax(dim=0)
    values, indices = scores.topk(5)
    return [(model.config.id2label[i], f"{v:.1%}") for i, v in zip(indices.tolist(), values.tolist(), strict=True)]


def _shown(card, role):
    rows = card.locator(f".guesses.{role} .guess")
    return [tuple(row.locator("span").all_inner_texts()) for row in rows.all()]


def test_images_are_classified_by_student_and_teacher(hub, page, pictures):
    assert page.locator("#student input").input_value() == "alice/student"
    upload(page, "images", pictures / "noise.png", pictures / "gray.png", pictures / "notes.png")
    page.locator("#classify").click()
    cards = page.locator("#classes .answer")
    cards.nth(1).wait_for()
    assert cards.count() == 2
    for card, name in zip(cards.all(), ("noise.png", "gray.png"), strict=True):
        for role in ("student", "teacher"):
            assert _shown(card, role) == _expected(hub, f"alice/{role}", pictures / name)
        assert "KL(teacher ‖ student)" in card.inner_text() and name in card.inner_text()
    assert page.locator("#classes [role=alert]").all_inner_texts() == [
        "notes.png is not an image. Give a PNG, JPEG, WebP, GIF, BMP or TIFF file."
    ]
    row = page.locator("#classes tr.teacher td").all_inner_texts()
    assert row[:2] == ["alice/teacher", "resnet14"] and int(row[2].replace(",", "")) > 100_000 and float(row[3]) > 0


def test_a_wrong_id_is_said_on_the_page(page, pictures):
    choose(page, "student", "alice/nothing")
    upload(page, "images", pictures / "noise.png")
    page.locator("#classify").click()
    alert = page.locator("#classes [role=alert]")
    assert "The Hub has no model alice/nothing, or it is private" in alert.inner_text()
    choose(page, "student", "alice/gated")
    page.locator("#classify").click()
    page.locator("#classes [role=alert]", has_text="alice/gated is gated").wait_for()


def test_two_images_are_verified_by_a_stored_threshold(page, pictures):
    page.get_by_role("tab", name="Verify").click()
    page.locator("#far label").nth(1).wait_for()
    assert "FAR 0.001" in page.locator("#far label").first.inner_text()
    upload(page, "first-image", pictures / "noise.png")
    upload(page, "second-image", pictures / "gray.png")
    page.locator("#compare").click()
    verdict = page.locator("#comparison .verdict")
    assert verdict.inner_text() == "Not accepted as the same"
    page.locator("#far label").nth(1).click()
    page.locator("#compare").click()
    page.locator("#comparison .verdict", has_text="Accepted as the same").wait_for()
    choose(page, "verifier", "alice/faces-plain")
    page.locator("#thresholds", has_text="no stored threshold").wait_for()
    page.locator("#compare").click()
    page.locator("#comparison .verdict", has_text="Not decided").wait_for()
    assert "similarity 0." in page.locator("#comparison .similarity").inner_text()


def test_the_page_needs_nothing_from_other_machines(page, refused):
    assert refused == []
    page.evaluate("fetch('https://hub.invalid/counted').catch(() => null)")
    assert refused == ["https://hub.invalid/counted"]
