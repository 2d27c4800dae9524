"""What a card says of thresholds is what the configuration beside it holds, whenever they were stored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from card_facts import CARD, changed
from huggingface_hub import ModelCard, hf_hub_download
from published_runs import FACE, finish, push, trainer
from toys import resnet

from headshare_hf import HeadShareImageProcessor
from headshare_hf.evaluation import store_thresholds
from headshare_hf.hub import CardPairs, CardVerification, publish_folder, render_card
from headshare_hf.models.card_thresholds import state_thresholds
from headshare_hf.trainer import publish_run


NONE = "No threshold is stored with these weights"
ENTRY = {"far": 0.01, "rule": "at_most", "similarity": 0.28765, "set": "lfw", "num_impostor": 3000, "flip": True}
OTHER = {**ENTRY, "far": 0.001, "similarity": 0.4}
PAIRS = CardPairs("lfw", "local/lfw", 3000, 3000, 10, {"accuracy": 0.9945}, 0.0011)
VERIFICATION = CardVerification("faces", "aligned", True, 1000, 4000, 5000, (PAIRS,))
FACES = replace(CARD, results=(), verification=VERIFICATION)


@pytest.mark.parametrize("subject", ["faces", "characters"])
@pytest.mark.parametrize("flip", [True, False])
def test_a_text_that_is_brought_into_agreement_is_as_if_rendered_so(subject, flip):
    card = replace(FACES, verification=replace(VERIFICATION, subject=subject, flip=flip))
    texts = {
        entries: render_card(changed(card, "verification.thresholds", tuple(map(dict, entries)))).content
        for entries in [(), (tuple(ENTRY.items()),), (tuple(OTHER.items()), tuple(ENTRY.items()))]
    }
    assert len(set(texts.values())) == 3
    for text in texts.values():
        for entries, expected in texts.items():
            assert state_thresholds(text, [dict(entry) for entry in entries]) == expected
    assert state_thresholds(texts[()], None) == texts[()]


def test_cards_that_say_nothing_of_thresholds_stay_as_they_are():
    for text in (render_card(CARD).content, "---\nlicense: mit\n---\n\nMine.\n"):
        assert state_thresholds(text, [ENTRY]) == text
    with pytest.raises(ValueError, match="rule 'most'; it must be one of at_most, nearest"):
        state_thresholds(render_card(FACES).content, [{**ENTRY, "rule": "most"}])


def _save(folder):
    """A face model with a card from before its thresholds were measured."""
    resnet(**FACE).save_pretrained(folder)
    HeadShareImageProcessor().save_pretrained(folder)
    render_card(FACES).save(folder / "README.md")
    assert NONE in (folder / "README.md").read_text()


def _check(text):
    assert NONE not in text and "threshold=0.3" not in text
    assert "| 0.01 | at_most | 0.2877 | lfw | 3,000 | added |" in text
    assert 'print(verify("image_a.png", "image_b.png"))\n```\n\nThresholds that are stored with the weights' in text


def test_storing_thresholds_rewrites_the_card_of_the_folder(tmp_path):
    _save(tmp_path)
    before = ModelCard.load(tmp_path / "README.md").data
    files = sorted(tmp_path.iterdir())
    store_thresholds(tmp_path, [ENTRY])
    _check((tmp_path / "README.md").read_text())
    assert ModelCard.load(tmp_path / "README.md").data == before and sorted(tmp_path.iterdir()) == files


def test_the_published_card_of_a_run_has_the_thresholds_that_were_stored_later(hub, tmp_path):
    made = finish(trainer(tmp_path, resnet(seed=1, **FACE)))
    made.card = replace(made.card, results=(), verification=VERIFICATION)
    made.create_model_card()
    store_thresholds(tmp_path, [ENTRY])
    done = publish_run(tmp_path, "alice/measured-later")
    _check(Path(hf_hub_download(done.repo_id, "README.md")).read_text())


def test_the_published_card_agrees_with_a_configuration_that_was_edited(hub, tmp_path):
    _save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "verification_thresholds": [ENTRY]}))
    done = publish_folder(tmp_path, "alice/edited")
    text = Path(hf_hub_download(done.repo_id, "README.md")).read_text()
    _check(text)
    assert '"alice/edited"' in text
    (tmp_path / "config.json").write_text(json.dumps({**config, "verification_thresholds": [{"far": 2}]}))
    hub.log.clear()
    with pytest.raises(ValueError, match=r"`verification_thresholds\[0\]` has the keys far; it needs far, rule"):
        publish_folder(tmp_path, "alice/edited")
    assert not hub.log


def test_the_card_of_a_model_that_publishes_itself_has_its_thresholds(hub):
    push(resnet(**FACE, verification_thresholds=[ENTRY]), "alice/by-itself", card=render_card(FACES))
    _check(Path(hf_hub_download("alice/by-itself", "README.md")).read_text())
