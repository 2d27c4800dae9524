"""The card of a network whose embeddings are compared."""

import re
from dataclasses import fields, replace

import pytest
import torch
from card_facts import changed, text
from huggingface_hub import ModelCard
from PIL import Image

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareImageProcessor
from headshare_hf.evaluation import verification_metrics, verify_similarities
from headshare_hf.hub import (
    CardDataset,
    CardFields,
    CardHead,
    CardIntervals,
    CardMethod,
    CardModel,
    CardPairs,
    CardResult,
    CardTeacher,
    CardTraining,
    CardVerification,
    is_pair_metric,
    render_card,
)
from headshare_hf.losses import LossWeights


THRESHOLD = {
    "far": 1e-3,
    "rule": "at_most",
    "similarity": 0.28765,
    "set": "lfw",
    "num_impostor": 3000,
    "flip": True,
}
CARD = CardFields(
    model=CardModel(
        name="mobilefacenet-faces-th-kd",
        repo_id="someone/net",
        backbone="mobilefacenet",
        embedding_size=512,
        num_parameters=49_896_192,
        num_labels=93_431,
        image_size=(112, 96),
        channel_order="rgb",
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        head=CardHead("arcface", 64.0, (0.5,)),
    ),
    method=CardMethod(
        "th_kd_coupled",
        "TH-KD as the paper writes it",
        LossWeights(ce=0.5, kd=0.75, teacher_head=0.75, teacher_head_ce=0.5),
        options={"kd_scale": 16.0},
    ),
    teacher=CardTeacher("iresnet100", "iresnet100", 112_000_000, False, {}),
    dataset=CardDataset("MS1MV3", "local/ms1mv3", "non-commercial research", {"train": 5_179_510}),
    results=(),
    training=CardTraining(40, 1024, 0.1, "sgd", "polynomial", "flip", 42, "float32", "8 x GPU", 3e5, {"torch": "2"}),
    license="cc-by-nc-4.0",
    verification=CardVerification(
        subject="faces",
        preparation="aligned by five points to 112 x 96 pixels",
        flip=True,
        num_embedding_parameters=2_059_520,
        embedding_bytes=8_310_000,
        total_bytes=199_650_000,
        sets=(
            CardPairs(
                "lfw",
                "local/lfw",
                3000,
                3000,
                10,
                {"accuracy": 0.9945, "auc": 0.999, "eer": 0.0061, "tar@far=1e-3/at_most": 0.9871},
                0.0011,
            ),
        ),
        thresholds=(THRESHOLD,),
    ),
)
ACCURACY = CardResult("accuracy", 0.8, "Omniglot", "local/omniglot", "test", 1000, 1)
CHARACTERS = replace(
    CARD,
    model=replace(CARD.model, backbone="resnet8", head=CardHead("cosine", 16.0), name="net"),
    teacher=replace(CARD.teacher, backbone="resnet20", name="teacher"),
    dataset=CardDataset("Omniglot", "local/omniglot", "MIT", {"train": 3000, "test": 1000}),
    license="apache-2.0",
    results=(ACCURACY,),
    verification=replace(
        CARD.verification, subject="characters", preparation="drawings as they are", flip=False, thresholds=()
    ),
)


def with_pairs(**fields_):
    return changed(CARD, "verification.sets", (replace(CARD.verification.sets[0], **fields_),))


def test_the_metadata_name_set_far_rule_pairs_and_mirroring(tmp_path):
    render_card(CARD).save(tmp_path / "README.md")
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.pipeline_tag, data.license) == ("image-feature-extraction", "cc-by-nc-4.0")
    assert {"face-verification", "image-feature-extraction", "th-kd-coupled"} <= set(data.tags)
    assert "image-classification" not in data.tags and data.datasets is None
    assert data.metrics == ["accuracy", "eer", "roc_auc", "tar"]
    found = {r.metric_name: (r.metric_type, r.metric_value) for r in data.eval_results}
    end = ", lfw, 6,000 pairs, with mirrored images"
    assert found == {
        "Accuracy over 10 folds" + end: ("accuracy", 0.9945),
        "Area under the ROC curve" + end: ("roc_auc", 0.999),
        "Equal error rate" + end: ("eer", 0.0061),
        "TAR at FAR 1e-3 (rule at_most)" + end: ("tar", 0.9871),
    }
    first = data.eval_results[0]
    assert (first.task_type, first.task_name) == ("image-feature-extraction", "Face Verification")
    assert (first.dataset_type, first.dataset_name) == ("lfw (not on the Hub)", "lfw")


ENDS = {"tar@far=1e-3/at_most": (0.9802, 0.9911), "eer": (0.0052, 0.0071)}
INTERVALS = CardIntervals(ENDS, 0.95, 1000, "pairs")


