"""The loopback Hub: who may see, read and write, and how the clients name what they may not."""

import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError


NOBODY = False


@pytest.fixture
def api(hub):
    return HfApi()


def _repo(api, name, **options):
    api.create_repo(name, exist_ok=True, **options)
    api.upload_file(path_or_fileobj=b"content", path_in_repo="file.txt", repo_id=name)
    return name


def test_private(hub, api, fresh_process):
    name = _repo(api, "alice/private", private=True)
    for token in (NOBODY, hub.bob):
        with pytest.raises(RepositoryNotFoundError) as refused:
            hf_hub_download(name, "file.txt", token=token)
        assert not isinstance(refused.value, GatedRepoError)
        with pytest.raises(RepositoryNotFoundError):
            HfApi().model_info(name, token=token)
    assert name not in [model.id for model in api.list_models(token=hub.bob)]
    assert name in [model.id for model in api.list_models()]
    read = f"from huggingface_hub import hf_hub_download\nprint(open(hf_hub_download('{name}', 'file.txt')).read())"
    assert fresh_process(read, token=hub.alice_read_only) == "content\n"
    api.update_repo_settings(name, private=False)
    assert fresh_process(read) == "content\n"


def test_gated(hub, api):
    name = _repo(api, "alice/gated")
    api.update_repo_settings(name, gated="manual")
    for token in (NOBODY, hub.bob):
        with pytest.raises(GatedRepoError):
            hf_hub_download(name, "file.txt", token=token)
        with pytest.raises(GatedRepoError):
            api.auth_check(name, token=token)
        assert api.model_info(name, token=token).gated == "manual"
    api.grant_access(name, "bob")
    assert hf_hub_download(name, "file.txt", token=hub.bob)
    api.auth_check(name, token=hub.bob)
    with pytest.raises(HfHubHTTPError, match="no right to write"):
        api.auth_check(name, token=hub.bob, write=True)
    api.cancel_access_request(name, "bob")
    with pytest.raises(GatedRepoError):
        api.auth_check(name, token=hub.bob)
    with pytest.raises(HfHubHTTPError, match="no user carol"):
        api.grant_access(name, "carol")


def test_bad_token(api):
    name = _repo(api, "alice/public")
    for call in (lambda: api.whoami("hf_wrong"), lambda: api.model_info(name, token="hf_wrong")):
        with pytest.raises(HfHubHTTPError) as refused:
            call()
        assert refused.value.response.status_code == 401
        assert not isinstance(refused.value, RepositoryNotFoundError)
        assert refused.value.response.headers["X-Error-Message"] == "Invalid credentials in Authorization header"


def _writes(api):
    yield lambda: api.upload_file(path_or_fileobj=b"other", path_in_repo="file.txt", repo_id="alice/mine")
    yield lambda: api.upload_file(path_or_fileobj=b"\0", path_in_repo="weights.bin", repo_id="alice/mine")
    yield lambda: api.create_tag("alice/mine", tag="v1")
    yield lambda: api.create_branch("alice/mine", branch="trial")
    yield lambda: api.update_repo_settings("alice/mine", private=True)
    yield lambda: api.delete_repo("alice/mine")
    yield lambda: api.create_repo("alice/new")


@pytest.mark.parametrize(("who", "message"), [("alice_read_only", "this token is read-only"), ("bob", "no right")])
def test_writing(hub, api, who, message):
    before = api.model_info(_repo(api, "alice/mine"))
    for write in _writes(HfApi(token=getattr(hub, who))):
        with pytest.raises(HfHubHTTPError, match=message) as refused:
            write()
        assert refused.value.response.status_code == 403
    after = api.model_info("alice/mine")
    assert (after.sha, after.private) == (before.sha, False)
    assert not api.repo_exists("alice/new") and not hub.requests("PUT", "/lfs-upload/")


def test_nobody_may_write(hub):
    api = HfApi(token=False)
    with pytest.raises(HfHubHTTPError, match="401"):
        api.create_repo("alice/other")


def test_missing(api):
    for name in ("alice/missing", "nobody/missing", "missing"):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info(name)
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download(name, "config.json")
        assert not api.repo_exists(name)
