"""The losses on logits, against formulas written out class by class."""

import math

import pytest
import torch
from companion_cases import draw_case

from headshare_hf.losses import COMPANIONS, Features, kd_loss
from headshare_hf.losses.companions import standardize


STUDENT = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 1.0, 2.0, -1.0], [2.0, 2.5, -3.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[2.0, -1.0, 1.5, 0.5], [1.0, 0.0, 4.0, -2.0], [0.0, 5.0, -1.0, 1.0]], dtype=torch.float64)


def loss_of(name, student=STUDENT, teacher=TEACHER, labels=None, **options):
    sides = Features(logits=student), Features(logits=teacher)
    return COMPANIONS[name].loss(*(side.shapes() for side in sides), **options)(*sides, labels)


def softmax(row, temperature=1.0):
    powers = [math.exp(float(number) / temperature) for number in row]
    return [power / sum(powers) for power in powers]


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def pearson(first, second):
    means = sum(first) / len(first), sum(second) / len(second)
    centred = [a - means[0] for a in first], [b - means[1] for b in second]
    product = sum(a * b for a, b in zip(*centred, strict=True))
    return product / math.sqrt(sum(a * a for a in centred[0]) * sum(b * b for b in centred[1]))


def decoupled(temperature, target_weight, others_weight, images=(0, 1, 2), labels=(3, 1, 0)):
    total = 0.0
    for image in images:
        label, p, q = labels[image], softmax(TEACHER[image], temperature), softmax(STUDENT[image], temperature)
        target = divergence((p[label], 1 - p[label]), (q[label], 1 - q[label]))
        others = divergence(*([a / (1 - r[label]) for c, a in enumerate(r) if c != label] for r in (p, q)))
        total += target_weight * target + others_weight * others
    return temperature**2 * total / len(images)


@pytest.mark.parametrize("temperature, target_weight, others_weight", [(4.0, 1.0, 8.0), (1.0, 0.5, 0.0), (2.0, 0, 3)])
def test_dkd_is_the_written_out_sum(temperature, target_weight, others_weight):
    options = {"temperature": temperature, "target_weight": target_weight, "others_weight": others_weight}
    found = loss_of("dkd", labels=torch.tensor([3, 1, 0]), **options)
    assert found.item() == pytest.approx(decoupled(temperature, target_weight, others_weight), rel=1e-12)


def test_dkd_with_the_weight_of_the_teacher_is_kd():
    """Of a single image: KD is the target's part plus 1 - p times that of the others."""
    for image, label in enumerate((3, 1, 0)):
        rest = 1 - softmax(TEACHER[image], 4.0)[label]
        pair = STUDENT[image : image + 1], TEACHER[image : image + 1]
        found = loss_of("dkd", *pair, labels=torch.tensor([label]), target_weight=1.0, others_weight=rest)
        assert found.item() == pytest.approx(kd_loss(*pair, temperature=4.0).item(), rel=1e-5)


def test_dkd_leaves_out_images_without_label():
    found = loss_of("dkd", labels=torch.tensor([3, -1, 0]))
    assert found.item() == pytest.approx(decoupled(4.0, 1.0, 8.0, images=(0, 2)), rel=1e-12)
    assert loss_of("dkd", labels=torch.tensor([-1, -1, -1])) == 0


def test_dkd_is_finite_where_the_teacher_is_certain():
    student, teacher = STUDENT.float().requires_grad_(), TEACHER.float() * 1000
    loss = loss_of("dkd", student, teacher, labels=torch.tensor([0, 2, 1]))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all() and student.grad.abs().sum() > 0


def test_dist_is_the_written_out_sum():
    p, q = ([softmax(row, 4.0) for row in logits] for logits in (TEACHER, STUDENT))
    inter = 1 - sum(pearson(*pair) for pair in zip(p, q, strict=True)) / 3
    intra = 1 - sum(pearson([row[c] for row in p], [row[c] for row in q]) for c in range(4)) / 4
    found = loss_of("dist", inter_weight=2.0, intra_weight=3.0, temperature=4.0)
    assert found.item() == pytest.approx(16 * (2 * inter + 3 * intra), rel=1e-12)


def test_dist_does_not_change_with_the_scale_of_probabilities_that_correlate():
    shifted = (0.5 * TEACHER.softmax(1) + 0.5 / 4).log()
    assert loss_of("dist", shifted, temperature=1.0).item() == pytest.approx(0, abs=1e-12)
    assert loss_of("dist", temperature=1.0) > 0.1


def test_standardized_logits_have_mean_zero_and_an_unbiased_variance_of_one():
    row = standardize(TEACHER)[1].tolist()
    # Divided by one less than the number of classes, as torch.std does in the published code.
    mean, deviation = 0.75, math.sqrt(sum((x - 0.75) ** 2 for x in (1, 0, 4, -2)) / 3)
    assert row == pytest.approx([(x - mean) / deviation for x in (1, 0, 4, -2)], rel=1e-12)
    torch.testing.assert_close(standardize(TEACHER).std(dim=1), torch.ones(3, dtype=torch.float64))
    assert standardize(torch.full((2, 3), 7.0)).tolist() == [[0.0] * 3] * 2