def test_intervals_stand_beside_their_values(tmp_path):
    card = with_pairs(intervals=INTERVALS)
    found = text(card)
    assert "| TAR at FAR 1e-3 (rule at_most) | lfw | 3,000 | 3,000 | 98.71 [98.02, 99.11] |" in found
    assert "| Equal error rate | lfw | 3,000 | 3,000 | 0.61 [0.52, 0.71] |" in found
    assert "| Area under the ROC curve | lfw | 3,000 | 3,000 | 99.90 |" in found
    assert (
        "In brackets: the ends of a bootstrap interval, of 95 per cent with 1,000 replicates over pairs (lfw)."
        in found
    )
    assert "In brackets" not in text(CARD)
    render_card(card).save(tmp_path / "README.md")
    stored = {r.metric_type: r.metric_args for r in ModelCard.load(tmp_path / "README.md").data.eval_results}
    bootstrap = {"level": 0.95, "replicates": 1000, "over": "pairs"}
    assert stored == {
        "accuracy": None,
        "roc_auc": None,
        "eer": {"interval": [0.0052, 0.0071], **bootstrap},
        "tar": {"interval": [0.9802, 0.9911], **bootstrap},
    }


def test_intervals_of_several_sets_name_theirs():
    (first,) = with_pairs(intervals=INTERVALS).verification.sets
    second = replace(first, name="agedb", intervals=replace(INTERVALS, num_samples=200, over="people"))
    found = text(changed(CARD, "verification.sets", (first, second)))
    assert "1,000 replicates over pairs (lfw), of 95 per cent with 200 replicates over people (agedb)." in found


def test_the_text_of_a_face_network_tells_every_fact():
    found = text(CARD)
    for fact in (
        "turns images of faces into embeddings, whose cosine says how alike two of them are. It learned from a teacher",
        "| embedding network | 2,059,520 parameters, 8.31 MB |",
        "| with class centers | 49,896,192 parameters, 199.65 MB |",
        "| identities trained on | 93,431 |",
        "| head | arcface, scale 64, margin 0.5 radians |",
        "| image size | 112 × 96 pixels, height × width |",
        "| images | aligned by five points to 112 x 96 pixels |",
        "| channels | RGB |",
        'verify = pipeline("face-verification", model="someone/net")',
        "| 0.001 | at_most | 0.2877 | lfw | 3,000 | added |",
        "Each holds for the pairs that it was measured on and for no others.",
        "| Accuracy over 10 folds | lfw | 3,000 | 3,000 | 99.45 ± 0.11 |",
        "| TAR at FAR 1e-3 (rule at_most) | lfw | 3,000 | 3,000 | 98.71 |",
        "standard error of the mean over the folds",
        "Each value comes from one training run. Its seed was 42; how much runs with other seeds would differ is not known.",
        "T = s / 16",
        "16 times the cosine",
        "The cross-entropy is taken with the margin of the head.",
        "Its own results are not part of this card.",
        "| license of the data | non-commercial research |",
        "These weights are for non-commercial research only.",
        "without their consent or another legal basis",
        "No claim is made that it is fit for any real-world purpose",
        "Differences between groups of people (age, gender, origin, skin) were not measured.",
        "A threshold holds for the pairs that it was measured on.",
    ):
        assert fact in found, fact
    assert "An image of anything else still gets one of them" not in found and "temperature" not in found


def test_characters_are_not_spoken_of_as_people():
    card = render_card(CHARACTERS)
    for word in ("face", "person", "people", "identit"):
        assert word not in card.content.lower(), word
    assert card.data.eval_results[0].task_name == "Character Verification"
    assert card.data.eval_results[-1].task_type == "image-classification"
    found = text(CHARACTERS)
    assert "| characters trained on | 93,431 |" in found and "| head | cosine, scale 16, no margin |" in found
    assert "| Top-1 accuracy | Omniglot | test | 1,000 | 80.00 | 1 |" in found
    assert "without its mirror image" in found and "pixels.flip" not in found
    assert "non-commercial" not in found and found.count("one training run") == 1


def test_a_non_commercial_license_of_the_weights_alone_is_told_too():
    assert "for non-commercial research only" in text(changed(CARD, "dataset.license", "research only"))
    free = changed(changed(CARD, "dataset.license", "research only"), "license", "apache-2.0")
    assert "non-commercial" not in text(free)


def test_a_linear_classifier_has_no_centers():
    found = text(changed(CARD, "model.head", None))
    assert "| with the classifier | 49,896,192" in found and "| head | linear |" in found
    assert "with the margin of the head" not in found


@pytest.mark.parametrize("card", [CARD, CHARACTERS, changed(CARD, "verification.thresholds", ())])
def test_tables_have_no_holes(card):
    content = render_card(card).text
    for row in content.splitlines():
        if row.startswith("|") and set(row) - set("| -"):
            assert all(cell.strip() for cell in row.strip("|").split("|")), row
    assert "None" not in content and "{{" not in content and "{%" not in content and "\n\n\n" not in content


