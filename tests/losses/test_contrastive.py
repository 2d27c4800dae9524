"""The contrastive loss: the stored numbers of the paper's code, and the formula written out."""

import pytest
import torch
from allocations import NewElements
from golden_data import load_golden
from torch.nn import functional as F

from headshare_hf.losses import Contrast, ContrastiveLoss, DistillationObjective, LossWeights, ObjectiveInputs
from headshare_hf.losses import contrastive_side as side


NUM_IMAGES, WIDTH, SIZE = 60, 12, 8


def _loss(num_negatives=20, **options) -> ContrastiveLoss:
    torch.manual_seed(0)
    labels = torch.arange(NUM_IMAGES) % 5
    return ContrastiveLoss(WIDTH, WIDTH, labels, num_negatives=num_negatives, embedding_size=SIZE, **options)


def _batch(size=7, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, size, WIDTH, generator=generator, dtype=dtype)
    return student, teacher, torch.randperm(NUM_IMAGES, generator=generator)[:size]


def _written_out(loss, student, teacher, contrast):
    """Equations (17) to (19) of the paper with everything that they mention as a tensor, in float64."""
    total = 0.0
    for number, (embeddings, layer, memory) in enumerate(
        (
            (student, loss.student_embedding, loss.teacher_memory),
            (teacher, loss.teacher_embedding, loss.student_memory),
        )
    ):
        anchors = F.normalize(F.linear(embeddings.double(), layer.weight.double(), layer.bias.double()), dim=1)
        z = loss.normalization[number].double()
        for row, anchor in enumerate(anchors):
            chosen = torch.arange(len(memory)) if contrast.pool is None else contrast.pool
            chosen = chosen[~contrast.excluded[row] if contrast.negatives is None else contrast.negatives[row]]
            prior = len(chosen) / len(memory)
            positive = (anchor @ memory[contrast.positives[row]].double() / loss.temperature).exp() / z
            negative = (memory[chosen].double() @ anchor / loss.temperature).exp() / z
            total = total - (positive / (positive + prior + 1e-7)).log()
            total = total - (prior / (negative + prior + 1e-7)).log().sum()
    return total / len(student)


def test_values_gradients_and_memories_are_those_of_the_papers_code():
    golden = load_golden("contrastive")
    loss = ContrastiveLoss(12, 10, golden["labels"].long(), num_negatives=20, embedding_size=8)
    start = {name.removeprefix("start."): value for name, value in golden.items() if name.startswith("start.")}
    loss.load_state_dict({**loss.state_dict(), **start})
    for step in range(3):
        given = {name.removeprefix(f"{step}."): value for name, value in golden.items() if name[0] == str(step)}
        student = given["student"].requires_grad_()
        contrast = Contrast(given["positives"].long(), given["negatives"].long())
        loss.zero_grad()
        found = loss(student, given["teacher"], given["index"].long(), contrast)
        found.backward()
        torch.testing.assert_close(found, given["value"], rtol=1e-6, atol=0)
        torch.testing.assert_close(student.grad, given["grad.student"], rtol=1e-5, atol=1e-6)
        for name in ("student_embedding.weight", "teacher_embedding.weight"):
            torch.testing.assert_close(
                loss.get_parameter(name).grad, given[f"grad.{name}"], rtol=1e-5, atol=1e-6, msg=name
            )
        for name in ("normalization", "student_memory", "teacher_memory"):
            torch.testing.assert_close(loss.get_buffer(name), given[name], rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["exact", "relaxed", "shared"])
@pytest.mark.parametrize("block", [1, 2**24])
def test_every_form_is_the_formula_and_its_gradient(kind, block, monkeypatch):
    monkeypatch.setattr(side, "_BLOCK", block)
    loss = _loss(negatives=kind).eval()
    student, teacher, index = _batch()
    student.requires_grad_()
    contrast = loss.negatives(index, 3)
    found = loss(student, teacher, index, contrast)
    parameters = (student, *loss.parameters())
    gradients = torch.autograd.grad(found, parameters)
    expected = _written_out(loss, student, teacher, contrast)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    for left, right in zip(gradients, torch.autograd.grad(expected.float(), parameters), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["exact", "shared"])
def test_gradient_equals_differences_in_float64(kind):
    loss = _loss(negatives=kind).double().eval()
    student, teacher, index = _batch(3, torch.float64)
    contrast = loss.negatives(index, 0)
    loss(student, teacher, index, contrast)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, index, contrast), student.requires_grad_())


def test_negatives_that_are_there_twice_count_twice():
    loss = _loss().eval()
    student, teacher, index = _batch(2)
    contrast = Contrast(index, torch.tensor([[3, 3, 9], [4, 9, 4]]))
    student.requires_grad_()
    found = loss(student, teacher, index, contrast)
    expected = _written_out(loss, student, teacher, contrast)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    left, right = (torch.autograd.grad(value, student)[0] for value in (found, expected))
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


