"""A whole evaluation: numbers, files, and what is refused before it starts."""

import importlib
import json
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from accelerate.state import AcceleratorState
from face_sets import save_model, write_bin, write_crops, write_people
from ijb_files import ProtocolSize, write_protocol
from safetensors.numpy import load_file, save_file

from headshare_hf import HeadShareConfig, HeadShareImageProcessor, HeadShareModel
from headshare_hf.data import (
    IjbIdentification,
    IjbProtocol,
    VerificationSet,
    load_verification_set,
    write_verification_bin,
)
from headshare_hf.evaluation import (
    add_flipped,
    bootstrap_intervals,
    evaluate_identification,
    evaluate_ijb,
    extract_embeddings,
    verify_pairs,
)
from headshare_hf.evaluation.report import render_report
from headshare_hf.evaluation.run_options import VerificationOptions


run_module = importlib.import_module("headshare_hf.evaluation.run")
run_verification = run_module.run_verification


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("verification")
    save_model(path / "model")
    write_bin(path / "faces.bin", write_people(path / "people"))
    features = write_protocol(path / "ijbc")
    write_crops(path / "ijbc", len(features))
    return path


def _options(root, tmp_path, **fields) -> VerificationOptions:
    return VerificationOptions(output=tmp_path / "out", model=str(root / "model"), batch_size=16, **fields)


def _points(record) -> dict:
    return {(point["far"], point["rule"]): point for point in record["tar"]}


@pytest.mark.parametrize("flip", [True, False])
def test_pairs_give_what_the_parts_give(root, tmp_path, flip):
    paths = [str(root / "faces.bin"), str(root / "people")]
    record = run_verification(_options(root, tmp_path, pairs=paths, flip=flip, bootstrap=50, seed=3))
    model = HeadShareModel.from_pretrained(root / "model")
    pairs = load_verification_set(root / "people")
    dataset = pairs.dataset(HeadShareImageProcessor.from_pretrained(root / "model"))
    rows = extract_embeddings(model, dataset, batch_size=16, flip=flip)
    rows = add_flipped(rows[:, :64], rows[:, 64:]) if flip else rows
    result = verify_pairs(rows[pairs.index_a], rows[pairs.index_b], pairs.is_same, pairs.folds, (1e-2,))
    found = record["sets"]["people"]
    assert found["accuracy"] == result.accuracy and found["flip"] is flip and 0.5 < result.accuracy <= 1
    assert (found["num_pairs"], found["num_genuine"], found["num_impostor"]) == (200, 100, 100)
    assert found["num_folds"] == 10 and found["num_images"] == len(pairs.images)
    assert (found["auc"], found["eer"]) == (result.roc.auc, result.roc.eer)
    points = _points(found)
    for rule in ("nearest", "at_most"):
        assert points[1e-2, rule]["tar"] == result.tar[f"tar@far=1e-2/{rule}"]
        assert points[1e-2, rule]["threshold"] == result.roc.threshold_at_far(1e-2, rule)
    assert points[1e-3, "at_most"]["tar"] is None and "FAR 0.001 cannot be measured" in found["remarks"][0]
    intervals = bootstrap_intervals(result, num_samples=50, far_targets=(1e-2,), seed=3)
    for name in ("accuracy", "auc", "eer"):
        assert found[f"{name}_interval"] == list(intervals[name])
    low, high = (f"{100 * end:.2f}" for end in found["eer_interval"])
    assert f"{100 * found['eer']:.2f} [{low}, {high}]" in render_report(record)
    assert points[1e-2, "at_most"]["interval"] == list(intervals["tar@far=1e-2/at_most"])
    assert found["bootstrap"] == {"num_samples": 50, "over": "pairs", "seed": 3, "level": 0.95}
    assert record["sets"]["faces"]["accuracy"] == found["accuracy"]


