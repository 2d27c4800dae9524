"""Classes held out of training, and pairs drawn of them."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image
from record_bytes import part, payload, write_parts

from headshare_hf.data import draw_pairs, hold_out_classes, load_splits


def _split(names, per_class, seed=0):
    """Images whose color says which row they are."""
    random = np.random.RandomState(seed)
    labels = random.permutation(np.repeat(np.arange(len(names)), per_class))
    rows = []
    for row in range(len(labels)):
        buffer = io.BytesIO()
        Image.new("RGB", (2, 2), (row, seed, 0)).save(buffer, "png")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    dataset = datasets.Dataset.from_dict(
        {"image": rows, "label": labels, "row": np.arange(len(labels))},
        features=datasets.Features(
            image=datasets.Image(decode=False), label=datasets.ClassLabel(names=names), row=datasets.Value("int64")
        ),
    )
    return dataset, labels


NAMES = ["Greek/a", "Greek/b", "Latin/a", "Latin/b[1]", "Tagalog/a"]


def test_every_image_is_on_one_side_with_its_name():
    split, labels = _split(NAMES, 3)
    stays, held_out = hold_out_classes(split, ["Latin/*"])
    assert stays.features["label"].names == ["Greek/a", "Greek/b", "Tagalog/a"]
    assert held_out.features["label"].names == ["Latin/a", "Latin/b[1]"]
    assert sorted([*stays["row"], *held_out["row"]]) == list(range(15))
    for side in (stays, held_out):
        for row in side:
            assert side.features["label"].names[row["label"]] == NAMES[labels[row["row"]]]
            assert row["image"] == split[row["row"]]["image"]


def test_brackets_in_names_are_ordinary():
    split, _ = _split(NAMES, 2)
    assert hold_out_classes(split, ["Latin/b[1]"])[1].features["label"].names == ["Latin/b[1]"]


def test_what_cannot_be_held_out_is_refused(tmp_path):
    split, _ = _split(NAMES, 2)
    with pytest.raises(ValueError, match="no class is called 'Korean/\\*'; there are Greek/a, Greek/b"):
        hold_out_classes(split, ["Korean/*"])
    with pytest.raises(ValueError, match="leaves 1 classes to train on"):
        hold_out_classes(split, ["Latin/*", "Greek/*"])


def test_record_files_have_no_names_to_hold_out(tmp_path):
    write_parts(tmp_path / "train.rec", [part(payload(b"image", label)) for label in (0, 1, 0)])
    records = load_splits(tmp_path / "train.rec", ["train"])[0]
    with pytest.raises(ValueError, match="record files do not name their classes"):
        hold_out_classes(records, ["1"])


def test_pairs_are_folds_of_both_kinds_without_repetition():
    first, labels_a = _split(NAMES, 6)
    second, labels_b = _split(NAMES, 4, seed=1)
    pairs = draw_pairs([first, second], "toy", num_pairs=80, num_folds=10, seed=3)
    labels = np.concatenate([labels_a, labels_b])
    assert len(pairs) == 80 and len(pairs.images) == 50 and pairs.name == "toy"
    assert np.array_equal(labels[pairs.index_a] == labels[pairs.index_b], pairs.is_same)
    assert list(pairs.names) == [NAMES[label] for label in labels]
    for fold in range(10):
        assert pairs.is_same[pairs.folds == fold].sum() == 4
    found = {frozenset(pair) for pair in zip(pairs.index_a.tolist(), pairs.index_b.tolist(), strict=True)}
    assert len(found) == 80 and all(len(pair) == 2 for pair in found)
    assert pairs.images[30] == second[0]["image"]


def test_the_seed_alone_decides_which_pairs():
    split, _ = _split(NAMES, 6)
    one, again, other = (draw_pairs([split], "toy", 40, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.index_a, again.index_a) and np.array_equal(one.index_b, again.index_b)
    assert not np.array_equal(one.index_a, other.index_a)


def test_pairs_of_a_large_set_are_drawn_without_listing_all():
    split, _ = _split([f"class {number:02}" for number in range(40)], 5)
    pairs = draw_pairs([split], "large", num_pairs=40)
    assert len(pairs) == 40 and pairs.is_same.sum() == 20


@pytest.mark.parametrize(
    "num_pairs, message",
    [
        (30, "`num_pairs` .of a recipe: `verification.held_out_pairs`. is 30; it must be a positive multiple of 20"),
        (0, "must be a positive multiple of 20"),
        (400, "there are 5 pairs of one class, .* lower `num_pairs` .of a recipe: `verification.held_out_pairs`."),
    ],
)
def test_too_many_pairs_are_refused(num_pairs, message):
    split, _ = _split(NAMES, 2)
    with pytest.raises(ValueError, match=message):
        draw_pairs([split], "toy", num_pairs)
