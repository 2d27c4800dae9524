"""
The contrastive loss of CRD (forward, backward and the update of the memories), and the drawing of its negatives.

    python benchmarks/contrastive.py [--reference CHECKOUT]

Without a checkout of the authors' code both are compared with a plain loop: rows of the memories gathered for every
image, and `numpy.random.choice` for every image.
"""

import argparse
import json
from collections.abc import Callable

import torch
from contrastive_sides import PlainLoss, negatives_of_images, reference_loss
from harness import Case, agree, compare, parser, prepare, report, use_reference
from harness_memory import memory_of, peak_memory

from headshare_hf.losses import Contrast, ContrastiveLoss


TEMPERATURE, CLASSES, SIZE, WIDTH = 0.07, 100, 128, 256
FIXED = "negatives drawn for each image"
EXACT = "negatives from a pool"
SHARED = "one set of negatives a batch"


class Setting:
    """Inputs, and losses that start from the same weights and memories."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.images, self.negatives, self.batch = (400, 64, 8) if arguments.quick else (50000, 16384, 64)
        labels = torch.arange(self.images) % CLASSES
        options = {"num_negatives": self.negatives, "embedding_size": SIZE, "temperature": TEMPERATURE}
        self.ours = ContrastiveLoss(WIDTH, WIDTH, labels, **options).to(arguments.device)
        self.shared = ContrastiveLoss(WIDTH, WIDTH, labels, negatives="shared", **options).to(arguments.device)
        self.student, self.teacher = torch.randn(2, self.batch, WIDTH, device=arguments.device)
        self.index = torch.randperm(self.images)[: self.batch].to(arguments.device)
        self.contrast = self.ours.negatives(self.index, 0)
        self.ours.eval()(self.student, self.teacher, self.index, self.contrast)
        self.shared.load_state_dict(self.ours.state_dict())
        self.rows = torch.stack([self.contrast.pool[~outside] for outside in self.contrast.excluded])
        self.labels = labels

    def step(self, loss: Callable, *more: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and backward; the loss and the gradient of the student's embeddings."""
        student = self.student.clone().requires_grad_()
        value = loss(student, self.teacher, self.index, *more).sum()
        value.backward()
        return value.detach(), student.grad


def exact_values(setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient in float64."""
    setting.ours.double()
    single = setting.student, setting.teacher
    setting.student, setting.teacher = (value.double() for value in single)
    found = setting.step(setting.ours, setting.contrast)
    setting.student, setting.teacher = single
    setting.ours.float()
    return found


def loss_table(arguments: argparse.Namespace, base: str) -> None:
    setting = Setting(arguments)
    exact = exact_values(setting)
    cases = loss_cases(setting, arguments, base)
    first = {name: run() for name, run in list(cases.items())[:3]}
    columns = {
        what: {
            name: float((found[place] - exact[place]).norm() / exact[place].norm()) for name, found in first.items()
        }
        for place, what in enumerate(("loss off float64", "gradient off float64"))
    }
    agreement = {name: agree(f"loss, {name}", found[0], first[base][0], 5e-4) for name, found in first.items()}
    # Until here the memories had to stay as they were.
    setting.ours.train()
    rows = compare([Case(name, run) for name, run in cases.items()], arguments.rounds)
    options = [*(["--reference", arguments.reference] if arguments.reference else []), "--device", arguments.device]
    options += ["--quick"] if arguments.quick else []
    columns["extra MB"] = peak_memory(__file__, [*options, "--memory"])
    title = f"CRD loss, forward, backward and update: {setting.batch} of {setting.images} images, "
    report(
        "crd_loss",
        f"{title}{setting.negatives} negatives, {SIZE} dimensions",
        rows,
        agreement,
        {EXACT: 12.0},
        arguments,
        [
            f"'{EXACT}' is the default of the trainer (`negatives='exact'`): each row a uniform subset of the other "
            f"classes, rows not independent. '{FIXED}' are the same numbers by row of the memory, for data sets that draw "
            f"their own. '{SHARED}' (`negatives='shared'`) is another sampling.",
            f"aimed at: at most 1/12 of the extra memory of '{base}', and no more than its distance to float64",
        ],
        columns,
        limits(columns, base),
    )


def limits(columns: dict[str, dict[str, float]], base: str) -> dict[str, dict[str, float]]:
    """What the default may need and be off, from what the base needs and is off."""
    rounding = {what: {EXACT: values[base]} for what, values in columns.items() if what.endswith("float64")}
    return {**rounding, "extra MB": {EXACT: columns["extra MB"][base] / 12}}


def loss_cases(setting: Setting, arguments: argparse.Namespace, base: str) -> dict[str, Callable]:
    ours, rows = setting.ours, torch.cat([setting.index[:, None], setting.rows], 1)
    plain = reference_loss(ours, setting.negatives) if arguments.reference else PlainLoss(ours)
    one_set = setting.shared.negatives(setting.index, 0)
    return {
        base: lambda: setting.step(plain, rows),
        EXACT: lambda: setting.step(setting.ours, setting.contrast),
        FIXED: lambda: setting.step(setting.ours, Contrast(setting.index, setting.rows)),
        SHARED: lambda: setting.step(setting.shared, one_set),
    }


def negatives_table(arguments: argparse.Namespace) -> None:
    setting = Setting(arguments)
    draw = negatives_of_images(setting.labels, setting.negatives)
    rows, own = setting.rows.cpu(), setting.labels[setting.index.cpu()]
    if any(len(row.unique()) != setting.negatives for row in rows) or (setting.labels[rows] == own[:, None]).any():
        raise SystemExit("the rows are not distinct images of other classes")
    cases = [
        Case("numpy.random.choice for every image", lambda: draw(setting.index)),
        Case(EXACT, lambda: setting.ours.negatives(setting.index, 1)),
        Case(SHARED, lambda: setting.shared.negatives(setting.index, 1)),
    ]
    title = f"Negatives of a batch: {setting.negatives} of {setting.images} images for each of {setting.batch}"
    note = "the authors' data set draws as the first row does, in its workers; every row was checked to be distinct"
    report("crd_negatives", title, compare(cases, arguments.rounds), {}, {EXACT: 4.0}, arguments, [note])


def main() -> None:
    options = parser(__doc__, rival="reference")
    options.add_argument("--memory", action="store_true", help="print the MB of every variant of the loss")
    arguments = options.parse_args()
    prepare(arguments)
    if arguments.reference:
        use_reference(arguments.reference)
    base = "authors' code" if arguments.reference else "rows gathered for every image"
    if arguments.memory:
        setting = Setting(arguments)
        setting.ours.train()
        print(json.dumps({name: memory_of(run) for name, run in loss_cases(setting, arguments, base).items()}))
        return
    loss_table(arguments, base)
    negatives_table(arguments)


if __name__ == "__main__":
    main()
