"""Data: labelled images from anywhere, decoded, prepared and augmented in batches."""

from .alignment import align_faces, face_template, similarity_transform
from .dataset import ImageClassificationDataset, collate
from .decoding import CorruptImageError
from .ijb import IjbIdentification, IjbProtocol
from .ijb_images import IjbImages
from .loading import load_images, load_splits
from .open_set import draw_pairs, hold_out_classes
from .pair_lists import contiguous_folds, default_folds
from .recipes import augmentation_names
from .record_images import RecordImages
from .recordio import RecordError, RecordFile, rebuild_index
from .verification_bin import read_verification_bin, write_verification_bin
from .verification_set import VerificationSet, load_verification_set, shared_identities


__all__ = [
    "CorruptImageError",
    "IjbIdentification",
    "IjbImages",
    "IjbProtocol",
    "ImageClassificationDataset",
    "RecordError",
    "RecordFile",
    "RecordImages",
    "VerificationSet",
    "align_faces",
    "augmentation_names",
    "collate",
    "contiguous_folds",
    "default_folds",
    "draw_pairs",
    "face_template",
    "hold_out_classes",
    "load_images",
    "load_splits",
    "load_verification_set",
    "read_verification_bin",
    "rebuild_index",
    "shared_identities",
    "similarity_transform",
    "write_verification_bin",
]
