"""Models: backbone, embedding, shareable classifier."""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from .backbones import backbone_names
from .class_centers import CENTERS_FILE, find_class_centers, load_class_centers
from .configuration_headshare import HeadShareConfig
from .heads import IGNORED_LABEL, CosineHead
from .image_processing_headshare import HeadShareImageProcessor
from .loading_problems import LOADING_PROBLEMS
from .modeling_headshare import HeadShareForImageClassification, HeadShareModel
from .sharing import (
    EmbeddingTap,
    check_head_fits,
    check_label_maps,
    embedding_tap,
    find_classifier,
    share_head,
    with_head_length,
)


AutoConfig.register("headshare", HeadShareConfig)
AutoModel.register(HeadShareConfig, HeadShareModel)
AutoModelForImageClassification.register(HeadShareConfig, HeadShareForImageClassification)
AutoImageProcessor.register(HeadShareConfig, image_processor_classes={"torchvision": HeadShareImageProcessor})

# What `save_pretrained` writes the code of, for places without this package.
HeadShareConfig.register_for_auto_class()
HeadShareModel.register_for_auto_class("AutoModel")
HeadShareForImageClassification.register_for_auto_class("AutoModelForImageClassification")
HeadShareImageProcessor.register_for_auto_class()

__all__ = [
    "CENTERS_FILE",
    "IGNORED_LABEL",
    "LOADING_PROBLEMS",
    "CosineHead",
    "EmbeddingTap",
    "HeadShareConfig",
    "HeadShareForImageClassification",
    "HeadShareImageProcessor",
    "HeadShareModel",
    "backbone_names",
    "check_head_fits",
    "check_label_maps",
    "embedding_tap",
    "find_class_centers",
    "find_classifier",
    "load_class_centers",
    "share_head",
    "with_head_length",
]
