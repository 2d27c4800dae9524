"""Checkpoint files are read without running anything in them."""

import argparse
import collections
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import Payload, Settings, save_legacy
from safetensors.torch import save_file

from headshare_hf.hub.convert_files import read_checkpoint, read_file
from headshare_hf.hub.convert_formats import load_tensors


SAVES = {"zip": torch.save, "legacy": save_legacy}


@pytest.fixture
def weights():
    return {"conv.weight": torch.randn(4, 3, 3, 3), "fc.weight": torch.randn(2, 4), "fc.bias": torch.randn(2)}


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
def test_a_state_dict_and_a_training_checkpoint_with_objects(tmp_path, save, weights):
    path = tmp_path / "net.pth"
    save(collections.OrderedDict(weights), path)
    assert _equal(read_checkpoint(path).weights, weights)
    assert read_checkpoint(path).notes == []
    extras = {
        "opt": argparse.Namespace(lr=0.1, path=Path("a"), names={"b"}, settings=Settings(device=torch.device("cpu"))),
        "best_acc": np.float64(71.5),
        "accuracy": torch.tensor([71.5]),
        "array": np.arange(3),
        "counts": collections.defaultdict(int, a=1),
    }
    save({"epoch": 3, "model": collections.OrderedDict(weights), **extras}, path)
    checkpoint = read_checkpoint(path)
    assert _equal(checkpoint.weights, weights)
    assert checkpoint.notes == [
        "took the entry 'model', left out: epoch, opt, best_acc, accuracy, array, counts",
    ]


def test_tensors_that_share_their_storage_stay_apart(tmp_path):
    base = torch.arange(12.0)
    content = {"model": {"a": base[2:6].view(2, 2), "b": base.view(3, 4).t()}, "opt": Settings(a=1)}
    for name, save in SAVES.items():
        save(content, tmp_path / name)
        assert _equal(load_tensors(tmp_path / name)["model"], content["model"])


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
def test_parameters_and_other_types(tmp_path, save):
    content = {"a": torch.nn.Parameter(torch.ones(2)), "b": torch.ones(2).bfloat16(), "c": torch.tensor(3)}
    content["d"] = torch.nn.Parameter(torch.ones(3))
    content["d"].decay = False
    save({**content, "e": torch.ones(0, 2)}, tmp_path / "a.pt")
    read = load_tensors(tmp_path / "a.pt")
    parameters = {name: content[name].data for name in ("a", "d")}
    assert _equal(read, {**content, **parameters, "e": torch.ones(0, 2)})
    assert read["b"].dtype == torch.bfloat16


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
def test_a_hostile_file_is_refused_and_does_nothing(tmp_path, save, weights):
    target = tmp_path / "made"
    path = tmp_path / "net.pth"
    save({"model": weights, "opt": Payload(target)}, path)
    with pytest.raises(
        ValueError, match=r"net.pth asks for a call of \w+.open; refused, .* save `model.state_dict\(\)`"
    ):
        read_file(path)
    assert not target.exists()
    # The same file does its work where it is unpickled as usual.
    torch.load(path, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        (b"cos\nsystem\n(S'touch made'\ntR.", "a call of os.system"),
        (b"(S'touch made'\nios\nsystem\n.", "a form that torch.save never writes"),
        (b"(cos\nsystem\nS'touch made'\no.", "a form that torch.save never writes"),
        (b"\x80\x02\x82\x01.", "a form that torch.save never writes"),
        (b"cos\nsystem\nK\x01\x85R.", "a call of os.system"),
        (b"cos\nsystem\n}b.", "a state for a _Name"),
        (b"\x80\x02K\x01)\x81.", "an object made of a int"),
        (b"K\x01)R.", "a call of a int"),
    ],
)
def test_every_way_to_call_something_is_refused(tmp_path, program, wanted, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pth"
    stream = [pickle.dumps(part, protocol=2) for part in (torch.serialization.MAGIC_NUMBER, 1001, {})]
    path.write_bytes(b"".join(stream) + program + pickle.dumps([], protocol=2))
    with pytest.raises(ValueError, match=f"net.pth asks for .*{wanted}; refused"):
        read_file(path)
    assert not (tmp_path / "made").exists()


def test_a_torchscript_archive_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / "net.pt"))
    with pytest.raises(ValueError, match=r"net.pt asks for the program of a TorchScript archive"):
        read_file(tmp_path / "net.pt")


