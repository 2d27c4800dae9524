"""Thresholds in the configuration: kept, and refused where they are wrong."""

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError

from headshare_hf import HeadShareConfig


ENTRY = {"far": 1e-3, "rule": "at_most", "similarity": 0.25, "set": "lfw", "num_impostor": 3000, "flip": True}


def test_thresholds_survive_saving(tmp_path):
    entries = [ENTRY, {**ENTRY, "far": 1e-2, "similarity": 0.1 + 0.2}]
    HeadShareConfig(backbone="resnet8", verification_thresholds=entries).save_pretrained(tmp_path)
    assert HeadShareConfig.from_pretrained(tmp_path).verification_thresholds == entries
    assert HeadShareConfig().verification_thresholds is None


@pytest.mark.parametrize(
    "entries, message",
    [
        ([], "is empty; leave it out"),
        ([{**ENTRY, "tar": 0.9}], r"thresholds\[0\]` has the keys .*tar; it needs far, rule, similarity"),
        ([{key: ENTRY[key] for key in ("far", "rule")}], r"`verification_thresholds\[0\]` has the keys far, rule; it"),
        ([{**ENTRY, "far": "1e-3"}], "has far '1e-3', which is of the wrong type"),
        ([{**ENTRY, "num_impostor": True}], "has num_impostor True, which is of the wrong type"),
        ([{**ENTRY, "flip": 1}], "has flip 1, which is of the wrong type"),
        ([{**ENTRY, "far": 0.0}], "has far 0.0; it must be between 0 and 1"),
        ([{**ENTRY, "rule": "best"}], "has rule 'best'; it must be one of at_most, nearest"),
        ([ENTRY, {**ENTRY, "similarity": 1.5}], r"thresholds\[1\]` has similarity 1.5; it must be a cosine"),
        ([{**ENTRY, "num_impostor": 0}], "has num_impostor 0; it must be positive"),
        ([ENTRY, ENTRY], "two entries for the FAR 0.001; keep one"),
        ([ENTRY, {**ENTRY, "far": 0.1, "flip": False}], "differ in `flip`"),
    ],
)
def test_wrong_thresholds_are_refused(entries, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        HeadShareConfig(verification_thresholds=entries)
