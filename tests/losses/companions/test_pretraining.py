"""The losses with a stage of training before the student's own."""

import pytest
import torch
from companion_cases import draw_case, draw_features, leaves

from headshare_hf.losses import COMPANIONS, Features
from headshare_hf.losses.companions import BoundaryLoss, FactorLoss, FSPLoss, PretrainedCompanionLoss


PRETRAINED = [name for name, row in COMPANIONS.items() if issubclass(row.loss, PretrainedCompanionLoss)]


def test_which_losses_have_a_first_stage_and_what_learns_in_it():
    kinds = {
        name: (COMPANIONS[name].loss.pretrains_backbone, COMPANIONS[name].loss.follows_pretraining)
        for name in PRETRAINED
    }
    assert kinds == {"abound": (True, False), "factor": (False, True), "fsp": (True, False)}


def new_factor_loss():
    student, teacher = draw_features(4, 1), draw_features(4, 2)
    return FactorLoss(student.shapes(), teacher.shapes()), student, teacher


def test_paraphraser_learns_to_reconstruct_the_map_of_the_teacher_without_the_student():
    torch.manual_seed(0)
    loss, _, teacher = new_factor_loss()
    optimizer = torch.optim.Adam(loss.pretraining_parameters(), lr=0.02)
    before = [parameter.clone() for parameter in loss.translator.parameters()]
    values = []
    for _ in range(40):
        values.append(loss.pretraining_loss(None, teacher))
        optimizer.zero_grad()
        values[-1].backward()
        optimizer.step()
    last_map = teacher.hidden_states[-1]
    expected = (loss.decoder(loss.encoder(last_map)) - last_map).square().mean()
    torch.testing.assert_close(loss.pretraining_loss(None, teacher), expected)
    assert values[-1] < 0.7 * values[0]
    assert all(torch.equal(*pair) for pair in zip(before, loss.translator.parameters(), strict=True))


def test_factor_before_its_paraphraser_was_trained_is_refused():
    loss, student, teacher = new_factor_loss()
    with pytest.raises(ValueError, match="has not been trained; minimise `pretraining_loss` and call"):
        loss(student, teacher)


def test_factor_trains_the_translator_and_no_longer_the_paraphraser():
    loss, student, teacher = new_factor_loss()
    loss.finish_pretraining()
    loss(student, teacher).backward()
    assert all(parameter.grad is not None for parameter in loss.translator.parameters())
    frozen = [*loss.encoder.parameters(), *loss.decoder.parameters()]
    assert frozen and all(parameter.grad is None and not parameter.requires_grad for parameter in frozen)


def test_factors_have_half_of_the_channels_of_the_teacher():
    loss, _, teacher = new_factor_loss()
    assert loss.encoder(teacher.hidden_states[-1]).shape == (4, 2, 3, 3)
    assert loss.decoder(loss.encoder(teacher.hidden_states[-1])).shape == (4, 5, 3, 3)


def test_a_resumed_run_knows_that_the_first_stage_has_ended():
    for finished in (True, False):
        saved, *_ = new_factor_loss()
        if finished:
            saved.finish_pretraining()
        loaded, student, teacher = new_factor_loss()
        loaded.load_state_dict(saved.state_dict())
        assert loaded.pretrained == finished
        assert all(parameter.requires_grad != finished for parameter in loaded.pretraining_parameters())


def test_boundary_loss_is_the_written_out_sum():
    student = (torch.zeros(1, 1, 1, 1), torch.tensor([[[[-2.0, 0.5]]]]), torch.tensor([[[[3.0]], [[-0.25]]]]))
    teacher = (torch.zeros(1, 1, 1, 1), torch.tensor([[[[0.1, -0.1]]]]), torch.tensor([[[[1.0]], [[0.0]]]]))
    sides = Features(pre_activations=student), Features(pre_activations=teacher)
    loss = BoundaryLoss(*(side.shapes() for side in sides))
    # First stage, half the weight: -2 should be over 1, and 0.5 under -1. Second: 3 is, -0.25 should be under -1.
    expected = 0.003 * (0.5 * (3**2 + 1.5**2) + 0.75**2)
    assert loss.pretraining_loss(*sides).item() == pytest.approx(expected, rel=1e-6)
    assert loss(*sides).item() == pytest.approx(expected, rel=1e-6)


def test_boundary_loss_has_connectors_only_where_shapes_differ():
    case = draw_case("abound", teacher_maps=((3, 6), (4, 6), (8, 3)))
    same, other = case.loss.connectors
    assert not list(same.parameters()) and {p.shape[0] for p in other.parameters()} == {8}
    inputs = leaves(case)
    case.loss.pretraining_loss(case.student, case.teacher).backward()
    assert all(parameter.grad is not None for parameter in case.loss.pretraining_parameters())
    # The stem is not compared.
    assert inputs[0].grad is None and inputs[1].grad is not None


def test_boundaries_of_a_backbone_that_cannot_tell_its_pre_activations_are_refused():
    maps = draw_features(2, 1).hidden_states
    student = Features(maps, maps)
    with pytest.raises(ValueError, match="feature maps before their activation of the student, which has none"):
        BoundaryLoss(student.shapes(), draw_features(2, 2).shapes())


def test_fsp_matrices_are_mean_products_over_positions():
    case = draw_case("fsp", batch_size=2)
    expected = 0.0
    for image in range(2):
        for stage in range(2):
            matrices = []
            for side in (case.student, case.teacher):
                before, after = side.hidden_states[stage][image], side.hidden_states[stage + 1][image]
                step = before.shape[1] // after.shape[1]
                pooled = before.unfold(1, step, step).unfold(2, step, step).mean(dim=(3, 4))
                matrices.append(torch.einsum("ahw,bhw->ab", pooled, after) / after[0].numel())
            expected += float((matrices[0] - matrices[1]).square().mean()) / 2
    assert isinstance(case.loss, FSPLoss) and not list(case.loss.pretraining_parameters())
    assert case.value().item() == pytest.approx(expected, rel=1e-5)
    assert case.loss.pretraining_loss(case.student, case.teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", PRETRAINED)
def test_first_stage_is_computed_in_float32_too(name):
    case = draw_case(name)
    expected = case.loss.pretraining_loss(case.student, case.teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = case.loss.pretraining_loss(case.student, case.teacher)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
