"""The guide to scaling agrees with the code: launch configurations, commands, and what is refused."""

import re
import shlex
from pathlib import Path

import pytest
from accelerate.commands.config import load_config_from_file

from headshare_hf.trainer.large_heads import CHUNKED_FROM
from headshare_hf.trainer.recipe_arguments import parse_recipe


ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
CONFIGS = sorted((ROOT / "examples" / "accelerate_configs").glob("*.yaml"))
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```bash\n(.*?)^```$", GUIDE, flags=re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[-1].rpartition("/")[2])
def test_every_command_is_understood(command):
    script = command.index("examples/run_distill.py")
    recipe = parse_recipe([*command[script + 1 :], "--training.use_cpu", "true"])
    assert recipe.teacher is not None
    assert command[0] in ("accelerate", "python")


def test_every_launch_configuration_has_its_command():
    launched = [command[command.index("--config_file") + 1] for command in COMMANDS if command[0] == "accelerate"]
    assert sorted(launched) == [str(path.relative_to(ROOT)) for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_launch_configurations_are_read(path):
    config = load_config_from_file(str(path))
    assert config.num_machines == 1 and config.num_processes > 1


REFUSED = {
    "backends": ["bf16", "fp16", "optimizer", "scheduler", "offload_params", "activation_checkpointing"],
    "large_heads": ["shard_heads", "class_sample_rate", "fp16", "max_grad_norm", "eval_teacher_head_weight"],
}


@pytest.mark.parametrize("module, name", [(module, name) for module, names in REFUSED.items() for name in names])
def test_what_is_refused_is_in_the_table(module, name):
    code = (ROOT / "src" / "headshare_hf" / "trainer" / f"{module}.py").read_text(encoding="utf-8")
    rows = GUIDE.partition("\n## Refused\n")[2]
    assert f'"{name}"' in code
    assert re.search(rf"^\|[^|]*`(fsdp_)?{name}`[^|]*\|", rows, flags=re.MULTILINE)


def test_the_number_of_classes_from_which_losses_go_in_chunks():
    assert f"From {CHUNKED_FROM:,} classes on" in GUIDE
