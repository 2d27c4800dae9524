"""The card of a recipe without a run."""

import runpy
from dataclasses import fields, replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from headshare_hf.hub import CardHead, CardMethod, PlannedFields, ReportedTable, render_planned_card
from headshare_hf.losses import LossWeights
from headshare_hf.trainer.recipe_arguments import parse_recipe


ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "model_cards" / "make_planned_cards.py"))
PLANNED = PlannedFields(
    name="small-net",
    subject="faces",
    network={"backbone": "mobilefacenet"},
    head=CardHead("arcface", 64.0, (0.5,)),
    method=CardMethod("kd", "Softened KL", LossWeights(ce=1, kd=2), temperature=4.0),
    stages=("One run.",),
    training={"epochs": "40"},
    settings_source="Ours.",
    data_license="non-commercial research",
    data_notes=("Of the web.",),
    license="cc-by-nc-4.0",
    commands=("accelerate launch train.py",),
    protocol=("Pairs.",),
    not_measured="the data were not available",
    reported=ReportedTable("a paper", ("method", "TAR"), (("KD", "12.34"),), ("A note.",)),
)


def test_the_card_in_the_repository_is_what_the_code_renders():
    stored = SCRIPT["TARGET"].read_text(encoding="utf-8")
    assert stored == render_planned_card(SCRIPT["describe"]()).content


def test_the_card_in_the_repository_claims_nothing_measured():
    card = ModelCard.load(SCRIPT["TARGET"])
    assert "model-index" not in card.data.to_dict() and card.data.eval_results is None
    assert (card.data.pipeline_tag, card.data.license) == ("image-feature-extraction", "cc-by-nc-4.0")
    for fact in (
        "Not measured: neither MS1MV3 nor IJB-C was available",
        "2,059,520 parameters",
        "93,431",
        "5,179,510 images",
        "(x − 127.5) / 127.5",
        "arcface, scale 64, margin 0.5 radians",
        "iresnet100, 65,156,160 parameters",
        "weight decay 0.0001",
        "Reported by arXiv 2201.06945, Table 4 of version 2 (TAR on IJB-C in per cent), not reproduced here",
        "| SH-KD | MobileFaceNet | 90.24 | 93.73 | 95.64 |",
        "withdrew MS-Celeb-1M",
        "non-commercial research",
        "without their consent or another legal basis",
        "`nearest`",
    ):
        assert fact in card.text, fact


def test_its_commands_name_files_and_folders_of_the_recipe():
    train, verify = SCRIPT["describe"]().commands
    config = train.split("--config ")[1]
    recipe = parse_recipe(["--config", str(ROOT / config), "--training.use_cpu", "true"])
    assert f"--model {recipe.training.output_dir}/3_student " in verify
    for command in (train, verify):
        assert (ROOT / command.split()[2]).is_file()


@pytest.mark.parametrize("name", [entry.name for entry in fields(PlannedFields)])
def test_a_missing_field_is_named(name):
    with pytest.raises(ValueError, match=f"`{name}` is None; a model card needs it"):
        render_planned_card(replace(PLANNED, **{name: None}))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"subject": "cats"}, "`verification.subject` is 'cats'; allowed: faces, characters"),
        ({"license": "apache-2.0"}, "`license` is 'apache-2.0', but the data are for non-commercial use"),
        ({"method": replace(PLANNED.method, temperature=None)}, "`method.temperature` is missing"),
        ({"commands": ()}, r"`commands` is \(\); a model card needs it"),
        (
            {"reported": replace(PLANNED.reported, rows=(("KD",),))},
            r"`reported.rows\[0\]` has 1 cells and `reported.columns` 2",
        ),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        render_planned_card(replace(PLANNED, **change))


def test_without_options_there_is_no_table_of_them():
    found = render_planned_card(PLANNED).text
    assert "| option |" not in found and "T = 4" in found and "| KD | 12.34 |" in found
    assert "\n\n\n" not in found and "{%" not in found
