"""
Distill a student from a trained teacher: KD, TH-KD, KDE and their relatives, or the three runs of SH-KD in one.

    python examples/run_distill.py --config examples/configs/omniglot_th_kd.yaml
    accelerate launch examples/run_distill.py --config examples/configs/cifar100/resnet32x4_resnet8x4.yaml
    python examples/run_distill.py --config examples/configs/omniglot_sh_kd.yaml

Any field of the recipe can be replaced, e.g. `--training.alpha_th 0.5`; `--help` lists them. The same command goes on
with a run that was cut, and reports one that is finished.
"""

import json
import sys

from headshare_hf.trainer.card import write_card
from headshare_hf.trainer.recipe import run_recipe
from headshare_hf.trainer.recipe_arguments import describe_options, parse_recipe


def main(arguments: list[str]) -> None:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__, describe_options(), sep="\n")
        return
    recipe = parse_recipe(arguments)
    if recipe.teacher is None and recipe.sh_kd is None:
        raise SystemExit("the recipe has neither a section `teacher` nor `sh_kd`; use examples/run_train.py")
    trainer, results = run_recipe(recipe)
    if trainer.is_world_process_zero():
        print(json.dumps(results, indent=2))
        write_card(trainer, recipe, results)
    if recipe.training.push_to_hub:
        trainer.push_to_hub()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1:])
