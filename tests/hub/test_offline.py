"""Without a network: every way of loading tells what the cache holds, and that a folder does not exist."""

import tempfile
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from published_runs import push
from toys import resnet
from transformers import AutoConfig, AutoModel, AutoModelForImageClassification, pipeline

import headshare_hf.hub  # noqa: F401 (makes the pipeline known)
from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareImageProcessor, HeadShareModel
from headshare_hf.evaluation.face_model import load_face_model
from headshare_hf.hub import ExportOptions, run_export
from headshare_hf.trainer import load_classifier, load_teacher


STUDENT = "alice/offline"
OWN = (HeadShareForImageClassification, HeadShareModel, HeadShareConfig, HeadShareImageProcessor)


def export(name, revision=None):
    with tempfile.TemporaryDirectory() as folder:
        run_export(ExportOptions(name, Path(folder), revision, batch_sizes=(1,), repeats=1))


def export_beside_a_teacher(name, revision=None):
    teacher = name if revision is None else f"{name}@{revision}"
    with tempfile.TemporaryDirectory() as folder:
        student = Path(folder, "student")
        resnet().save_pretrained(student)
        HeadShareImageProcessor().save_pretrained(student)
        options = {"teacher": teacher, "batch_sizes": (1,), "repeats": 1, "embeddings_only": True}
        run_export(ExportOptions(str(student), Path(folder, "out"), **options))


FUNCTIONS = (load_classifier, load_teacher, load_face_model, export, export_beside_a_teacher)
LOADERS = [*(kind.from_pretrained for kind in OWN), *FUNCTIONS]
NAMES = [*(kind.__name__ for kind in OWN), *(function.__name__ for function in FUNCTIONS)]
every_loader = pytest.mark.parametrize("load", LOADERS, ids=NAMES)


@pytest.fixture(scope="module")
def student(hub):
    push(resnet(), STUDENT)
    HfApi().create_tag(STUDENT, tag="v1")
    return HfApi().model_info(STUDENT).sha


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache for all clients, and a function that takes the network away."""
    for place in ("huggingface_hub.constants.HF_HUB_CACHE", "transformers.utils.hub.constants.HF_HUB_CACHE"):
        monkeypatch.setattr(place, str(tmp_path / "cache"))
    return lambda: monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@every_loader
def test_nothing_is_cached(load, student, cache):
    cache()
    with pytest.raises(OSError, match=f"The Hub was not reached. Nothing of {STUDENT} is in the cache") as caught:
        load(STUDENT)
    assert str(caught.value).count("The Hub was not reached") == 1


@every_loader
def test_another_revision_is_cached(load, student, cache):
    load(STUDENT)
    cache()
    load(STUDENT)
    with pytest.raises(OSError, match=f"Of {STUDENT}, the cache .* holds: {student}, main"):
        load(STUDENT, revision="v1")


@every_loader
def test_an_endpoint_that_is_not_there(load, student, cache, monkeypatch):
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(OSError, match=f"The Hub was not reached. Nothing of {STUDENT} is in the cache"):
        load(STUDENT)


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForImageClassification, *OWN[:2]])
def test_the_configuration_alone_is_cached(kind, student, cache):
    AutoConfig.from_pretrained(STUDENT)
    cache()
    with pytest.raises(OSError, match=f"Of {STUDENT}, the cache .* holds: {student}, main"):
        kind.from_pretrained(STUDENT)


@pytest.mark.parametrize("task", ["image-classification", "image-feature-extraction", "face-verification"])
def test_pipelines_of_a_model_whose_weights_are_not_cached(task, student, cache):
    AutoConfig.from_pretrained(STUDENT)
    cache()
    with pytest.raises(Exception, match=f"Of {STUDENT}, the cache .* holds: {student}, main"):
        pipeline(task, model=STUDENT)


def test_the_image_processor_alone_is_not_cached(student, cache):
    HeadShareModel.from_pretrained(STUDENT)
    cache()
    for load in (
        HeadShareImageProcessor.from_pretrained,
        load_teacher,
        load_face_model,
        export,
        export_beside_a_teacher,
        partial(pipeline, "face-verification"),
    ):
        with pytest.raises(OSError, match=f"The Hub was not reached. Of {STUDENT}, the cache .* holds: {student}"):
            load(STUDENT)


def test_a_pipeline_names_the_cache_that_it_was_given(student, cache, tmp_path):
    place = {"cache_dir": str(tmp_path / "other")}
    HeadShareModel.from_pretrained(STUDENT, **place)
    cache()
    with pytest.raises(
        OSError, match=f"The Hub was not reached. Of {STUDENT}, the cache {tmp_path}/other holds: {student}"
    ):
        pipeline("face-verification", model=STUDENT, model_kwargs=place)


def test_a_repository_without_an_image_processor_is_told_from_a_missing_network(hub, cache):
    push(resnet(), "alice/no-processor")
    HfApi().delete_file("preprocessor_config.json", "alice/no-processor")
    verify = partial(pipeline, "face-verification")
    for load, kind in (
        (HeadShareImageProcessor.from_pretrained, OSError),
        (load_face_model, ValueError),
        (verify, ValueError),
    ):
        with pytest.raises(kind) as caught:
            load("alice/no-processor")
        assert "was not reached" not in str(caught.value)
        assert kind is OSError or "has no image processor (preprocessor_config.json)" in str(caught.value)
    cache()
    # The Hub's answer is in the cache too.
    for load in (load_face_model, verify):
        with pytest.raises(ValueError, match="has no image processor"):
            load("alice/no-processor")


def test_answers_of_the_hub_are_not_taken_for_silence(hub, cache):
    for load in LOADERS:
        with pytest.raises(OSError, match="is not a valid model identifier") as caught:
            load("alice/nothing")
        assert isinstance(caught.value.__cause__, RepositoryNotFoundError)
        assert "was not reached" not in str(caught.value)


@every_loader
@pytest.mark.parametrize("name", ["./runs/student", "runs/student/", "runs/one/student", "/nowhere/student", "~/run"])
def test_what_cannot_be_an_id_is_a_folder_that_does_not_exist(load, name, hub, cache):
    with pytest.raises(OSError, match=f"There is no folder {name}\\."):
        load(name)


@every_loader
def test_a_folder_that_was_deleted_is_named(load, hub, cache, tmp_path, monkeypatch):
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="There is no folder outputs/run\\."):
        load("outputs/run")
    cache()
    with pytest.raises(OSError, match="There is no folder outputs/run\\.\nThe Hub was not reached. Nothing of"):
        load("outputs/run")


def test_errors_of_a_folder_stay_as_they_are(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OSError, match="not a valid JSON file.$"):
        HeadShareForImageClassification.from_pretrained(tmp_path)
    with pytest.raises(OSError, match="Can't load image processor"):
        HeadShareImageProcessor.from_pretrained(tmp_path)


def test_a_damaged_file_of_the_cache_is_not_taken_for_silence(student, cache, tmp_path):
    AutoConfig.from_pretrained(STUDENT)
    (path,) = tmp_path.glob("cache/*/snapshots/*/config.json")
    path.unlink()
    path.write_text("{")
    cache()
    with pytest.raises(OSError, match="not a valid JSON file.$"):
        HeadShareModel.from_pretrained(STUDENT)
