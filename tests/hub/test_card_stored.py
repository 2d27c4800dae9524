"""The cards in model_cards/ of runs made here."""

import json
import re
import runpy
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from headshare_hf.hub import render_card
from headshare_hf.models.card_metrics import find_pair_metric


ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "model_cards" / "make_measured_cards.py"))
CLASSIFIER, VERIFIER = SCRIPT["describe"]()


@pytest.mark.parametrize("name", SCRIPT["describe"]())
def test_a_card_in_the_repository_is_what_its_facts_render(name):
    stored = SCRIPT["FOLDER"] / name
    assert render_card(SCRIPT["describe"]()[name]).content == stored.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SCRIPT["describe"]())
def test_data_that_are_not_on_the_hub_are_named_and_not_linked(name):
    card = ModelCard.load(SCRIPT["FOLDER"] / name)
    assert "datasets" not in card.data.to_dict() and "local/" not in card.content
    assert {result.dataset_type for result in card.data.eval_results} == {"omniglot-8alphabets (not on the Hub)"}
    assert "| data | Omniglot, 8 alphabets (`omniglot-8alphabets`, not on the Hub) |" in card.text


def _results(name):
    """What docs/results holds of the run with the seed that the cards name."""
    content = json.loads((ROOT / "docs" / "results" / name).read_text(encoding="utf-8"))
    return content, content["seeds"].index(42)


def _metrics(card):
    """Values by what they are called in front of the set, in the metadata of a card."""
    return {result.metric_name.split(", ")[0]: result.metric_value for result in card.data.eval_results}


def _counts(text):
    return set(re.findall(r"[\d,]*\d", text))


def test_the_card_of_the_classifier_has_the_numbers_of_the_stored_results():
    card = ModelCard.load(SCRIPT["FOLDER"] / CLASSIFIER)
    found, run = _results("omniglot.json")
    accuracy, (teacher,) = found["accuracy"]["SH-KD"][run], found["other"].values()
    for name in ("Top-1 accuracy", "Mean per-class accuracy"):
        assert _metrics(card)[name] == round(accuracy, 6)
        assert f"| {name} | Omniglot, 8 alphabets | test | 1,210 | {100 * accuracy:.2f} |" in card.text
    stated = f"{100 * teacher[run]:.2f} per cent"
    assert f"it has top-1 accuracy {stated}" in card.text and f"mean per-class accuracy {stated}" in card.text
    assert "| seed | 42 |" in card.text and "| images | train 3,630, test 1,210 |" in card.text
    assert "| classes | 242 |" in card.text and {"3,630", "1,210", "242"} < _counts(found["data"])


def test_the_card_of_the_verifier_has_the_numbers_of_the_stored_results():
    card = ModelCard.load(SCRIPT["FOLDER"] / VERIFIER)
    found, run = _results("omniglot_verification.json")
    values = {find_pair_metric(name, 10).name: seeds[run] for name, seeds in found["verification"]["TH-KD"].items()}
    assert len(values) == 5
    for name, value in values.items():
        assert _metrics(card)[name] == round(value, 6)
        assert re.search(rf"\| {re.escape(name)} \| .* \| 3,000 \| 3,000 \| {100 * value:.2f}[ |]", card.text), name
    assert "| seed | 42 |" in card.text and "| images | train 2,985, test 995 |" in card.text
    assert "| characters trained on | 199 |" in card.text and {"199", "2,985", "6,000"} < _counts(found["data"])


@pytest.mark.parametrize("name, file", [(CLASSIFIER, "omniglot.json"), (VERIFIER, "omniglot_verification.json")])
def test_versions_are_those_of_the_stored_results(name, file):
    stated, found = ModelCard.load(SCRIPT["FOLDER"] / name).text, _results(file)[0]["hardware"]
    for package in ("torch", "transformers"):
        pattern = rf"{package} (\d+\.\d+\.\d+)"
        assert re.findall(pattern, stated) == re.findall(pattern, found)


@pytest.mark.parametrize(
    "name, file, metric",
    [
        (CLASSIFIER, "omniglot.json", "Top-1 accuracy"),
        (VERIFIER, "omniglot_verification.json", "Equal error rate"),
    ],
)
def test_other_results_make_another_card(name, file, metric, tmp_path, monkeypatch):
    for path in (ROOT / "docs" / "results").glob("omniglot*.json"):
        numbers = re.sub(r"0\.\d+", lambda found: str(float(found[0]) / 2), path.read_text(encoding="utf-8"))
        (tmp_path / path.name).write_text(numbers, encoding="utf-8")
    before = _metrics(render_card(SCRIPT["describe"]()[name]))[metric]
    monkeypatch.setitem(SCRIPT["describe"].__globals__, "RESULTS", tmp_path)
    assert _metrics(render_card(SCRIPT["describe"]()[name]))[metric] == pytest.approx(before / 2, abs=1e-6)
