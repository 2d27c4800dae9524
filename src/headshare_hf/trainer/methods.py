"""The method table: a method is a row of loss weights and options."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass, replace

from ..losses import COMPANIONS, Companion, LossWeights


@dataclass(frozen=True)
class Method:
    """
    One row of the table.

    Attributes:
        summary (`str`): What the row does, in one line.
        source (`str`): Where its weights come from.
        ce (`float`): Weight of the cross-entropy with the labels.
        kd (`float`): Weight of the softened KL.
        teacher_head (`float`): Weight of the softened KL through the teacher's head.
        embedding (`float`): Weight of the embedding distance.
        contrastive (`float`): Weight of the contrastive loss (CRD).
        companion (`str`, *optional*): Row of `COMPANIONS`, whose weight counts.
        alpha_th (`float`, *optional*): Share of `ce` and `kd` that goes through the teacher's head, equations (1)-(2).
        student_head (`str`): Where the student's own head comes from, see [`DistillationConfig`].
    """

    summary: str
    source: str
    ce: float = 1.0
    kd: float = 0.0
    teacher_head: float = 0.0
    embedding: float = 0.0
    contrastive: float = 0.0
    companion: str | None = None
    alpha_th: float | None = None
    student_head: str = "own"

    @property
    def needs_teacher(self) -> bool:
        """Whether any part compares with a teacher."""
        compares = self.kd, self.teacher_head, self.embedding, self.contrastive, self.companion, self.alpha_th
        return any(compares) or self.student_head != "own"


_REFERENCE = "README of the authors' code, Alibaba-MIIL/HeadSharingKD"
# Of the KL through the teacher's head, as published for th_kd.
_TEACHER_HEAD = 0.02

METHODS: dict[str, Method] = {
    "plain": Method("Labels alone: baselines, teachers, and the SH-KD teacher around a frozen head", "-"),
    "kd": Method(
        "Softened KL between the two outputs (Hinton et al., arXiv 1503.02531)",
        "the KD row of the authors' scripts, as in RepDistiller",
        ce=0.1,
        kd=0.9,
    ),
    "th_kd": Method(
        "TH-KD: KL through the student's head, and through the teacher's frozen head",
        f"{_REFERENCE} (kdth, weights 1 / 1.5 / 0.02)",
        kd=1.5,
        teacher_head=_TEACHER_HEAD,
    ),
    "th_kd_coupled": Method(
        "TH-KD as the paper writes it: both heads share KL and cross-entropy, equations (1)-(2)",
        "form of arXiv 2201.06945; one half is this project's choice of alpha_th, the sum of weights is th_kd's",
        kd=1.5,
        alpha_th=0.5,
    ),
    "kde": Method(
        "KD and the distance of the unit embeddings",
        "form of the authors' code; it publishes no weight, this one is 0.5 for its sum over 64 images",
        kd=1.0,
        embedding=32.0,
    ),
    "th_kde": Method(
        "KDE with the KL through the teacher's frozen head added",
        "form of the authors' code (kdeth); weights as kde, and 0.02 as th_kd",
        kd=1.0,
        embedding=32.0,
        teacher_head=_TEACHER_HEAD,
    ),
    "crd": Method(
        "Labels, and the contrastive loss of the embeddings (CRD: Tian, Krishnan and Isola, arXiv 1910.10699)",
        "RepDistiller, HobbitLong/RepDistiller (crd, weights 1 / 0 / 0.8)",
        contrastive=0.8,
    ),
    "th_crd": Method(
        "CRD and KD with the KL through the teacher's frozen head added",
        f"{_REFERENCE} (crdth, weights 0.9 / 1 / 0.8 / 0.02)",
        ce=0.9,
        kd=1.0,
        teacher_head=_TEACHER_HEAD,
        contrastive=0.8,
    ),
    "inherited": Method(
        "Labels alone, through a frozen copy of the teacher's head as the only one: the limit alpha_th = 1 without KL",
        "ProxylessKD (arXiv 2011.00265), MarginDistillation (arXiv 2003.02586), ArcDistill (so named in arXiv 2407.01332)",
        student_head="teacher_frozen",
    ),
    "embedding": Method(
        "Labels, and the distance of the embeddings (L2E in the paper's face table)",
        "form of arXiv 2201.06945, Table 4, which gives no weight; one half of it is at most the size of one cosine",
        embedding=32.0,
    ),
    "embedding_only": Method(
        "The distance of the embeddings alone; the student is published with the teacher's head",
        "the feature-only distillation of face recognition, e.g. ShrinkTeaNet (arXiv 1905.10620)",
        ce=0.0,
        embedding=1.0,
        student_head="teacher_frozen",
    ),
    "sh_kd": Method(
        "SH-KD, last run: KD from a teacher that was trained around a student's frozen head",
        f"{_REFERENCE} (second step, weights 1 / 1.0, without its contrastive term)",
        kd=1.0,
    ),
    "sh_crd": Method(
        "SH-KD, last run, with its contrastive term; with an ordinary teacher, CRD and KD",
        f"{_REFERENCE} (second step: crd, weights 1 / 1.0 / 0.8)",
        kd=1.0,
        contrastive=0.8,
    ),
    "sh_kde": Method(
        "SH-KD, last run, with the embedding distance; with an ordinary teacher, kde",
        "form of the authors' code (kde, with a teacher of the second step); weights as kde",
        kd=1.0,
        embedding=32.0,
    ),
}


def _companion_rows(name: str, companion: Companion) -> dict[str, Method]:
    """The method of a companion loss and, where the student predicts with a head of its own, TH-KD beside it."""
    alone = Method(companion.summary, companion.source, ce=companion.ce, kd=companion.kd, companion=name)
    if not (companion.ce or companion.kd):
        # Nothing trains the student's head: it is the teacher's, or what the loss makes.
        return {name: alone if companion.loss.makes_centers else replace(alone, student_head="teacher_frozen")}
    shared = f"{companion.summary}; and the KL through the teacher's frozen head"
    source = f"{companion.source}; {_TEACHER_HEAD} as th_kd"
    return {name: alone, f"th_{name}": replace(alone, summary=shared, source=source, teacher_head=_TEACHER_HEAD)}


METHODS |= {
    name: row for own, companion in COMPANIONS.items() for name, row in _companion_rows(own, companion).items()
}


def get_method(name: str) -> Method:
    """
    The row called `name`.

    Raises:
        ValueError: There is none; the nearest names and all names are listed.
    """
    if name in METHODS:
        return METHODS[name]
    raise ValueError(unknown_name("method", name, METHODS))


def unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    """What an error says of a name that is none of the known ones: the nearest, and all."""
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
    hint = f"; did you mean {' or '.join(close)}?" if close else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(known) or 'none'}"


def reference_weights(
    distill: str, gamma: float, alpha: float, beta: float, delta: float, batch_size: int
) -> LossWeights:
    """
    The weights `-r -a -b -d` of the authors' `train_student.py`, in the units of this package.

    Their embedding distance is a sum over the batch and ours a mean, so their β is multiplied by the batch size; all
    other terms have the same scale.

    Args:
        distill (`str`): Their `--distill`: `kd`, `kdth`, `kde`, `kdeth`, `crd` or `crdth`.
        gamma (`float`): Their weight of the cross-entropy.
        alpha (`float`): Their weight of the KL through the student's head.
        beta (`float`): Their weight of the third term.
        delta (`float`): Their weight of the KL through the teacher's head in `kdeth` and `crdth`; unused by the others.
        batch_size (`int`): Images a step.

    Raises:
        ValueError: `distill` is none of these.
    """
    if distill == "kd":
        return LossWeights(ce=gamma, kd=alpha)
    if distill == "kdth":
        return LossWeights(ce=gamma, kd=alpha, teacher_head=beta)
    if distill == "kde":
        return LossWeights(ce=gamma, kd=alpha, embedding=beta * batch_size)
    if distill == "kdeth":
        return LossWeights(ce=gamma, kd=alpha, teacher_head=delta, embedding=beta * batch_size)
    if distill == "crd":
        return LossWeights(ce=gamma, kd=alpha, contrastive=beta)
    if distill == "crdth":
        return LossWeights(ce=gamma, kd=alpha, teacher_head=delta, contrastive=beta)
    raise ValueError(f"no translation for --distill {distill}; known: kd, kdth, kde, kdeth, crd, crdth")
