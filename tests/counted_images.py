"""Images that remember who was looked at, and what a model makes of all of them."""

import torch
from toys import ToyImages


class CountingImages(ToyImages):
    """Remembers which images were read."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.seen: list[int] = []

    def __getitem__(self, index: int) -> dict:
        self.seen.append(index)
        return super().__getitem__(index)


def forward(model, images):
    """What a model gives for all images at once."""
    with torch.no_grad():
        return model.eval()(images.images)


def accuracy(logits, images):
    """Share of the images whose class has the highest logit."""
    return (logits.argmax(1) == images.labels).double().mean().item()
