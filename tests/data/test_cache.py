import os

import pytest
import torch

from headshare_hf.data import cache
from headshare_hf.data.cache import MemoryImageCache, available_memory, shared_bytes


def test_every_image_is_loaded_once():
    images = torch.randint(1, 256, (10, 3, 4, 4), dtype=torch.uint8)
    asked = []

    def load(rows):
        asked.extend(rows.tolist())
        return images[rows]

    cache = MemoryImageCache(10, (3, 4, 4))
    for rows in ([3, 1], [1, 5, 3], [3, 9]):
        rows = torch.tensor(rows)
        assert torch.equal(cache.read(rows, load), images[rows])
    assert asked == [3, 1, 5, 9]


def test_what_is_read_is_a_copy():
    cache = MemoryImageCache(2, (1, 2, 2))
    cache.read(torch.tensor([0]), lambda rows: torch.ones(1, 1, 2, 2, dtype=torch.uint8)).zero_()
    assert cache.read(torch.tensor([0]), None).all()


def test_failed_load_leaves_the_image_unfilled():
    cache = MemoryImageCache(2, (1, 2, 2))

    def fail(rows):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        cache.read(torch.tensor([1]), fail)
    ones = torch.ones(1, 1, 2, 2, dtype=torch.uint8)
    assert torch.equal(cache.read(torch.tensor([1]), lambda rows: ones), ones)


def test_forked_process_writes_into_the_same_memory():
    shared = shared_bytes(4)
    child = os.fork()
    if child == 0:
        shared[2] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert shared.tolist() == [0, 0, 7, 0]


def test_too_many_images_for_the_machine():
    with pytest.raises(ValueError, match="give `image_cache`, a folder on a disk, or pass cache_images=False"):
        MemoryImageCache(10**12, (3, 224, 224))


@pytest.mark.parametrize(("content", "limit"), [("4096000\n", 4096000), ("max\n", None), (None, None)])
def test_a_container_may_have_less_than_its_machine(content, limit, tmp_path, monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(cache, "_CONTAINER_LIMITS", ())
    machine = available_memory()
    assert machine == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if content is not None:
        (tmp_path / "memory.max").write_text(content)
    monkeypatch.setattr(cache, "_CONTAINER_LIMITS", (tmp_path / "none", tmp_path / "memory.max"))
    assert available_memory() == (limit or machine)


def test_the_processes_of_a_machine_share_its_memory(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("4096")
    monkeypatch.setattr(cache, "_CONTAINER_LIMITS", (tmp_path / "memory.max",))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available_memory() == 1024
    MemoryImageCache(64, (1, 4, 4))
    with pytest.raises(ValueError, match="65 decoded images take .* and this process may have"):
        MemoryImageCache(65, (1, 4, 4))
