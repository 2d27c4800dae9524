"""Predictions of student and teacher, and how far they agree."""

import json
import math
import shutil

import pytest
import torch
from demo_classify import Guess, Prediction, agree, choose_teacher, predict, why_not_comparable
from demo_errors import DemoError
from demo_images import open_picture
from demo_models import Classifier, load_classifier
from toys import resnet, vit

from headshare_hf import HeadShareForImageClassification, HeadShareImageProcessor


def _prediction(probabilities, length=5):
    scores = torch.tensor(probabilities, dtype=torch.double)
    values, indices = scores.topk(min(length, len(scores)))
    top = tuple(
        Guess(index, str(index), value) for index, value in zip(indices.tolist(), values.tolist(), strict=True)
    )
    return Prediction(top, scores.log(), 1.0)


def test_a_prediction_is_the_models_softmax(folders, pictures):
    image = open_picture(pictures / "gray.png").image
    found = predict(load_classifier(str(folders / "teacher")), image)
    model = HeadShareForImageClassification.from_pretrained(folders / "teacher").eval()
    pixels = HeadShareImageProcessor.from_pretrained(folders / "teacher")(image, return_tensors="pt")
    with torch.no_grad():
        expected = model(**pixels).logits[0].double().softmax(dim=0)
    best = expected.argsort(descending=True)[:5]
    assert [guess.number for guess in found.top] == best.tolist()
    assert [guess.probability for guess in found.top] == pytest.approx(expected[best].tolist())
    assert [guess.label for guess in found.top] == [model.config.id2label[index] for index in best.tolist()]
    assert found.milliseconds > 0


def test_a_network_with_few_classes_has_a_short_list(pictures):
    few = Classifier("few", resnet(num_labels=2).eval(), HeadShareImageProcessor())
    assert len(predict(few, open_picture(pictures / "noise.png").image).top) == 2


def test_agreement_is_that_of_the_formulas():
    student, teacher = [0.4, 0.3, 0.2, 0.06, 0.03, 0.01], [0.1, 0.5, 0.02, 0.08, 0.1, 0.2]
    found = agree(_prediction(student), _prediction(teacher))
    assert not found.same_top1 and (found.overlap, found.of) == (4, 5)
    assert found.kl == pytest.approx(sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True)))
    itself = agree(_prediction(student), _prediction(student))
    assert itself.same_top1 and itself.overlap == 5 and itself.kl == 0


def test_a_class_of_no_probability_adds_nothing():
    assert agree(_prediction([0.5, 0.5, 0.0]), _prediction([1.0, 0.0, 0.0])).kl == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "labels, reason",
    [
        ({0: "a", 1: "b", 2: "c"}, None),
        ({0: "a", 1: "c", 2: "b"}, "classes with other names or in another order"),
        ({0: "a", 1: "b"}, "they have 3 and 2 classes"),
    ],
)
def test_only_the_same_classes_are_compared(labels, reason):
    def classifier(names):
        return Classifier("x", resnet(num_labels=len(names), id2label=names), None)

    found = why_not_comparable(classifier({0: "a", 1: "b", 2: "c"}), classifier(labels))
    assert found is None if reason is None else reason in found


def test_a_label_map_that_starts_at_one_is_not_compared():
    student = Classifier("x", resnet(num_labels=3, id2label={0: "a", 1: "b", 2: "c"}), None)
    teacher = Classifier("y", vit(num_labels=3), None)
    teacher.model.config.id2label = {1: "a", 2: "b", 3: "c"}
    for pair in ((student, teacher), (teacher, student)):
        assert why_not_comparable(*pair).endswith("they have classes with other names or in another order.")


def test_the_recorded_teacher_is_the_default(hub):
    teacher, note = choose_teacher("alice/student", None, frozenset())
    assert teacher.name == "alice/teacher" and "training record names" in note
    assert choose_teacher("alice/teacher", "", frozenset())[0] is None
    typed, note = choose_teacher("alice/student", " alice/student ", frozenset())
    assert typed.name == "alice/student" and note == ""
    with pytest.raises(DemoError, match="The Hub has no model alice/nothing"):
        choose_teacher("alice/student", "alice/nothing", frozenset())


@pytest.mark.parametrize(
    "name, note",
    [
        ("teacher", "The student learned from 'teacher', which is no Hub id"),
        ("alice/private", "is not shown. The Hub has no model alice/private"),
    ],
)
def test_a_recorded_teacher_that_cannot_be_had_is_done_without(hub, tmp_path, name, note):
    (tmp_path / "training_config.json").write_text(json.dumps({"teacher": {"name": name}}))
    teacher, found = choose_teacher(str(tmp_path), None, frozenset({str(tmp_path)}))
    assert teacher is None and note in found


@pytest.mark.parametrize("name", ["private/../../outside@main", "../outside"])
def test_the_record_of_an_offered_student_opens_no_folder_but_those_beside_it(name, folders, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(folders, tmp_path / "work"))
    shutil.copytree(folders / "teacher", tmp_path / "outside")
    (tmp_path / "work" / "private").mkdir()
    (tmp_path / "work" / "faces" / "training_config.json").write_text(json.dumps({"teacher": {"name": name}}))
    student = str(tmp_path / "work" / "faces")
    teacher, note = choose_teacher(student, None, frozenset({student}))
    assert teacher is None and "opens no other folders" in note


def test_a_teacher_beside_an_offered_student_is_shown(folders, tmp_path):
    root = shutil.copytree(folders, tmp_path / "work")
    (root / "faces" / "training_config.json").write_text(json.dumps({"teacher": {"name": "teacher"}}))
    teacher, note = choose_teacher(str(root / "faces"), None, frozenset({str(root / "faces")}))
    assert teacher.name == str(root / "teacher") and "training record names" in note


def test_a_record_from_the_hub_opens_no_folder(hub, folders, monkeypatch):
    monkeypatch.setattr("demo_classify.recorded_teacher", lambda name: str(folders / "teacher"))
    teacher, note = choose_teacher("alice/student", None, frozenset())
    assert teacher is None and "opens no other folders" in note
