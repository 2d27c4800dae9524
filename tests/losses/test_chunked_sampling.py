"""The cross-entropy over a random part of the classes."""

import math

import pytest
import torch
from dense_losses import assert_close, dense_cross_entropy, in_float64, make_head

from headshare_hf.losses import chunked_cross_entropy, class_matrix, sampled_classes
from headshare_hf.losses.class_matrix import ClassMatrix
from headshare_hf.losses.sampled_classes import sample_classes


WIDTH, NUM_LABELS = 6, 40
LABELS = torch.tensor([7, 39, -1, 0, 7])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(class_matrix, "_CHUNK_OF_ONE_THREAD", 4)
    monkeypatch.setattr(class_matrix, "_CHUNK_OF_MORE_THREADS", 4)


@pytest.fixture(params=[False, True], ids=["counted", "padded"])
def padded(request, monkeypatch):
    """As on an accelerator, which is not asked how many classes were drawn."""
    monkeypatch.setattr(sampled_classes, "_would_be_waited_for", lambda device: request.param)
    return request.param


def _drawn(classes=NUM_LABELS, labels=LABELS, rate=0.3, seed=0, step=0, start=0) -> tuple[ClassMatrix, torch.Tensor]:
    return sample_classes(ClassMatrix(torch.randn(classes, WIDTH)), labels, rate, seed, step, start)


def test_the_labels_are_always_among_the_classes():
    for step in range(20):
        drawn, columns = _drawn(step=step)
        assert torch.equal(drawn.chosen[columns[LABELS >= 0]], LABELS[LABELS >= 0])
        assert columns[2] == -1 and drawn.chosen.diff().min() > 0


def test_seed_and_step_decide():
    first = _drawn(seed=3, step=5)[0].chosen
    assert torch.equal(first, _drawn(seed=3, step=5)[0].chosen)
    assert not torch.equal(first, _drawn(seed=3, step=6)[0].chosen)
    assert not torch.equal(first, _drawn(seed=4, step=5)[0].chosen)


def test_about_the_asked_share_is_drawn_and_every_class_in_turn():
    none = torch.tensor([-1])
    counts = torch.zeros(1000)
    for step in range(100):
        counts[_drawn(1000, none, rate=0.2, step=step)[0].chosen] += 1
    # Standard deviations: 0.0013 of the mean, and 4 of each of the thousand counts.
    assert (counts / 100).mean() == pytest.approx(0.2, abs=0.006) and 3 < counts.min() and counts.max() < 40


def test_two_parts_draw_what_one_does():
    whole = _drawn()[0].chosen
    left, right = (_drawn(20, LABELS - start, start=start)[0].chosen + start for start in (0, 20))
    assert torch.equal(torch.cat([left, right]), whole)


def test_no_class_at_all_may_be_drawn():
    """As by a process with few classes, none of them a label."""
    empty = [step for step in range(30) if not len(_drawn(8, torch.tensor([-1, 9]), rate=0.05, step=step)[0])]
    assert empty
    assert _drawn(8, torch.tensor([-1, 9]), rate=0.05, step=empty[0])[1].tolist() == [-1, -1]


@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_value_and_gradients_are_those_of_the_chosen_classes_alone(kind, padded):
    head, z = make_head(kind, WIDTH, NUM_LABELS), torch.randn(5, WIDTH, requires_grad=True)
    chosen, columns = sample_classes(ClassMatrix.of(head), LABELS, 0.3, 1, 2)
    assert (chosen.chosen == NUM_LABELS).any() == padded
    chosen = chosen.chosen[chosen.chosen < NUM_LABELS]
    few = make_head(kind, WIDTH, len(chosen))
    for name, parameter in few.named_parameters():
        parameter.data.copy_(head.get_parameter(name)[chosen].detach())
    few, z64 = in_float64(few), z.detach().double().requires_grad_()
    found, expected = (
        chunked_cross_entropy(z, LABELS, head, 0.3, seed=1, step=2),
        dense_cross_entropy(z64, columns, few),
    )
    found.backward()
    expected.backward()
    assert_close(found.detach(), expected.detach())
    assert_close(z.grad, z64.grad)
    for name, parameter in head.named_parameters():
        assert_close(parameter.grad[chosen], few.get_parameter(name).grad)
        others = torch.ones(NUM_LABELS, dtype=torch.bool).index_fill_(0, chosen, False)
        assert others.any() and not parameter.grad[others].any()


def test_without_a_count_the_same_classes_are_drawn(monkeypatch):
    """Room for more is filled with numbers that are no class."""
    for step in range(20):
        exact, columns = _drawn(500, torch.tensor([7, 499, -1, 500, 0]), step=step)
        with monkeypatch.context() as patch:
            patch.setattr(sampled_classes, "_would_be_waited_for", lambda device: True)
            padded, same = _drawn(500, torch.tensor([7, 499, -1, 500, 0]), step=step)
        assert padded.padded and len(padded.chosen) == math.ceil(150 + 8 * math.sqrt(500 * 0.3 * 0.7)) + 5
        assert torch.equal(padded.chosen[: len(exact.chosen)], exact.chosen)
        assert (padded.chosen[len(exact.chosen) :] == 500).all()
        assert torch.equal(columns, same) and columns[2] == columns[3] == -1


def test_a_label_without_room_stands_for_a_class_elsewhere(monkeypatch):
    """So that its loss is no number, and the run stops; it never has another class's."""
    monkeypatch.setattr(sampled_classes, "_would_be_waited_for", lambda device: True)
    monkeypatch.setattr(sampled_classes.math, "ceil", lambda number: 3)
    drawn, columns = _drawn(500, torch.tensor([499, 1]), rate=0.5)
    assert len(drawn.chosen) == 5 and columns[0] == -1 and drawn.chosen[columns[1]] == 1


def test_a_part_without_classes_draws_none():
    classes = ClassMatrix(torch.empty(0, WIDTH))
    assert sample_classes(classes, LABELS, 0.3, 0, 0, 40) == (classes, LABELS)


def test_a_wrong_label_is_still_refused():
    with pytest.raises(ValueError, match="`labels` hold 40"):
        chunked_cross_entropy(torch.randn(1, WIDTH), torch.tensor([40]), make_head("linear", WIDTH, 40), 0.5)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan")])
def test_an_impossible_share_is_refused(rate):
    with pytest.raises(ValueError, match="`sample_rate` is .*; it must be above 0 and at most 1"):
        _drawn(rate=rate)
