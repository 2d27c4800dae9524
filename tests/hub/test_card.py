"""The model card: what the Hub reads, what people read, and that nothing is missing."""

import math
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import jinja2
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareImageProcessor
from headshare_hf.hub import (
    METRICS,
    CardDataset,
    CardFields,
    CardMethod,
    CardModel,
    CardResult,
    CardTeacher,
    CardTraining,
    render_card,
)
from headshare_hf.hub import (
    card as card_module,
)
from headshare_hf.losses import LossWeights
from headshare_hf.trainer import METHODS


RESULT = CardResult("accuracy", 0.7392, "CIFAR-100", "uoft-cs/cifar100", "test", 10_000, 1)
CARD = CardFields(
    model=CardModel(
        name="resnet8x4 on CIFAR-100, TH-KD",
        repo_id="someone/resnet8x4-cifar100-th-kd",
        backbone="resnet8x4",
        embedding_size=256,
        num_parameters=1_233_540,
        num_labels=100,
        image_size=(32, 32),
        channel_order="rgb",
        image_mean=(0.5071, 0.4867, 0.4408),
        image_std=(0.2675, 0.2565, 0.2761),
    ),
    method=CardMethod(
        name="th_kd",
        summary="KL through the student's head, and through the teacher's frozen head",
        weights=LossWeights(ce=1, kd=1.5, teacher_head=0.02),
        temperature=4.0,
        options={"student_head": "teacher_init"},
    ),
    teacher=CardTeacher("someone/resnet32x4-cifar100", "resnet32x4", 7_433_860, False, {"accuracy": 0.7942}),
    dataset=CardDataset("CIFAR-100", "uoft-cs/cifar100", "not stated", {"train": 50_000, "test": 10_000}),
    results=(RESULT, replace(RESULT, metric="top5_accuracy", value=0.9312)),
    training=CardTraining(
        epochs=240,
        batch_size=64,
        learning_rate=0.05,
        optimizer="SGD, momentum 0.9, weight decay 5e-4",
        schedule="divided by 10 after epochs 150, 180 and 210",
        augmentation="crop with 4 pixels of padding, horizontal flip",
        seed=17,
        precision="float32",
        hardware="2 CPU cores",
        wall_seconds=7260.0,
        versions={"torch": "2.15.0", "transformers": "5.23.0"},
    ),
    license="apache-2.0",
    tags=("cifar-100",),
)
PLAIN = replace(CARD, method=CardMethod("plain", "Labels alone", LossWeights(ce=1)), teacher=None)


def changed(card, path, value):
    """`card` with the field at a dotted path replaced."""
    name, _, rest = path.partition(".")
    return replace(card, **{name: changed(getattr(card, name), rest, value) if rest else value})


def text(card):
    """The text of a card in one line, so that breaks do not matter."""
    return re.sub(r"\s+", " ", render_card(card).text)


def paths(value, prefix=""):
    """Every field of a card as (dotted path, whether it may be empty)."""
    for entry in fields(value):
        path = f"{prefix}{entry.name}"
        yield path, bool(entry.metadata.get("optional"))
        inner = getattr(value, entry.name)
        if is_dataclass(inner) and not isinstance(inner, LossWeights):
            yield from paths(inner, f"{path}.")


REQUIRED = [path for path, optional in paths(CARD) if not optional]


def test_metadata_is_read_back_from_the_saved_file(tmp_path):
    render_card(CARD).save(tmp_path / "README.md")
    card = ModelCard.load(tmp_path / "README.md")
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "transformers",
        "image-classification",
        "apache-2.0",
    )
    assert (data.model_name, data.datasets, data.metrics) == (CARD.model.name, ["uoft-cs/cifar100"], ["accuracy"])
    assert {"knowledge-distillation", "arxiv:2201.06945", "th-kd", "cifar-100"} <= set(data.tags)
    assert "language" not in data.to_dict() and "base_model" not in data.to_dict()
    found = [(r.metric_type, r.metric_name, r.metric_value, r.dataset_split) for r in data.eval_results]
    assert found == [("accuracy", "Top-1 accuracy", 0.7392, "test"), ("accuracy", "Top-5 accuracy", 0.9312, "test")]
    first = data.eval_results[0]
    assert (first.task_type, first.task_name) == ("image-classification", "Image Classification")
    assert (first.dataset_type, first.dataset_name) == ("uoft-cs/cifar100", "CIFAR-100")
    card.save(tmp_path / "again.md")
    assert (tmp_path / "again.md").read_text() == (tmp_path / "README.md").read_text()


