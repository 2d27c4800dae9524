"""What computes the cross-entropy of a linear head in the benchmark of kernels."""

import sys

import pytest
from large_head_cases import CHUNKS, DENSE, Setting
from large_head_kernels import TOLERANCES, cases_of, has_liger


@pytest.mark.parametrize("precision", TOLERANCES)
def test_both_forms_of_this_package_give_the_same_loss(precision):
    cases = cases_of(Setting(500, 4, "cpu"), precision, "cpu")
    found = {name: run() for name, run in cases.items()}
    assert found.keys() == {DENSE, CHUNKS}
    assert found[CHUNKS]["loss"].item() == pytest.approx(found[DENSE]["loss"].item(), rel=TOLERANCES[precision])
    assert found[CHUNKS]["gradient of the centers"].shape == (500, 512)


def test_liger_is_left_out_with_a_word_where_it_is_not_installed(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    assert not has_liger("cpu") and not capsys.readouterr().out
    assert not has_liger("cuda") and "pip install liger-kernel" in capsys.readouterr().out
