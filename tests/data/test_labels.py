import datasets
import pyarrow as pa
import pytest

from headshare_hf.data.labels import encode_labels, find_image_column, find_label_column, label_names


WHERE = "split 'train' of toys"


def _dataset(features: dict | None = None, **columns) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None)


def test_cifar_columns_are_found():
    fine, coarse = datasets.ClassLabel(names=["apple", "bear"]), datasets.ClassLabel(names=["fruit", "animal"])
    features = {"img": datasets.Image(), "coarse_label": coarse, "fine_label": fine}
    dataset = _dataset(features, img=[None], coarse_label=[0], fine_label=[1])
    assert find_image_column(dataset, None, WHERE) == "img"
    assert find_label_column(dataset, None, WHERE) == "fine_label"
    assert find_label_column(dataset, "coarse_label", WHERE) == "coarse_label"


def test_only_column_of_its_type_is_found():
    features = {
        "photo": datasets.Image(),
        "species": datasets.ClassLabel(names=["a", "b"]),
        "id": datasets.Value("int64"),
    }
    dataset = _dataset(features, photo=[None], species=[0], id=[5])
    assert find_image_column(dataset, None, WHERE) == "photo"
    assert find_label_column(dataset, None, WHERE) == "species"


def test_columns_that_are_not_there_are_listed():
    dataset = _dataset(x=[1], y=[2])
    with pytest.raises(ValueError, match="toys has no image columns among x, y; set `image_column`"):
        find_image_column(dataset, None, WHERE)
    with pytest.raises(ValueError, match="toys has no label columns among x, y; set `label_column`"):
        find_label_column(dataset, None, WHERE)
    with pytest.raises(ValueError, match="has no column 'z'; columns: x, y"):
        find_label_column(dataset, "z", WHERE)


def test_two_candidates_are_refused():
    label = datasets.ClassLabel(names=["a", "b"])
    with pytest.raises(ValueError, match="several label columns among color, shape"):
        find_label_column(_dataset({"color": label, "shape": label}, color=[0], shape=[1]), None, WHERE)


def test_column_of_something_else_is_refused():
    with pytest.raises(
        ValueError, match="column 'image' of split 'train' of toys holds Value.*images are encoded bytes"
    ):
        find_image_column(_dataset(image=[1]), None, WHERE)
    with pytest.raises(ValueError, match="column 'label' of .* labels are text, whole numbers or ClassLabel"):
        label_names(_dataset(label=[0.5]), "label", WHERE)


@pytest.mark.parametrize(
    ("values", "names", "codes"),
    [
        (["dog", "cat", "dog"], ["cat", "dog"], [1, 0, 1]),
        ([10, 2, 10], ["2", "10"], [1, 0, 1]),
        ([True, False, True], ["False", "True"], [1, 0, 1]),
    ],
)
def test_values_become_classes_in_sorted_order(values, names, codes):
    dataset = _dataset(label=values)
    assert label_names(dataset, "label", WHERE) == names
    assert encode_labels(dataset, "label", names, WHERE).tolist() == codes


@pytest.mark.parametrize("wrong", [-1, 2, None])
def test_class_label_out_of_range_names_the_row(wrong):
    # Files may hold what datasets itself would refuse to write.
    features = datasets.Features(label=datasets.ClassLabel(names=["a", "b"]))
    table = pa.table({"label": pa.array([0, 1, wrong], pa.int64())})
    dataset = datasets.Dataset(table, info=datasets.DatasetInfo(features=features))
    with pytest.raises(ValueError, match=f"row 2 of split 'train' of toys has label {wrong}; labels are 0 to 1"):
        encode_labels(dataset, "label", ["a", "b"], WHERE)


@pytest.mark.parametrize("wrong", [-1, None])
def test_number_below_zero_names_the_row(wrong):
    dataset = _dataset(label=[0, wrong, 1])
    with pytest.raises(ValueError, match=f"row 1 of .* has label {wrong}; labels are text or numbers from zero"):
        encode_labels(dataset, "label", label_names(dataset, "label", WHERE), WHERE)


def test_class_that_the_first_split_lacks():
    with pytest.raises(ValueError, match="row 1 of .* has label 'owl', which the first split lacks; it has cat, dog"):
        encode_labels(_dataset(label=["cat", "owl"]), "label", ["cat", "dog"], WHERE)


def test_empty_and_one_class_sets_are_refused():
    label = datasets.ClassLabel(names=["a", "b"])
    with pytest.raises(ValueError, match="split 'train' of toys is empty"):
        encode_labels(_dataset({"label": label}, label=[]), "label", ["a", "b"], WHERE)
    with pytest.raises(ValueError, match="toys has only the class 'b'; a classifier needs two or more"):
        encode_labels(_dataset({"label": label}, label=[1, 1]), "label", ["a", "b"], WHERE)