@pytest.mark.parametrize("thresholds", [(), (THRESHOLD,)])
def test_the_code_of_the_card_runs(thresholds, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    config = HeadShareConfig(backbone="resnet8", num_labels=3, head_type="arcface")
    config.verification_thresholds = list(map(dict, thresholds)) or None
    HeadShareForImageClassification(config).eval().save_pretrained(tmp_path / "someone" / "net")
    HeadShareImageProcessor().save_pretrained(tmp_path / "someone" / "net")
    for name in "ab":
        Image.effect_noise((40, 30), 60).convert("RGB").save(tmp_path / f"image_{name}.png")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"```python\n(.*?)```", render_card(changed(CARD, "verification.thresholds", thresholds)).text, re.DOTALL
    )
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    cosine = float(printed.splitlines()[0])
    # Both ways of using it are the same computation.
    assert float(re.search(r"'similarity': ([-\d.]+)", printed)[1]) == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize(
    "path",
    [f"verification.{entry.name}" for entry in fields(CardVerification) if not entry.metadata.get("optional")]
    + ["model.head.type", "model.head.scale"],
)
def test_a_missing_field_is_named(path):
    with pytest.raises(ValueError, match=f"`{path}` is None; a model card needs it"):
        render_card(changed(CARD, path, None))


@pytest.mark.parametrize("name", [e.name for e in fields(CardPairs) if not e.metadata.get("optional")])
def test_a_missing_field_of_a_set_is_named(name):
    with pytest.raises(ValueError, match=rf"`verification.sets\[0\].{name}` is None; a model card needs it"):
        render_card(with_pairs(**{name: None}))


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("verification.preparation", "", "`verification.preparation` is ''; a model card needs it"),
        ("verification.sets", (), r"`verification.sets` is \(\); a model card needs it"),
        ("verification.subject", "cats", "`verification.subject` is 'cats'; allowed: faces, characters"),
        ("verification.num_embedding_parameters", 0, "`verification.num_embedding_parameters` is 0; it must be"),
        ("verification.total_bytes", 10, "`verification.total_bytes` 10; the first is positive, and a part of"),
        ("verification.thresholds", ({**THRESHOLD, "rule": "most"},), "one of at_most, nearest"),
        ("model.head.scale", 0.0, "`model.head.scale` is 0.0; it must be positive"),
        ("model.image_size", (112,), r"`model.image_size` is \(112,\); it must be \(height, width\)"),
        ("method.temperature", 4.0, "`method.temperature` has no effect beside the option `kd_scale`"),
        ("license", "apache-2.0", "`license` is 'apache-2.0', but the data are for non-commercial use"),
        ("verification", None, r"`results` is \(\); a model card needs it"),
        ("results", None, "`results` is None; a model card needs it"),
    ],
)
def test_what_is_wrong_is_named(path, value, message):
    with pytest.raises(ValueError, match=message):
        render_card(changed(CARD, path, value))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_impostor": 0}, r"`verification.sets\[0\].num_impostor` is 0; it must be positive"),
        ({"num_folds": 1}, r"`verification.sets\[0\].num_folds` is 1; there are at least two"),
        ({"id": "a b"}, r"`verification.sets\[0\].id` is 'a b', which is no Hub id"),
        ({"values": {"auc": 99.0}}, r"`verification.sets\[0\].values\['auc'\]` is 99.0; expected a fraction"),
        ({"values": {"tar@far=1e-3": 0.9}}, "unknown metric 'tar@far=1e-3' of pairs; a model card knows: accuracy"),
        (
            {"intervals": replace(INTERVALS, ends={"rank1": (0.1, 0.2)})},
            r"`verification.sets\[0\].intervals.ends` has 'rank1', which is none of `values`: accuracy, auc",
        ),
        (
            {"intervals": replace(INTERVALS, ends={"eer": (0.2, 0.1)})},
            r"`verification.sets\[0\].intervals.ends\['eer'\]` is \(0.2, 0.1\); expected two fractions in \[0, 1\], the",
        ),
        (
            {"intervals": replace(INTERVALS, ends={"eer": (0.2, 20.0)})},
            r"ends\['eer'\]` is \(0.2, 20.0\); expected two",
        ),
        (
            {"intervals": replace(INTERVALS, level=95)},
            r"`verification.sets\[0\].intervals.level` is 95; expected a fr",
        ),
        ({"intervals": replace(INTERVALS, num_samples=1)}, r"intervals.num_samples` is 1; there are at least two"),
        ({"intervals": replace(INTERVALS, over="")}, r"`verification.sets\[0\].intervals.over` is ''; a model card"),
        ({"accuracy_standard_error": 1.1}, r"`verification.sets\[0\].accuracy_standard_error` is 1.1; expected a"),
    ],
)
def test_what_is_wrong_in_a_set_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        render_card(with_pairs(**change))


def test_what_a_verifier_gives_has_a_name_on_the_hub():
    scores = torch.linspace(-0.5, 0.9, 400)
    result = verify_similarities(scores, torch.arange(400) % 2 == 0, far_targets=(1e-1,))
    names = {name.removeprefix("lfw_") for name in verification_metrics({"lfw": result})}
    assert {name for name in names if not is_pair_metric(name)} == {"accuracy_standard_error"}
    assert "tar@far=1e-1/at_most" in names


def test_the_distance_of_embeddings_as_they_are_is_told():
    method = CardMethod("embedding", "Distance", LossWeights(ce=1, embedding=2), options={"embedding_distance": "l2"})
    assert "embeddings of student and teacher, as they are" in text(replace(CARD, method=method))
    assert "scaled to length 1" in text(replace(CARD, method=replace(method, options={})))
