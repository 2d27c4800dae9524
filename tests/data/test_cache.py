import os

import pytest
import torch

from headshare_hf.data.cache import MemoryImageCache, shared_bytes


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
