"""Values and gradients of the authors' code, which sums or scales some losses otherwise."""

import itertools

import pytest
import torch
from golden_data import load_golden
from torch.autograd import grad

from headshare_hf.losses import COMPANIONS, Features
from headshare_hf.losses.companions import HintLoss, VIDLoss, kdsvd
from headshare_hf.losses.companions.correlation import neighbour_products
from headshare_hf.losses.companions.factor import factor_difference


STEM = torch.zeros(12, 1, 1, 1)


@pytest.fixture(scope="module")
def golden():
    return {**load_golden("losses"), **load_golden("companions")}


def maps_of(golden, side, stages=(0, 1, 2)):
    return tuple(golden[f"maps_{side}.{stage}"].clone() for stage in stages)


def compare(golden, name, loss, inputs, value_tolerance=1e-6, gradient_tolerance=1e-6):
    """Against the stored value, and the gradients of as many images as are stored."""
    torch.testing.assert_close(loss.detach(), golden[f"{name}.value"], rtol=value_tolerance, atol=0)
    for number, found in enumerate(grad(loss, inputs)):
        stored = golden[f"{name}.grad.{number}"]
        difference = (found[: len(stored)] - stored).norm() / stored.norm()
        assert difference < gradient_tolerance, f"gradient {number}: {difference:.1e}"


def between(golden, loss_class, field, with_stem=True, **options):
    """The loss of all stored maps, and those of the student."""
    student = tuple(each.requires_grad_() for each in maps_of(golden, "student"))
    stem = (STEM,) if with_stem else ()
    sides = [Features(**{field: stem + maps}) for maps in (student, maps_of(golden, "teacher"))]
    return loss_class(*(side.shapes() for side in sides), **options)(*sides), student


@pytest.mark.parametrize(
    "name, field, with_stem",
    [
        ("attention", "hidden_states", True),
        ("nst", "hidden_states", True),
        ("abound", "pre_activations", True),
        # The stored maps are all that the authors compare, and of these losses the stem is one.
        ("fsp", "hidden_states", False),
    ],
)
def test_losses_of_all_maps(golden, name, field, with_stem):
    compare(golden, name, *between(golden, COMPANIONS[name].loss, field, with_stem))


def at_stage(golden, stage):
    student = golden[f"maps_student.{stage}"].clone().requires_grad_()
    return student, Features((STEM, student)), Features((STEM, golden[f"maps_teacher.{stage}"]))


def test_hint(golden):
    student, *sides = at_stage(golden, 1)
    loss = HintLoss(*(side.shapes() for side in sides), stage=1, regressor=False)
    compare(golden, "hint", loss(*sides), [student])


def test_vid(golden):
    student, *sides = at_stage(golden, 1)
    loss = VIDLoss(*(side.shapes() for side in sides))
    stored = {key.removeprefix("vid.param."): tensor for key, tensor in golden.items() if key.startswith("vid.param.")}
    torch.testing.assert_close(loss.predictors[0].log_scale.detach(), stored["log_scale"])
    loss.predictors[0].load_state_dict(stored)
    compare(golden, "vid", loss(*sides), [student])


def test_similarity(golden):
    student, *sides = at_stage(golden, 2)
    loss = COMPANIONS["similarity"].loss(*(side.shapes() for side in sides))
    compare(golden, "similarity", loss(*sides) / len(student), [student])


def test_factor(golden):
    student = golden["maps_student.2"].clone().requires_grad_()
    compare(golden, "factor", factor_difference(student, golden["maps_teacher.2"]), [student])


def test_correlation(golden):
    student = golden["embedding_student"].clone().requires_grad_()
    compare(golden, "correlation", neighbour_products(student, golden["embedding_teacher"]), [student])


@pytest.mark.parametrize(
    "name, field, factor",
    [
        ("rkd", "embedding", 1),
        ("pkt", "embedding", 1 / 12),
        ("kdmse", "logits", 1),
    ],
)
def test_losses_of_vectors(golden, name, field, factor):
    student = golden[f"{field}_student"].clone().requires_grad_()
    kind = {"embedding": "embeddings"}.get(field, field)
    sides = Features(**{kind: student}), Features(**{kind: golden[f"{field}_teacher"]})
    loss = COMPANIONS[name].loss(*(side.shapes() for side in sides))(*sides) * factor
    # The divergence of neighbours is what is left of sums of numbers near 1 / 12.
    compare(golden, name, loss, [student], value_tolerance=2e-6)


def kdsvd_with_signs(golden, monkeypatch, signs):
    """The loss, with the teacher's vector of each stage times a number, or times one number an image."""
    given = iter(signs)
    monkeypatch.setattr(kdsvd, "_signs", lambda vectors: next(given))
    return between(golden, kdsvd.KDSVDLoss, "hidden_states")


def test_kdsvd_up_to_the_sign_of_singular_vectors(golden, monkeypatch):
    """What signs the authors' code was given is not known; but there must be some for each image that agree."""
    choices = [(1, *others) for others in itertools.product((1, -1), repeat=2)]
    errors, stored = [], golden["kdsvd.grad.1"]
    for choice in choices:
        loss, student = kdsvd_with_signs(golden, monkeypatch, choice)
        errors.append((grad(loss, student[1])[0] - stored).flatten(1).norm(dim=1))
    best = torch.stack(errors).argmin(dim=0)
    signs = torch.tensor(choices)[best].t().reshape(3, -1, 1, 1)
    compare(golden, "kdsvd", *kdsvd_with_signs(golden, monkeypatch, signs), gradient_tolerance=1e-4)