def test_the_text_tells_every_fact():
    found = text(CARD)
    for fact in (
        "learned from a teacher network",
        "1,233,540",
        "| channels | RGB |",
        "0.5071, 0.4867, 0.4408",
        "0.2675, 0.2565, 0.2761",
        "32 × 32 pixels",
        "| Top-1 accuracy | CIFAR-100 | test | 10,000 | 73.92 | 1 |",
        "| Top-5 accuracy | CIFAR-100 | test | 10,000 | 93.12 | 1 |",
        "L = 1 CE(p_s, y) + 1.5 T² KL(p_t || p_s) + 0.02 T² KL(p_t || p_th), T = 4 ",
        "someone/resnet32x4-cifar100 (backbone resnet32x4, 7,433,860 parameters)",
        "On the test images it has top-1 accuracy 79.42 per cent.",
        "| `student_head` | teacher_init |",
        "train 50,000, test 10,000",
        "| license of the data | not stated |",
        "| learning rate | 0.05 |",
        "| time | 2 h 1 min |",
        "| versions | torch 2.15.0, transformers 5.23.0 |",
        "Ben-Baruch, Emanuel and Karklinsky, Matan and Biton, Yossi and Ben-Cohen, Avi and Lawen, Hussam and Zamir, Nadav",
    ):
        assert fact in found, fact
    for path in REQUIRED:
        value = CARD
        for name in path.split("."):
            value = getattr(value, name)
        if isinstance(value, str) and path != "model.channel_order":
            assert value in found, path


@pytest.mark.parametrize("card", [CARD, PLAIN])
def test_tables_have_no_holes(card):
    content = render_card(card).text
    rows = [line for line in content.splitlines() if line.startswith("|") and set(line) - set("| -")]
    assert len(rows) > 25
    for row in rows:
        assert all(cell.strip() for cell in row.strip("|").split("|")), row
    assert "None" not in content and "{{" not in content and "{%" not in content
    assert "\n\n\n" not in content


def test_a_plain_net_has_no_teacher():
    found = text(PLAIN)
    assert "learned from labels alone" in found and "The teacher is" not in found
    assert "L = 1 CE(p_s, y) ```" in found and "temperature" not in found
    assert "knowledge-distillation" not in render_card(PLAIN).data.tags


@pytest.mark.parametrize("part", [entry.name for entry in fields(LossWeights)])
def test_every_loss_part_has_a_term_and_its_symbols(part):
    method = CardMethod("mine", "Test", LossWeights(**{part: 0.25}), temperature=2.0)
    found = text(
        replace(CARD, method=method, teacher=CARD.teacher if LossWeights(**{part: 1}).needs_teacher else None)
    )
    assert f"L = 0.25 {card_module.TERMS[part]}" in found
    symbols = set(re.findall(r"\b(y|[pz]_\w+)", card_module.TERMS[part]))
    explained = set(re.findall(r"`(\w+)`", found.split("where ")[1].split(". ")[0]))
    assert explained == symbols
    assert ("T = 2" in found) == ("T²" in card_module.TERMS[part]) == ("temperature" in found)


def test_the_teacher_of_sh_kd_is_told_and_unknown_metrics_are_admitted():
    teacher = replace(CARD.teacher, around_student_head=True, metrics={})
    found = text(replace(CARD, teacher=teacher))
    assert "It was trained around the frozen classifier of a temporary student." in found
    assert "Its metrics on the test images are not known." in found


def test_several_seeds_have_a_standard_error_and_one_says_that_it_is_one():
    assert "Each value comes from one training run." in text(CARD)
    found = text(replace(CARD, results=(replace(RESULT, num_seeds=3, standard_error=0.0012),)))
    assert "| 73.92 ± 0.12 | 3 |" in found and "are those of seed 17" in found
    assert "one training run" not in found


def test_the_error_of_the_choice_of_images_is_that_of_a_share():
    error = 100 * math.sqrt(0.7392 * 0.2608 / 10_000)
    assert f"10,000 images alone gives the top-1 accuracy a standard error of {error:.2f} points" in text(CARD)


def test_gray_images_have_no_channel_order():
    model = replace(CARD.model, image_mean=(0.5,), image_std=(0.25,))
    found = text(replace(CARD, model=model))
    assert "| channels | one, gray |" in found and "RGB" not in found


