"""Small models and data sets that many tests share."""

import io

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import ViTConfig, ViTForImageClassification

from headshare_hf import DistillationConfig, HeadShareConfig, HeadShareForImageClassification
from headshare_hf.data import VerificationSet


NUM_LABELS = 5


class ToyImages(Dataset):
    """Random images whose class is a color cast, so that a network can learn them."""

    def __init__(self, length: int = 48, num_labels: int = NUM_LABELS, size: int = 16, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(length) % num_labels
        casts = torch.randn(num_labels, 3, 1, 1, generator=torch.Generator().manual_seed(99))
        self.images = torch.randn(length, 3, size, size, generator=generator) + casts[self.labels]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


def resnet(
    backbone: str = "resnet8", num_labels: int = NUM_LABELS, seed: int = 0, **fields
) -> HeadShareForImageClassification:
    """A network of this package with seeded random weights."""
    torch.manual_seed(seed)
    return HeadShareForImageClassification(HeadShareConfig(backbone=backbone, num_labels=num_labels, **fields))


def vit(
    num_labels: int = NUM_LABELS, hidden_size: int = 32, image_size: int = 16, seed: int = 0
) -> ViTForImageClassification:
    """A transformers ViT with one layer; it has no batch statistics, so that splitting a batch changes nothing."""
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=hidden_size,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * hidden_size,
        image_size=image_size,
        patch_size=8,
        num_labels=num_labels,
    )
    return ViTForImageClassification(config)


def arguments(output_dir, **fields) -> DistillationConfig:
    """Arguments for a short run on the CPU."""
    defaults = {
        "per_device_train_batch_size": 16,
        "num_train_epochs": 1,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return DistillationConfig(output_dir=str(output_dir), **{**defaults, **fields})


def losses(trainer) -> list[float]:
    """The logged loss of every step."""
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def snapshot(module) -> dict[str, torch.Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


def noise_pairs() -> VerificationSet:
    """Forty pairs of images of noise, half of them called the same."""
    images, random = [], np.random.RandomState(0)
    for _ in range(24):
        buffer = io.BytesIO()
        Image.fromarray(random.randint(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "png")
        images.append({"bytes": buffer.getvalue(), "path": None})
    first, second = random.randint(0, 12, 40), random.randint(12, 24, 40)
    return VerificationSet("noise", images, first, second, np.arange(40) % 2 == 0)
