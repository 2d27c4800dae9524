"""Downloading: by id and revision, from the cache, without this package, and the errors of the Hub as they are."""

import json

import pytest
import torch
from hub_server import ALICE, BOB
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from published_runs import FACE, finish, push, trainer
from toys import assert_same, resnet, snapshot
from transformers import AutoModelForImageClassification, pipeline

import headshare_hf.hub  # noqa: F401 (makes the pipeline known)
from headshare_hf import DistillationTrainer, HeadShareForImageClassification, HeadShareImageProcessor, HeadShareModel
from headshare_hf.models import CENTERS_FILE
from headshare_hf.models.class_centers import find_class_centers
from headshare_hf.trainer import load_classifier, load_teacher
from headshare_hf.trainer.loading import split_revision
from headshare_hf.trainer.recipe import build_model, build_teacher
from headshare_hf.trainer.recipe_sections import ModelArguments


STUDENT, FACES = "alice/student", "alice/faces"
ENTRY = {"far": 0.1, "rule": "at_most", "similarity": 0.3, "set": "lfw", "num_impostor": 20, "flip": True}

# Both of this process and of fresh ones.
DIGEST = """
import hashlib, numpy, torch
from PIL import Image
def image(shade=0):
    return Image.fromarray((numpy.arange(16 * 16 * 3).reshape(16, 16, 3) * 7 % 251 + shade).astype("uint8"))
def digest(model, processor):
    model.eval()
    with torch.no_grad():
        output = model(**processor(image(), return_tensors="pt"))
    return hashlib.sha256(output[0].numpy().tobytes()).hexdigest()
"""
_space: dict = {}
exec(DIGEST, _space)
digest, image = _space["digest"], _space["image"]


@pytest.fixture(scope="module")
def student(hub, tmp_path_factory):
    """A published student: main, tag `v1` (of the commit before) and branch `seed-2` differ."""
    made = finish(trainer(tmp_path_factory.mktemp("student"), hub_model_id=STUDENT))
    first = made.push_to_hub()
    HfApi().create_tag(STUDENT, tag="v1", revision=first.commit)
    digests = {"v1": _own_digest(made), first.commit: _own_digest(made)}
    with torch.no_grad():
        made.student.classifier.weight.mul_(2)
    made.push_to_hub(revision="seed-2")
    digests["seed-2"] = _own_digest(made)
    with torch.no_grad():
        made.student.classifier.weight.mul_(2)
    made.push_to_hub()
    digests["main"] = _own_digest(made)
    assert len(set(digests.values())) == 3
    return digests


@pytest.fixture(scope="module")
def faces(hub):
    model = resnet(num_labels=40, **FACE, verification_thresholds=[ENTRY])
    push(model, FACES)
    return model.eval()


def _own_digest(made):
    return digest(made.student, made.processing_class)


@pytest.mark.slow
def test_a_fresh_process_loads_by_id_tag_branch_and_commit(student, fresh_process, tmp_path):
    code = f"""{DIGEST}
import json
import headshare_hf
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
from headshare_hf import HeadShareForImageClassification, HeadShareImageProcessor, HeadShareModel
found = {{}}
for revision in {list(student)!r}:
    model = AutoModelForImageClassification.from_pretrained({STUDENT!r}, revision=revision)
    processor = AutoImageProcessor.from_pretrained({STUDENT!r}, revision=revision)
    assert type(model) is HeadShareForImageClassification and type(processor) is HeadShareImageProcessor
    found[revision] = digest(model, processor)
assert type(AutoModel.from_pretrained({STUDENT!r})) is HeadShareModel
# Where the package is, its own classes are used even if remote code is allowed.
trusted = AutoModelForImageClassification.from_pretrained({STUDENT!r}, trust_remote_code=True)
assert type(trusted) is HeadShareForImageClassification
classify = pipeline("image-classification", model={STUDENT!r}, revision="v1")
assert type(classify.model) is HeadShareForImageClassification
found["pipeline"] = digest(classify.model, classify.image_processor)
assert len(classify(image())) == 5
embed = pipeline("image-feature-extraction", model={STUDENT!r})
assert type(embed.model) is HeadShareModel and len(embed(image())[0]) == 64
print(json.dumps(found))
"""
    home = tmp_path / "home"
    home.mkdir()
    for offline in (False, True):
        # Nothing else is printed: nobody is asked whether code may be run.
        found = json.loads(fresh_process(code, home=home, offline=offline))
        assert found.pop("pipeline") == student["v1"] and found == student


