"""The loopback Hub against the real clients: creating, pushing, references, listing, downloading."""

import http.client
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hub_server import ALICE, HubServer
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import get_session
from published_runs import push
from safetensors.numpy import load_file, save_file
from toys import resnet

from headshare_hf import HeadShareForImageClassification


LARGE = 11 * 1024 * 1024
TESTS = Path(__file__).parents[1]


@pytest.fixture
def api(hub):
    return HfApi()


@pytest.fixture
def large_folder(tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    weights = np.random.default_rng(0).integers(0, 256, LARGE, dtype=np.uint8)
    save_file({"weights": weights}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "headshare"}')
    return folder


def test_create_and_delete(hub, api):
    assert api.whoami()["name"] == "alice"
    assert api.create_repo("created").repo_id == "alice/created"
    assert api.create_repo("alice/created", exist_ok=True) == f"{hub.endpoint}/alice/created"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("alice/created")
    for type, sdk in (("dataset", None), ("space", "gradio")):
        api.create_repo("alice/created", repo_type=type, space_sdk=sdk, private=True)
        assert api.repo_info("alice/created", repo_type=type).private
    api.delete_repo("alice/created")
    assert not api.repo_exists("alice/created") and api.repo_exists("alice/created", repo_type="dataset")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("alice/created")
    # Past the checks of the client.
    refused = get_session().post(f"{hub.endpoint}/api/repos/create", json={"name": ".."}, headers=_authorized(hub))
    assert refused.status_code == 400 and "is not a name" in refused.text


def _authorized(hub):
    return {"Authorization": f"Bearer {hub.alice}"}


def test_large_file_is_pushed_once_and_unchanged_content_makes_no_commit(hub, api, large_folder):
    api.create_repo("alice/large")
    first = api.upload_folder(repo_id="alice/large", folder_path=large_folder)
    assert [request.status for request in hub.requests("PUT", "/lfs-upload/")] == [200]
    again = api.upload_folder(repo_id="alice/large", folder_path=large_folder)
    assert again.oid == first.oid and len(hub.requests("PUT")) == len(hub.requests("POST", "/commit/")) == 1
    assert [commit.title for commit in api.list_repo_commits("alice/large")][1:] == ["initial commit"]
    entries = {entry.path: entry for entry in api.list_repo_tree("alice/large")}
    assert entries["model.safetensors"].lfs.size == entries["model.safetensors"].size > LARGE
    assert entries["config.json"].lfs is None
    stored = load_file(hf_hub_download("alice/large", "model.safetensors"))
    np.testing.assert_array_equal(stored["weights"], load_file(large_folder / "model.safetensors")["weights"])
    assert api.get_safetensors_metadata("alice/large").parameter_count == {"U8": LARGE}


def test_large_file_in_parts(tmp_path, large_folder, hub):
    with HubServer(tmp_path / "parts", part_size=4 * 1024 * 1024) as server:
        api = HfApi(server.endpoint, token=ALICE)
        api.create_repo("alice/parts")
        api.upload_folder(repo_id="alice/parts", folder_path=large_folder)
        assert len(server.requests("PUT", "/lfs-upload/")) == 3
        cache = tmp_path / "cache"
        file = hf_hub_download("alice/parts", "model.safetensors", endpoint=server.endpoint, cache_dir=cache)
        assert Path(file).read_bytes() == (large_folder / "model.safetensors").read_bytes()
        assert not list((tmp_path / "parts" / "temporary").iterdir())


def test_model_by_branch_tag_and_commit(api):
    old, new = resnet(seed=1), resnet(seed=2)
    commit = push(old, "alice/net")
    api.create_tag("alice/net", tag="v1", tag_message="first")
    api.create_branch("alice/net", branch="trial/two")
    push(new, "alice/net", revision="trial/two")
    for revision, model in (("main", old), ("v1", old), (commit.oid, old), ("trial/two", new)):
        loaded = HeadShareForImageClassification.from_pretrained("alice/net", revision=revision)
        torch.testing.assert_close(loaded.state_dict(), model.state_dict())
    refs = api.list_repo_refs("alice/net")
    assert [branch.name for branch in refs.branches] == ["main", "trial/two"]
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", commit.oid)]
    assert api.model_info("alice/net").config["model_type"] == "headshare"


def test_references_that_exist_or_do_not(api):
    api.create_repo("alice/references")
    api.create_branch("alice/references", branch="trial")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_branch("alice/references", branch="trial")
    api.create_branch("alice/references", branch="trial", exist_ok=True)
    api.delete_branch("alice/references", branch="trial")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("alice/references", revision="trial")
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag("alice/references", tag="v1")
    with pytest.raises(HfHubHTTPError, match="main cannot be deleted"):
        api.delete_branch("alice/references", branch="main")
    api.create_tag("alice/references", tag="v1")
    with pytest.raises(HfHubHTTPError, match="v1 is not a branch"):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="alice/references", revision="v1")


