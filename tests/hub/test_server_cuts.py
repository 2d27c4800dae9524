"""The loopback Hub when connections are cut: the old revision stays whole, and the same push again repairs it."""

import os
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, lfs, snapshot_download
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from huggingface_hub.utils import get_session, hf_raise_for_status


SIZE = 2 * 1024 * 1024
REPO = "alice/cut"
LOST = "disconnected|reset|Broken pipe"


@pytest.fixture
def api(hub, monkeypatch):
    # The clients wait longer before each further try.
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    return HfApi()


@pytest.fixture
def folder(hub, api, tmp_path):
    """Another version of what the repository holds."""
    folder = tmp_path / "net"
    folder.mkdir()
    api.create_repo(REPO, exist_ok=True)
    for version in ("old", "new"):
        (folder / "model.safetensors").write_bytes(os.urandom(SIZE))
        (folder / "config.json").write_bytes(os.urandom(20).hex().encode())
        if version == "old":
            api.upload_folder(repo_id=REPO, folder_path=folder)
    hub.log.clear()
    return folder


@pytest.fixture
def contents(api, folder):
    """A function that returns what a download finds, and checks that it is whole."""

    def download():
        found = Path(snapshot_download(REPO))
        return {file.name: file.read_bytes() for file in found.iterdir() if file.name != ".gitattributes"}

    return download


def _local(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("after", [0, SIZE // 2, SIZE])
def test_upload_that_is_cut_again_and_again(hub, api, folder, contents, after):
    before, head = contents(), api.model_info(REPO).sha
    hub.faults.cut("PUT", "/lfs-upload/", after=after, times=100)
    with pytest.raises(RuntimeError, match="Error while uploading 'model.safetensors'"):
        api.upload_folder(repo_id=REPO, folder_path=folder)
    tried = hub.requests("PUT", "/lfs-upload/")
    assert len(tried) > 1 and all(request.status is None for request in tried)
    assert (contents(), api.model_info(REPO).sha) == (before, head)
    assert not list((hub.store.folder / "temporary").iterdir())
    hub.faults.clear()
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert contents() == _local(folder) != before


def test_upload_that_is_cut_once_is_repeated_by_the_client(hub, api, folder, contents):
    hub.faults.cut("PUT", "/lfs-upload/", after=SIZE // 2)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert [request.status for request in hub.requests("PUT", "/lfs-upload/")] == [None, 200]
    assert contents() == _local(folder)


@pytest.mark.parametrize("after", [0, 100])
def test_commit_that_is_cut(hub, api, folder, contents, after):
    before, head = contents(), api.model_info(REPO).sha
    hub.faults.cut("POST", "/commit/", after=after)
    with pytest.raises(Exception, match=LOST):
        api.upload_folder(repo_id=REPO, folder_path=folder)
    assert (contents(), api.model_info(REPO).sha) == (before, head)
    hub.log.clear()
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert contents() == _local(folder)
    assert not hub.requests("PUT"), "the weights were there already"


def test_commit_whose_answer_is_lost(hub, api, folder, contents):
    commits = len(api.list_repo_commits(REPO))
    hub.faults.lose_answer("POST", "/commit/")
    with pytest.raises(Exception, match=LOST):
        api.upload_folder(repo_id=REPO, folder_path=folder)
    assert contents() == _local(folder)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert len(api.list_repo_commits(REPO)) == commits + 1


def test_refusal(hub, api, folder, contents):
    before = contents()
    hub.faults.refuse("POST", "/preupload/", status=403)
    with pytest.raises(HfHubHTTPError, match="refused by the test"):
        api.upload_folder(repo_id=REPO, folder_path=folder)
    hub.faults.refuse("POST", "/objects/batch", status=503)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert [request.status for request in hub.requests("POST", "/objects/batch")] == [503, 200]
    assert contents() == _local(folder) != before


def test_download_that_is_cut_goes_on_where_it_was(hub, api, folder, tmp_path, monkeypatch):
    # The clients keep what they have of a file in pieces of this size.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", SIZE // 8)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    hub.faults.cut("GET", "/resolve/.*safetensors", after=SIZE // 2)
    file = hf_hub_download(REPO, "model.safetensors", cache_dir=tmp_path / "cache")
    assert Path(file).read_bytes() == (folder / "model.safetensors").read_bytes()
    assert [request.status for request in hub.requests("GET", "safetensors")] == [None, 206]


def test_wrong_content_is_not_stored(hub, api):
    wanted = {"oid": "0" * 64, "size": 3}
    batch = get_session().post(
        f"{hub.endpoint}/{REPO}.git/info/lfs/objects/batch",
        json={"operation": "upload", "objects": [wanted]},
        headers={**lfs.LFS_HEADERS, **api._build_hf_headers()},
    )
    api.create_repo(REPO, exist_ok=True)
    href = batch.json()["objects"][0]["actions"]["upload"]["href"]
    answer = get_session().put(href, content=b"abc")
    assert answer.status_code == 400 and "the content has the SHA-256" in answer.text
    assert not hub.store.object("0" * 64).exists()
    assert get_session().put(f"{hub.endpoint}/lfs-upload/unknown", content=b"abc").status_code == 403


def test_large_file_that_was_not_uploaded_makes_no_commit(hub, api):
    api.create_repo(REPO, exist_ok=True)
    lines = (
        '{"key": "header", "value": {"summary": "x"}}\n'
        '{"key": "lfsFile", "value": {"path": "w.bin", "algo": "sha256", "oid": "%s", "size": 3}}' % ("1" * 64)
    )
    head = api.model_info(REPO).sha
    url, headers = f"{hub.endpoint}/api/models/{REPO}/commit/main", api._build_hf_headers()
    with pytest.raises(BadRequestError, match="was not uploaded"):
        hf_raise_for_status(get_session().post(url, content=lines, headers=headers))
    assert api.model_info(REPO).sha == head


def test_errors_of_the_server_itself_are_not_repeated(hub, api):
    api.create_repo(REPO, exist_ok=True)
    url, headers = f"{hub.endpoint}/api/models/{REPO}/commit/main", api._build_hf_headers()
    answer = get_session().post(url, content="not JSON", headers=headers)
    assert answer.status_code == 400 and "JSONDecodeError" in answer.json()["error"]
    assert get_session().get(f"{hub.endpoint}/nothing/here/at/all").status_code == 404
