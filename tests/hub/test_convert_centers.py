"""Class centers in one file for each process become one matrix."""

import re

import pytest
import torch

from headshare_hf.hub import read_centers


def _save(folder, parts, name="softmax_fc_gpu_{}.pt", wrap=lambda part: {"weight": part}):
    paths = []
    for rank, part in enumerate(parts):
        paths.append(folder / name.format(rank))
        torch.save(wrap(part), paths[-1])
    return paths


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("softmax_fc_gpu_{}.pt", lambda part: {"weight": part}),
        ("rank_{}_softmax_weight.pt", lambda part: part),
        (
            "checkpoint_gpu_{}.pt",
            lambda part: {"epoch": 1, "global_step": 2, "state_dict_softmax_fc": {"weight": part}},
        ),
    ],
)
def test_parts_are_merged_by_rank_whatever_their_order(tmp_path, name, wrap):
    centers = torch.randn(25, 4)
    # Twelve ranks: by the alphabet, 10 and 11 would come before 2.
    paths = _save(tmp_path, torch.tensor_split(centers, 12), name, wrap)
    assert torch.equal(read_centers(sorted(paths)), centers)
    assert torch.equal(read_centers([str(path) for path in reversed(paths)]), centers)


def test_one_file_needs_no_rank(tmp_path):
    torch.save({"weight": torch.ones(3, 2)}, tmp_path / "centers.pt")
    assert read_centers([tmp_path / "centers.pt"]).shape == (3, 2)


def test_what_is_not_all_parts_of_one_training_is_refused(tmp_path):
    paths = _save(tmp_path, torch.tensor_split(torch.randn(11, 4), 4))
    with pytest.raises(ValueError, match="class centers of rank 0, 2 are missing"):
        read_centers([paths[1], paths[3]])
    with pytest.raises(ValueError, match="both have the centers of rank 1"):
        read_centers([paths[0], paths[1], paths[1]])
    torch.save({"weight": torch.ones(2, 4)}, tmp_path / "centers.pt")
    with pytest.raises(ValueError, match=r"the name of .*centers.pt tells no rank"):
        read_centers([paths[0], tmp_path / "centers.pt"])
    torch.save({"weight": torch.ones(5, 4)}, paths[3])
    with pytest.raises(ValueError, match=r"parts of \[3, 3, 3, 5\], but PartialFC makes \[4, 4, 3, 3\]"):
        read_centers(paths)
    torch.save({"weight": torch.ones(2, 5)}, paths[3])
    with pytest.raises(ValueError, match=r"different widths .*gpu_0.pt: 4.*gpu_3.pt: 5"):
        read_centers(paths)


@pytest.mark.parametrize("name", ["softmax_fc_gpu_{}.pt", "rank_{}_softmax_weight.pt", "checkpoint_gpu_{}.pt"])
def test_the_first_parts_of_a_training_are_refused_while_the_others_lie_beside_them(tmp_path, name):
    paths = _save(tmp_path, torch.randn(12, 10, 4), name)
    for count in (1, 2, 11):
        with pytest.raises(ValueError, match=rf"of further ranks, .*{re.escape(paths[-1].name)}.*; give all files"):
            read_centers(paths[:count])
    assert read_centers(paths).shape == (120, 4)
    for path in paths[1:]:
        path.unlink()
    # Of another kind, or the momentum: no ranks of this training.
    for other in ("gpu_1.pt", "rank_1_softmax_weight_mom.pt", f"{name.format(1)}.bak"):
        torch.save(torch.ones(10, 4), tmp_path / other)
    assert read_centers(paths[:1]).shape == (10, 4)


def test_parts_may_lie_in_several_folders(tmp_path):
    centers = torch.randn(4, 2)
    paths = []
    for rank, part in enumerate(centers.split(1)):
        (tmp_path / str(rank % 2)).mkdir(exist_ok=True)
        paths.append(tmp_path / str(rank % 2) / f"softmax_fc_gpu_{rank}.pt")
        torch.save(part, paths[-1])
    assert torch.equal(read_centers(paths), centers)
    with pytest.raises(ValueError, match=r"1 has the class centers of further ranks, .*\(softmax_fc_gpu_3.pt\)"):
        read_centers(paths[:3])


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("rank", "missing"), [(1, "0"), (2, "0, 1"), (20260131235959, "0, 1, 2, 3, 4, 5, 6, 7")])
def test_one_file_of_a_later_rank_is_refused(tmp_path, rank, missing):
    torch.save(torch.ones(3, 2), tmp_path / f"softmax_fc_gpu_{rank}.pt")
    with pytest.raises(ValueError, match=f"rank {missing} are missing; give all files, or, .* a name without a rank"):
        read_centers([tmp_path / f"softmax_fc_gpu_{rank}.pt"])


def test_momentum_is_no_class_centers(tmp_path):
    paths = _save(tmp_path, torch.randn(2, 3, 4), "rank_{}_softmax_weight_mom.pt", lambda part: part)
    for given in (paths, paths[:1]):
        with pytest.raises(
            ValueError, match=r"weight_mom.pt has, by its name, the momentum .* rank_0_softmax_weight.pt$"
        ):
            read_centers(given)


def test_files_that_are_not_there(tmp_path):
    for name in ("softmax_fc_gpu_0.pt", "centers.pt", "absent/softmax_fc_gpu_0.pt"):
        with pytest.raises(FileNotFoundError, match=f"there is no file .*{name}"):
            read_centers([tmp_path / name])


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({"kernel": torch.ones(2, 3)}, "kernel"),
        ({"weight": torch.ones(2)}, "a Tensor"),
        ({"weight": torch.ones(2, 2, dtype=torch.int64)}, "a Tensor"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, "weight, bias"),
        ([torch.ones(2, 3)], "a list"),
    ],
)
def test_files_without_centers(tmp_path, content, held):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"a.pt holds no class centers but {held}; expected a matrix"):
        read_centers([tmp_path / "a.pt"])


def test_centers_that_are_not_finite_are_refused(tmp_path):
    torch.save(torch.full((4, 3), float("nan")), tmp_path / "centers.pt")
    with pytest.raises(ValueError, match=r"NaN or infinite values in .*centers.pt"):
        read_centers([tmp_path / "centers.pt"])
