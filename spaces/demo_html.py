"""Results as HTML. Names and labels come from models and files of strangers, and are escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import median

from demo_classify import Agreement, Prediction
from demo_images import Picture, data_uri
from demo_models import Classifier
from demo_verify import Comparison, describe_threshold


STYLE = """
.hs { color: var(--body-text-color); }
.hs .networks, .hs .networks tr { border: 0; }
.hs table { border-collapse: collapse; width: 100%; margin: 0 0 1rem; }
.hs .networks th, .hs .networks td { text-align: left; padding: .35rem .8rem .35rem 0; border: 0;
  border-bottom: 1px solid var(--border-color-primary); }
.hs .networks .number { text-align: right; }
.hs .number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.hs .card { display: flex; flex-wrap: wrap; gap: 1.2rem; padding: 1rem; margin: 0 0 1rem;
  border: 1px solid var(--border-color-primary); border-radius: .6rem; }
.hs figure { margin: 0; width: 160px; }
.hs figure img { max-width: 160px; border-radius: .3rem; border: 1px solid var(--border-color-primary); }
.hs figcaption, .hs .small { font-size: .85rem; opacity: .75; overflow-wrap: anywhere; }
.hs .guesses { flex: 1 1 15rem; min-width: 15rem; }
.hs .guess { position: relative; display: flex; justify-content: space-between; gap: .5rem; padding: .15rem .4rem;
  margin: .2rem 0; overflow: hidden; border-radius: .25rem; }
.hs .guess i { position: absolute; inset: 0 auto 0 0; background: var(--color-accent); opacity: .22; }
.hs .guess span { position: relative; overflow-wrap: anywhere; }
.hs .agreement { flex: 1 1 100%; }
.hs .alert { padding: .7rem 1rem; margin: 0 0 1rem; border-left: 4px solid #c0392b; background: rgba(192, 57, 43, .12);
  overflow-wrap: anywhere; }
.hs .verdict { font-size: 1.3rem; font-weight: 600; }
.hs .scale { flex: 1 1 18rem; min-width: 16rem; }
.hs .bar { position: relative; height: .8rem; margin: 1.2rem 0 .4rem; border-radius: .4rem;
  background: var(--border-color-primary); }
.hs .bar i { position: absolute; inset: 0 auto 0 0; border-radius: .4rem; background: var(--color-accent); }
.hs .bar b { position: absolute; top: -.3rem; bottom: -.3rem; width: 3px; background: var(--body-text-color); }
"""


@dataclass(frozen=True)
class Answer:
    """What was found for one image: the student's prediction, and where there is a teacher its one and the agreement."""

    picture: Picture
    student: Prediction
    teacher: Prediction | None
    agreement: Agreement | None


def page(*parts: str) -> str:
    return f'<div class="hs">{"".join(parts)}</div>'


def alert(message: str) -> str:
    """An error, where the results would be."""
    return f'<div class="alert" role="alert">{escape(message)}</div>'


def remark(text: str) -> str:
    return f'<p class="small remark">{escape(text)}</p>' if text else ""


def network_table(student: Classifier, teacher: Classifier | None, answers: Sequence[Answer]) -> str:
    """Names, parameters and milliseconds an image (the median, where there are several)."""
    rows = [_network_row("student", student, [answer.student for answer in answers])]
    if teacher is not None:
        rows.append(_network_row("teacher", teacher, [answer.teacher for answer in answers if answer.teacher]))
    numbers = "".join(f'<th class="number">{name}</th>' for name in ("parameters", "ms an image"))
    head = f"<tr><th></th><th>model</th><th>network</th>{numbers}</tr>"
    return f'<table class="networks">{head}{"".join(rows)}</table>'


def _network_row(role: str, classifier: Classifier, predictions: Sequence[Prediction]) -> str:
    time = f"{median(prediction.milliseconds for prediction in predictions):.1f}" if predictions else "–"
    numbers = "".join(f'<td class="number">{value}</td>' for value in (f"{classifier.num_parameters:,}", time))
    names = "".join(f"<td>{escape(name)}</td>" for name in (classifier.name, classifier.architecture))
    return f'<tr class="{role}"><th>{role}</th>{names}{numbers}</tr>'


def answer_card(answer: Answer) -> str:
    """An image with the likeliest classes of student and teacher side by side."""
    columns = [_guesses("student", answer.student)]
    if answer.teacher is not None:
        columns.append(_guesses("teacher", answer.teacher))
    agreement = _agreement(answer.agreement) if answer.agreement else ""
    return f'<div class="card answer">{_figure(answer.picture)}{"".join(columns)}{agreement}</div>'


def _figure(picture: Picture) -> str:
    name = escape(picture.name)
    source = data_uri(picture.image)
    return f'<figure><img src="{source}" alt="{name}"><figcaption>{name}, {escape(picture.note)}</figcaption></figure>'


def _guesses(role: str, prediction: Prediction) -> str:
    rows = "".join(
        f'<div class="guess"><i style="width: {100 * guess.probability:.1f}%"></i>'
        f'<span>{escape(guess.label)}</span><span class="number">{guess.probability:.1%}</span></div>'
        for guess in prediction.top
    )
    return f'<div class="guesses {role}"><strong>{role}</strong>, {prediction.milliseconds:.1f} ms{rows}</div>'


def _agreement(agreement: Agreement) -> str:
    first = "The same first class" if agreement.same_top1 else "Different first classes"
    shared = f"{agreement.overlap} of the {agreement.of} likeliest in common"
    return f'<div class="agreement">{first}, {shared}, KL(teacher ‖ student) {agreement.kl:.3f} nats.</div>'


def comparison_card(first: Picture, second: Picture, comparison: Comparison) -> str:
    """Two images, their similarity on a scale from 0 to 1, the threshold, and the decision."""
    entry, similarity = comparison.entry, comparison.similarity
    verdict = {True: "Accepted as the same", False: "Not accepted as the same", None: "Not decided"}
    mark = "" if entry is None else f'<b style="left: {_per_cent(entry["similarity"])}"></b>'
    mirrored = "with" if comparison.flip else "without"
    basis = (
        "The model has no stored threshold, so that nothing is decided. Some are measured on a set of pairs with "
        "examples/run_verification.py --store-thresholds."
        if entry is None
        else f"Decided at {describe_threshold(entry)}."
    )
    scale = (
        f'<div class="scale"><div class="verdict">{verdict[comparison.is_same]}</div>'
        f'<div class="similarity">similarity {similarity:.4f}</div>'
        f'<div class="bar"><i style="width: {_per_cent(similarity)}"></i>{mark}</div>'
        f"{remark(basis)}{remark(f'Embeddings {mirrored} those of the mirrored images.')}</div>"
    )
    return f'<div class="card comparison">{_figure(first)}{_figure(second)}{scale}</div>'


def verifier_line(name: str, network: str, num_parameters: int) -> str:
    return remark(f"{name}: {network}, {num_parameters:,} parameters without class centers.")


def _per_cent(similarity: float) -> str:
    """A place on the scale from 0 to 1; cosines below 0 are at its left end."""
    return f"{100 * max(0.0, min(1.0, similarity)):.1f}%"
