"""Publishing: what arrives on the Hub, that it arrives whole, and what is refused before anything is sent."""

import importlib.util
import json
import logging
import runpy
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from face_sets import write_bin, write_people
from hub_server import ALICE_READ_ONLY
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from published_runs import FACE, finish, num_commits, trainer
from toys import assert_same, resnet, snapshot, vit

from headshare_hf import HeadShareForImageClassification, HeadShareImageProcessor
from headshare_hf.evaluation import VerificationOptions, run_verification
from headshare_hf.hub import TRAINING_FILE, publish_folder
from headshare_hf.models import CENTERS_FILE
from headshare_hf.trainer import load_teacher, publish_run, run_or_reuse


EXAMPLE = Path(__file__).parents[2] / "examples" / "publish.py"
PLAIN = {"README.md", "config.json", "preprocessor_config.json", "model.safetensors", TRAINING_FILE}


@pytest.fixture(scope="module")
def run(hub, tmp_path_factory):
    """A finished run of a student with its card."""
    folder = tmp_path_factory.mktemp("run")
    made = finish(trainer(folder, save_strategy="steps", save_steps=1))
    # What lies in folders of runs beside the model.
    (folder / "embeddings").mkdir()
    (folder / "embeddings" / "lfw.npy").write_bytes(b"0")
    (folder / "auxiliary.safetensors").write_bytes(b"0")
    (folder / "notes.py").write_text("secret = 1\n")
    return made


@pytest.fixture
def folder(run, tmp_path):
    """A copy of its folder, to spoil."""
    return Path(shutil.copytree(run.folder, tmp_path / "run"))


@pytest.fixture
def patient(monkeypatch):
    """No waiting between the tries of the client."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def _files(repo_id, revision=None):
    return set(HfApi().list_repo_files(repo_id, revision=revision)) - {".gitattributes"}


def _retrain(folder, by):
    """The model of a folder with other weights, saved there."""
    model = HeadShareForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.weight.add_(by)
    model.save_pretrained(folder)
    return model


def _code():
    return {path.name for path in Path(__file__).parents[2].glob("src/headshare_hf/models/*.py")} - {
        "__init__.py",
        "sharing.py",
    }


def test_a_run_is_published_in_one_commit_without_anything_else(hub, run):
    done = run.push_to_hub(commit_message="First", token=None)
    assert not hub.requests("POST", "/commit/")[1:] and done.changed and done.repo_id == f"alice/{run.folder.name}"
    assert _files(done.repo_id) == PLAIN | _code() == set(done.files)
    commit = HfApi().list_repo_commits(done.repo_id)[0]
    assert (commit.title, commit.commit_id) == ("First", done.commit)
    again = HeadShareForImageClassification.from_pretrained(done.repo_id)
    assert_same(snapshot(again), snapshot(run.student))


def test_the_card_comes_back_with_its_results(run):
    repo_id = publish_run(run.folder, "alice/with-card").repo_id
    info = HfApi().model_info(repo_id)
    results = {result.metric_name: result.metric_value for result in info.card_data.eval_results}
    recorded = json.loads((run.folder / "run.json").read_text())["results"]
    assert results["Top-1 accuracy"] == pytest.approx(recorded["eval_accuracy"], abs=1e-6)
    assert info.pipeline_tag == "image-classification" and info.library_name == "transformers"
    # These images are not on the Hub, which would link to them.
    assert not [tag for tag in info.tags if tag.startswith("dataset:")]
    text = Path(hf_hub_download(repo_id, "README.md")).read_text()
    assert '"alice/with-card"' in text and "your-name" not in text and "timm" in text
    # Other cards load what they like.
    assert "your-name" in (run.folder / "README.md").read_text()


def test_the_settings_of_the_training_are_published_without_places(run):
    done = publish_run(run.folder, "alice/settings")
    local = Path(snapshot_download(done.repo_id))
    settings = json.loads((local / TRAINING_FILE).read_text())
    assert settings["method"] == "th_kd" and settings["seed"] == 7 and settings["max_steps"] == 2
    assert settings["weights"]["teacher_head"] == run.args.loss_weights.teacher_head > 0
    assert settings["lr_scheduler_type"] == "constant" and settings["optim"] == "sgd"
    assert settings["teacher"]["backbone"] == "resnet8" and settings["data"]["id"] == "local/colors"
    for name in PLAIN - {"model.safetensors"}:
        assert str(run.folder) not in (local / name).read_text(), name


def test_the_same_content_makes_no_second_commit(run, caplog):
    first = publish_run(run.folder, "alice/twice")
    before = num_commits("alice/twice")
    with caplog.at_level(logging.INFO, logger="headshare_hf"):
        second = publish_run(run.folder, "alice/twice")
    assert first.changed and not second.changed and second.commit == first.commit
    assert num_commits("alice/twice") == before and "holds this content already, no commit" in caplog.text


@pytest.mark.slow
def test_a_run_is_published_by_xet_too(hub, run, fresh_process, tmp_path):
    code = f"""