REMOTE = f"""{DIGEST}
import json, sys
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline
place, trust = PLACE, {{"trust_remote_code": True}}
config = AutoConfig.from_pretrained(place, **trust)
assert type(config).__name__ == "HeadShareConfig" and config.backbone == "resnet8"
processor = AutoImageProcessor.from_pretrained(place, **trust)
model = AutoModelForImageClassification.from_pretrained(place, **trust)
network = AutoModel.from_pretrained(place, **trust)
assert type(network).__name__ == "HeadShareModel" and type(network).__module__.startswith("transformers_modules.")
classify = pipeline("image-classification", model=place, **trust)
embed = pipeline("image-feature-extraction", model=place, **trust)
assert len(classify(image())) == 5
embedding = network.eval()(**processor(image(), return_tensors="pt")).embeddings
assert numpy.allclose(embed(image()), embedding.detach().numpy()), "pipeline"
assert not any(name.split(".")[0] == "headshare_hf" for name in sys.modules)
print(json.dumps([digest(model, processor), digest(classify.model, processor)]))
"""


@pytest.mark.slow
def test_published_weights_bring_their_code(student, fresh_process, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    code = REMOTE.replace("PLACE", repr(STUDENT))
    assert json.loads(fresh_process(code, without_package=True, home=home)) == [student["main"]] * 2
    # And once more from the cache.
    assert json.loads(fresh_process(code, without_package=True, home=home, offline=True)) == [student["main"]] * 2


@pytest.mark.slow
def test_saved_folders_bring_their_code_and_so_do_copies_of_it(fresh_process, tmp_path):
    model = resnet(**FACE)
    processor = HeadShareImageProcessor(size={"height": 16, "width": 16})
    for saved in (model, processor):
        saved.save_pretrained(tmp_path / "first")
    own = digest(model, processor)
    again = f"""
for thing in (model, processor):
    thing.save_pretrained({str(tmp_path / "second")!r})
"""
    for place, more in (("first", again), ("second", "")):
        code = REMOTE.replace("PLACE", repr(str(tmp_path / place))) + more
        assert json.loads(fresh_process(code, without_package=True)) == [own] * 2
    assert {f.name for f in (tmp_path / "first").iterdir()} == {f.name for f in (tmp_path / "second").iterdir()}


def test_a_cached_model_loads_offline(student, tmp_path, monkeypatch):
    name, place = f"{STUDENT}@seed-2", {"cache_dir": tmp_path}
    load_teacher(name, **place)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert digest(*load_teacher(name, **place)) == student["seed-2"]
    with pytest.raises(OSError, match=f"Of {STUDENT}, the cache .* holds: [0-9a-f]{{40}}, seed-2") as caught:
        load_teacher(f"{STUDENT}@v1", **place)
    assert isinstance(caught.value.__cause__, LocalEntryNotFoundError)
    with pytest.raises(OSError, match=f"Nothing of {STUDENT} is in the cache"):
        load_classifier(STUDENT, cache_dir=tmp_path / "empty")


def test_teachers_and_students_of_recipes_have_a_revision(student, tmp_path):
    both = {"name_or_path": STUDENT, "revision": "v1"}
    teacher, processor = build_teacher(ModelArguments(**both), ["a"] * 5)
    assert digest(teacher, processor) == student["v1"]
    model = build_model(ModelArguments(name_or_path=f"{STUDENT}@seed-2"), None, [], 0)
    assert digest(model, processor) == student["seed-2"]
    made = trainer(tmp_path)
    distilled = DistillationTrainer(
        resnet(),
        made.args,
        teacher=f"{STUDENT}@v1",
        train_dataset=made.train_dataset,
        processing_class=made.processing_class,
    )
    assert digest(distilled.teacher.model, processor) == student["v1"]


def test_revisions_that_say_nothing_are_refused(tmp_path):
    assert split_revision("a/b") == ("a/b", None) and split_revision("a/b@v1") == ("a/b", "v1")
    assert split_revision("a/b", "v1") == ("a/b", "v1") and split_revision(str(tmp_path)) == (str(tmp_path), None)
    with pytest.raises(ValueError, match="`revision` 'v1' has no effect on the folder"):
        split_revision(str(tmp_path), "v1")
    for name, revision in (("a/b@v1", "v2"), ("a/b@", None)):
        with pytest.raises(ValueError, match="write one revision, `id@revision`"):
            split_revision(name, revision)
    with pytest.raises(ValueError, match="`revision` has no effect without `name_or_path`"):
        ModelArguments(backbone="resnet8", revision="v1")


def test_embeddings_do_not_fetch_the_class_centers(hub, faces, tmp_path):
    network = HeadShareModel.from_pretrained(FACES, cache_dir=tmp_path)
    verify = pipeline("face-verification", model=FACES, model_kwargs={"cache_dir": tmp_path})
    assert 0 < verify(image(), image(1))["similarity"] <= 1
    assert hub.requests("GET", "/model.safetensors") and not hub.requests("GET", CENTERS_FILE)
    assert not hub.requests("HEAD", CENTERS_FILE)
    model = HeadShareForImageClassification.from_pretrained(FACES, cache_dir=tmp_path)
    assert len(hub.requests("GET", CENTERS_FILE)) == 1
    assert_same(snapshot(model), snapshot(faces))
    assert_same(snapshot(network), snapshot(faces.headshare))


def test_an_image_processor_is_read_as_the_pipeline_was_told(hub, faces, tmp_path, monkeypatch):
    name, cache, folder = "alice/processor", tmp_path / "cache", tmp_path / "network"
    for revision, mean in (("v1", 0.25), ("main", 0.75)):
        HeadShareImageProcessor(image_mean=[mean] * 3).push_to_hub(name, private=True)
        if revision != "main":
            HfApi().create_tag(name, tag=revision)
    faces.headshare.save_pretrained(folder)
    HeadShareImageProcessor().save_pretrained(folder)
    # Nothing but the token that is given opens the repository.
    monkeypatch.delenv("HF_TOKEN")
    told = {"token": hub.alice_read_only, "model_kwargs": {"cache_dir": str(cache)}}
    for model in (faces.headshare, str(folder)):
        for revision, mean in (("v1", 0.25), ("main", 0.75)):
            made = pipeline("face-verification", model=model, image_processor=name, revision=revision, **told)
            assert list(made.image_processor.image_mean) == [mean] * 3
        with pytest.raises(ValueError, match="`image_processor`.* cannot be loaded|none could be loaded"):
            pipeline("face-verification", model=model, image_processor=name, revision="v2", **told)
    assert (cache / "models--alice--processor").is_dir()
    # The commit of the network is none of the other repository.
    made = pipeline("face-verification", model=FACES, image_processor=name, **told)
    assert list(made.image_processor.image_mean) == [0.75] * 3


def test_class_centers_are_those_of_the_commit_of_the_weights(hub, faces, tmp_path):
    model = resnet(num_labels=40, **FACE)
    push(model, "alice/moving")
    first = HfApi().model_info("alice/moving").sha
    HeadShareModel.from_pretrained("alice/moving", cache_dir=tmp_path)
    with torch.no_grad():
        model.classifier.weight.add_(1)
    push(model, "alice/moving")
    # The branch has moved since the weights were read.
    assert first in find_class_centers("alice/moving", {"cache_dir": tmp_path})
    again = HeadShareForImageClassification.from_pretrained("alice/moving", revision=first, cache_dir=tmp_path)
    assert not torch.equal(again.classifier.weight, model.classifier.weight)


def test_class_centers_that_are_not_in_the_cache_are_named(faces, tmp_path, monkeypatch):
    place = {"cache_dir": tmp_path}
    HeadShareModel.from_pretrained(FACES, **place)
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        HeadShareModel.from_pretrained(FACES, **place)
        with pytest.raises(OSError, match=f"{CENTERS_FILE} of {FACES} is not in the cache, because only its"):
            HeadShareForImageClassification.from_pretrained(FACES, **place)
    HeadShareForImageClassification.from_pretrained(FACES, **place)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_same(snapshot(HeadShareForImageClassification.from_pretrained(FACES, **place)), snapshot(faces))


@pytest.mark.parametrize("load", [AutoModelForImageClassification.from_pretrained, load_classifier, load_teacher])
def test_errors_of_the_hub_come_through(load, hub, student, tmp_path):
    push(resnet(), "alice/private", private=True)
    push(resnet(), "alice/gated")
    HfApi().update_repo_settings("alice/gated", gated="manual")
    options = {"cache_dir": tmp_path}
    for name, token, kind, message in (
        ("alice/private", BOB, RepositoryNotFoundError, "private repository, make sure to pass a token"),
        ("alice/private", False, RepositoryNotFoundError, "private repository, make sure to pass a token"),
        ("alice/nothing", ALICE, RepositoryNotFoundError, "is not a valid model identifier"),
        ("alice/gated", BOB, GatedRepoError, "gated repo"),
        ("alice/gated", "hf_nobody", HfHubHTTPError, "Invalid credentials"),
    ):
        with pytest.raises(OSError, match=message) as caught:
            load(name, token=token, **options)
        assert isinstance(caught.value.__cause__, kind), name
    with pytest.raises(OSError, match="v9 is not a valid git identifier"):
        load(STUDENT, revision="v9", **options)


def test_errors_of_the_hub_come_through_our_own_classes(hub, tmp_path):
    push(resnet(**FACE), "alice/private-face", private=True)
    with pytest.raises(OSError, match="private repository") as caught:
        HeadShareForImageClassification.from_pretrained("alice/private-face", token=BOB, cache_dir=tmp_path)
    assert isinstance(caught.value.__cause__, RepositoryNotFoundError)
    # With the right token the centers, too, are fetched with it.
    model = HeadShareForImageClassification.from_pretrained("alice/private-face", token=ALICE, cache_dir=tmp_path)
    assert model.config.head_type == "arcface"
    assert {request.user for request in hub.requests("GET", CENTERS_FILE)} == {"alice"}
