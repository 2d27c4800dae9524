"""The loopback Hub: uploads by Xet, which is what clients do that were not told otherwise."""

import os
import struct
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils import get_session


REPO = "alice/xet"
PUSH = f"""
from huggingface_hub import HfApi
print(HfApi().upload_folder(repo_id="{REPO}", folder_path="net").oid)
"""


def _downloaded():
    folder = Path(snapshot_download(REPO))
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".gitattributes"}


def _local(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_xet(hub, fresh_process, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    # Chunks that repeat, that can be packed and that cannot.
    content = bytes(1 << 20) + os.urandom(1 << 20) + b"abcd" * (1 << 18)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text("{}")
    api = HfApi()
    api.create_repo(REPO)
    first = fresh_process(PUSH, token=hub.alice, home=tmp_path, xet=True)
    assert hub.requests("POST", "/xet/v1/shards") and not hub.requests("PUT")
    assert _downloaded() == _local(folder)
    again = fresh_process(PUSH, token=hub.alice, home=tmp_path, xet=True)
    assert again == first and len(api.list_repo_commits(REPO)) == 2
    (folder / "model.safetensors").write_bytes(content + b"more")
    fresh_process(PUSH, token=hub.alice, home=tmp_path, xet=True)
    assert _downloaded() == _local(folder) and len(api.list_repo_commits(REPO)) == 3


def test_what_cannot_be_put_together_is_refused(hub):
    url = f"{hub.endpoint}/xet/v1/shards"
    headers = {"Authorization": f"Bearer {hub.alice}"}
    without_sha256 = bytes(48) + struct.pack("<32sIIQ", b"1" * 32, 0, 0, 0) + b"\xff" * 48
    answer = get_session().post(url, content=without_sha256, headers=headers)
    assert answer.status_code == 400 and "without its SHA-256" in answer.text
    unknown_xorb = struct.pack("<32sIIII", b"2" * 32, 0, 10, 0, 1)
    shard = bytes(48) + struct.pack("<32sIIQ", b"1" * 32, 1 << 30, 1, 0) + unknown_xorb + bytes(48) + b"\xff" * 48
    answer = get_session().post(url, content=shard, headers=headers)
    assert answer.status_code == 400 and "is unknown here" in _refusals(hub)
    assert get_session().post(url, content=shard).status_code == 401
    read_only = {"Authorization": f"Bearer {hub.alice_read_only}"}
    assert get_session().post(url, content=shard, headers=read_only).status_code == 403


def _refusals(hub):
    (request,) = [request for request in hub.log if "/v1/reconstructions/" in request.path and request.status == 400][
        :1
    ]
    return get_session().get(f"{hub.endpoint}{request.path}").text
