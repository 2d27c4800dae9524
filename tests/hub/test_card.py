"""The model card: what the Hub reads, and what people read."""

import math
import re
from dataclasses import fields, replace

import jinja2
import pytest
from card_facts import CARD, PLAIN, REQUIRED, RESULT, changed, text
from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from PIL import Image

from headshare_hf import HeadShareConfig, HeadShareForImageClassification, HeadShareImageProcessor
from headshare_hf.hub import METRICS, CardMethod, render_card
from headshare_hf.hub import card as card_module
from headshare_hf.losses import LossWeights


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


def test_data_that_are_not_on_the_hub_get_no_type_that_it_could_link():
    data = replace(CARD.dataset, id="local/cifar100")
    card = render_card(replace(CARD, dataset=data, results=(replace(RESULT, dataset_id=data.id),)))
    (result,) = card.data.eval_results
    assert (result.dataset_type, result.dataset_name) == ("cifar100 (not on the Hub)", "CIFAR-100")
    with pytest.raises(HFValidationError):
        validate_repo_id(result.dataset_type)
    assert card.data.datasets is None and "CIFAR-100 (`cifar100`, not on the Hub)" in card.text


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
    options = {"companion": "dkd"} if part == "companion" else {}
    method = CardMethod("mine", "Test", LossWeights(**{part: 0.25}), temperature=2.0, options=options)
    found = text(
        replace(CARD, method=method, teacher=CARD.teacher if LossWeights(**{part: 1}).needs_teacher else None)
    )
    assert f"L = 0.25 {card_module.TERMS[part]}" in found
    symbols = set(re.findall(r"\b(y|[efpz]_\w+)", card_module.TERMS[part]))
    explained = set(re.findall(r"`(\w+)`", found.split("where ")[1].split(". ")[0]))
    assert explained == symbols
    assert ("T = 2" in found) == ("T²" in card_module.TERMS[part]) == ("temperature" in found)


def test_a_companion_is_explained_and_has_to_be_named():
    weights = LossWeights(ce=1, companion=2)
    found = text(replace(CARD, method=CardMethod("dkd", "Test", weights, options={"companion": "dkd"})))
    assert "L = 1 CE(p_s, y) + 2 D(f_s, f_t)" in found
    assert "what dkd reads of student and teacher (KL, decoupled into the label's class and the others)" in found
    assert "Before that" not in found
    with pytest.raises(ValueError, match=r"companion loss of weight 2; name it in `method.options\['companion'\]`"):
        text(replace(CARD, method=CardMethod("dkd", "Test", weights)))
    with pytest.raises(ValueError, match="unknown companion 'dkk'; did you mean dkd"):
        text(replace(CARD, method=CardMethod("dkd", "Test", weights, options={"companion": "dkk"})))


@pytest.mark.parametrize(
    "name, options, stage",
    [
        ("abound", {}, "the student's backbone was trained for 30 epochs with the own loss of `abound` alone"),
        ("factor", {"pretraining_epochs": 5.0}, "what reads the teacher's maps was trained for 5 epochs"),
    ],
)
def test_a_stage_before_the_training_is_told(name, options, stage):
    method = CardMethod(name, "Test", LossWeights(ce=1), options={"companion": name, **options})
    assert f"Before that, {stage}" in text(replace(CARD, method=method))


def test_the_teacher_of_sh_kd_is_told_and_unknown_metrics_are_admitted():
    teacher = replace(CARD.teacher, around_student_head=True, metrics={})
    found = text(replace(CARD, teacher=teacher))
    assert "It was trained around the frozen classifier of a temporary student." in found
    assert "Its metrics on the test images are not known." in found


def test_several_seeds_have_a_standard_error_and_one_says_that_it_is_one():
    assert "Each value comes from one training run. Its seed was 17; how much runs with other seeds" in text(CARD)
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
