"""The card of a recipe that nobody has run yet: what it would train, on what, and what others reported of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from .card import TEACHER_TAGS, describe_objective, fill_template
from .card_checks import check_commerce, check_present, check_softening
from .card_fields import CardHead, CardMethod
from .card_verification import SUBJECTS, TASK, check_subject, head_text


TEMPLATE = Path(__file__).with_name("planned_card_template.md")


@dataclass(frozen=True)
class ReportedTable:
    """
    Numbers of somebody else.

    Attributes:
        source (`str`): Where they are printed.
        columns (`tuple[str, ...]`): Titles, that of the row names included.
        rows (`tuple[tuple[str, ...], ...]`): As many cells each.
        notes (`tuple[str, ...]`): What has to be known to read them, one sentence each.
    """

    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PlannedFields:
    """
    All that the card of a recipe says. See [`render_planned_card`].

    Attributes:
        name (`str`): Title.
        subject (`str`): What is on the images, one of [`SUBJECTS`].
        network (`Mapping[str, str]`): Rows of the table of the network, by their titles.
        head ([`CardHead`]): The classifier that it is trained with.
        method ([`CardMethod`]): The objective.
        stages (`tuple[str, ...]`): The runs, in order, each in words.
        training (`Mapping[str, str]`): Rows of the table of settings.
        settings_source (`str`): Where the settings come from, and what is not known of them; sentences.
        data_license (`str`): License of the training images, in words.
        data_notes (`tuple[str, ...]`): What else has to be known of the data, one sentence each.
        license (`str`): License of weights that the recipe makes, as the Hub spells it.
        commands (`tuple[str, ...]`): What to run, in order.
        protocol (`tuple[str, ...]`): How it is to be measured, one sentence each.
        not_measured (`str`): Why there is no result, after "not measured:".
        reported ([`ReportedTable`]): What others reported.
    """

    name: str
    subject: str
    network: Mapping[str, str]
    head: CardHead
    method: CardMethod
    stages: tuple[str, ...]
    training: Mapping[str, str]
    settings_source: str
    data_license: str
    data_notes: tuple[str, ...]
    license: str
    commands: tuple[str, ...]
    protocol: tuple[str, ...]
    not_measured: str
    reported: ReportedTable


def render_planned_card(card: PlannedFields) -> ModelCard:
    """
    The card of a recipe without a run: no weights, and no result in the metadata.

    Args:
        card ([`PlannedFields`]): All facts.

    Raises:
        ValueError: A field is missing or empty, a row of the table has another length, the subject is unknown, the
            softening of a KL part is missing, or the license of the weights contradicts that of the data.
    """
    check_present(card)
    check_subject(card.subject)
    check_softening(card.method)
    check_commerce(card.license, card.data_license)
    for index, row in enumerate(card.reported.rows):
        if len(row) != len(card.reported.columns):
            raise ValueError(
                f"`reported.rows[{index}]` has {len(row)} cells and `reported.columns` {len(card.reported.columns)}"
            )
    return fill_template(
        TEMPLATE,
        _metadata(card),
        card=card,
        head=head_text(card.head),
        subject_name=card.subject,
        **describe_objective(card.method, card.head),
    )


def _metadata(card: PlannedFields) -> ModelCardData:
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=TASK,
        license=card.license,
        tags=[TASK, "headshare_hf", *TEACHER_TAGS, card.method.name.replace("_", "-"), *SUBJECTS[card.subject].tags],
    )
