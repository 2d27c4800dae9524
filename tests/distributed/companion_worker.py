"""What every process of a test of companion losses runs: short distillations, and a record of their losses."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from toys import NUM_LABELS, ToyImages, arguments, losses, resnet
from transformers import CLIPConfig, CLIPForImageClassification

from headshare_hf import DistillationTrainer


# Layer norms alone, so that half a batch is computed as in the whole one.
VIT = {"backbone": "timm/test_vit", "backbone_kwargs": {"img_size": 16}, "image_size": 16}
# Batch statistics of each process in the networks or in what aligns them, or relations within its batch: these cannot be as
# in one process, but must stay in step.
RUNS = {
    "th_vid": VIT,
    "adadistill": {**VIT, "head_type": "arcface", "head_scale": 16.0},
    # A first stage, in which the student's last layers get no gradient.
    "fsp": VIT,
    "hint": VIT,
    "correlation": VIT,
    "srrl": VIT,
    # Without layers of its own, from a network whose last normalisation gets no gradient.
    "dkd": None,
    "abound": {"backbone": "resnet8"},
    "factor": {"backbone": "resnet8"},
}
STAGES = ("fsp", "abound", "factor")


def clip(seed: int) -> CLIPForImageClassification:
    """A transformers network of one block, which does not read all of its parameters."""
    torch.manual_seed(seed)
    width = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
    return CLIPForImageClassification(
        CLIPConfig(vision_config={**width, "image_size": 16, "patch_size": 8}, num_labels=NUM_LABELS)
    )


def main(folder: Path, batch: int) -> None:
    report = {}
    for method, network in RUNS.items():
        stage = {"pretraining_epochs": 1.0, "pretraining_learning_rate": 1e-3} if method in STAGES else {}
        args = arguments(folder / method, method=method, per_device_train_batch_size=batch, **stage)
        student, teacher = (clip(seed) if network is None else resnet(seed=seed, **network) for seed in (1, 2))
        trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=ToyImages(64))
        trainer.train()
        report[method] = losses(trainer)
        if stage:
            state = json.loads((folder / method / "pretraining" / "checkpoint-4" / "trainer_state.json").read_text())
            report[f"{method}, stage"] = [row["loss"] for row in state["log_history"] if "loss" in row]
        module = trainer.accelerator.unwrap_model(trainer.model)
        # Copies: the centers of adadistill are those of the classifier, which the file does not take.
        tensors = {name: value.contiguous().clone() for name, value in module.state_dict().items()}
        save_file(tensors, folder / f"{method}_{trainer.args.process_index}.safetensors")
    (folder / f"report_{trainer.args.process_index}.json").write_text(json.dumps(report))
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