from headshare_hf.trainer import publish_run
done = publish_run({str(run.folder)!r}, "alice/by-xet")
print(done.commit, done.changed)
"""
    commit, changed = fresh_process(code, token=hub.alice, home=tmp_path, xet=True).split()
    assert changed == "True" and hub.requests("POST", "/xet/v1/shards") and not hub.requests("PUT")
    assert _files("alice/by-xet") == PLAIN | _code() and len(hub.requests("POST", "/commit/")) == 1
    again = HeadShareForImageClassification.from_pretrained("alice/by-xet", revision=commit)
    assert_same(snapshot(again), snapshot(run.student))
    assert fresh_process(code, token=hub.alice, home=tmp_path, xet=True).split() == [commit, "False"]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["/xet/v1/xorbs/", "/xet/v1/shards"])
def test_an_upload_by_xet_that_ends_early_leaves_the_old_revision(hub, run, folder, fresh_process, tmp_path, part):
    repo_id = f"alice/cut-{Path(part).name}"
    publish_run(folder, repo_id)
    old = HfApi().model_info(repo_id).sha
    # Content that is there already would not be uploaded; no other test publishes this.
    new = _retrain(folder, by=sum(part.encode()))
    code = f"""
from headshare_hf.trainer import publish_run
try:
    print(publish_run({str(folder)!r}, {repo_id!r}).changed)
except Exception as error:
    print("failed:", error)