class Program(torch.nn.Module):
    """Makes a file while it is loaded."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target, self.made = target, torch.zeros(4)

    @torch.jit.export
    def __getstate__(self):
        return (self.target, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.target = state[0]
        self.made = torch.from_file(self.target, shared=True, size=4)
        self.training = state[1]

    def forward(self, x):
        return x


def _disguise(path):
    """A comment with the mark of a directory: Python's reader takes it for the end of the file, torch's does not."""
    data = path.read_bytes()
    comment = b"PK\5\6pad"
    end = data.rindex(b"PK\5\6") + 20
    path.write_bytes(data[:end] + struct.pack("<H", len(comment)) + comment)


@pytest.mark.parametrize("read", [read_file, load_tensors])
@pytest.mark.parametrize("without", ["", "constants.pkl"])
def test_a_program_that_hides_from_other_readers_of_zip_is_not_run(tmp_path, read, without):
    path, target = tmp_path / "net.pth", tmp_path / "made"
    torch.jit.script(Program(str(target))).save(str(path))
    if without:
        path.write_bytes(path.read_bytes().replace(without.encode(), without[::-1].encode()))
    _disguise(path)
    target.unlink(missing_ok=True)
    assert not zipfile.is_zipfile(path)
    with pytest.raises(ValueError, match="the program of a TorchScript archive"):
        read(path)
    assert not target.exists()
    if not without:
        # The same file does its work where it is loaded as usual.
        torch.jit.load(str(path))
        assert target.exists()


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
def test_a_whole_model_is_refused(tmp_path, save):
    save({"epoch": 1, "model": torch.nn.Linear(1, 1)}, tmp_path / "net.tar")
    with pytest.raises(
        ValueError,
        match=r"no state dict; it holds epoch \(a int\), model \(a pickled torch.nn.modules.linear.Linear\)",
    ):
        read_checkpoint(tmp_path / "net.tar")


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
def test_a_whole_model_beside_its_weights_is_left_out(tmp_path, save, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # torch's own reader would write how the source in a file differs from the installed one.
    monkeypatch.setattr(torch.nn.Linear, "dump_patches", True)
    save({"state_dict": weights, "net": torch.nn.Linear(1, 1)}, tmp_path / "net.pth")
    (tmp_path / "net.pth").write_bytes((tmp_path / "net.pth").read_bytes().replace(b"class Linear", b"class LINEAR"))
    checkpoint = read_checkpoint(tmp_path / "net.pth")
    assert _equal(checkpoint.weights, weights)
    assert checkpoint.notes == ["took the entry 'state_dict', left out: net"]
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


@pytest.mark.parametrize("name", ["net.pth", "legacy.pth", "net.safetensors"])
def test_a_truncated_file_is_named(tmp_path, name, weights):
    path = tmp_path / name
    (save_file if path.suffix == ".safetensors" else SAVES[{"net": "zip"}.get(path.stem, path.stem)])(weights, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged, or no checkpoint: ."):
        read_file(path)


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent.pth"):
        read_file(tmp_path / "absent.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(ValueError, match=r"empty.pth is damaged, or no checkpoint: ."):
        read_file(tmp_path / "empty.pth")


def test_several_state_dicts_need_a_choice(tmp_path, weights):
    path = tmp_path / "net.pth"
    ema = {name: tensor + 1 for name, tensor in weights.items()}
    torch.save({"state_dict": weights, "state_dict_ema": ema, "epoch": 1}, path)
    with pytest.raises(
        ValueError, match=r"several state dicts: state_dict, state_dict_ema; say which one with `entry`"
    ):
        read_checkpoint(path)
    assert _equal(read_checkpoint(path, "state_dict_ema").weights, ema)
    with pytest.raises(ValueError, match=r"no state dict 'model'; it has: state_dict, state_dict_ema"):
        read_checkpoint(path, "model")


def test_what_is_no_state_dict_is_described(tmp_path):
    for content, held in (([1], "a list"), ({}, "nothing"), ({"a": torch.ones(1), "b": 2}, r"1 tensors, b \(a int\)")):
        torch.save(content, tmp_path / "net.pth")
        with pytest.raises(ValueError, match=f"has no state dict; it holds {held}$"):
            read_checkpoint(tmp_path / "net.pth")


def test_wrappers_come_off_the_names(tmp_path, weights):
    head = {"t_head.weight": torch.ones(2, 4), "t_head.bias": torch.ones(2)}
    student = {f"model_s.{name}": tensor for name, tensor in weights.items()}
    parallel = {f"module.{name}": tensor for name, tensor in {**student, **head}.items()}
    compiled = {f"module._orig_mod.{name}": tensor for name, tensor in weights.items()}
    for content in (student, {**student, **head}, parallel, compiled):
        save_file(content, tmp_path / "net.safetensors")
        assert _equal(read_checkpoint(tmp_path / "net.safetensors").weights, weights)
    save_file(parallel, tmp_path / "net.safetensors")
    notes = read_checkpoint(tmp_path / "net.safetensors").notes
    assert len(notes) == 1
    assert "left out the teacher's classifier: " in notes[0]
    assert "module.t_head.bias" in notes[0]


@pytest.mark.parametrize("other", ["conv.weight", "module.conv.weight"])
def test_two_tensors_that_get_one_name_are_refused(tmp_path, other, weights):
    student = {f"model_s.{name}": tensor for name, tensor in weights.items()}
    if other.startswith("module."):
        student = {f"module.{name}": tensor for name, tensor in student.items()}
    save_file({**student, other: torch.ones(4, 3, 3, 3)}, tmp_path / "net.safetensors")
    with pytest.raises(
        ValueError, match=rf"net.safetensors: .*{re.escape(other)}.* both become conv.weight"
    ) as caught:
        read_checkpoint(tmp_path / "net.safetensors")
    assert "model_s.conv.weight" in str(caught.value)
