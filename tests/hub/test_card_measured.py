"""Results of an evaluation that was made after the training come into the card of the run."""

import json
import shutil

import pytest
from card_facts import CARD
from face_sets import save_model, write_bin, write_crops, write_people
from huggingface_hub import ModelCard
from ijb_files import write_protocol
from published_runs import finish, trainer
from toys import resnet

from headshare_hf import HeadShareImageProcessor
from headshare_hf.evaluation import VerificationOptions, run_verification
from headshare_hf.hub import add_results, render_card, select_files
from headshare_hf.models.hub_card import check_card


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A model in a folder with the card of its run, and what it was evaluated on afterwards."""
    root = tmp_path_factory.mktemp("measured")
    folder = save_model(root / "run")
    render_card(CARD).save(folder / "README.md")
    write_bin(root / "faces.bin", write_people(root / "people"))
    write_crops(root / "ijbc", len(write_protocol(root / "ijbc")))
    options = VerificationOptions(
        output=root / "out",
        model=str(folder),
        pairs=[str(root / "faces.bin")],
        ijbc=str(root / "ijbc"),
        identification=True,
        bootstrap=20,
        batch_size=32,
    )
    record = run_verification(options)
    before = ModelCard.load(folder / "README.md")
    add_results(folder, root / "out" / "results.json")
    return folder, root / "out" / "results.json", record, before


def _per_cent(value, interval):
    return f"{100 * value:.2f} [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"


def test_the_metadata_have_every_number_with_its_interval(measured):
    folder, _, record, before = measured
    card = ModelCard.load(folder / "README.md")
    check_card(card)
    found = {result.metric_name: result for result in card.data.eval_results}
    assert {result.metric_name for result in before.data.eval_results} < found.keys()
    pairs = record["sets"]["faces"]
    accuracy = found["Accuracy over 10 folds, faces, 200 pairs, with mirrored images"]
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", pytest.approx(pairs["accuracy"], abs=1e-6))
    assert accuracy.metric_args == {
        "interval": pytest.approx(pairs["accuracy_interval"], abs=1e-6),
        "level": 0.95,
        "replicates": 20,
        "over": "pairs",
    }
    assert (accuracy.dataset_type, accuracy.dataset_name) == ("faces (not on the Hub)", "faces")
    assert (accuracy.task_type, accuracy.task_name) == ("image-feature-extraction", "Face Verification")
    assert "TAR at FAR 1e-2 (rule nearest), faces, 200 pairs, with mirrored images" in found
    # One impostor pair in a hundred is the least that can be told.
    assert not [name for name in found if "FAR 1e-3" in name and "faces" in name]
    ijbc = record["sets"]["ijbc"]
    end = "with mirrored images, feature norms, detector scores, part of the protocol"
    tar = found[f"TAR at FAR 1e-1 (rule at_most), ijbc, {ijbc['num_pairs']:,} pairs of templates, {end}"]
    assert tar.metric_args["over"] == "templates"
    rank = found[f"Rank-1 identification rate, ijbc, mean of both galleries, {end}"]
    assert rank.metric_value == pytest.approx(ijbc["identification"]["mean"]["rank1"], abs=1e-6)
    assert rank.metric_type == "identification_rate" and rank.metric_args["over"] == "probes"
    assert {"accuracy", "eer", "roc_auc", "tar", "tpir", "identification_rate"} == set(card.data.metrics)


def test_the_text_has_them_before_the_method_and_says_what_is_missing(measured):
    folder, _, record, before = measured
    text = ModelCard.load(folder / "README.md").text
    results, method = text.split("\n## Method\n")
    assert before.text.split("\n## Method\n")[1] == method
    pairs, ijbc = record["sets"]["faces"], record["sets"]["ijbc"]
    assert "### faces, measured after the training" in results
    assert "200 pairs (100 genuine, 100 impostor), with mirrored images." in results
    assert f"| Equal error rate | {_per_cent(pairs['eer'], pairs['eer_interval'])} |" in results
    assert "of 95 per cent, by 20 replicates of the bootstrap over pairs." in results
    assert "- TAR at FAR 0.001 cannot be measured with 100 impostor pairs" in results
    rates = ijbc["identification"]["mean"]
    shown = _per_cent(rates["rank1"], (rates["rank1/low"], rates["rank1/high"]))
    assert f"| Rank-1 identification rate, mean of both galleries | {shown} |" in results
    assert "of 95 per cent, by 20 replicates of the bootstrap over templates, 1:N over probes." in results
    assert "- not the full protocol: 160 images" in results
    assert str(folder.parent) not in text and "\n\n\n" not in text and "None" not in text


def test_the_same_results_change_nothing_and_later_ones_of_a_set_take_its_place(measured, tmp_path):
    folder, path, record, _ = measured
    once = (folder / "README.md").read_text()
    add_results(folder, path)
    assert (folder / "README.md").read_text() == once
    bare = {"accuracy": 0.25, "bootstrap": None, "accuracy_interval": None, "eer_interval": None, "auc_interval": None}
    faces = {**record["sets"]["faces"], **bare}
    faces["tar"] = [{**point, "interval": None} for point in faces["tar"]]
    (tmp_path / "results.json").write_text(json.dumps({**record, "sets": {"faces": faces}}))
    try:
        add_results(folder, tmp_path / "results.json")
        card = ModelCard.load(folder / "README.md")
        accuracies = [r for r in card.data.eval_results if r.metric_name.startswith("Accuracy over 10 folds")]
        assert [(r.metric_value, r.metric_args) for r in accuracies] == [(0.25, None)]
        assert "| Accuracy over 10 folds | 25.00 |" in card.text
        assert card.text.count("### faces, measured") == card.text.count("### ijbc, measured") == 1
        assert card.text.count("In brackets") == 1
    finally:
        (folder / "README.md").write_text(once)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"model": {"features": "a.npy", "sha256": "0"}},
            "of stored features, and nothing says which weights made th",
        ),
        ({"weights_sha256": "0"}, "has the results of other weights than those of .*run; evaluate this model"),
        ({"processor": {}}, "has the results of another image processor than that of .*run; evaluate this model"),
        ({"sets": {}}, "has no results; evaluate this model"),
        ({"sets": {"faces": {"protocol": "pairs"}}}, "is not the `results.json` of `run_verification`"),
        (None, "is not the `results.json` of `run_verification`"),
    ],
)
def test_results_that_are_not_of_this_model_are_refused(measured, tmp_path, change, message):
    folder, _, record, _ = measured
    once = (folder / "README.md").read_text()
    if change and not change.keys() & record.keys():
        change = {"model": {**record["model"], **change}}
    (tmp_path / "results.json").write_text("[" if change is None else json.dumps({**record, **change}))
    with pytest.raises(ValueError, match=f"results.json .*{message}"):
        add_results(folder, tmp_path / "results.json")
    assert (folder / "README.md").read_text() == once


def test_what_is_not_there_or_no_card_of_this_package_is_refused(measured, tmp_path):
    folder, path, _, _ = measured
    with pytest.raises(FileNotFoundError, match=r"nowhere.json does not exist; `run_verification` writes"):
        add_results(folder, tmp_path / "nowhere.json")
    once = (folder / "README.md").read_text()
    for text in (once.replace("- headshare_hf\n", ""), once.replace("## Method", "## How")):
        (folder / "README.md").write_text(text)
        try:
            with pytest.raises(
                ValueError, match="README.md is no card that `render_card` wrote; run the recipe again"
            ):
                add_results(folder, path)
        finally:
            (folder / "README.md").write_text(once)
    (folder / "README.md").unlink()
    try:
        with pytest.raises(ValueError, match="run has no README.md, the model card; write it with `render_card`"):
            add_results(folder, path)
    finally:
        (folder / "README.md").write_text(once)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The trainer of a finished run whose card has results that were added afterwards, and these results."""
    root = tmp_path_factory.mktemp("finished")
    made = finish(trainer(root / "run"))
    write_bin(root / "faces.bin", write_people(root / "people"))
    sets = {"pairs": [str(root / "faces.bin")], "batch_size": 32}
    run_verification(VerificationOptions(output=root / "out", model=str(made.folder), **sets))
    add_results(made.folder, root / "out" / "results.json")
    return made, root / "out" / "results.json"


