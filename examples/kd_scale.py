"""
How sharp a teacher is at several values of `kd_scale`: how much of its softened output is on the label of a training image.

    python examples/kd_scale.py --config RECIPE --teacher.name_or_path TEACHER [--scales 8 16 32]

RECIPE is one of examples/run_distill.py, with heads of class centers. With all of the mass on the label the KL says no
more than the label, and with as little as on any other class it says hardly anything. A `--training.seed` that the
teacher was not trained with draws augmentations that it has not seen.
"""

import argparse
import math
import sys
from collections.abc import Iterator

import torch

from headshare_hf.data.input_adapter import InputAdapter, input_statistics
from headshare_hf.models import CosineHead, check_label_maps, find_classifier
from headshare_hf.trainer.recipe import RecipeData, build_data, build_model, build_teacher
from headshare_hf.trainer.recipe_arguments import parse_recipe
from headshare_hf.trainer.recipe_sections import Recipe
from headshare_hf.trainer.softening import default_kd_scale


BATCH = 256


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scales", type=float, nargs="+", help="(default: the default one, twice and four times that)"
    )
    options, rest = parser.parse_known_args(arguments)
    recipe = parse_recipe(rest)
    if recipe.teacher is None:
        raise SystemExit("the recipe has no section `teacher`; give --teacher.name_or_path, a folder or a Hub id")
    data = build_data(recipe.data, recipe.training.seed, recipe.verification)
    usual = default_kd_scale(len(data.label_names))
    print(report(recipe, data, options.scales or [usual, 2 * usual, 4 * usual]))


@torch.inference_mode()
def report(recipe: Recipe, data: RecipeData, scales: list[float]) -> str:
    """A table with a row for each scale, and the mean cosines with the center of the label and with the others."""
    sums = torch.zeros(1 + len(scales), 2, dtype=torch.float64)
    for cosines, labels in _cosines(recipe, data):
        sums += torch.stack([_means(cosines, labels), *(_softened(cosines, labels, scale) for scale in scales)]).cpu()
    (own, others), *rows = (sums / len(data.train)).tolist()
    return "\n".join(
        [
            f"cosine with the center of the label {own:.2f}, with the others {others:.2f}",
            "",
            "| `kd_scale` | mass on the label, per cent | entropy, per cent of the highest |",
            "| --- | --- | --- |",
            *(
                f"| {scale:g} | {100 * mass:.1f} | {100 * entropy:.1f} |"
                for scale, (mass, entropy) in zip(scales, rows, strict=True)
            ),
        ]
    )


def _means(cosines: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cosine with the center of the label, and mean of those with the others, summed over the images."""
    own = cosines.gather(1, labels[:, None]).squeeze(1)
    return torch.stack([own.sum(), ((cosines.sum(1) - own) / (cosines.shape[1] - 1)).sum()])


def _softened(cosines: torch.Tensor, labels: torch.Tensor, scale: float) -> torch.Tensor:
    """Mass on the label and entropy, a fraction of the highest, of softmax(scale · cos), summed over the images."""
    log_p = (scale * cosines).log_softmax(dim=1)
    entropy = -(log_p.exp() * log_p).sum() / math.log(cosines.shape[1])
    return torch.stack([log_p.gather(1, labels[:, None]).exp().sum(), entropy])


def _cosines(recipe: Recipe, data: RecipeData) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Cosines `(batch_size, num_labels)` of the training images, as training shows them, and labels `(batch_size,)`."""
    teacher, processor = build_teacher(recipe.teacher, data.label_names)
    head = find_classifier(teacher)
    if not isinstance(head, CosineHead):
        raise SystemExit(f"the teacher has a {type(head).__name__}, whose logits are no cosines; set `temperature`")
    with torch.device("meta"):
        check_label_maps(teacher, build_model(recipe.student, recipe.data, data.label_names, recipe.training.seed))
    device = recipe.training.device
    teacher.to(device).eval()
    adapt = InputAdapter(input_statistics(data.processor), input_statistics(processor, teacher))
    for start in range(0, len(data.train), BATCH):
        batch = data.train.__getitems__(list(range(start, min(start + BATCH, len(data.train)))))
        pixels, labels = batch["pixel_values"].to(device), batch["labels"].to(device)
        yield teacher(pixel_values=adapt(pixels)).logits.double() / head.scale, labels


if __name__ == "__main__":
    main(sys.argv[1:])