def test_constants_are_those_of_the_first_batch_and_stay():
    loss = _loss()
    student, teacher, index = _batch()
    contrast = loss.negatives(index, 0)
    rows = torch.stack(
        [
            torch.cat([own[None], contrast.pool[~outside]])
            for own, outside in zip(contrast.positives, contrast.excluded, strict=True)
        ]
    )
    anchors = F.normalize(loss.student_embedding(student), dim=1)
    scores = (loss.teacher_memory[rows] @ anchors[:, :, None]) / loss.temperature
    expected = scores.exp().mean() * NUM_IMAGES
    loss(student, teacher, index, contrast)
    torch.testing.assert_close(loss.normalization[0], expected, rtol=1e-5, atol=0)
    before = loss.normalization.clone()
    loss(-student, teacher, index)
    assert torch.equal(loss.normalization, before)


def test_training_moves_the_memories_of_the_batch_alone():
    loss = _loss(momentum=0.25)
    student, teacher, index = _batch()
    old = loss.student_memory.clone()
    loss(student, teacher, index)
    new = F.normalize(0.25 * old[index] + 0.75 * F.normalize(loss.student_embedding(student), dim=1), dim=1)
    torch.testing.assert_close(loss.student_memory[index], new)
    others = torch.ones(NUM_IMAGES, dtype=torch.bool).index_fill(0, index, False)
    assert torch.equal(loss.student_memory[others], old[others])
    before = loss.student_memory.clone(), loss.teacher_memory.clone()
    loss.eval()(student, teacher, index)
    assert torch.equal(loss.student_memory, before[0]) and torch.equal(loss.teacher_memory, before[1])


def test_an_image_that_is_there_twice_keeps_its_last_embedding():
    student, teacher, _ = _batch(3)
    twice, once = _loss(), _loss()
    twice(student, teacher, torch.tensor([4, 4, 9]))
    once(student[1:], teacher[1:], torch.tensor([4, 9]))
    torch.testing.assert_close(twice.student_memory, once.student_memory)


def test_a_step_costs_the_same_of_any_number_of_images():
    sizes = []
    for images in (4_000, 40_000):
        labels = torch.arange(images) % (images // 5)
        loss = ContrastiveLoss(WIDTH, WIDTH, labels, num_negatives=100, embedding_size=SIZE)
        student, teacher, index = _batch()
        with NewElements() as new:
            loss(student, teacher, index)
        sizes.append(new.count)
    assert sizes[0] == sizes[1]


def test_no_gradient_reaches_the_teacher_but_one_reaches_its_layer():
    loss = _loss()
    student, teacher, index = _batch()
    teacher.requires_grad_()
    loss(student, teacher, index).backward()
    assert teacher.grad is None and loss.teacher_embedding.weight.grad.norm() > 0


def test_a_saved_loss_goes_on_with_the_same_draws_and_constants():
    whole, student, teacher, index = _loss(seed=5), *_batch()
    for _ in range(2):
        whole(student, teacher, index)
    resumed = _loss(seed=5)
    resumed.load_state_dict(whole.state_dict())
    assert torch.equal(resumed.normalization, whole.normalization)
    assert torch.equal(resumed(student, teacher, index), whole(student, teacher, index))
    fresh = _loss(seed=5)
    fresh.load_state_dict({**whole.state_dict(), "_extra_state": torch.tensor(0)})
    assert not torch.equal(fresh(student, teacher, index), whole(student, teacher, index))


def test_autocast_changes_nothing():
    student, teacher, index = _batch()
    expected = _loss()(student, teacher, index)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _loss()(student, teacher, index)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_the_objective_weighs_what_it_is_given():
    inputs = ObjectiveInputs(torch.tensor([0]), auxiliary={"contrastive": torch.tensor(3.0, requires_grad=True)})
    found = DistillationObjective(LossWeights(contrastive=0.8))(inputs)
    assert found["loss"].item() == pytest.approx(2.4) and found["loss"].requires_grad
    assert found["contrastive"].item() == 3.0 and not found["contrastive"].requires_grad
    with pytest.raises(ValueError, match="was not given the scores or embeddings that it needs"):
        DistillationObjective(LossWeights(contrastive=0.8))(ObjectiveInputs(torch.tensor([0])))


def test_its_weight_needs_the_teachers_embedding_and_is_no_share_of_a_head():
    weights = LossWeights.coupled(1.0, 1.0, 0.25, contrastive=0.8)
    assert weights.contrastive == 0.8 and weights.kd == 0.75
    alone = LossWeights(contrastive=1.0)
    assert alone.needs_teacher and alone.needs_teacher_forward and alone.needs_teacher_embedding
    assert not alone.needs_teacher_head and not alone.trains_own_head


def test_wrong_options_and_positions_are_refused():
    with pytest.raises(ValueError, match="`temperature` is 0; it must be positive"):
        _loss(temperature=0)
    with pytest.raises(ValueError, match=r"`momentum` is 1.0; it must be in \[0, 1\)"):
        _loss(momentum=1.0)
    student, teacher, _ = _batch(2)
    with pytest.raises(IndexError, match="`index` reaches from 0 to 60, but the training set has 60 images"):
        _loss()(student, teacher, torch.tensor([0, 60]))
    with pytest.raises(IndexError, match="reaches from -1 to 3"):
        _loss()(student, teacher, torch.tensor([-1, 3]))
