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
