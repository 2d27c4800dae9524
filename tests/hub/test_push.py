"""`model.push_to_hub`: a model with all that belongs to it, in one commit."""

from pathlib import Path

import pytest
import torch
from card_facts import CARD as RENDERED
from card_facts import changed
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from published_runs import CARD, FACE, num_commits, push
from toys import assert_same, resnet, snapshot
from transformers import AutoImageProcessor, AutoModelForImageClassification

from headshare_hf import HeadShareForImageClassification, HeadShareImageProcessor, HeadShareModel
from headshare_hf.hub import render_card
from headshare_hf.models import CENTERS_FILE


PROCESSOR = HeadShareImageProcessor(size={"height": 24, "width": 24}, channel_order="bgr")
COMPANIONS = {"README.md", "config.json", "preprocessor_config.json", "image_processing_headshare.py"}


def _files(repo_id, revision=None):
    return set(HfApi().list_repo_files(repo_id, revision=revision)) - {".gitattributes"}


def test_a_model_goes_with_its_processor_and_its_card_in_one_commit(hub):
    model = resnet(**FACE)
    card = ModelCard("---\nlicense: cc-by-4.0\ntags:\n- test\n---\n\n# Mine\n")
    done = model.push_to_hub("whole", image_processor=PROCESSOR, card=card, commit_message="First")
    assert len(hub.requests("POST", "/commit/")) == 1
    code = {path.name for path in Path(__file__).parents[2].glob("src/headshare_hf/models/backbone*.py")}
    assert COMPANIONS | code | {CENTERS_FILE, "model.safetensors"} <= _files("alice/whole")
    again = AutoModelForImageClassification.from_pretrained("alice/whole", revision=done.oid)
    assert_same(snapshot(again), snapshot(model))
    assert AutoImageProcessor.from_pretrained("alice/whole").to_dict() == PROCESSOR.to_dict()
    found = HfApi().model_info("alice/whole")
    assert found.sha == done.oid and "license:cc-by-4.0" in found.tags and "custom_code" in found.tags
    assert HfApi().list_repo_commits("alice/whole")[0].title == "First"


def test_the_same_content_makes_no_second_commit_and_other_weights_replace_it(hub):
    first = push(resnet(**FACE), "alice/again", max_shard_size="100KB")
    before = num_commits("alice/again")
    assert push(resnet(**FACE), "alice/again", max_shard_size="100KB").oid == first.oid
    assert num_commits("alice/again") == before
    other = resnet(seed=3)
    push(other, "alice/again")
    assert num_commits("alice/again") == before + 1
    assert {name for name in _files("alice/again") if "safetensors" in name} == {"model.safetensors"}
    assert_same(snapshot(HeadShareForImageClassification.from_pretrained("alice/again")), snapshot(other))


def test_embeddings_alone_and_branches(hub):
    model = resnet(**FACE).headshare
    push(model, "alice/embeddings", revision="trial", private=True)
    assert HfApi().model_info("alice/embeddings").private and not COMPANIONS & _files("alice/embeddings")
    assert CENTERS_FILE not in _files("alice/embeddings", "trial")
    again = HeadShareModel.from_pretrained("alice/embeddings", revision="trial")
    assert_same(snapshot(again), snapshot(model))
    assert torch.equal(again.eval()(torch.ones(1, 3, 32, 32))[0], model.eval()(torch.ones(1, 3, 32, 32))[0])


def test_the_examples_of_a_rendered_card_load_what_is_published(hub):
    card = render_card(changed(RENDERED, "model.repo_id", "someone/else"))
    push(resnet(), "addressed", card=card)
    published = Path(hf_hub_download("alice/addressed", "README.md")).read_text(encoding="utf-8")
    assert published == card.content.replace("someone/else", "alice/addressed") and "alice/addressed" in published
    foreign = card.content.replace("- headshare_hf", "- other")
    push(resnet(), "alice/foreign", card=foreign)
    assert Path(hf_hub_download("alice/foreign", "README.md")).read_text(encoding="utf-8") == foreign


