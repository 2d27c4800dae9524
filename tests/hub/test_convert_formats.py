"""The older formats of `torch.save` are read as the zip files are: nothing is run, written or made up."""

import collections
import io
import pickle
import tarfile

import pytest
import torch
from checkpoint_files import Settings, save_legacy, save_tar

from headshare_hf.hub.convert_files import read_file


@pytest.fixture
def weights():
    return {"conv.weight": torch.randn(4, 3, 3, 3), "fc.weight": torch.randn(2, 4), "fc.bias": torch.randn(2)}


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_oldest_format(tmp_path, weights):
    save_tar(weights, tmp_path / "old.pth")
    assert _equal(read_file(tmp_path / "old.pth"), weights)


def test_the_oldest_format_with_a_module_and_an_empty_tensor(tmp_path, weights):
    save_tar({**weights, "empty": torch.ones(0, 3), "net": torch.nn.ReLU()}, tmp_path / "old.pth")
    content = read_file(tmp_path / "old.pth")
    assert content.pop("net").name == "torch.nn.modules.activation.ReLU"
    assert _equal(content, {**weights, "empty": torch.ones(0, 3)})


def _append(path, member, data=b""):
    with tarfile.open(path, "a") as archive:
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


def _parts(path):
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def _pack(path, parts):
    path.unlink()
    for name, data in parts.items():
        _append(path, tarfile.TarInfo(name), data)


# A pipe would be waited for, and a size that leads back to its own member has no end.
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["LNKTYPE", "SYMTYPE", "FIFOTYPE"])
def test_a_tar_file_with_a_link_or_a_pipe_is_refused_and_does_nothing(tmp_path, kind, weights):
    path, target = tmp_path / "net.pth", tmp_path / "mine"
    target.touch(mode=0o600)
    before = target.stat()
    save_tar(weights, path)
    member = tarfile.TarInfo("storages")
    member.type, member.linkname, member.mode, member.mtime = getattr(tarfile, kind), str(target), 0o777, 1
    _append(path, member)
    with pytest.raises(ValueError, match=r"net.pth asks for a member of a tar .* no plain file, 'storages'; refused"):
        read_file(path)
    after = target.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, 1)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("headers", [{"size": "-1536"}, {"GNU.sparse.size": "9999", "GNU.sparse.map": "0,9"}])
def test_a_tar_file_with_a_size_that_is_none_is_refused(tmp_path, headers, weights):
    save_tar(weights, tmp_path / "net.pth")
    member = tarfile.TarInfo("storages")
    member.pax_headers = headers
    _append(tmp_path / "net.pth", member, b"content")
    with pytest.raises(ValueError, match=r"net.pth asks for a member of a tar .* no plain file, 'storages'; refused"):
        read_file(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["storages", "tensors", "pickle"])
def test_a_tar_file_with_one_part_twice_or_not_at_all_is_refused(tmp_path, name, weights):
    path = tmp_path / "net.pth"
    save_tar(weights, path)
    parts = _parts(path)
    _append(path, tarfile.TarInfo(name), parts[name])
    with pytest.raises(ValueError, match=f"net.pth asks for two members of a tar file with one name, '{name}'"):
        read_file(path)
    del parts[name]
    _pack(path, parts)
    with pytest.raises(ValueError, match=f"net.pth is damaged, or no checkpoint: the tar file has no {name}$"):
        read_file(path)


@pytest.mark.parametrize("further", [{}, {"opt": Settings(a=1)}], ids=["tensors", "settings"])
@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_attributes_of_tensors_are_left_out(tmp_path, save, further, weights):
    for weight in weights.values():
        weight.tag, weight.about = "decay", Settings(a=1)
    weights["fc.weight"] = torch.nn.Parameter(weights["fc.weight"])
    weights["fc.weight"].tag = "decay"
    save({"net": weights, **further}, tmp_path / "net.pth")
    content = read_file(tmp_path / "net.pth")["net"]
    assert _equal(content, weights) and not any(hasattr(weight, "tag") for weight in content.values())


@pytest.mark.parametrize(
    ("build", "name"), [(print, "__builtin__.print"), (torch._tensor._rebuild_from_type_v2, "torch._tensor._rebuild_")]
)
def test_a_tensor_with_attributes_is_made_as_a_tensor_alone(tmp_path, capsys, build, name):
    class Hostile:
        def __reduce__(self):
            return (torch._tensor._rebuild_from_type_v2, (build, torch.Tensor, ("run",), {}))

    save_legacy({"a": Hostile()}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=f"net.pth asks for a tensor made by {name}.*; refused"):
        read_file(tmp_path / "net.pth")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("save", [torch.save, save_legacy])
def test_a_tensor_larger_than_its_data_is_refused(tmp_path, save):
    class Larger:
        def __reduce__(self):
            storage = torch.ones(2).storage()
            return (torch._utils._rebuild_tensor_v2, (storage, 0, (100,), (1,), False, collections.OrderedDict()))

    save({"a": Larger(), "opt": Settings(a=1)}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"net.pth asks for a tensor that is larger than its data"):
        read_file(tmp_path / "net.pth")


def test_a_tensor_larger_than_its_data_in_the_oldest_format_is_refused(tmp_path):
    save_tar({"a": torch.ones(2)}, tmp_path / "small.pth")
    save_tar({"a": torch.ones(1000)}, tmp_path / "net.pth")
    _pack(
        tmp_path / "net.pth", {**_parts(tmp_path / "net.pth"), "storages": _parts(tmp_path / "small.pth")["storages"]}
    )
    with pytest.raises(ValueError, match=r"net.pth asks for a tensor that is larger than its data"):
        read_file(tmp_path / "net.pth")


@pytest.mark.parametrize("further", [{}, {"opt": Settings(a=1)}], ids=["tensors", "settings"])
def test_a_tensor_without_data_is_refused(tmp_path, further):
    path, weight = tmp_path / "net.pth", torch.ones(1000)
    save_legacy({"a": weight, **further}, path)
    keys = pickle.dumps([str(weight.untyped_storage()._cdata)], protocol=2)
    assert path.read_bytes().count(keys) == 1
    path.write_bytes(path.read_bytes().replace(keys, pickle.dumps([], protocol=2)))
    with pytest.raises(ValueError, match=r"net.pth asks for tensors that it has no data for; refused"):
        read_file(path)