def test_files_hold_all_that_was_found(root, tmp_path):
    options = _options(root, tmp_path, pairs=[str(root / "faces.bin")])
    record = run_verification(options)
    out = options.output
    assert json.loads((out / "results.json").read_text()) == record
    assert (out / "results.md").read_text() == render_report(record)
    for name in ("roc.png", "det.png"):
        with PIL.Image.open(out / "faces" / name) as image:
            assert image.width > 300
    assert record["model"]["weights_sha256"] and record["model"]["processor"]["channel_order"] == "bgr"
    assert record["options"]["flip"] is True and record["options"]["seed"] == 0 and "output" not in record["options"]
    assert sorted(path.name for path in (out / "embeddings" / "faces").iterdir()) == [
        "key.json",
        "rows-0000000000.safetensors",
    ]
    text = render_report(record)
    accuracy = record["sets"]["faces"]["accuracy"]
    assert f"{100 * accuracy:.2f} ±" in text and "| faces | at most |" in text and "| faces | nearest |" in text
    assert "FAR 1e-2" in text and "- faces: TAR at FAR 0.001 cannot be measured" in text


def test_a_second_run_embeds_nothing(root, tmp_path, monkeypatch):
    options = _options(root, tmp_path, pairs=[str(root / "faces.bin")], cache=tmp_path / "cache")
    first = run_verification(options)
    monkeypatch.setattr(HeadShareModel, "forward", lambda *args, **kwargs: pytest.fail("embedded again"))
    assert run_verification(replace(options, output=tmp_path / "other")) == first
    assert (tmp_path / "cache" / "faces" / "key.json").is_file()


def test_people_are_drawn_where_the_set_names_them(root, tmp_path):
    options = _options(root, tmp_path, pairs=[str(root / "people")], bootstrap=20, bootstrap_over="people")
    found = run_verification(options)["sets"]["people"]
    assert found["bootstrap"]["over"] == "people" and found["accuracy_interval"][0] < found["accuracy_interval"][1]
    unnamed = replace(options, pairs=[str(root / "people"), str(root / "faces.bin")], output=tmp_path / "other")
    with pytest.raises(ValueError, match="faces does not say who is on its images; draw pairs"):
        run_verification(unnamed)
    assert not unnamed.output.exists()


@pytest.mark.parametrize("switches", [{}, {"flip": False, "norm": False, "detector_score": False}])
def test_ijb_gives_what_the_parts_give(root, tmp_path, switches):
    options = _options(root, tmp_path, ijbc=str(root / "ijbc"), identification=True, bootstrap=10, **switches)
    record = run_verification(options)
    protocol = IjbProtocol.read(root / "ijbc")
    stored = tmp_path / "out" / "embeddings" / "ijbc" / "rows-0000000000.safetensors"
    features = load_file(stored)["embeddings"]
    assert features.shape == (160, 128 if options.flip else 64)
    result = evaluate_ijb(features, protocol, **options.switches(), num_resamples=10)
    found = record["sets"]["ijbc"]
    assert {key: found[key] for key in ("flip", "norm", "detector_score")} == options.switches()
    assert found["auc"] == result.roc.auc and found["complete"] is False
    assert _points(found)[1e-2, "nearest"]["tar"] == result.metrics["tar@far=1e-2/nearest"]
    assert _points(found)[1e-2, "at_most"]["interval"] == list(result.intervals["tar@far=1e-2/at_most"])
    assert _points(found)[1e-6, "at_most"]["tar"] is None
    files = IjbIdentification.read(protocol)
    expected = evaluate_identification(features, protocol, files, **options.switches(), num_resamples=10)
    assert found["identification"] == expected and found["embedding_size"] == 64
    assert "not the full protocol: 160 images" in found["remarks"][0]
    text = render_report(record)
    low, high = (f"{100 * expected['mean'][f'rank1/{end}']:.2f}" for end in ("low", "high"))
    assert "## ijbc, 1:N" in text and f"{100 * expected['mean']['rank1']:.2f} [{low}, {high}]" in text
    assert "rank1/low" not in text and len([line for line in text.splitlines() if line.startswith("| joined")]) == 1
    assert ("| flip, norm, detector score |" in text) == (not switches)


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_stored_features_take_the_place_of_a_model(root, tmp_path, suffix):
    features = np.load(root / "ijbc" / "features.npy")
    path = root / "ijbc" / "features.npy" if suffix == "npy" else tmp_path / "features.safetensors"
    if suffix == "safetensors":
        save_file({"features": features}, path)
    options = VerificationOptions(output=tmp_path / "out", features=str(path), flip=True, ijbc=str(root / "ijbc"))
    record = run_verification(options)
    expected = evaluate_ijb(features, IjbProtocol.read(root / "ijbc"), num_resamples=0)
    assert record["sets"]["ijbc"]["auc"] == expected.roc.auc and record["sets"]["ijbc"]["bootstrap"] is None
    assert f"stored features features.{suffix}" in render_report(record)
    assert not (tmp_path / "out" / "embeddings").exists()


