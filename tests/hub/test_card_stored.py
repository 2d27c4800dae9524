"""The cards in model_cards/ of runs made here."""

import runpy
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from headshare_hf.hub import render_card


SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "model_cards" / "make_measured_cards.py"))


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
