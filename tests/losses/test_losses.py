"""Every loss against the reference's numbers and against a formula written out here."""

import pytest
import torch
from golden_data import load_golden
from torch.autograd import grad

from headshare_hf.losses import (
    DenseScores,
    DistillationObjective,
    LossWeights,
    ObjectiveInputs,
    cross_entropy,
    embedding_loss,
    kd_loss,
)
from headshare_hf.models.heads import create_head


@pytest.fixture(scope="module")
def golden():
    return load_golden("losses")


@pytest.mark.parametrize("name, logits", [("kd", "logits_student"), ("kdth", "logits_teacher_head")])
def test_kd_loss_has_the_value_and_gradient_of_the_reference(golden, name, logits):
    student = golden[logits].clone().requires_grad_()
    loss = kd_loss(student, golden["logits_teacher"], temperature=4.0)
    torch.testing.assert_close(loss.detach(), golden[f"{name}.value"], rtol=1e-5, atol=0)
    torch.testing.assert_close(grad(loss, student)[0], golden[f"{name}.grad.0"], rtol=1e-4, atol=1e-8)


def test_embedding_loss_times_batch_size_is_the_reference_sum(golden):
    student = golden["embedding_student"].clone().requires_grad_()
    loss = embedding_loss(student, golden["embedding_teacher"]) * len(student)
    torch.testing.assert_close(loss.detach(), golden["kde.value"], rtol=1e-5, atol=0)
    torch.testing.assert_close(grad(loss, student)[0], golden["kde.grad.0"], rtol=1e-4, atol=1e-7)


def test_kdeth_is_the_sum_of_its_parts(golden):
    batch = len(golden["embedding_student"])
    objective = DistillationObjective(LossWeights(teacher_head=0.3, embedding=batch))
    inputs = ObjectiveInputs(
        labels=torch.zeros(batch, dtype=torch.long),
        own=DenseScores(golden["logits_student"]),
        teacher=DenseScores(golden["logits_teacher"]),
        teacher_head=DenseScores(golden["logits_teacher_head"]),
        embeddings=golden["embedding_student"],
        teacher_embeddings=golden["embedding_teacher"],
    )
    torch.testing.assert_close(objective(inputs)["loss"], golden["kdeth.value"], rtol=1e-5, atol=0)


def test_kd_loss_is_the_written_out_sum():
    student, teacher = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 4 * sum(p[i, c] * (p[i, c].log() - q[i, c].log()) for i in range(3) for c in range(4)) / 3
    assert kd_loss(student, teacher, 2.0).item() == pytest.approx(expected.item(), rel=1e-6)


def test_losses_do_not_depend_on_how_often_a_batch_is_repeated():
    student, teacher, labels = torch.randn(4, 6), torch.randn(4, 6), torch.tensor([0, 1, 2, 3])
    twice = [tensor.repeat(2, 1) for tensor in (student, teacher)]
    torch.testing.assert_close(kd_loss(student, teacher, 4.0), kd_loss(*twice, 4.0))
    torch.testing.assert_close(embedding_loss(student, teacher), embedding_loss(*twice))
    torch.testing.assert_close(cross_entropy(student, labels), cross_entropy(twice[0], labels.repeat(2)))


def test_losses_are_computed_in_float32_from_bfloat16():
    student, teacher = torch.randn(4, 6).bfloat16(), torch.randn(4, 6).bfloat16()
    assert kd_loss(student, teacher, 4.0).dtype == torch.float32
    torch.testing.assert_close(kd_loss(student, teacher, 4.0), kd_loss(student.float(), teacher.float(), 4.0))
    torch.testing.assert_close(embedding_loss(student, teacher), embedding_loss(student.float(), teacher.float()))


def test_no_gradient_reaches_the_teacher():
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    (kd_loss(student, teacher, 4.0) + embedding_loss(student, teacher)).backward()
    assert student.grad is not None and teacher.grad is None