@pytest.mark.parametrize(
    "seconds, shown", [(12.34, "12.3 s"), (150, "2 min"), (3599, "1 h 0 min"), (90_000, "25 h 0 min")]
)
def test_durations(seconds, shown):
    assert f"| time | {shown} |" in text(changed(CARD, "training.wall_seconds", seconds))


def test_base_model_and_other_license():
    card = replace(
        CARD, base_model="timm/resnet18.a1_in1k", license="other", license_name="research", license_link="LICENSE.md"
    )
    data = render_card(card).data
    assert (data.base_model, data.license, data.license_name) == ("timm/resnet18.a1_in1k", "other", "research")
    assert data.license_link == "LICENSE.md"
    assert "started from the weights of timm/resnet18.a1_in1k" in text(card)
    assert "| license of the weights | research |" in text(card)


def test_the_code_of_the_card_runs(tmp_path, monkeypatch, capsys):
    config = HeadShareConfig(backbone="resnet8", num_labels=3, id2label={0: "cat", 1: "dog", 2: "owl"})
    model = HeadShareForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "someone" / "net")
    HeadShareImageProcessor().save_pretrained(tmp_path / "someone" / "net")
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    content = render_card(changed(CARD, "model.repo_id", "someone/net")).text
    blocks = re.findall(r"```python\n(.*?)```", content, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"\[\{'label': '(cat|dog|owl)'", printed)
    assert re.search(r"^(cat|dog|owl)\ntorch.Size\(\[1, 64\]\)$", printed, re.MULTILINE)


@pytest.mark.parametrize("path", REQUIRED)
def test_a_missing_field_is_named(path):
    with pytest.raises(ValueError, match=f"`{path}` is None; a model card needs it"):
        render_card(changed(CARD, path, None))


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("model.backbone", "", "`model.backbone` is ''; a model card needs it"),
        ("model.backbone", "  ", "`model.backbone` is '  '; a model card needs it"),
        ("model.backbone", "a\nb", "must be one line without"),
        ("dataset.license", "a | b", "`dataset.license` is 'a | b'; it must be one line without".replace("|", r"\|")),
        ("dataset.splits", {}, "`dataset.splits` is {}; a model card needs it"),
        ("training.versions", {"torch": ""}, r"`training.versions\['torch'\]` is ''; a model card needs it"),
        ("model.image_mean", (0.5, None, 0.5), r"`model.image_mean\[1\]` is None"),
        ("model.image_mean", (0.5,), "`model.image_mean` has 1 channels and `model.image_std` 3"),
        ("model.image_std", (0.5, float("nan"), 0.5), r"`model.image_std\[1\]` is nan; .* finite"),
        ("model.channel_order", "grb", "`model.channel_order` is 'grb'; allowed: 'rgb', 'bgr'"),
        ("model.num_labels", 0, "`model.num_labels` is 0; it must be positive"),
        ("model.repo_id", "some one/net", "`model.repo_id` is 'some one/net', which is no Hub id"),
        ("dataset.id", "CIFAR 100", "`dataset.id` is 'CIFAR 100', which is no Hub id"),
        ("base_model", "a/b/c", "`base_model` is 'a/b/c', which is no Hub id"),
        ("training.wall_seconds", 0, "`training.wall_seconds` is 0; it must be positive"),
        ("license", "Apache 2.0", "`license` is 'Apache 2.0'; expected an identifier of the Hub"),
        ("license", "other", "`license_name` is missing for license 'other'"),
        ("license_link", "LICENSE", "`license_link` has no place beside license 'apache-2.0'"),
        ("results", (), r"`results` is \(\); a model card needs it"),
        ("teacher", None, "`teacher` is missing, but method 'th_kd' learns from one"),
        ("teacher.metrics", {"accuracy": 79.4}, r"`teacher.metrics\['accuracy'\]` is 79.4; expected a fraction"),
        ("teacher.metrics", {"accuracies": 0.8}, "unknown metric 'accuracies'; did you mean accuracy"),
        ("method.temperature", None, "`method.temperature` is missing, but the objective has a softened KL"),
    ],
)
def test_what_is_wrong_is_named(path, value, message):
    with pytest.raises(ValueError, match=message):
        render_card(changed(CARD, path, value))


