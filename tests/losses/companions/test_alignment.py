"""Maps that can be compared, and maps that cannot."""

import pytest
import torch
from companion_cases import MAPS, draw_features

from headshare_hf.losses import COMPANIONS, Features
from headshare_hf.losses.companions import FeatureShapes, HintLoss
from headshare_hf.losses.companions.alignment import map_connector
from headshare_hf.losses.companions.arithmetic import pool_alike, unit


@pytest.mark.parametrize(
    "student, teacher, kernel",
    [
        ((3, 8, 8), (5, 8, 8), (1, 1)),
        ((3, 8, 6), (5, 4, 3), (3, 3)),
        ((3, 4, 4), (5, 8, 8), (4, 4)),
        ((3, 9, 7), (5, 7, 6), (3, 2)),
    ],
)
def test_connectors_lead_to_the_shape_of_the_teacher(student, teacher, kernel):
    connector = map_connector(student, teacher, relu=True)
    assert connector(torch.randn(2, *student)).shape == (2, *teacher)
    assert connector[0].kernel_size == kernel and isinstance(connector[-1], torch.nn.ReLU)
    assert len(map_connector(student, teacher, relu=False)) == 2


def test_no_connector_leads_to_a_larger_map_that_is_not_double():
    with pytest.raises(ValueError, match="from the student's maps of 4×4 to the teacher's of 7×7.*larger images"):
        map_connector((3, 4, 4), (5, 7, 7), relu=False)


@pytest.mark.parametrize("name", ["attention", "vid", "nst", "abound", "fsp", "kdsvd"])
def test_another_number_of_stages_is_refused(name):
    student, teacher = draw_features(2, 1), draw_features(2, 2, maps=(*MAPS, (5, 3)))
    with pytest.raises(ValueError, match="compares map by map .* the student has [23] and the teacher [34]; take"):
        COMPANIONS[name].loss(student.shapes(), teacher.shapes())


@pytest.mark.parametrize("name", ["fsp", "kdsvd"])
def test_other_channels_are_refused_where_there_is_no_layer_between(name):
    student, teacher = draw_features(2, 1), draw_features(2, 2, maps=((3, 6), (4, 6), (9, 3)))
    with pytest.raises(ValueError, match=r"4, 5\] and the teacher's \[.*4, 9\]; take networks of the same width"):
        COMPANIONS[name].loss(student.shapes(), teacher.shapes())


@pytest.mark.parametrize("name, maps", [("fsp", MAPS[:1]), ("kdsvd", MAPS[:2]), ("attention", MAPS[:1])])
def test_too_few_maps_are_refused(name, maps):
    student, teacher = draw_features(2, 1, maps=maps), draw_features(2, 2, maps=maps)
    with pytest.raises(ValueError, match="at least [12], but the student has [01]"):
        COMPANIONS[name].loss(student.shapes(), teacher.shapes())


@pytest.mark.parametrize("name", ["attention", "nst", "factor"])
def test_maps_of_a_single_position_are_refused(name):
    student, teacher = draw_features(2, 1, maps=((3, 4), (4, 1))), draw_features(2, 2, maps=((3, 4), (4, 2)))
    with pytest.raises(ValueError, match="have a single position in common; use larger images"):
        COMPANIONS[name].loss(student.shapes(), teacher.shapes())
    assert COMPANIONS[name].loss(teacher.shapes(), teacher.shapes())


@pytest.mark.parametrize("stage", [3, -1])
def test_a_hint_of_a_stage_that_is_not_there_is_refused(stage):
    student, teacher = draw_features(2, 1), draw_features(2, 2, maps=(*MAPS, (5, 3)))
    with pytest.raises(ValueError, match=f"`stage` is {stage}, but student and teacher have the maps 0 to 2"):
        HintLoss(student.shapes(), teacher.shapes(), stage=stage)


def test_a_hint_of_another_shape_needs_its_regressor():
    student, teacher = draw_features(2, 1), draw_features(2, 2, maps=((3, 6), (4, 6), (9, 3)))
    with pytest.raises(ValueError, match=r"\(5, 3, 3\) and \(9, 3, 3\); set `regressor=True`"):
        HintLoss(student.shapes(), teacher.shapes(), regressor=False)
    assert HintLoss(student.shapes(), teacher.shapes())(student, teacher).isfinite()


def test_a_hint_goes_through_convolution_normalisation_and_relu():
    student, teacher = draw_features(4, 1), draw_features(4, 2)
    loss = HintLoss(student.shapes(), teacher.shapes(), stage=1)
    convolution, norm, _ = loss.regressor
    found = norm(convolution(student.hidden_states[1])).clamp(min=0)
    expected = (found - teacher.hidden_states[1]).square().mean()
    torch.testing.assert_close(loss(student, teacher), expected)


def test_the_larger_map_is_averaged_down():
    student, teacher = torch.randn(2, 3, 8, 4), torch.randn(2, 5, 4, 6)
    own, other = pool_alike(student, teacher)
    assert own.shape == (2, 3, 4, 4) and other.shape == (2, 5, 4, 4)
    torch.testing.assert_close(own, (student[:, :, ::2] + student[:, :, 1::2]) / 2)
    assert pool_alike(student, student)[0] is student


def test_unit_vectors_of_nothing_are_nothing():
    given = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    found = unit(given)
    found.sum().backward()
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert given.grad[0].abs().sum() > 0 and not given.grad[1].any()


def test_shapes_are_those_of_one_image():
    shapes = draw_features(3, 1).shapes()
    assert shapes == FeatureShapes(
        ((3, 6, 6), (4, 6, 6), (5, 3, 3)), ((3, 6, 6), (4, 6, 6), (5, 3, 3)), 5, 7, (5, 3, 3)
    )
    assert Features().shapes() == FeatureShapes()