@pytest.fixture
def run(finished, monkeypatch, tmp_path):
    """The trainer in a copy of its folder, to spoil, and the results."""
    made, results = finished
    monkeypatch.setattr(made.args, "output_dir", shutil.copytree(made.folder, tmp_path / "run"))
    return made, results


def test_a_card_that_is_written_anew_has_the_added_results_again(run):
    made, _ = run
    before = (made.folder / "README.md").read_text()
    (made.folder / "README.md").unlink()
    made.create_model_card()
    assert (made.folder / "README.md").read_text() == before
    assert before.count("### faces, measured after the training") == 1
    assert "measured.json" not in select_files(made.folder)


def test_later_results_of_another_set_are_kept_too(run, tmp_path):
    made, results = run
    record = json.loads(results.read_text())
    other = {**record, "sets": {"others": record["sets"]["faces"]}}
    (tmp_path / "results.json").write_text(json.dumps(other))
    add_results(made.folder, tmp_path / "results.json")
    made.create_model_card()
    text = (made.folder / "README.md").read_text()
    assert text.count("### faces, measured after") == text.count("### others, measured after") == 1


def test_results_of_other_weights_are_dropped(run):
    made, _ = run
    resnet(seed=9).save_pretrained(made.folder)
    made.create_model_card()
    card = ModelCard.load(made.folder / "README.md")
    assert "measured after" not in card.text and "faces" not in str(card.data.eval_results)