@pytest.mark.parametrize(
    "result, message",
    [
        ({"value": None}, r"`results\[0\].value` is None; a model card needs it"),
        ({"dataset_name": ""}, r"`results\[0\].dataset_name` is ''"),
        ({"dataset_id": "a b"}, r"`results\[0\].dataset_id` is 'a b', which is no Hub id"),
        ({"value": 73.9}, r"`results\[0\].value` is 73.9; expected a fraction in \[0, 1\], not per cent"),
        ({"num_images": 0}, r"`results\[0\].num_images` is 0; it must be positive"),
        ({"num_seeds": 3}, r"`results\[0\].standard_error` is missing, but the value is a mean over 3 seeds"),
        ({"standard_error": 0.1}, r"`results\[0\].standard_error` is 0.1, but one seed has none"),
        (
            {"metric": "eval_accuracy"},
            "unknown metric 'eval_accuracy'; did you mean .*accuracy.* A model card knows: ",
        ),
        ({"metric": "zzz"}, "unknown metric 'zzz'; A model card knows: accuracy, top5_accuracy"),
        ({"task": "image-clasification"}, "unknown task 'image-clasification'; did you mean image-classification"),
    ],
)
def test_a_wrong_result_is_named(result, message):
    with pytest.raises(ValueError, match=message):
        render_card(replace(CARD, results=(replace(RESULT, **result),)))


def test_a_teacher_that_nothing_uses_is_refused():
    with pytest.raises(ValueError, match="`teacher` is given, but nothing of method 'plain' uses it"):
        render_card(replace(PLAIN, teacher=CARD.teacher))
    head_only = replace(PLAIN.method, options={"student_head": "teacher_frozen"})
    assert "The teacher is someone" in text(replace(PLAIN, teacher=CARD.teacher, method=head_only))
    with pytest.raises(ValueError, match="`teacher` is missing"):
        render_card(replace(PLAIN, method=head_only))


@pytest.mark.parametrize("template", ["{{ card.model.colour }}", "{{ nothing }}", "{{ card.nothing.more }}"])
def test_a_template_that_asks_for_what_is_not_there_fails(template, tmp_path, monkeypatch):
    (tmp_path / "template.md").write_text(template)
    monkeypatch.setattr(card_module, "TEMPLATE", tmp_path / "template.md")
    with pytest.raises(jinja2.UndefinedError, match="colour|nothing"):
        render_card(CARD)


def test_what_evaluation_gives_has_a_name_on_the_hub():
    from headshare_hf.evaluation import ClassificationCounts

    counts = ClassificationCounts(10)
    counts.update([[1.0] + [0.0] * 9], [0])
    assert set(counts.compute()) == set(METRICS)
    assert len({metric.name for metric in METRICS.values()}) == len(METRICS)


def test_the_card_in_the_repository_is_what_these_facts_render():
    """Written by a run; kept in step with the template by its facts."""
    name = "resnet8-omniglot-8alphabets-sh-kd"
    result = CardResult("accuracy", 0.884298, "Omniglot, 8 alphabets", "local/omniglot-8alphabets", "test", 1210, 1)
    teacher = {"accuracy": 0.9017, "top5_accuracy": 0.9909, "mean_per_class_accuracy": 0.9017}
    versions = {"torch": "2.15.0+cu132", "transformers": "5.23.0", "accelerate": "1.15.0", "timm": "1.0.31"}
    card = CardFields(
        model=CardModel(
            name, f"your-name/{name}", "resnet8", 64, 93_122, 242, (32, 32), "rgb", (0.9196,) * 3, (0.2252,) * 3
        ),
        method=CardMethod("sh_kd", METHODS["sh_kd"].summary, LossWeights(ce=1, kd=1), 4.0),
        teacher=CardTeacher("2_teacher", "resnet20", 287_554, True, teacher),
        dataset=CardDataset(result.dataset_name, result.dataset_id, "MIT", {"train": 3630, "test": 1210}),
        results=(
            result,
            replace(result, metric="top5_accuracy", value=0.98843),
            replace(result, metric="mean_per_class_accuracy"),
        ),
        training=CardTraining(
            epochs=12,
            batch_size=32,
            learning_rate=0.1,
            optimizer="sgd, momentum=0.9, weight decay 0.0005",
            schedule="cosine",
            augmentation="crop_white",
            seed=42,
            precision="float32",
            hardware="2 cores of a CPU, 1 process(es)",
            wall_seconds=43.9,
            versions=versions,
        ),
        license="apache-2.0",
    )
    stored = Path(__file__).parents[2] / "model_cards" / f"{name}.md"
    assert render_card(card).content == stored.read_text(encoding="utf-8")
