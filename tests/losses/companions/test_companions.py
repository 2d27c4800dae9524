"""What holds for every companion loss."""

from dataclasses import replace

import pytest
import torch
from companion_cases import as_leaves, draw_case, leaves, mapped
from torch.autograd import grad, gradcheck

from headshare_hf.losses import COMPANIONS, Features
from headshare_hf.losses.companions import PUBLISHED_BATCH_SIZE


EVERY = sorted(COMPANIONS)
# Distances, angles and neighbours in the batch are of pairs, and repeating a batch makes pairs of equal images.
OF_PAIRS = {"rkd", "correlation"}
# They end in functions of this package that compute in float32.
SINGLE_PRECISION = {"kd_standardized", "adadistill"}


def in_eval_mode(name):
    """Whether the value would change from call to call otherwise."""
    return name == "adadistill"


def finished_case(name, **options):
    case = draw_case(name, **options)
    if in_eval_mode(name):
        case.value()
        case.loss.eval()
    return case


@pytest.mark.parametrize("name", EVERY)
def test_gradient_is_that_of_finite_differences(name):
    case = finished_case(name, batch_size=3, dtype=torch.float64)
    # Zeros are where a ReLU has no derivative.
    case.student = mapped(case.student, lambda each: each + 0.05)
    inputs = leaves(case)

    def value(*tensors):
        fields, rest = {}, list(tensors)
        for field in case.loss.student_needs:
            given = getattr(case.student, field)
            taken = tuple(rest.pop(0) for _ in given) if isinstance(given, tuple) else rest.pop(0)
            fields[field] = taken
        return case.value(student=Features(**fields))

    steps = {"eps": 1e-3, "atol": 3e-2, "rtol": 1e-2} if name in SINGLE_PRECISION else {"eps": 1e-6, "atol": 1e-5}
    assert gradcheck(value, inputs, fast_mode=True, **steps)


@pytest.mark.parametrize("name", sorted(set(EVERY) - OF_PAIRS))
def test_value_does_not_depend_on_how_often_the_batch_is_repeated(name):
    # What is a small difference of large sums is lost in the rounding of float32.
    case = finished_case(name, dtype=torch.float32 if name in SINGLE_PRECISION else torch.float64)
    once = case.value()
    case.labels = case.labels.repeat(2)
    student, teacher = (mapped(side, lambda each: torch.cat([each, each])) for side in (case.student, case.teacher))
    torch.testing.assert_close(case.value(student=student, teacher=teacher), once, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", EVERY)
def test_autocast_changes_nothing(name):
    case = finished_case(name)
    expected = case.value()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(case.value(), expected, rtol=0, atol=0)
    assert expected.shape == () and expected.dtype == torch.float32 and expected > 0


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_features_are_computed_with_in_float32(name):
    case = finished_case(name)
    student, teacher = (mapped(side, torch.Tensor.bfloat16) for side in (case.student, case.teacher))
    expected = case.value(student=mapped(student, torch.Tensor.float), teacher=mapped(teacher, torch.Tensor.float))
    torch.testing.assert_close(case.value(student=student, teacher=teacher), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_memory_layout_changes_nothing(name):
    case = finished_case(name)

    def channels_last(each):
        return each.contiguous(memory_format=torch.channels_last) if each.dim() == 4 else each

    student, teacher = (mapped(side, channels_last) for side in (case.student, case.teacher))
    torch.testing.assert_close(case.value(student=student, teacher=teacher), case.value(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", EVERY)
def test_teacher_may_come_out_of_inference_mode(name):
    case = draw_case(name)
    with torch.inference_mode():
        teacher = mapped(case.teacher, torch.clone)
    inputs = leaves(case)
    gradients = grad(case.value(teacher=teacher), inputs, allow_unused=True)
    assert any(found is not None and found.abs().sum() > 0 for found in gradients)


@pytest.mark.parametrize("name", EVERY)
def test_no_gradient_reaches_the_teacher(name):
    case = draw_case(name)
    inputs, teacher = leaves(case), mapped(case.teacher, as_leaves)
    case.value(teacher=teacher).backward()
    needed = [getattr(teacher, field) for field in case.loss.teacher_needs if field != "head"]
    tensors = [each for value in needed for each in (value if isinstance(value, tuple) else (value,))]
    assert tensors and all(each.grad is None for each in tensors)
    assert any(each.grad is not None for each in inputs)


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_that_can_learn_does(name):
    """Processes that train together wait for the gradient of each."""
    case = draw_case(name)
    leaves(case)
    case.value().backward()
    for parameter_name, parameter in case.loss.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name


@pytest.mark.parametrize("name", EVERY)
def test_only_what_is_said_to_be_needed_is_read(name):
    case = finished_case(name)
    expected = case.value()
    student = Features(**{field: getattr(case.student, field) for field in case.loss.student_needs})
    teacher = Features(**{field: getattr(case.teacher, field) for field in case.loss.teacher_needs})
    if not case.loss.needs_labels:
        case.labels = None
    torch.testing.assert_close(case.value(student=student, teacher=teacher), expected, rtol=0, atol=0)


def assert_finite(case):
    inputs = leaves(case)
    loss = case.value()
    gradients = grad(loss, inputs, allow_unused=True)
    assert loss.isfinite()
    # Dividing by a length of zero gives 1e12; a batch normalisation of constant maps some hundreds.
    assert all(found.abs().max() < 1e8 for found in gradients if found is not None)


@pytest.mark.parametrize("name", EVERY)
def test_a_student_that_says_nothing_has_a_bounded_gradient(name):
    case = draw_case(name)
    case.student = mapped(case.student, torch.zeros_like)
    assert_finite(case)


@pytest.mark.parametrize("name", EVERY)
def test_networks_that_say_nothing_have_a_bounded_gradient(name):
    case = draw_case(name)
    case.student, case.teacher = (mapped(side, torch.zeros_like) for side in (case.student, case.teacher))
    assert_finite(case)


@pytest.mark.parametrize("name", EVERY)
def test_an_image_that_says_nothing_has_a_bounded_gradient(name):
    case = draw_case(name)
    case.student = mapped(case.student, lambda each: torch.cat([torch.zeros_like(each[:1]), each[1:]]))
    assert_finite(case)


@pytest.mark.parametrize("name", EVERY)
def test_images_that_are_all_the_same_have_a_bounded_gradient(name):
    case = draw_case(name)
    case.student, case.teacher = (
        mapped(side, lambda each: each[:1].expand_as(each).clone()) for side in (case.student, case.teacher)
    )
    assert_finite(case)


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"srrl"}))
def test_a_last_batch_of_one_image_is_taken(name):
    assert_finite(draw_case(name, batch_size=1))


@pytest.mark.parametrize("name", ["rkd", "correlation", "pkt", "similarity"])
def test_one_image_has_no_relations(name):
    assert draw_case(name, batch_size=1).value() == 0


@pytest.mark.parametrize("name", EVERY)
def test_state_dict_brings_a_loss_back(name):
    case, other = draw_case(name), draw_case(name)
    case.value()
    with torch.no_grad():
        for parameter in other.loss.parameters():
            parameter.add_(1)
    other.loss.load_state_dict(case.loss.state_dict())
    torch.testing.assert_close(
        other.loss.eval()(other.student, other.teacher, other.labels),
        case.loss.eval()(case.student, case.teacher, case.labels),
        rtol=0,
        atol=0,
    )


WIDER = ((3, 6), (6, 6), (8, 3))
SMALLER = ((3, 4), (4, 4), (5, 2))


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"fsp", "kdsvd", "simkd", "adadistill"}))
def test_widths_may_differ(name):
    assert_finite(draw_case(name, teacher_maps=WIDER))


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"fsp", "kdsvd"}))
def test_sizes_of_the_maps_may_differ(name):
    assert_finite(draw_case(name, teacher_maps=SMALLER))


