"""What the demo is started with, and how it is published."""

import ast
from pathlib import Path

import app
import huggingface_hub
import push_space
import pytest
import yaml


ROOT = Path(__file__).parents[2]


def test_options_win_over_the_environment(folders):
    environment = {"DEMO_MODELS": " a/b, c/d ,", "DEMO_TEACHER": "t/t"}
    options = app.parse([], environment)
    assert (options.models, options.teacher, options.verification_models) == (["a/b", "c/d"], "t/t", [])
    options = app.parse(["--models", str(folders / "teacher"), "--verification-models", "v/v"], environment)
    assert options.models == [str(folders / "teacher")] and options.verification_models == ["v/v"]


def test_a_missing_folder_stops_the_start(capsys):
    with pytest.raises(SystemExit):
        app.parse(["--models", "./nowhere"], {})
    assert "the folder ./nowhere does not exist" in capsys.readouterr().err


def test_gradio_reports_nothing():
    assert app.build(app.Settings()).analytics_enabled is False


def test_uploaded_images_are_gone_within_an_hour():
    every, age = app.build(app.Settings()).delete_cache
    assert every > 0 and age > 0 and every + age <= 3600
    assert "images are removed within an hour" in app.INTRODUCTION


def test_the_space_brings_the_package_along(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", hub.alice)
    address = push_space.push("alice/space", private=True)
    files = huggingface_hub.HfApi().list_repo_files("alice/space", repo_type="space")
    assert {"app.py", "demo_pages.py", "requirements.txt", "README.md", "LICENSE"} < set(files)
    assert {"headshare_hf/__init__.py", "headshare_hf/hub/card_template.md"} < set(files)
    assert not [name for name in files if "__pycache__" in name or name.endswith(".pyc")]
    assert "alice/space" in address and huggingface_hub.HfApi().space_info("alice/space").private
    assert huggingface_hub.HfApi().space_info("alice/space").sdk == "gradio"


@pytest.fixture
def older(hub, monkeypatch):
    """`older(repo_id, *names)` publishes a version that has further files."""
    monkeypatch.setenv("HF_TOKEN", hub.alice)
    files = push_space.space_files()

    def publish(repo_id, *names):
        with monkeypatch.context() as patch:
            patch.setattr(push_space, "space_files", lambda: {**files, **dict.fromkeys(names, files["LICENSE"])})
            push_space.push(repo_id)

    return publish


def _names(repo_id):
    return set(huggingface_hub.HfApi().list_repo_files(repo_id, repo_type="space"))


def test_what_a_version_no_longer_has_goes_in_the_same_commit(hub, older):
    gone = {"headshare_hf/losses.py", "headshare_hf/old/part.py", "demo_old.py"}
    older("alice/renewed", *gone)
    before = huggingface_hub.HfApi().list_repo_commits("alice/renewed", repo_type="space")
    assert gone < _names("alice/renewed")
    push_space.push("alice/renewed")
    assert _names("alice/renewed") == set(push_space.space_files()) | {".gitattributes"}
    assert len(huggingface_hub.HfApi().list_repo_commits("alice/renewed", repo_type="space")) == len(before) + 1


def test_what_the_user_added_or_changed_stays(hub, older):
    older("alice/adorned", "demo_old.py", "headshare_hf/losses.py")
    api = huggingface_hub.HfApi()
    mine = {"demo_mine.py", "examples/one.png", "demo_old.py", "headshare_hf_extra.py"}
    for name in (*mine, "headshare_hf/mine.py", "headshare_hf/losses.py"):
        api.upload_file(path_or_fileobj=b"mine", path_in_repo=name, repo_id="alice/adorned", repo_type="space")
    push_space.push("alice/adorned")
    # The folder of the package is that of one version, whole.
    assert _names("alice/adorned") == set(push_space.space_files()) | mine | {".gitattributes"}


def test_a_space_that_moved_on_meanwhile_is_not_mixed(hub, older, monkeypatch):
    older("alice/overtaken", "demo_old.py")
    listed = push_space.HfApi.list_repo_tree

    def overtaken(self, *args, **options):
        found = list(listed(self, *args, **options))
        huggingface_hub.HfApi().delete_file("demo_old.py", "alice/overtaken", repo_type="space")
        return found

    monkeypatch.setattr(push_space.HfApi, "list_repo_tree", overtaken)
    with pytest.raises(SystemExit, match="the Hub answered 412 .*; somebody else made a commit meanwhile; repeat the"):
        push_space.main(["--repo-id", "alice/overtaken"])


def test_a_public_space_is_not_taken_for_a_private_one(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.alice)
    huggingface_hub.HfApi().create_repo("alice/open-space", repo_type="space", space_sdk="gradio")
    before = huggingface_hub.HfApi().space_info("alice/open-space").sha
    with pytest.raises(
        ValueError, match="^alice/open-space is public, and a private Space was asked for; make it priv"
    ):
        push_space.push("alice/open-space", private=True)
    with pytest.raises(SystemExit, match="^alice/open-space is public, and a private Space was asked for"):
        push_space.main(["--repo-id", "alice/open-space", "--private"])
    found = huggingface_hub.HfApi().space_info("alice/open-space")
    assert found.sha == before and not found.private


def test_refusals_of_the_hub_come_in_one_line(hub, monkeypatch):
    for token, name, message in (
        (hub.alice, "bob/space", "the Hub answered 403 Forbidden: .*; publish to a namespace of yours"),
        ("hf_nobody", "alice/space", "the Hub answered 401 Unauthorized: .*; log in with `hf auth login`"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(SystemExit, match=message) as caught:
            push_space.main(["--repo-id", name])
        assert "\n" not in caught.value.code


def test_the_header_of_the_space_is_one():
    header = yaml.safe_load((ROOT / "spaces" / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert header["sdk"] == "gradio" and (ROOT / "spaces" / header["app_file"]).is_file()
    assert len(header["short_description"]) <= 60 and len(header["title"]) <= 40


def test_the_requirements_are_those_of_the_package():
    lines = (ROOT / "spaces" / "requirements.txt").read_text().splitlines()
    setup = ast.parse((ROOT / "setup.py").read_text())
    stated = next(node.value for node in setup.body if "INSTALL_REQUIRES = " in ast.unparse(node))
    assert [line for line in lines if not line.startswith("#")] == ast.literal_eval(stated)