"""
    hub.faults.refuse("POST", part, times=100)
    assert fresh_process(code, token=hub.alice, home=tmp_path, xet=True).startswith("failed:")
    hub.faults.clear()
    assert HfApi().model_info(repo_id).sha == old
    assert fresh_process(code, token=hub.alice, home=tmp_path, xet=True).split() == ["True"]
    assert_same(snapshot(HeadShareForImageClassification.from_pretrained(repo_id)), snapshot(new))


def test_a_trainer_pushes_what_its_folder_holds(run):
    run.args.hub_model_id = "alice/both-ways"
    try:
        assert run.push_to_hub().changed
    finally:
        run.args.hub_model_id = None
    assert not publish_run(run.folder, "alice/both-ways").changed


def test_a_branch_is_made_and_main_stays(run):
    publish_folder(run.folder, "alice/branches")
    main = HfApi().model_info("alice/branches").sha
    card = (run.folder / "README.md").read_text()
    try:
        (run.folder / "README.md").write_text(card + "\nA note.\n")
        done = publish_folder(run.folder, "alice/branches", revision="candidate")
    finally:
        (run.folder / "README.md").write_text(card)
    assert done.changed and HfApi().model_info("alice/branches", revision="candidate").sha == done.commit
    assert HfApi().model_info("alice/branches").sha == main


def test_a_private_repository_is_made_private(run):
    assert HfApi().model_info(publish_run(run.folder, "alice/hidden", private=True).repo_id).private
    publish_run(run.folder, "alice/open")
    before = num_commits("alice/open")
    with pytest.raises(ValueError, match="alice/open is public, and a private repository was asked for"):
        publish_run(run.folder, "alice/open", private=True, revision="candidate")
    assert num_commits("alice/open") == before
    assert [branch.name for branch in HfApi().list_repo_refs("alice/open").branches] == ["main"]


def test_the_short_name_of_a_commit_is_refused_as_a_branch(run):
    done = publish_run(run.folder, "alice/short")
    with pytest.raises(ValueError, match=f"`revision` '{done.commit[:7]}' is a commit of alice/short, and commits go"):
        publish_run(run.folder, "alice/short", revision=done.commit[:7])
    assert [branch.name for branch in HfApi().list_repo_refs("alice/short").branches] == ["main"]
    assert publish_run(run.folder, "alice/short", revision="deadbeef").files
    assert publish_run(run.folder, "alice/short", revision="deadbeef").commit == done.commit


@pytest.mark.parametrize("revision", ["refs/pr/1", "refs/heads/main", "0123456789abcdef" * 2 + "01234567"])
def test_what_is_no_branch_name_is_refused_before_anything_is_sent(hub, run, revision):
    with pytest.raises(ValueError, match=f"`revision` '{revision}' is no branch name, and commits go to a branch"):
        publish_run(run.folder, "alice/no-branch", revision=revision)
    assert not hub.log


def test_a_tag_is_refused_as_a_branch(run):
    publish_run(run.folder, "alice/tagged")
    HfApi().create_tag("alice/tagged", tag="v1")
    with pytest.raises(ValueError, match="`revision` 'v1' is a tag of alice/tagged, and commits go to a branch"):
        publish_run(run.folder, "alice/tagged", revision="v1")
    assert [branch.name for branch in HfApi().list_repo_refs("alice/tagged").branches] == ["main"]


def test_a_model_that_was_loaded_by_its_revision_says_so(run, tmp_path):
    publish_run(run.folder, "alice/marked")
    HfApi().create_tag("alice/marked", tag="v1")
    for model in (load_teacher("alice/marked@v1")[0], load_teacher("alice/marked", "v1")[0]):
        assert model.config.name_or_path == "alice/marked@v1"
    model.save_pretrained(tmp_path)
    assert "marked" not in (tmp_path / "config.json").read_text()
    assert load_teacher("alice/marked")[0].config.name_or_path == "alice/marked"


def test_the_training_configuration_of_other_weights_goes(run, folder):
    publish_run(folder, "alice/replaced")
    (folder / TRAINING_FILE).unlink()
    resnet(seed=9).save_pretrained(folder)
    before = num_commits("alice/replaced")
    done = publish_folder(folder, "alice/replaced")
    assert TRAINING_FILE not in done.files and _files("alice/replaced") == set(done.files)
    assert num_commits("alice/replaced") == before + 1


def test_class_centers_have_their_own_file_and_outdated_weights_go(tmp_path, run):
    model = resnet(**FACE)
    shutil.copyfile(run.folder / "README.md", tmp_path / "README.md")
    HeadShareImageProcessor().save_pretrained(tmp_path)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    sharded = publish_folder(tmp_path, "alice/shards")
    assert CENTERS_FILE in sharded.files and "model.safetensors.index.json" in sharded.files
    assert_same(snapshot(HeadShareForImageClassification.from_pretrained("alice/shards")), snapshot(model))
    other = resnet(seed=5)
    other.save_pretrained(tmp_path)
    publish_folder(tmp_path, "alice/shards")
    left = {name for name in _files("alice/shards") if "safetensors" in name}
    assert left == {"model.safetensors"}
    assert_same(snapshot(HeadShareForImageClassification.from_pretrained("alice/shards")), snapshot(other))


@pytest.mark.parametrize(
    ("method", "part", "message"),
    [("PUT", "/lfs-upload/", "Error while uploading 'model.safetensors'"), ("POST", "/commit/", "disconnected")],
)
def test_a_cut_upload_leaves_the_old_revision_and_can_be_repeated(hub, run, folder, patient, method, part, message):
    repo_id = f"alice/cut{part.strip('/')}"
    publish_run(folder, repo_id)
    old = HfApi().model_info(repo_id).sha
    new = _retrain(folder, by=1)
    hub.faults.cut(method, part, after=100, times=100)
    with pytest.raises(Exception, match=message):
        publish_run(folder, repo_id)
    hub.faults.clear()
    assert HfApi().model_info(repo_id).sha == old
    kept = HeadShareForImageClassification.from_pretrained(repo_id, force_download=True)
    assert_same(snapshot(kept), snapshot(run.student))
    assert publish_run(folder, repo_id).changed
    assert_same(snapshot(HeadShareForImageClassification.from_pretrained(repo_id)), snapshot(new))


@pytest.mark.parametrize("repo_id", ["a/b/c", "alice/has space", "-alice/net", "alice/net.git", ""])
def test_a_wrong_id_is_refused_before_anything_is_sent(hub, run, repo_id):
    with pytest.raises(HFValidationError):
        publish_run(run.folder, repo_id)
    assert not hub.log


def test_rights_are_named_by_the_hub(run):
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        publish_run(run.folder, "alice/denied", token="hf_nobody")
    with pytest.raises(HfHubHTTPError, match="403"):
        publish_run(run.folder, "alice/denied", token=ALICE_READ_ONLY)
    with pytest.raises(HfHubHTTPError, match="403"):
        publish_run(run.folder, "bob/net")
    assert not HfApi().repo_exists("alice/denied")


def test_a_damaged_weights_file_is_named_before_anything_is_sent(hub, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model.safetensors is damaged or incomplete"):
        publish_run(folder, "alice/damaged")
    assert not hub.log


def test_weights_that_diverged_are_refused_from_the_trainer_too(hub, folder, tmp_path):
    diverged = HeadShareForImageClassification.from_pretrained(folder)
    with torch.no_grad():
        diverged.classifier.bias[0] = float("nan")
    made = trainer(tmp_path / "new", student=diverged)
    shutil.copyfile(folder / "README.md", tmp_path / "new" / "README.md")
    with pytest.raises(ValueError, match="model.safetensors: NaN or infinite values in classifier.bias; the training"):
        made.push_to_hub()
    assert not hub.log


def test_only_finished_runs_are_published(hub, folder, tmp_path):
    with pytest.raises(ValueError, match=r"is not the folder of a run, it has no run.json; runs in it: run"):
        publish_run(tmp_path, "alice/none")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "finished": False}))
    with pytest.raises(ValueError, match="is not finished; the command that started it goes on with it"):
        publish_run(folder, "alice/none")
    (folder / "run.json").write_text(json.dumps(record))
    (folder / TRAINING_FILE).unlink()
    with pytest.raises(ValueError, match=f"has no {TRAINING_FILE}; the command that trained it writes it"):
        publish_run(folder, "alice/none")
    assert not hub.log


def test_a_trainer_without_card_takes_that_of_the_folder(run, folder, tmp_path):
    made = trainer(tmp_path / "new")
    with pytest.raises(
        ValueError, match="set `trainer.card` before the model is published.*or write a README.md into"
    ):
        made.push_to_hub()
    shutil.copytree(folder, tmp_path / "again")
    reused = trainer(tmp_path / "again", hub_model_id="alice/reused", hub_private_repo=True, hub_revision="seed-7")

    run_or_reuse(reused)
    done = reused.push_to_hub()
    assert done.repo_id == "alice/reused" and HfApi().model_info("alice/reused").private
    assert PLAIN <= _files("alice/reused", "seed-7") and not PLAIN & _files("alice/reused")


@pytest.mark.parametrize("name", ["README.md", TRAINING_FILE])
def test_paths_beside_the_run_are_refused_from_the_trainer_too(name, hub, run, folder, tmp_path, monkeypatch):
    gone = tmp_path / "teacher"
    if name == TRAINING_FILE:
        (folder / name).write_text(json.dumps({"teacher": {"name": str(gone)}}))
    else:
        (folder / name).write_text((folder / name).read_text() + f"\nThe teacher is `{gone}`.\n")
    reused = trainer(folder, hub_model_id="alice/beside")
    run_or_reuse(reused)
    # Somewhere else, as temporary folders are.
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with pytest.raises(ValueError, match=f"{name} contains '{gone}', a path of this machine; write a Hub id"):
        reused.push_to_hub()
    with pytest.raises(ValueError, match=f"{name} contains '{gone}', a path of this machine; write a Hub id"):
        publish_run(folder, "alice/beside")
    assert not hub.log


def test_stored_thresholds_are_published_with_a_finished_run(run, folder):

    entry = {"far": 0.1, "rule": "at_most", "similarity": 0.3, "set": "lfw", "num_impostor": 20, "flip": True}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "verification_thresholds": [entry]}))
    reused = trainer(folder, hub_model_id="alice/thresholds")
    run_or_reuse(reused)
    reused.push_to_hub()
    found = HeadShareForImageClassification.from_pretrained("alice/thresholds").config.verification_thresholds
    assert found == [entry]


def test_a_run_that_is_to_be_pushed_makes_its_repository_first(hub, tmp_path):
    made = finish(trainer(tmp_path / "first", push_to_hub=True, hub_model_id="alice/first", hub_private_repo=True))
    assert HfApi().model_info("alice/first").private and not hub.requests("POST", "/commit/")
    assert made.push_to_hub().changed
    with pytest.raises(HFValidationError):
        trainer(tmp_path / "has space", push_to_hub=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hub_strategy": "every_save"}, "`hub_strategy` is .*every_save.*published at its end"),
        ({"hub_always_push": True}, "`hub_always_push` is True, but a run is published at its end"),
        ({"hub_model_id": "a/b/c"}, "Repo id must be"),
    ],
)
def test_what_a_trainer_cannot_do_on_the_hub_is_refused_by_name(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **fields)


def test_arguments_of_other_cards_are_refused(run):
    with pytest.raises(ValueError, match="does not take `blocking=False`"):
        run.push_to_hub(blocking=False)
    with pytest.raises(ValueError, match="does not take language"):
        run.push_to_hub(language="en")


def test_the_example_publishes_and_says_what_it_did(run, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("publish_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    options = [str(run.folder), "--repo-id", "alice/example", "--private", "--revision", "next", "--message", "Hello"]
    example.main(options)
    assert "published" in capsys.readouterr().out
    assert HfApi().list_repo_commits("alice/example", revision="next")[0].title == "Hello"
    example.main(options)
    assert "alice/example holds this content already, no commit was made" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is not the folder of a run"):
        example.main([str(tmp_path), "--repo-id", "alice/example"])


def test_results_of_a_later_evaluation_are_published_with_the_card(folder, tmp_path, capsys):
    write_bin(tmp_path / "faces.bin", write_people(tmp_path / "people"))
    pairs = [str(tmp_path / "faces.bin")]
    record = run_verification(
        VerificationOptions(output=tmp_path / "out", model=str(folder), pairs=pairs, bootstrap=10)
    )
    arguments = [str(folder), "--repo-id", "alice/measured", "--results", str(tmp_path / "out" / "results.json")]
    runpy.run_path(str(EXAMPLE))["main"](arguments)
    assert "published" in capsys.readouterr().out
    found = {r.metric_name: r for r in HfApi().model_info("alice/measured").card_data.eval_results}
    accuracy = found["Accuracy over 10 folds, faces, 200 pairs, with mirrored images"]
    assert accuracy.metric_value == pytest.approx(record["sets"]["faces"]["accuracy"], abs=1e-6)
    assert accuracy.metric_args["over"] == "pairs" and "Top-1 accuracy" in found
    with pytest.raises(SystemExit, match="nowhere.json does not exist"):
        runpy.run_path(str(EXAMPLE))["main"]([*arguments[:-1], str(tmp_path / "nowhere.json")])


def test_students_of_other_packages_have_no_code_to_bring(tmp_path, run):
    model = vit()
    model.save_pretrained(tmp_path)
    HeadShareImageProcessor().save_pretrained(tmp_path)
    shutil.copyfile(run.folder / "README.md", tmp_path / "README.md")
    assert publish_folder(tmp_path, "alice/vit").files[-2:] == ("image_processing_headshare.py", "hub_cache.py")