@pytest.mark.parametrize("field", ["hidden_states", "pre_activations", "embeddings", "logits"])
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_network_without_what_is_needed_is_refused(side, field):
    name = {"hidden_states": "attention", "pre_activations": "abound", "embeddings": "rkd", "logits": "dist"}[field]
    case = draw_case(name)
    sides = {"student": case.student, "teacher": case.teacher}
    sides[side] = replace(sides[side], **{field: None})
    with pytest.raises(ValueError, match=f"needs .* of the {side}, which has none; take"):
        COMPANIONS[name].loss(sides["student"].shapes(), sides["teacher"].shapes())
    with pytest.raises(ValueError, match=f"`{field}` of the {side} is missing"):
        case.value(**{side: sides[side]})


def test_a_teacher_without_a_classifier_to_share_is_refused():
    case = draw_case("srrl")
    with pytest.raises(ValueError, match="`head` of the teacher is missing, which SRRLLoss needs"):
        case.value(teacher=replace(case.teacher, head=None))


def test_tokens_are_no_feature_maps():
    case = draw_case("attention")
    tokens = replace(case.student, hidden_states=(torch.zeros(4, 17, 8), torch.zeros(4, 17, 8)))
    with pytest.raises(
        ValueError, match=r"AttentionLoss needs feature maps .* returns hidden states of shape \(17, 8\)"
    ):
        COMPANIONS["attention"].loss(tokens.shapes(), case.teacher.shapes())


@pytest.mark.parametrize("name", ["dkd", "adadistill"])
def test_missing_labels_are_refused(name):
    case = draw_case(name)
    case.labels = None
    with pytest.raises(ValueError, match="needs labels; give every image its class, or -1"):
        case.value()


def test_weights_are_translated_from_the_batch_size_of_the_published_recipes():
    scaled = {name for name, row in COMPANIONS.items() if row.published_weight != row.weight}
    assert scaled == {"similarity", "pkt", "abound", "fsp", "kdmse"}
    for name in ("similarity", "pkt"):
        assert COMPANIONS[name].weight * PUBLISHED_BATCH_SIZE == COMPANIONS[name].published_weight
    # The losses of a first stage are not added to the second.
    assert all(not COMPANIONS[name].loss.follows_pretraining for name in ("abound", "fsp"))
    assert COMPANIONS["abound"].weight == COMPANIONS["fsp"].weight == 0
