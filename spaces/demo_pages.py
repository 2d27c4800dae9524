"""From what a visitor entered to the HTML that is shown; no user interface."""

from collections.abc import Sequence
from dataclasses import dataclass

from demo_classify import Prediction, agree, choose_teacher, predict, why_not_comparable
from demo_errors import DemoError, images_in_words
from demo_html import (
    Answer,
    alert,
    answer_card,
    comparison_card,
    network_table,
    page,
    remark,
    verifier_line,
)
from demo_images import Picture, open_picture
from demo_models import Classifier, architecture, load_classifier, load_verifier, num_parameters, resolve
from demo_verify import compare, threshold_choices


MAX_IMAGES = 16


@dataclass(frozen=True)
class Settings:
    """
    What the demo was started with.

    Attributes:
        models (`tuple[str, ...]`): Students to choose from; Hub ids or folders. The first one is preset.
        teacher (`str`): Of all of them; empty leaves it to the training record of each.
        verification_models (`tuple[str, ...]`): To choose from in the other tab.
    """

    models: tuple[str, ...] = ()
    teacher: str = ""
    verification_models: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All of them. Of folders, only these may be opened."""
        return frozenset({*self.models, self.teacher, *self.verification_models} - {""})


def classify_page(settings: Settings, student: str | None, teacher: str | None, files: Sequence[str] | None) -> str:
    """
    Student and teacher side by side.

    Args:
        settings ([`Settings`]): Names the folders that may be opened.
        student, teacher (`str`, *optional*): As they were typed.
        files (`Sequence[str]`, *optional*): Paths of the images.
    """
    try:
        if not files:
            raise DemoError("No image is chosen. Add one or several files.")
        if len(files) > MAX_IMAGES:
            raise DemoError(f"These are {len(files)} images; at most {MAX_IMAGES} are classified at once.")
        name = resolve(student, settings.names)
        ours = load_classifier(name)
        theirs, note = choose_teacher(name, teacher, settings.names)
    except DemoError as error:
        return page(alert(str(error)))
    obstacle = why_not_comparable(ours, theirs) if theirs else None
    found: list[Answer] = []
    cards = [_answer(path, ours, theirs, obstacle is None, found) for path in files]
    return page(network_table(ours, theirs, found), remark(note), remark(obstacle or ""), *cards)


def _answer(path: str, ours: Classifier, theirs: Classifier | None, comparable: bool, found: list[Answer]) -> str:
    """The card of one image, or the reason why there is none: the other images are not to suffer from a bad file."""
    try:
        picture = open_picture(path)
        student = _predict(ours, picture)
        teacher = _predict(theirs, picture) if theirs else None
    except DemoError as error:
        return alert(str(error))
    agreement = agree(student, teacher) if teacher and comparable else None
    found.append(Answer(picture, student, teacher, agreement))
    return answer_card(found[-1])


def _predict(classifier: Classifier, picture: Picture) -> Prediction:
    with images_in_words(picture.name, f"classified by {classifier.name}"):
        return predict(classifier, picture.image)


def list_thresholds(settings: Settings, model: str | None) -> tuple[list[tuple[str, float]], str]:
    """
    The choices of FAR that a model has, and what is to be said about them as HTML, which may be nothing.

    Args:
        settings ([`Settings`]): Names the folders that may be opened.
        model (`str`, *optional*): As it was typed.
    """
    try:
        choices = threshold_choices(load_verifier(resolve(model, settings.names)))
    except DemoError as error:
        return [], page(alert(str(error)))
    missing = "The model has no stored threshold: its similarity is shown, and nothing is decided."
    return choices, "" if choices else page(remark(missing))


def verify_page(
    settings: Settings, model: str | None, first: str | None, second: str | None, far: float | None
) -> str:
    """
    Similarity and decision for two images.

    Args:
        settings ([`Settings`]): Names the folders that may be opened.
        model (`str`, *optional*): As it was typed.
        first, second (`str`, *optional*): Paths of the images.
        far (`float`, *optional*): The chosen one.
    """
    try:
        pictures = _two(first, second)
        verifier = load_verifier(resolve(model, settings.names))
        with images_in_words(f"{pictures[0].name} and {pictures[1].name}", "compared"):
            comparison = compare(verifier, *pictures, far)
    except DemoError as error:
        return page(alert(str(error)))
    network = verifier.model
    line = verifier_line((model or "").strip(), architecture(network), num_parameters(network))
    return page(line, comparison_card(*pictures, comparison))


def _two(first: str | None, second: str | None) -> tuple[Picture, Picture]:
    if not first or not second:
        raise DemoError("Verification compares two images; add both.")
    return open_picture(first), open_picture(second)
