"""
Train a teacher, a baseline, or the SH-KD teacher around a frozen head.

    python examples/run_train.py --config examples/configs/omniglot_train.yaml
    accelerate launch examples/run_train.py --config examples/configs/cifar100/train_resnet32x4.yaml
    python examples/run_train.py --config examples/configs/omniglot_train.yaml --student.shared_head_from STUDENT \\
        --training.output_dir outputs/omniglot/teacher_around_a_head

Any field of the recipe can be replaced, e.g. `--training.learning_rate 0.1`; `--help` lists them. The same command goes
on with a run that was cut, and reports one that is finished.
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
    if recipe.training.needs_teacher:
        raise SystemExit("this script trains on labels alone; use examples/run_distill.py for methods with a teacher")
    trainer, results = run_recipe(recipe)
    if trainer.is_world_process_zero():
        print(json.dumps(results, indent=2))
        write_card(trainer, recipe, results)
    if recipe.training.push_to_hub:
        trainer.push_to_hub()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1:])
