"""How sharp a teacher is at several scales, as a user asks for it."""

import re
import runpy
import subprocess

import pytest
import torch
from processes import ROOT, run_python
from toys import resnet

from headshare_hf import HeadShareImageProcessor
from headshare_hf.data import ImageClassificationDataset, load_splits


RECIPE = ["--config", "examples/configs/omniglot_th_kd.yaml", "--data.max_train_samples", "242"]
RECIPE += ["--training.use_cpu", "true"]


def _run(*options: str) -> subprocess.CompletedProcess:
    return run_python("examples/kd_scale.py", *RECIPE, *options, check=False)


@pytest.fixture
def teacher(tmp_path):
    (split,) = load_splits(str(ROOT / "examples/data/omniglot-8alphabets"), ["train"])
    names = ImageClassificationDataset(split, HeadShareImageProcessor()).label_names

    def save(**fields):
        model = resnet(num_labels=len(names), image_size=32, **fields)
        model.config.id2label, model.config.label2id = dict(enumerate(names)), {n: i for i, n in enumerate(names)}
        model.save_pretrained(tmp_path)
        HeadShareImageProcessor().save_pretrained(tmp_path)
        return str(tmp_path)

    return save


@pytest.mark.slow
def test_a_table_of_scales(teacher):
    place = teacher(head_type="cosface", head_scale=16.0)
    done = _run("--teacher.name_or_path", place, "--scales", "0.001", "30")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [[float(cell) for cell in line.strip("| ").split("|")] for line in done.stdout.splitlines()[-2:]]
    # Hardly softened outputs of a random teacher are near to nothing known: 1 / 242 of the mass, and all of the entropy.
    assert rows[0] == [0.001, 0.4, 100.0]
    assert rows[1][0] == 30 and 0 <= rows[1][1] <= 100 and rows[1][2] < 100
    usual = _run("--teacher.name_or_path", place).stdout
    assert [line.split("|")[1].strip() for line in usual.splitlines()[-3:]] == ["7.76", "15.52", "31.04"]
    assert re.match(r"cosine with the center of the label -?[\d.]+, with the others -?[\d.]+\n", usual)


@pytest.mark.slow
def test_other_teachers_are_refused(teacher):
    done = _run("--teacher.name_or_path", teacher())
    assert done.returncode != 0 and "the teacher has a Linear, whose logits are no cosines" in done.stderr


def test_mass_and_entropy_are_those_of_the_softmax():
    script = runpy.run_path(str(ROOT / "examples" / "kd_scale.py"))
    cosines, labels = torch.tensor([[0.5, 0.1, 0.3], [0.2, 0.9, -0.4]], dtype=torch.float64), torch.tensor([0, 1])
    p = (5 * cosines).exp() / (5 * cosines).exp().sum(1, keepdim=True)
    expected = torch.stack([p[0, 0] + p[1, 1], -(p * p.log()).sum() / torch.tensor(3.0).double().log()])
    torch.testing.assert_close(script["_softened"](cosines, labels, 5.0), expected)
    torch.testing.assert_close(script["_means"](cosines, labels), torch.tensor([1.4, 0.1], dtype=torch.float64))