def test_a_row_of_features_is_read_as_told(root, tmp_path):
    features = np.load(root / "ijbc" / "features.npy")
    path, width = root / "ijbc" / "features.npy", features.shape[1]
    protocol = IjbProtocol.read(root / "ijbc")
    for flip, size in ((True, width // 2), (False, width)):
        out = tmp_path / f"flip {flip}"
        options = VerificationOptions(output=out, features=str(path), flip=flip, ijbc=str(root / "ijbc"))
        found = run_verification(options)["sets"]["ijbc"]
        assert found["embedding_size"] == size and found["flip"] is flip
        assert found["auc"] == evaluate_ijb(features, protocol, flip=flip, num_resamples=0).roc.auc


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_features_do_not_say_whether_they_are_of_mirrored_images_too(suffix):
    with pytest.raises(ValueError, match=rf"nothing in f.{suffix} says .*; give --flip if .*, or --no-flip if"):
        VerificationOptions(output="out", features=f"f.{suffix}", ijbc="c")
    assert VerificationOptions(output="out", model="m", ijbc="c").flip is True


def _sets(folder) -> list[str]:
    return list(json.loads((folder / "results.json").read_text())["sets"])


def test_a_second_evaluation_adds_its_sets(root, tmp_path):
    first = _options(root, tmp_path, pairs=[str(root / "faces.bin")])
    faces = run_verification(first)["sets"]["faces"]
    second = _options(root, tmp_path, ijbc=str(root / "ijbc"), identification=True, bootstrap=5, norm=False)
    record = run_verification(second)
    assert list(record["sets"]) == _sets(tmp_path / "out") == ["faces", "ijbc"] and record["sets"]["faces"] == faces
    text = (tmp_path / "out" / "results.md").read_text()
    assert "| faces | at most |" in text and "## ijbc, 1:N" in text
    # The same set again takes the place of the earlier one.
    again = run_verification(replace(first, bootstrap=5))["sets"]
    assert list(again) == ["faces", "ijbc"] and again["faces"]["bootstrap"]["num_samples"] == 5
    assert again["faces"]["accuracy"] == faces["accuracy"] and again["ijbc"] == record["sets"]["ijbc"]


def test_results_of_something_else_stay_as_they_are(root, tmp_path, monkeypatch):
    options = _options(root, tmp_path, pairs=[str(root / "faces.bin")], cache=tmp_path / "cache")
    run_verification(options)
    before = (tmp_path / "out" / "results.json").read_bytes()
    monkeypatch.setattr(HeadShareModel, "forward", lambda *args, **kwargs: pytest.fail("embedded"))
    save_model(tmp_path / "other", backbone="resnet14")
    HeadShareModel.from_pretrained(root / "model").save_pretrained(tmp_path / "rgb")
    HeadShareImageProcessor(channel_order="rgb").save_pretrained(tmp_path / "rgb")
    ijbc, features = {"pairs": (), "ijbc": str(root / "ijbc")}, str(root / "ijbc" / "features.npy")
    for changes, message in (
        ({"model": str(tmp_path / "other")}, "of another model: its weights_sha256 is .*; give another --output"),
        ({"model": str(tmp_path / "rgb")}, "its processor.channel_order is bgr, and now it is rgb; give another"),
        ({"model": None, "features": features, **ijbc}, "its sha256 is None, and now it is .*; give another --output"),
        ({"flip": False, **ijbc}, "has faces with `flip` True, and now it is False; give another --output"),
    ):
        with pytest.raises(ValueError, match=message):
            run_verification(replace(options, **changes))
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    model = json.loads(before)["model"]
    for content in ([], {"seeds": 3, "sets": {}}, {"model": 1, "sets": {}}, {"model": model, "sets": ["faces"]}):
        (tmp_path / "out" / "results.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match="results.json is not the result of such an evaluation; give another"):
            run_verification(options)


def test_ijbb_has_its_own_galleries(tmp_path):
    size = ProtocolSize(images=160, templates=40, gallery=12, pairs=200, genuine=25, embedding_size=8)
    write_protocol(tmp_path / "ijbb", size, name="ijbb")
    options = VerificationOptions(
        output=tmp_path / "out",
        features=str(tmp_path / "ijbb" / "features.npy"),
        flip=True,
        ijbb=str(tmp_path / "ijbb"),
        identification=True,
    )
    assert set(run_verification(options)["sets"]["ijbb"]["identification"]) == {"S1", "S2", "mean", "joined"}


def test_thresholds_are_stored_with_the_model(root, tmp_path):
    save_model(tmp_path / "model")
    options = VerificationOptions(
        output=tmp_path / "out",
        model=str(tmp_path / "model"),
        pairs=[str(root / "faces.bin")],
        store_thresholds=True,
    )
    found = run_verification(options)["sets"]["faces"]
    stored = HeadShareConfig.from_pretrained(tmp_path / "model").verification_thresholds
    assert stored == found["thresholds"] and [entry["far"] for entry in stored] == [1e-2]
    assert stored[0]["similarity"] == _points(found)[1e-2, "at_most"]["threshold"] and stored[0]["flip"] is True
    # The weights are the same, so that the kept embeddings still belong to the model.
    assert run_verification(options)["sets"]["faces"] == found


def test_a_set_too_small_for_thresholds_is_refused_first(root, tmp_path):
    pairs = load_verification_set(root / "faces.bin")
    kept = np.flatnonzero(pairs.is_same | (np.cumsum(~pairs.is_same) < 100))
    small = VerificationSet("s", pairs.images, pairs.index_a[kept], pairs.index_b[kept], pairs.is_same[kept])
    write_verification_bin(tmp_path / "small.bin", small)
    save_model(tmp_path / "model")
    options = VerificationOptions(
        output=tmp_path / "out",
        model=str(tmp_path / "model"),
        pairs=[str(tmp_path / "small.bin")],
        store_thresholds=True,
    )
    with pytest.raises(ValueError, match="small has 99 pairs of two people, and .* a FAR of 0.01 needs at least 100"):
        run_verification(options)
    assert not (tmp_path / "out").exists()
    assert run_verification(replace(options, store_thresholds=False))["sets"]["small"]["thresholds"] == []


def test_results_are_written_before_thresholds_are_stored(root, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(run_module, "store_thresholds", fail)
    options = _options(root, tmp_path, pairs=[str(root / "faces.bin")], store_thresholds=True)
    with pytest.raises(OSError, match="the disk is full"):
        run_verification(options)
    assert _sets(tmp_path / "out") == ["faces"]


def test_sets_that_do_not_fit_are_refused_before_anything_is_embedded(root, tmp_path):
    twice = [str(root / "faces.bin"), str(root / "faces.bin")]
    with pytest.raises(ValueError, match="two sets are called faces; rename"):
        run_verification(_options(root, tmp_path, pairs=twice))
    with pytest.raises(ValueError, match="ijbc holds ijbc; give it with --ijbc"):
        run_verification(_options(root, tmp_path, ijbb=str(root / "ijbc")))
    with pytest.raises(FileNotFoundError, match="nowhere.bin"):
        run_verification(_options(root, tmp_path, pairs=[str(root / "faces.bin"), "nowhere.bin"]))
    assert not (tmp_path / "out").exists()


def test_a_set_without_a_result_is_refused_before_anything_is_embedded(root, tmp_path, monkeypatch):
    pairs = load_verification_set(root / "people")
    kept = np.flatnonzero(pairs.is_same)
    same = VerificationSet("s", pairs.images, pairs.index_a[kept], pairs.index_b[kept], pairs.is_same[kept])
    write_verification_bin(tmp_path / "same.bin", same)
    monkeypatch.setattr(HeadShareModel, "forward", lambda *args, **kwargs: pytest.fail("embedded"))
    with pytest.raises(ValueError, match="the verification set same cannot be evaluated: "):
        run_verification(_options(root, tmp_path, pairs=[str(root / "faces.bin"), str(tmp_path / "same.bin")]))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def bfloat16(monkeypatch):
    """As `accelerate launch --mixed_precision bf16` starts an evaluation."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_precision_is_told(root, tmp_path, bfloat16):
    options = _options(root, tmp_path, pairs=[str(root / "faces.bin")])
    record = run_verification(options)
    assert record["model"]["precision"] == "bfloat16 autocast"
    title = render_report(record).splitlines()[0]
    assert title.startswith("# Face verification of ") and title.endswith(", in bfloat16 autocast")
    record["model"]["precision"] = "float32"
    assert f"{render_report(record).splitlines()[0]}, in bfloat16 autocast" == title


def test_results_of_another_precision_stay_as_they_are(root, tmp_path):
    options = _options(root, tmp_path, pairs=[str(root / "faces.bin")], cache=tmp_path / "cache")
    path, record = tmp_path / "out" / "results.json", run_verification(options)
    assert record["model"].pop("precision") == "float32"
    path.write_text(json.dumps(record))
    assert run_verification(options)["model"]["precision"] == "float32"
    record["model"]["precision"] = "bfloat16 autocast"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="its precision is bfloat16 autocast, and now it is float32; give another"):
        run_verification(options)
    assert json.loads(path.read_text()) == record


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"pairs": ["a"]}, "give either a model or stored features"),
        ({"model": "m", "features": "f.npy", "ijbc": "c"}, "give either a model or stored features"),
        ({"model": "m"}, "nothing to evaluate on: give --pairs, --ijbb or --ijbc"),
        ({"features": "f.npy", "pairs": ["a"]}, "stored features are those of the images of one protocol"),
        ({"features": "f.npy", "ijbb": "b", "ijbc": "c"}, "stored features are those of the images of one protocol"),
        ({"features": "f.npy", "ijbc": "c", "revision": "v1"}, "`revision` has no effect on stored features"),
        ({"model": "m", "pairs": ["a"], "norm": False}, "`norm` has no effect on sets of pairs"),
        ({"model": "m", "pairs": ["a"], "detector_score": False}, "`detector_score` has no effect on sets of pairs"),
        ({"model": "m", "pairs": ["a"], "identification": True}, "`identification` has no effect on sets of pairs"),
        ({"model": "m", "pairs": ["a"], "bootstrap_over": "folds"}, "is 'folds'; allowed: pairs, people"),
        ({"model": "m", "pairs": ["a"], "bootstrap_over": "people"}, "`bootstrap_over` has no effect without"),
        ({"model": "m", "pairs": ["a"], "batch_size": 0}, "`batch_size` is 0 and `workers` 0"),
        ({"model": "m", "pairs": ["a"], "workers": -1}, "`batch_size` is 256 and `workers` -1"),
        ({"model": "m", "pairs": ["a"], "bootstrap": 1}, "`bootstrap` is 1; an interval needs at least 2"),
        ({"model": "m", "pairs": ["a", "b"], "store_thresholds": True}, "one set of pairs, and there are 2; give one"),
        ({"model": "some/model", "pairs": ["a"], "store_thresholds": True}, "some/model is none; download the model"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        VerificationOptions(output=tmp_path, **fields)
