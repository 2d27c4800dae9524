"""Publishing from several processes, of which one talks to the Hub."""

import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from processes import TWO, launch
from safetensors.torch import load_file

from headshare_hf import HeadShareForImageClassification


WORKER = Path(__file__).with_name("push_worker.py")


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_make_one_commit(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    # A Python of its own, which reads where the Hub is when it starts.
    main, other = launch(WORKER, TWO, tmp_path, "alice/by-two", python=sys.executable)
    assert main["world_size"] == other["world_size"] == 2 and other["commit"] is None
    assert len(hub.requests("POST", "/commit/")) == 1 and HfApi().model_info("alice/by-two").sha == main["commit"]
    published = HeadShareForImageClassification.from_pretrained("alice/by-two").state_dict()
    trained = load_file(tmp_path / "run" / "model.safetensors")
    assert published.keys() == trained.keys() and all(published[name].equal(trained[name]) for name in trained)
