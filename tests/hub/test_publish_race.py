"""Two publications at the same time: one of them wins whole, and the other is told to be repeated."""

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from published_runs import FACE, num_commits, push
from toys import assert_same, resnet, snapshot

from headshare_hf import HeadShareForImageClassification
from headshare_hf.models import CENTERS_FILE


# Of one and the same file each, so that a mixture is two models.
OURS, THEIRS = resnet(seed=1), resnet(seed=2, **FACE)


@pytest.fixture
def interrupt(monkeypatch):
    """`interrupt(name, action)`: something happens right before the next call of a method of the client."""

    def run(name, action):
        call = getattr(HfApi, name)

        def first(self, *args, **kwargs):
            monkeypatch.setattr(HfApi, name, call)
            action()
            return call(self, *args, **kwargs)

        monkeypatch.setattr(HfApi, name, first)

    return run


@pytest.mark.parametrize("revision", [None, "trial"])
def test_a_publication_between_listing_and_commit_is_not_mixed_with_ours(revision, hub, interrupt):
    repo_id = f"alice/race-{revision or 'main'}"
    push(resnet(seed=3), repo_id, revision=revision)
    interrupt("create_commit", lambda: push(THEIRS, repo_id, revision=revision))
    with pytest.raises(
        OSError, match=f"{repo_id}: somebody else made a commit to {revision or 'main'} since"
    ) as caught:
        push(OURS, repo_id, revision=revision)
    assert "nothing of this model was published; publish it again to replace the other" in str(caught.value)
    assert isinstance(caught.value.__cause__, HfHubHTTPError) and caught.value.__cause__.response.status_code == 412
    assert_same(snapshot(_load(repo_id, revision)), snapshot(THEIRS))
    commits = num_commits(repo_id, revision)
    push(OURS, repo_id, revision=revision)
    assert num_commits(repo_id, revision) == commits + 1
    assert CENTERS_FILE not in HfApi().list_repo_files(repo_id, revision=revision)
    assert_same(snapshot(_load(repo_id, revision)), snapshot(OURS))


def test_files_are_listed_at_the_commit_that_ours_follows(hub, interrupt):
    push(resnet(seed=3), "alice/race-listed")
    interrupt("list_repo_files", lambda: push(THEIRS, "alice/race-listed"))
    with pytest.raises(OSError, match="somebody else made a commit to main since"):
        push(OURS, "alice/race-listed")
    assert_same(snapshot(_load("alice/race-listed", None)), snapshot(THEIRS))


def test_other_refusals_of_the_commit_stay_as_they_are(hub):
    push(OURS, "alice/race-refused")
    hub.faults.refuse("POST", "/commit/", status=403)
    with pytest.raises(HfHubHTTPError, match="refused by the test"):
        push(THEIRS, "alice/race-refused")


def _load(repo_id, revision):
    return HeadShareForImageClassification.from_pretrained(repo_id, revision=revision or "main")