def test_results_that_are_added_to_other_weights_stand_alone(run, tmp_path):
    made, _ = run
    resnet(seed=9).save_pretrained(made.folder)
    write_bin(tmp_path / "others.bin", write_people(tmp_path / "people", seed=1))
    sets = {"pairs": [str(tmp_path / "others.bin")], "batch_size": 32}
    run_verification(VerificationOptions(output=tmp_path / "out", model=str(made.folder), **sets))
    add_results(made.folder, tmp_path / "out" / "results.json")
    made.create_model_card()
    text = (made.folder / "README.md").read_text()
    assert "### others, measured after" in text and "### faces, measured after" not in text


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"results": {}}', '{"model": {}, "results": [["a", {}]]}'])
def test_damaged_kept_results_are_named(run, content):
    made, results = run
    (made.folder / "measured.json").write_text(content)
    for call in (made.create_model_card, lambda: add_results(made.folder, results)):
        with pytest.raises(ValueError, match=f"{made.folder}/measured.json is damaged .*; delete it, and add the res"):
            call()


def test_a_student_that_has_changed_is_pushed_without_the_results(run, tmp_path):
    made, _ = run
    (tmp_path / "same").mkdir()
    made._stage(tmp_path / "same", made.student)
    assert "### faces, measured after" in (tmp_path / "same" / "README.md").read_text()
    (tmp_path / "other").mkdir()
    made._stage(tmp_path / "other", resnet(seed=9))
    assert "measured after" not in (tmp_path / "other" / "README.md").read_text()


def test_results_of_another_image_processor_are_dropped(run):
    made, _ = run
    HeadShareImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.1] * 3).save_pretrained(made.folder)
    made.create_model_card()
    assert "measured after" not in (made.folder / "README.md").read_text()


def test_results_of_another_precision_are_refused(run, tmp_path):
    made, results = run
    record = json.loads(results.read_text())
    record["model"]["precision"] = "bfloat16 autocast"
    (tmp_path / "results.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="computed in bfloat16 autocast, .* without `--mixed_precision`"):
        add_results(made.folder, tmp_path / "results.json")