@pytest.mark.parametrize("place", ["home", "beside", "there"])
def test_a_card_that_shows_a_place_of_this_machine_is_refused(place, hub, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = {
        "home": Path.home() / "gone" / "secret",
        "beside": tmp_path / "gone",
        "there": tmp_path_factory.mktemp("secret"),
    }
    card = f"{CARD}\nThe teacher is `{paths[place]}`.\n"
    with pytest.raises(ValueError, match=f"the model card contains '{paths[place]}', a path of this machine; write"):
        push(resnet(), "alice/refused", card=card)
    assert not hub.log


def _measured(**metric):
    """The text of a card of this package, with one result."""
    found = {"type": "accuracy", "name": "Top-1 accuracy", "value": 0.5, **metric}
    lines = "".join(f"      {name}: {value}\n" for name, value in found.items())
    return (
        "---\nlicense: mit\ntags:\n- headshare_hf\nmodel-index:\n- name: net\n  results:\n"
        "  - task:\n      type: image-classification\n    dataset:\n      type: someone/images\n      name: Images\n"
        f"    metrics:\n    -{lines[5:]}---\n"
    )


def _diverged():
    model = resnet(**FACE)
    with torch.no_grad():
        model.classifier.weight[1, 2] = float("inf")
    return model


def test_weights_that_diverged_are_refused_before_anything_is_sent(hub):
    with pytest.raises(
        ValueError, match="NaN or infinite values in classifier.weight; the training diverged, take an"
    ):
        push(_diverged(), "alice/refused")
    assert not hub.log


class _SavesNothing:
    def save_pretrained(self, folder):
        pass


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"image_processor": None},
            "needs `image_processor`, without which nobody knows size, statistics and channel",
        ),
        ({"card": None}, "needs `card`, a ModelCard or its text: `render_card` of headshare_hf.hub writes one"),
        ({"card": "---\ntags: [a]\n---\n"}, "the model card says no license; add `license: ...`"),
        ({"card": "A text."}, "the model card says no license"),
        ({"card": _measured(type="acuracy_foo", value=99.0)}, "`.*type` is 'acuracy_foo'; did you mean 'accuracy'"),
        (
            {"card": _measured(value=99.0)},
            r"`model-index\[0\].results\[0\].metrics\[0\].value` is 99.0; expected a fr",
        ),
        ({"image_processor": _SavesNothing()}, "a _SavesNothing saves no preprocessor_config.json; use HeadShare"),
        (
            {"image_processor": HeadShareImageProcessor(image_mean=[0.5], image_std=[0.5])},
            "the image processor makes 1 channels and the model reads 3, by `image_mean` and `num_channels`; give the",
        ),
        (
            {"card": "---\nlicense: mit\ntags: [headshare_hf]\nmetrics: [acuracyy]\n---\n"},
            r"the model card: `metrics\[0\]` is 'acuracyy'; did you mean 'accuracy'",
        ),
        ({"create_pr": True}, "`push_to_hub` does not take create_pr"),
        ({"revision": "refs/pr/1"}, "`revision` 'refs/pr/1' is no branch name"),
        ({"repo_id": "a/b/c"}, "Repo id must be"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_sent(options, message, hub):
    with pytest.raises(ValueError, match=message):
        push(resnet(), **{"repo_id": "alice/refused", **options})
    assert not hub.log


def test_saving_does_not_publish_halves(hub, tmp_path):
    with pytest.raises(ValueError, match="would publish neither image processor nor card; call `push_to_hub"):
        resnet(**FACE).save_pretrained(tmp_path / "alice", push_to_hub=True, repo_id="alice/half")
    assert not hub.log and not (tmp_path / "alice").exists()


def test_a_public_repository_is_not_taken_for_a_private_one(hub):
    push(resnet(), "alice/public")
    with pytest.raises(ValueError, match="alice/public is public, and a private repository was asked for"):
        push(resnet(seed=2), "alice/public", private=True)


def test_rights_are_named_by_the_hub(hub):
    with pytest.raises(HfHubHTTPError, match="403"):
        push(resnet(), "bob/net")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        push(resnet(), "alice/denied", token="hf_nobody")


@pytest.mark.slow
def test_remote_code_pushes_with_its_processor_too(hub, fresh_process):
    push(resnet(), "alice/first")
    code = f"""
from transformers import AutoImageProcessor, AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("alice/first", trust_remote_code=True)
processor = AutoImageProcessor.from_pretrained("alice/first", trust_remote_code=True)
model.push_to_hub("alice/second", image_processor=processor, card={CARD!r})
"""
    fresh_process(code, token=hub.alice, without_package=True)
    assert _files("alice/second") == _files("alice/first")
    again = HeadShareForImageClassification.from_pretrained("alice/second")
    assert_same(snapshot(again), snapshot(resnet()))