def _batch() -> ObjectiveInputs:
    head, embeddings = torch.nn.Linear(8, 5), torch.randn(3, 8)
    return ObjectiveInputs(
        labels=torch.tensor([0, 1, 4]),
        own=DenseScores(torch.randn(3, 5)),
        teacher=DenseScores(torch.randn(3, 5)),
        teacher_head=DenseScores(head(embeddings), head, embeddings),
        embeddings=embeddings,
        teacher_embeddings=torch.randn(3, 8),
    )


def test_coupled_weights_are_equations_one_and_two():
    batch, alpha_th = _batch(), 0.3
    own, shared, teacher = batch.own.logits, batch.teacher_head.logits, batch.teacher.logits
    divergence = 0.7 * kd_loss(own, teacher, 4.0) + 0.3 * kd_loss(shared, teacher, 4.0)
    entropy = 0.7 * cross_entropy(own, batch.labels) + 0.3 * cross_entropy(shared, batch.labels)
    objective = DistillationObjective(LossWeights.coupled(ce=1.0, kd=1.5, alpha_th=alpha_th))
    torch.testing.assert_close(objective(batch)["loss"], entropy + 1.5 * divergence)


def test_parts_of_weight_zero_are_not_computed():
    batch = _batch()

    batch.teacher_head = None
    assert set(DistillationObjective(LossWeights(ce=1.0))(batch)) == {"loss", "ce"}
    assert set(DistillationObjective(LossWeights(kd=1.0, embedding=2.0))(batch)) == {"loss", "kd", "embedding"}


def test_a_companion_counts_with_its_share_and_is_told_without():
    inputs = ObjectiveInputs(torch.zeros(2), auxiliary={"companion": torch.tensor(3.0)}, companion_share=0.25)
    assert LossWeights(companion=2.0).needs_teacher_forward and not LossWeights(companion=2.0).trains_own_head
    parts = DistillationObjective(LossWeights(companion=2.0))(inputs)
    assert {name: float(part) for name, part in parts.items()} == {"loss": 1.5, "companion": 3.0}
    assert LossWeights.coupled(ce=1.0, kd=1.0, alpha_th=0.5, companion=2.0).companion == 2.0
    with pytest.raises(ValueError, match="was not given the scores or embeddings that it needs"):
        DistillationObjective(LossWeights(companion=2.0))(ObjectiveInputs(torch.zeros(2)))


def test_parts_carry_no_gradient_and_add_up():
    batch = _batch()
    batch.own.logits.requires_grad_()
    parts = DistillationObjective(LossWeights(ce=0.5, kd=2.0))(batch)
    torch.testing.assert_close(parts["loss"], 0.5 * parts["ce"] + 2.0 * parts["kd"])
    assert parts["loss"].requires_grad and not parts["ce"].requires_grad


