"""The losses in which the student is read by the teacher's classifier."""

import math
from dataclasses import replace

import pytest
import torch
from companion_cases import draw_case, draw_features, frozen_head
from torch.nn import functional as F

from headshare_hf.losses import Features
from headshare_hf.losses.companions import AdaDistillLoss, FeatureShapes, SimKDLoss, SRRLLoss
from headshare_hf.losses.companions import adadistill as companion
from headshare_hf.models import CosineHead
from headshare_hf.models.map_projector import MapProjector


def vectors(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_srrl_is_the_sum_of_both_means():
    head = frozen_head(3, 2)
    student, teacher = vectors([1, 2], [3, -1]), vectors([1, 0, 2], [0, 1, 1])
    features = Features(embeddings=student), Features(embeddings=teacher, logits=head(teacher), head=head)
    loss = SRRLLoss(*(side.shapes() for side in features), projector="linear")
    projected, logits = loss.projector(student).detach(), 0.0
    for image in range(2):
        for label in range(2):
            own, other = (float(head.weight[label] @ each[image]) for each in (projected, teacher))
            logits += (own - other) ** 2 / 4
    embeddings = float(((projected - teacher) ** 2).sum()) / 6
    assert loss(*features).item() == pytest.approx(embeddings + logits, rel=1e-5)


def test_srrl_trains_projector_and_student_through_the_frozen_classifier():
    head, student = frozen_head(5), draw_features(4, 1)
    embeddings = student.embeddings.clone().requires_grad_()
    teacher = replace(draw_features(4, 2), head=head)
    loss = SRRLLoss(student.shapes(), teacher.shapes())
    loss(replace(student, embeddings=embeddings), teacher).backward()
    assert embeddings.grad.abs().sum() > 0 and head.weight.grad is None
    assert all(parameter.grad.abs().sum() > 0 for parameter in loss.projector.parameters())


def test_simkd_reads_the_map_that_its_projector_makes():
    teacher = draw_features(4, 2)
    projector = MapProjector(in_channels=9, out_channels=5)
    projected = projector(torch.randn(4, 9, 3, 3))
    student = Features(final_map=projected)
    loss = SimKDLoss(student.shapes(), teacher.shapes())(student, teacher)
    assert loss.item() == pytest.approx(float((projected - teacher.final_map).detach().square().mean()), rel=1e-6)
    loss.backward()
    assert all(parameter.grad is not None for parameter in projector.parameters())


def test_simkd_without_a_projector_to_the_width_of_the_teacher_is_refused():
    student, teacher = draw_features(4, 1, maps=((3, 6), (4, 3))), draw_features(4, 2)
    with pytest.raises(ValueError, match="has 4 channels and the teacher's 5; give the student a map projector to 5"):
        SimKDLoss(student.shapes(), teacher.shapes())


@pytest.mark.parametrize("change", [lambda each: -each, lambda each: torch.cat([each, each], dim=1)])
def test_simkd_with_a_teacher_that_does_not_pool_its_last_map_is_refused(change):
    case = draw_case("simkd")
    teacher = replace(case.teacher, embeddings=change(case.teacher.embeddings))
    with pytest.raises(ValueError, match="mean of the teacher's last map is not its embedding"):
        case.value(teacher=teacher)


def test_simkd_looks_at_the_first_batch_only():
    """Every look would wait for the device."""
    case = draw_case("simkd")
    expected = case.value()
    wrong = replace(case.teacher, embeddings=-case.teacher.embeddings)
    assert case.value(teacher=wrong) == expected


def adadistill(num_labels=3, **options):
    shapes = FeatureShapes(embeddings=2, logits=num_labels)
    return AdaDistillLoss(shapes, shapes, **options)


def run(loss, student, teacher, labels):
    return loss(Features(embeddings=student), Features(embeddings=teacher), torch.tensor(labels))


def test_adadistill_starts_each_center_at_the_first_embedding_of_the_teacher():
    loss = adadistill()
    run(loss, vectors([1, 0], [0, 1]), vectors([3, 4], [0, -2]), [2, 0])
    torch.testing.assert_close(loss.head.weight, vectors([0, -1], [0, 0], [0.6, 0.8]))


def test_adadistill_moves_a_center_as_written():
    loss = adadistill()
    run(loss, vectors([1, 0]), vectors([1, 0]), [1])
    student, teacher = vectors([0.8, 0.6]), vectors([0.6, 0.8])
    run(loss, student, teacher * 5, [1])
    # cos(student, teacher) = 0.96, cos(center, teacher) = 0.6
    alpha = 0.96 * 0.6
    expected = [alpha * 1 + (1 - alpha) * 0.6, (1 - alpha) * 0.8]
    assert loss.head.weight[1].tolist() == pytest.approx(expected, rel=1e-6)


def test_adadistill_takes_the_cosine_with_a_center_of_any_length():
    loss = adadistill()
    loss.head.weight[1].copy_(vectors([0.5, 0])[0])
    run(loss, vectors([0.8, 0.6]), vectors([0.6, 0.8]), [1])
    alpha = 0.96 * 0.6
    expected = [alpha * 0.5 + (1 - alpha) * 0.6, (1 - alpha) * 0.8]
    assert loss.head.weight[1].tolist() == pytest.approx(expected, rel=1e-6)


def test_adadistill_clips_the_momentum_of_a_student_that_looks_away():
    loss = adadistill()
    run(loss, vectors([1, 0]), vectors([1, 0]), [1])
    run(loss, vectors([-1, 0]), vectors([0.6, 0.8]), [1])
    torch.testing.assert_close(loss.head.weight[1], vectors([0.6, 0.8])[0])
    # Away from the teacher, and the teacher away from the center: two of them are not near either.
    run(loss, vectors([1, 0]), vectors([-1, 0]), [1])
    torch.testing.assert_close(loss.head.weight[1], vectors([-1, 0])[0])


def test_adadistill_takes_the_mean_over_images_of_a_class_and_none_without_label():
    loss = adadistill()
    loss.head.weight.copy_(vectors([1, 0], [1, 0], [0, 1]))
    student = vectors([1, 0], [0, 1], [1, 0], [1, 0])
    teacher = vectors([0.6, 0.8], [0, 1], [0, 1], [0.8, 0.6])
    run(loss, student, teacher, [1, 1, -1, 0])
    # The first moves with 0.6 · 0.6, the second not at all: it is where the teacher's embedding is.
    first = 0.36 * vectors([1, 0])[0] + 0.64 * vectors([0.6, 0.8])[0]
    torch.testing.assert_close(loss.head.weight[1], (first + vectors([0, 1])[0]) / 2)
    # The image without label counts for no class, not even for the one with number 0.
    last = 0.64 * vectors([1, 0])[0] + 0.36 * vectors([0.8, 0.6])[0]
    torch.testing.assert_close(loss.head.weight[0], last)
    torch.testing.assert_close(loss.head.weight[2], vectors([0, 1])[0])


def test_adadistill_counts_the_images_of_all_processes(monkeypatch):
    student, teacher, labels = torch.randn(4, 2), torch.randn(4, 2), [0, 1, 1, 2]
    whole, part = adadistill(), adadistill()
    for loss in (whole, part):
        loss.head.weight.copy_(vectors([1, 0], [0, 1], [0.6, -0.8]))
    run(whole, student, teacher, labels)
    gathered = {"float32": iter([F.normalize(student), F.normalize(teacher)]), "int64": iter([torch.tensor(labels)])}
    monkeypatch.setattr(companion, "_of_all_processes", lambda each: next(gathered[str(each.dtype)[6:]]))
    run(part, student[:1], teacher[:1], labels[:1])
    torch.testing.assert_close(part.head.weight, whole.head.weight)


def test_adadistill_is_the_margin_softmax_of_the_moved_centers():
    loss = adadistill(scale=8.0, margin=0.45)
    loss.head.weight.copy_(vectors([1, 0], [0, 1], [0.6, -0.8]))
    student, teacher, labels = vectors([2, 1], [-1, 3]), vectors([1, 1], [0, 2]), [0, 1]
    found = run(loss, student, teacher, labels)
    centers, expected = F.normalize(loss.head.weight), 0.0
    assert not torch.equal(loss.head.weight[0], vectors([1, 0])[0])
    for image, label in enumerate(labels):
        cosines = (centers @ F.normalize(student[image], dim=0)).tolist()
        cosines[label] = math.cos(math.acos(cosines[label]) + 0.45)
        powers = [math.exp(8 * cosine) for cosine in cosines]
        expected -= math.log(powers[label] / sum(powers)) / 2
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_adadistill_of_many_classes_goes_over_them_in_chunks(monkeypatch):
    """The same loss, gradient and centers, without a matrix of images times classes."""
    student, teacher, labels = torch.randn(4, 2), torch.randn(4, 2), [0, 1, 1, 2]
    found = []
    for start in (4, 3):
        monkeypatch.setattr(companion, "CHUNKED_FROM", start)
        loss, rows = adadistill(scale=8.0), student.clone().requires_grad_()
        loss.head.weight.copy_(vectors([1, 0], [0, 1], [0.6, -0.8]))
        calls = []
        loss.head.register_forward_hook(lambda *args: calls.append(args))  # noqa: B023
        value = run(loss, rows, teacher, labels)
        found.append((value, torch.autograd.grad(value, rows)[0], loss.head.weight.clone(), len(calls)))
    (*dense, held), (*chunked, not_held) = found
    assert (held, not_held) == (1, 0)
    torch.testing.assert_close(chunked, dense)


def test_adadistill_leaves_its_centers_alone_in_eval_mode_and_to_the_optimizer():
    loss = adadistill().eval()
    run(loss, vectors([1, 0]), vectors([1, 0]), [1])
    assert not loss.head.weight.any() and not loss.head.weight.requires_grad
    assert set(loss.state_dict()) == {"head.weight"}


def test_adadistill_keeps_its_centers_in_the_classifier_of_the_student():
    head, loss = CosineHead(2, 3, scale=8.0), adadistill()
    before = head.weight.detach().clone()
    loss.keep_centers_in(head)
    assert head.weight.equal(before) and not head.weight.requires_grad
    run(loss.eval(), vectors([1, 0]), vectors([3, 4]), [2])
    # A student that is only evaluated keeps its classifier; a training begins without centers.
    assert head.weight.equal(before)
    run(loss.train(), vectors([1, 0], [0, 1]), vectors([3, 4], [0, -2]), [2, 0])
    torch.testing.assert_close(head.weight, vectors([0, -1], [0, 0], [0.6, 0.8]))
    assert head(vectors([3, 4])).argmax() == 2


def test_adadistill_goes_on_with_the_centers_of_a_checkpoint():
    loss, again = adadistill(), adadistill()
    run(loss, vectors([1, 0], [0, 1]), vectors([3, 4], [0, -2]), [2, 0])
    again.keep_centers_in(CosineHead(2, 3, scale=8.0))
    again.load_state_dict(loss.state_dict())
    run(again, vectors([0, 1]), vectors([0, 1]), [1])
    torch.testing.assert_close(again.head.weight, vectors([0, -1], [0, 1], [0.6, 0.8]))


def test_adadistill_with_cosface_takes_the_margin_off_the_cosine():
    loss = adadistill(head_type="cosface", margin=0.35, scale=8.0, num_labels=2)
    found = run(loss, vectors([1, 0]), vectors([1, 0]), [0])
    # The other center has not been seen, and its cosine is 0.
    assert found.item() == pytest.approx(math.log(1 + math.exp(-8 * 0.65)), rel=1e-5)


@pytest.mark.parametrize(
    "student, teacher, options, message",
    [
        ({"logits": 3, "embeddings": 2}, {"embeddings": 4}, {}, "2 wide and the teacher's 4.*set the student's"),
        ({"embeddings": 2}, {"embeddings": 2}, {}, "keeps a center of every class; take a student with a classifier"),
        ({"logits": 3, "embeddings": 2}, {"embeddings": 2}, {"head_type": "linear"}, "allowed: arcface, cosface"),
    ],
)
def test_adadistill_refuses_what_it_cannot_compare(student, teacher, options, message):
    with pytest.raises(ValueError, match=message):
        AdaDistillLoss(FeatureShapes(**student), FeatureShapes(**teacher), **options)