def test_standardized_kd_is_the_written_out_sum_and_blind_to_size():
    scores = [[[(x - r.mean()) / r.std() for x in r] for r in each] for each in (TEACHER, STUDENT)]
    rows = zip(*scores, strict=True)
    expected = 9 * sum(divergence(softmax(p, 3.0), softmax(q, 3.0)) for p, q in rows) / 3
    assert loss_of("kd_standardized", temperature=3.0).item() == pytest.approx(expected, rel=1e-5)
    larger = loss_of("kd_standardized", STUDENT * 5 - 2, temperature=3.0)
    assert larger.item() == pytest.approx(expected, rel=1e-5)


def test_kdmse_is_the_written_out_mean():
    rows = zip(TEACHER, STUDENT, strict=True)
    squares = [(a - b) ** 2 for t, s in rows for a, b in zip(softmax(t), softmax(s), strict=True)]
    assert loss_of("kdmse").item() == pytest.approx(sum(squares) / 12, rel=1e-12)


@pytest.mark.parametrize("name", ["kdmse", "dkd", "dist", "kd_standardized"])
def test_other_classes_are_refused(name):
    with pytest.raises(ValueError, match="the student has 4 classes and the teacher 3; take a teacher of the same"):
        loss_of(name, STUDENT, TEACHER[:, :3], labels=torch.tensor([0, 0, 0]))


def test_dkd_of_a_single_class_is_refused():
    with pytest.raises(ValueError, match="at least 2, but the student has 1 classes"):
        loss_of("dkd", STUDENT[:, :1], TEACHER[:, :1], labels=torch.tensor([0, 0, 0]))


def test_of_two_classes_there_is_no_size_to_take_away():
    """Their standardised logits are the same two numbers, whatever the network says."""
    with pytest.raises(ValueError, match="at least 3, but the student has 2 classes"):
        loss_of("kd_standardized", STUDENT[:, :2], TEACHER[:, :2])


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("dkd", {"temperature": 0.0}, "DKDLoss: `temperature` is 0.0; it must be positive"),
        ("dkd", {"temperature": float("inf")}, "`temperature` is inf; it must be positive and finite"),
        # What YAML makes of 1e-1.
        ("dkd", {"temperature": "1e-1"}, "`temperature` is '1e-1'; it must be positive"),
        ("dkd", {"others_weight": -8.0}, "`others_weight` is -8.0; it must be finite and not negative"),
        (
            "dkd",
            {"target_weight": 0, "others_weight": 0},
            "`target_weight` and `others_weight` are 0, so that nothing",
        ),
        ("dist", {"temperature": -4.0}, "`temperature` is -4.0"),
        ("dist", {"inter_weight": float("nan")}, "`inter_weight` is nan"),
        ("kd_standardized", {"temperature": -1.0}, "`temperature` is -1.0"),
        ("dist", {"inter_weight": 0.0, "intra_weight": 0.0}, "`inter_weight` and `intra_weight` are 0"),
        ("rkd", {"angle_weight": -1.0}, "`angle_weight` is -1.0"),
        ("rkd", {"angle_weight": float("inf")}, "`angle_weight` is inf"),
        ("rkd", {"angle_weight": 0, "distance_weight": 0}, "RKDLoss: `distance_weight` and `angle_weight` are 0"),
        ("abound", {"margin": -1}, "BoundaryLoss: `margin` is -1; it must be positive"),
        ("abound", {"margin": 0.0}, "`margin` is 0.0; it must be positive"),
        ("correlation", {"size": 0}, "CorrelationLoss: `size` is 0; it must be a whole number from 1 on"),
        ("correlation", {"size": 2.5}, "`size` is 2.5; it must be a whole number"),
        ("kdsvd", {"rank": 0}, "KDSVDLoss: `rank` is 0; it must be a whole number from 1 on"),
        ("kdsvd", {"rank": True}, "`rank` is True; it must be a whole number"),
        ("hint", {"stage": 1.0}, "`stage` is 1.0, but student and teacher have the maps 0 to 2"),
        ("adadistill", {"scale": -64.0}, "AdaDistillLoss: `scale` is -64.0; it must be positive"),
        ("adadistill", {"scale": 0}, "`scale` is 0; it must be positive"),
        ("adadistill", {"margin": -0.5}, "`margin` is -0.5; it must be finite and not negative"),
    ],
)
def test_options_out_of_range_are_refused(name, option, message):
    with pytest.raises(ValueError, match=message):
        draw_case(name, **option)


def test_defaults_are_those_of_the_published_recipes():
    assert (draw_case("dkd").loss.temperature, draw_case("dkd").loss.others_weight) == (4.0, 8.0)
    assert draw_case("dist").loss.temperature == 4.0 and draw_case("kd_standardized").loss.temperature == 2.0