def test_the_id_of_a_commit_may_be_shortened_to_read(api):
    api.create_repo("alice/shortened")
    first = api.upload_file(path_or_fileobj=b"1", path_in_repo="x", repo_id="alice/shortened")
    api.upload_file(path_or_fileobj=b"2", path_in_repo="x", repo_id="alice/shortened")
    short = first.oid[:7]
    assert api.model_info("alice/shortened", revision=short).sha == first.oid
    assert Path(hf_hub_download("alice/shortened", "x", revision=short)).read_bytes() == b"1"
    for unknown in (first.oid[:6], "f" * 7 if first.oid[0] != "f" else "0" * 7):
        with pytest.raises(RevisionNotFoundError):
            api.model_info("alice/shortened", revision=unknown)
    with pytest.raises(HfHubHTTPError, match=f"{short} is not a branch"):
        api.upload_file(path_or_fileobj=b"3", path_in_repo="x", repo_id="alice/shortened", revision=short)


def test_operations_of_one_commit(hub, api):
    api.create_repo("alice/operations")
    for path in ("a.txt", "folder/b.txt", "w.bin"):
        api.upload_file(path_or_fileobj=path.encode(), path_in_repo=path, repo_id="alice/operations")
    hub.log.clear()
    operations = [
        CommitOperationAdd("c.txt", b"new"),
        CommitOperationCopy("w.bin", "copy.bin"),
        CommitOperationCopy("a.txt", "folder/a.txt"),
        CommitOperationDelete("a.txt"),
    ]
    head = api.create_commit("alice/operations", operations, commit_message="all at once")
    assert len(hub.requests("POST", "/commit/")) == 1
    files = {"c.txt": b"new", "copy.bin": b"w.bin", "w.bin": b"w.bin", "folder/a.txt": b"a.txt"}
    assert set(api.list_repo_files("alice/operations")) == {".gitattributes", "folder/b.txt", *files}
    for path, content in files.items():
        assert Path(hf_hub_download("alice/operations", path)).read_bytes() == content
    api.delete_folder("folder", "alice/operations")
    assert [entry.path for entry in api.get_paths_info("alice/operations", ["folder", "c.txt"])] == ["c.txt"]
    with pytest.raises(HfHubHTTPError, match="has moved on"):
        late = [CommitOperationAdd("d.txt", b"late")]
        api.create_commit("alice/operations", late, commit_message="late", parent_commit=head.oid)


def test_tree(api, tmp_path):
    for path in ("top.txt", "one/a.txt", "one/two/b.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    api.create_repo("alice/tree")
    head = api.upload_folder(repo_id="alice/tree", folder_path=tmp_path)
    top = [entry.path for entry in api.list_repo_tree("alice/tree")]
    assert top == [".gitattributes", "one", "top.txt"]
    below = {entry.path: entry for entry in api.list_repo_tree("alice/tree", "one", recursive=True, expand=True)}
    assert set(below) == {"one/a.txt", "one/two", "one/two/b.txt"}
    assert {entry.last_commit.oid for entry in below.values()} == {head.oid}
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("alice/tree", "three"))
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("alice/tree", "missing.txt")


@pytest.mark.parametrize(("asked", "part"), [("0-3", slice(0, 4)), ("7-", slice(7, None)), ("-2", slice(-2, None))])
def test_ranges(hub, api, asked, part):
    content = b"0123456789"
    api.create_repo("alice/ranges", exist_ok=True)
    api.upload_file(path_or_fileobj=content, path_in_repo="digits", repo_id="alice/ranges")
    url = f"{hub.endpoint}/alice/ranges/resolve/main/digits"
    answer = get_session().get(url, headers={"Range": f"bytes={asked}"})
    assert (answer.status_code, answer.content) == (206, content[part])
    assert get_session().get(url, headers={"Range": "bytes=10-"}).status_code == 416


