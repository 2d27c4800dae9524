"""Data: labelled images from anywhere, decoded, prepared and augmented in batches."""

from .dataset import ImageClassificationDataset, collate
from .decoding import CorruptImageError
from .loading import load_images, load_splits
from .recipes import augmentation_names


__all__ = [
    "CorruptImageError",
    "ImageClassificationDataset",
    "augmentation_names",
    "collate",
    "load_images",
    "load_splits",
]