@pytest.mark.parametrize(
    "weights, message",
    [
        ({"kd": -1.0}, "weight of `kd` is -1.0"),
        ({"kd": float("nan")}, "weight of `kd` is nan"),
        ({}, "all loss weights are 0"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        LossWeights(**weights)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="`alpha_th` is 1.5"):
        LossWeights.coupled(1.0, 1.0, 1.5)
    with pytest.raises(ValueError, match="`temperature` is 0"):
        DistillationObjective(LossWeights(ce=1.0), temperature=0)
    batch = _batch()
    batch.teacher = None
    with pytest.raises(ValueError, match="was not given the scores or embeddings"):
        DistillationObjective(LossWeights(kd=1.0))(batch)


def test_images_without_label_are_left_out():
    logits, labels = torch.randn(4, 3), torch.tensor([0, -1, 2, -1])
    torch.testing.assert_close(cross_entropy(logits, labels), cross_entropy(logits[[0, 2]], labels[[0, 2]]))
    nothing = cross_entropy(logits.requires_grad_(), torch.full((4,), -1))
    nothing.backward()
    assert nothing == 0 and not logits.grad.any()


def test_l2_distance_is_that_of_the_embeddings_as_they_are():
    student, teacher = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert embedding_loss(student, teacher, "l2") == (4 + 1) / 2
    assert embedding_loss(student[:1], teacher[:1]) == 0


def _cosine_batch() -> tuple[ObjectiveInputs, torch.Tensor]:
    """Also the embedding that the student's own head read."""
    generator = torch.Generator().manual_seed(0)
    own, teacher = create_head("arcface", 8, 5, 64.0, 0.5), create_head("cosface", 6, 5, 32.0, 0.2)
    embeddings, shared = torch.randn(3, 8, generator=generator), torch.randn(3, 6, generator=generator)
    return ObjectiveInputs(
        labels=torch.tensor([0, 1, 4]),
        own=DenseScores(own(embeddings), own, embeddings),
        teacher=DenseScores(teacher(torch.randn(3, 6, generator=generator)), teacher),
        teacher_head=DenseScores(teacher(shared), teacher, shared),
        embeddings=shared,
    ), embeddings


def test_each_cross_entropy_has_the_margin_of_its_head_and_the_kl_has_none():
    batch, embeddings = _cosine_batch()
    parts = DistillationObjective(LossWeights(1, 1, 1, 1), temperature=8.0)(batch)
    own = batch.own.head.margin_logits(batch.own.logits, batch.labels, embeddings)
    shared = batch.teacher_head.logits
    harder = batch.teacher_head.head.margin_logits(shared, batch.labels, batch.embeddings)
    torch.testing.assert_close(parts["ce"], cross_entropy(own, batch.labels))
    torch.testing.assert_close(parts["teacher_head_ce"], cross_entropy(harder, batch.labels))
    torch.testing.assert_close(parts["kd"], kd_loss(batch.own.logits, batch.teacher.logits, 8.0))
    torch.testing.assert_close(parts["teacher_head"], kd_loss(shared, batch.teacher.logits, 8.0))
    assert parts["ce"] > cross_entropy(batch.own.logits, batch.labels)


def test_kd_scale_is_the_scale_of_both_cosines():
    """Written out on cosines: heads of scale 64 and 32 both become heads of scale 10."""
    batch, _ = _cosine_batch()
    parts = DistillationObjective(LossWeights(kd=1, teacher_head=1), kd_scale=10.0)(batch)
    target = (10 * batch.teacher.logits / 32).softmax(1)
    for name, cosines, scale in (
        ("kd", batch.own.logits / 64, 64),
        ("teacher_head", batch.teacher_head.logits / 32, 32),
    ):
        divergence = (target * (target.log() - (10 * cosines).log_softmax(1))).sum(1).mean()
        torch.testing.assert_close(parts[name], divergence * (scale / 10) ** 2, rtol=1e-4, atol=1e-5)


def test_wrong_scales_and_distances_are_refused():
    with pytest.raises(ValueError, match="`kd_scale` is -1.0"):
        DistillationObjective(LossWeights(ce=1.0), kd_scale=-1.0)
    with pytest.raises(ValueError, match="`embedding_distance` is 'l1'; allowed: cosine, l2"):
        DistillationObjective(LossWeights(ce=1.0), embedding_distance="l1")
    with pytest.raises(ValueError, match="`kd_scale` needs cosine heads, not NoneType"):
        DistillationObjective(LossWeights(kd=1.0), kd_scale=8.0)(_batch())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_label_smoothing_is_that_of_torch_on_the_images_with_a_label(dtype):
    logits, labels = torch.randn(5, 7).to(dtype), torch.tensor([0, -1, 6, -1, 3])
    given = labels != -1
    expected = torch.nn.functional.cross_entropy(logits[given].float(), labels[given], label_smoothing=0.1)
    torch.testing.assert_close(cross_entropy(logits, labels, 0.1), expected)
    assert expected != cross_entropy(logits, labels)
    assert cross_entropy(logits, torch.full((5,), -1), 0.1) == 0


@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_scores_smooth_the_labels_of_their_cross_entropy(kind):
    head, embeddings, labels = create_head(kind, 8, 5, 16.0), torch.randn(3, 8), torch.tensor([0, 4, 2])
    logits = head(embeddings)
    found = DenseScores(logits, head, embeddings, label_smoothing=0.2).cross_entropy(labels)
    harder = logits if kind == "linear" else head.margin_logits(logits, labels, embeddings)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(harder, labels, label_smoothing=0.2))
    assert found != DenseScores(logits, head, embeddings).cross_entropy(labels)