def test_card(api):
    result = EvalResult("image-classification", "omniglot", "Omniglot", "accuracy", 0.7, dataset_split="test")
    data = ModelCardData(
        license="mit", library_name="transformers", tags=["distillation"], model_name="net", eval_results=[result]
    )
    api.create_repo("alice/card")
    # `ModelCard.push_to_hub` of huggingface_hub 1.33 asks the public Hub whether the card is valid.
    readme = f"---\n{data.to_yaml()}\n---\n# A card\n".encode()
    api.upload_file(path_or_fileobj=readme, path_in_repo="README.md", repo_id="alice/card")
    assert ModelCard.load("alice/card").data.eval_results == [result]
    info = api.model_info("alice/card")
    assert info.card_data.eval_results == [result] and info.card_data.model_name == "net"
    assert {"distillation", "transformers", "license:mit"} <= set(info.tags)
    assert [found.id for found in api.list_models(author="alice", filter="distillation")] == ["alice/card"]
    assert [found.id for found in api.list_models(search="CARD", limit=3)] == ["alice/card"]
    assert not list(api.list_models(author="bob"))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("license: [", "cannot be read"),
        ("tags: [1]", '"tags" must be a string or a list of strings'),
        ("model-index:\n- name: net\n  results:\n  - task: {type: x}\n", r"results\[0\].metrics"),
    ],
)
def test_bad_card_is_refused_before_anything_is_uploaded(hub, api, block, message):
    api.create_repo("alice/bad_card", exist_ok=True)
    with pytest.raises(ValueError, match=message):
        readme = f"---\n{block}\n---\ntext\n".encode()
        api.upload_file(path_or_fileobj=readme, path_in_repo="README.md", repo_id="alice/bad_card")
    assert not hub.requests("POST", "/preupload/")


def test_pull_request(hub, api):
    api.create_repo("alice/pulled")
    add = [CommitOperationAdd("new.txt", b"new")]
    made = HfApi(token=hub.bob).create_commit("alice/pulled", add, commit_message="a proposal", create_pr=True)
    assert made.pr_num == 1 and "new.txt" not in api.list_repo_files("alice/pulled")
    assert Path(hf_hub_download("alice/pulled", "new.txt", revision="refs/pr/1")).read_text() == "new"
    details = api.get_discussion_details("alice/pulled", 1)
    assert (details.title, details.author, details.status) == ("a proposal", "bob", "open")
    api.merge_pull_request("alice/pulled", 1)
    assert "new.txt" in api.list_repo_files("alice/pulled")
    assert [discussion.status for discussion in api.get_repo_discussions("alice/pulled")] == ["merged"]


def test_second_load_is_offline(hub, fresh_process, tmp_path):
    push(resnet(seed=3), "alice/cached")
    code = "from huggingface_hub import snapshot_download; print(snapshot_download('alice/cached'))"
    folder = fresh_process(code, home=tmp_path)
    hub.log.clear()
    assert fresh_process(code, home=tmp_path, offline=True) == folder
    assert not hub.log
    loaded = HeadShareForImageClassification.from_pretrained(folder.strip())
    torch.testing.assert_close(loaded.state_dict(), resnet(seed=3).state_dict())


def test_package_can_be_hidden(fresh_process):
    code = "import importlib.util as u\ntry:\n    print(bool(u.find_spec('headshare_hf')))\nexcept ImportError as error:\n    print(error)"
    assert fresh_process(code).strip() == "True"
    assert fresh_process(code, without_package=True).strip() == "No module named 'headshare_hf'"


def test_dataset(api):
    rows = {"label": [0, 1, 1]}
    datasets.Dataset.from_dict(rows).push_to_hub("alice/rows", split="train")
    assert datasets.load_dataset("alice/rows", split="train").to_dict() == rows
    streamed = datasets.load_dataset("alice/rows", split="train", streaming=True)
    assert [row["label"] for row in streamed] == rows["label"]


def test_nobody_is_served_after_the_end(tmp_path):
    with HubServer(tmp_path) as server:
        connection = http.client.HTTPConnection(server.endpoint.removeprefix("http://"), timeout=10)
        for _ in range(2):
            connection.request("GET", "/api/models")
            assert connection.getresponse().read() == b"[]"
            assert connection.sock is not None, "the connection was not kept"
    with pytest.raises(OSError):
        connection.request("GET", "/api/models")
        connection.getresponse()
    assert len(server.requests("GET")) == 2


def test_folder_outlives_the_server(tmp_path, hub):
    with HubServer(tmp_path) as server:
        HfApi(server.endpoint, token=ALICE).create_repo("alice/kept")
    with HubServer(tmp_path) as server:
        found = snapshot_download("alice/kept", endpoint=server.endpoint, cache_dir=tmp_path / "cache")
    assert (Path(found) / ".gitattributes").is_file()


def test_started_by_hand(tmp_path, hub):
    command = [sys.executable, "-m", "hub_server", "--port", "0", "--folder", str(tmp_path / "hub")]
    process = subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True)
    try:
        shown = [process.stdout.readline() for _ in range(6)]
        settings = dict(part.split("=", 1) for part in shown[-1].split()[1:])
        assert HfApi(settings["HF_ENDPOINT"], token=settings["HF_TOKEN"]).whoami()["name"] == "alice"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
