"""Models of the demo: which may be opened, kept in memory, and errors in words."""

import json
import shutil

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from demo_errors import DemoError
from demo_models import kept_classifier, load_classifier, load_verifier, recorded_teacher, resolve
from PIL import Image
from toys import resnet, vit
from transformers import BertConfig, BertModel, ViTImageProcessor

from headshare_hf import HeadShareImageProcessor
from headshare_hf.hub import publish_folder


def test_ids_and_the_folders_of_the_start_are_opened(folders):
    allowed = frozenset({str(folders / "teacher")})
    assert resolve(" alice/student@v1 ", allowed) == "alice/student@v1"
    assert resolve(str(folders / "teacher"), allowed) == str(folders / "teacher")


@pytest.mark.parametrize("name", ["/etc", "/nowhere/at/all", "../x", "~/x", "tests"])
def test_other_folders_are_not(name, monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)
    with pytest.raises(DemoError, match=f"^{name} is a folder, and this demo opens no other folders"):
        resolve(name, frozenset({"/models"}))


@pytest.mark.parametrize(
    "name", ["private@x", "private@", "private/../../outside@main", "odd@main", "a/b@../../private"]
)
def test_a_revision_opens_no_folder(name, monkeypatch, tmp_path):
    for folder in ("home/private", "home/odd@main", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    with pytest.raises(DemoError, match=f"^{name} is a folder, and this demo opens no other folders"):
        resolve(name, frozenset({"/models"}))


@pytest.mark.parametrize(
    "name, message",
    [
        ("a b/c", "'a b/c' is no Hub id; one reads `namespace/name`"),
        ("a" * 5000, "is no Hub id"),
        ("a/b@", "'' is no revision; name a branch, a tag or a commit"),
        ("a/b@/etc/hosts", "'/etc/hosts' is no revision"),
    ],
)
def test_what_is_no_id_is_said_before_anything_is_asked(name, message):
    with pytest.raises(DemoError, match=message):
        resolve(name, frozenset())


@pytest.mark.parametrize("name", [None, "", "  "])
def test_a_name_is_needed(name):
    with pytest.raises(DemoError, match="No model is chosen"):
        resolve(name, frozenset())


def test_a_model_is_loaded_once(hub):
    first = load_classifier("alice/student")
    before = len(hub.log)
    assert load_classifier("alice/student") is first
    # Whether it is still the same one is asked.
    assert [request.method for request in hub.log[before:]] == ["HEAD"]
    assert first.architecture == "resnet8" and not first.model.training
    assert first.num_parameters == sum(p.numel() for p in first.model.parameters())


@pytest.mark.parametrize("load", [load_classifier, load_verifier])
def test_a_model_that_was_published_again_is_loaded_again(hub, folders, tmp_path, load):
    name = f"alice/again-{load.__name__.replace('_', '-')}"
    first = publish_folder(folders / "faces", name, token=hub.alice)
    before = load(name).model
    shutil.copytree(folders / "faces", tmp_path / "new")
    changed = resnet(seed=9, head_type="arcface")
    changed.save_pretrained(tmp_path / "new")
    publish_folder(tmp_path / "new", name, token=hub.alice)
    weight = "backbone.conv1.weight"
    after, old = load(name).model, load(f"{name}@{first.commit}").model
    assert torch.equal(after.base_model.state_dict()[weight], changed.base_model.state_dict()[weight])
    assert torch.equal(old.base_model.state_dict()[weight], before.base_model.state_dict()[weight])
    assert not torch.equal(after.base_model.state_dict()[weight], before.base_model.state_dict()[weight])


def test_a_classifier_of_another_package(tmp_path):
    vit().save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    assert load_classifier(str(tmp_path)).architecture == "vit"
    with pytest.raises(DemoError, match="is a model of another package .of the kind 'vit'.; verification needs one"):
        load_verifier(str(tmp_path))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_models_saved_in_half_precision_are_shown(precision, tmp_path):
    resnet(head_type="arcface").to(precision).save_pretrained(tmp_path)
    HeadShareImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    image = Image.new("RGB", (20, 20))
    logits, _ = load_classifier(str(tmp_path)).logits(image)
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    assert load_verifier(str(tmp_path))(image, image, threshold=0.5)["similarity"] == pytest.approx(1, abs=1e-2)


def test_what_classifies_no_images_is_refused_before_its_weights_are_read(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(DemoError, match="is a model of the kind 'bert', which does not classify images"):
        load_classifier(str(tmp_path))
    assert BertModel.config_class is BertConfig and not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    "name, message",
    [
        ("alice/nothing", "The Hub has no model alice/nothing, or it is private. The Hub says: “.*`HF_TOKEN`"),
        ("alice/private", "The Hub has no model alice/private, or it is private."),
        ("alice/gated", "alice/gated is gated: .* The Hub says: “Access to alice/gated is restricted"),
        ("alice/student@v9", "alice/student has no such revision as 'v9'. The Hub says: “Invalid rev id: v9”"),
        ("no id / at all", "'no id / at all' is no Hub id; one reads `namespace/name`"),
    ],
)
@pytest.mark.parametrize("load", [load_classifier, load_verifier])
def test_the_hubs_refusals_in_words(hub, load, name, message):
    with pytest.raises(DemoError, match=message):
        load(name)


def test_a_token_opens_what_is_private(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.alice)
    assert load_classifier("alice/private").architecture == "resnet14"
    # What the token has left in the cache is not for those without it.
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(DemoError, match="The Hub has no model alice/private, or it is private."):
        load_classifier("alice/private")


def test_without_a_network_the_cache_is_named(hub, monkeypatch):
    load_classifier("alice/teacher")
    kept_classifier.cache_clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_classifier("alice/teacher").architecture == "resnet14"
    with pytest.raises(
        DemoError, match="The Hub cannot be reached, and alice/unseen is not .* Nothing of alice/unseen"
    ):
        load_classifier("alice/unseen")
    with pytest.raises(DemoError, match="alice/teacher@v9 is not on this machine. Of alice/teacher, the cache"):
        load_classifier("alice/teacher@v9")


def test_a_hub_that_cannot_be_reached(hub):
    for method in ("HEAD", "GET"):
        hub.faults.cut(method, "alice/teacher/", times=20)
    with pytest.raises(DemoError, match="The Hub cannot be reached, and alice/teacher@v8 is not on this machine"):
        load_classifier("alice/teacher@v8")
    assert hub.log[-1].path.startswith("/alice/teacher/resolve/v8/")


def test_a_model_without_an_image_processor(hub, folders):
    api = huggingface_hub.HfApi(token=hub.alice)
    api.create_repo("alice/bare", exist_ok=True)
    api.upload_folder(
        repo_id="alice/bare", folder_path=folders / "teacher", allow_patterns=["config.json", "*.safetensors"]
    )
    with pytest.raises(DemoError, match="^alice/bare cannot be loaded: Can't load image processor for 'alice/bare'"):
        load_classifier("alice/bare")


def test_a_folder_without_a_model_in_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DemoError, match=r"cannot be loaded: Unrecognized model in [^\n]*$"):
        load_classifier(str(tmp_path))


def test_the_teacher_of_the_record(hub, folders, tmp_path):
    assert recorded_teacher("alice/student") == "alice/teacher"
    assert recorded_teacher("alice/teacher") is None and recorded_teacher(str(folders / "teacher")) is None
    student = tmp_path / "student"
    student.mkdir()
    record = student / "training_config.json"
    record.write_text(json.dumps({"teacher": {"name": "teacher"}}))
    assert recorded_teacher(str(student)) == "teacher"
    (tmp_path / "teacher").mkdir()
    assert recorded_teacher(str(student)) == str(tmp_path / "teacher")
    record.write_text('{"teacher": null}')
    assert recorded_teacher(str(student)) is None


@pytest.mark.parametrize("record", ["{", "[]", '{"teacher": "a"}', '{"teacher": {}}'])
def test_a_damaged_record_is_said(tmp_path, record):
    (tmp_path / "training_config.json").write_text(record)
    with pytest.raises(DemoError, match="The training record of .* cannot be loaded"):
        recorded_teacher(str(tmp_path))
