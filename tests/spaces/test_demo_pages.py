"""What visitors see, as HTML: results, remarks and errors."""

import re
from html import unescape

import PIL.Image
import pytest
from demo_images import open_picture
from demo_models import load_verifier
from demo_pages import MAX_IMAGES, Settings, classify_page, list_thresholds, verify_page
from demo_verify import compare
from toys import resnet

from headshare_hf import HeadShareImageProcessor
from headshare_hf.hub import FaceVerificationPipeline


NO_FOLDERS = Settings()


def _text(html):
    return unescape(re.sub(r"<[^>]+>", " ", html))


def test_student_and_teacher_side_by_side(hub, pictures):
    html = classify_page(NO_FOLDERS, "alice/student", "", [str(pictures / name) for name in ("noise.png", "gray.png")])
    assert html.count('class="card answer"') == 2 and html.count('class="guess"') == 20
    assert html.count("KL(teacher ‖ student)") == 2 and "training record names" in html
    text = _text(html)
    assert "noise.png, 56 × 40 pixels" in text and "gray.png, 20 × 24 pixels, converted from grayscale to RGB" in text
    assert re.search(r"student\s+alice/student\s+resnet8\s+77,782\s", text) and "resnet14" in text


def test_names_of_strangers_are_escaped(hub, pictures, tmp_path):
    (tmp_path / "<img onerror=x>.png").write_bytes((pictures / "noise.png").read_bytes())
    html = classify_page(NO_FOLDERS, "alice/student", "", [str(tmp_path / "<img onerror=x>.png")])
    assert "&lt;b&gt;blue&lt;/b&gt;" in html and "<b>blue" not in html and "<img onerror" not in html
    assert "<script" not in classify_page(NO_FOLDERS, "<script>", "", [str(pictures / "noise.png")])


def test_a_student_alone(hub, pictures):
    html = classify_page(NO_FOLDERS, "alice/teacher", None, [str(pictures / "noise.png")])
    assert html.count('class="guess"') == 5 and "KL(" not in html and "names none" in html


def test_other_classes_are_shown_and_not_compared(hub, pictures):
    html = classify_page(NO_FOLDERS, "alice/student", "alice/faces", [str(pictures / "noise.png")])
    assert html.count('class="guess"') == 10 and "KL(" not in html
    assert "Student and teacher are not compared: they have 6 and 5 classes." in html


def test_a_bad_file_among_good_ones(hub, pictures):
    html = classify_page(NO_FOLDERS, "alice/student", "", [str(pictures / n) for n in ("notes.png", "noise.png")])
    assert html.count('role="alert"') == 1 and "notes.png is not an image" in html
    assert html.count('class="card answer"') == 1
    only = classify_page(NO_FOLDERS, "alice/student", "", [str(pictures / "notes.png")])
    assert "notes.png is not an image" in only and ">–<" in only


@pytest.fixture
def unresized(tmp_path, pictures):
    """Models of which all but the first have an image too small for them left as it is, and that image."""
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "tiny.png")
    models = {"resnet": resnet(), "vgg": resnet("vgg8"), "faces": resnet("vgg8", head_type="arcface")}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        HeadShareImageProcessor(do_resize=name == "resnet").save_pretrained(tmp_path / name)
    return tmp_path, Settings(models=tuple(str(tmp_path / name) for name in models))


def test_an_image_that_a_network_does_not_take_leaves_the_others_their_answers(unresized, pictures):
    folder, settings = unresized
    files = [str(pictures / "noise.png"), str(folder / "tiny.png"), str(pictures / "gray.png")]
    html = classify_page(settings, str(folder / "vgg"), "", files)
    assert html.count('class="card answer"') == 2 and html.count('role="alert"') == 1
    assert f"tiny.png cannot be classified by {folder / 'vgg'}: `pixel_values` must have the shape" in _text(html)
    # It may be the teacher alone that does not take it.
    html = _text(classify_page(settings, str(folder / "resnet"), str(folder / "vgg"), [str(folder / "tiny.png")]))
    assert f"tiny.png cannot be classified by {folder / 'vgg'}: `pixel_values` must have the shape" in html


def test_images_that_cannot_be_compared_are_named(unresized, pictures):
    folder, settings = unresized
    noise, gray, tiny = (str(path) for path in (pictures / "noise.png", pictures / "gray.png", folder / "tiny.png"))
    for first, second, message in (
        (noise, gray, "noise.png and gray.png cannot be compared: the two images have different sizes"),
        (tiny, tiny, "tiny.png and tiny.png cannot be compared: `pixel_values` must have the shape"),
    ):
        html = verify_page(settings, str(folder / "faces"), first, second, None)
        assert 'role="alert"' in html and "card" not in html and message in _text(html)


@pytest.mark.parametrize(
    "student, teacher, count, message",
    [
        ("alice/student", "", 0, "No image is chosen"),
        ("alice/student", "", MAX_IMAGES + 1, "These are 17 images; at most 16"),
        ("", "", 1, "No model is chosen"),
        ("alice/nothing", "", 1, "The Hub has no model alice/nothing"),
        ("alice/student", "alice/gated", 1, "alice/gated is gated"),
        ("/etc", "", 1, "/etc is a folder"),
    ],
)
def test_errors_of_classify_are_words(hub, pictures, student, teacher, count, message):
    html = classify_page(NO_FOLDERS, student, teacher, [str(pictures / "noise.png")] * count)
    assert 'role="alert"' in html and message in html and "card" not in html and "Traceback" not in html


def test_the_stored_thresholds_are_offered(hub):
    choices, note = list_thresholds(NO_FOLDERS, "alice/faces")
    assert [far for _, far in choices] == [1e-3, 1e-2] and note == ""
    assert choices[1][0] == "FAR 0.01: similarity from 0.5000 (toys, 3,000 impostor pairs, rule at_most)"
    choices, note = list_thresholds(NO_FOLDERS, "alice/faces-plain")
    assert choices == [] and "The model has no stored threshold" in note
    assert "is gated" in list_thresholds(NO_FOLDERS, "alice/gated")[1]


@pytest.mark.parametrize("far, same", [(1e-2, True), (1e-3, False), (None, False), (0.5, False)])
def test_the_chosen_threshold_decides(folders, pictures, far, same):
    verifier = load_verifier(str(folders / "faces"))
    images = [open_picture(pictures / name) for name in ("noise.png", "gray.png")]
    found = compare(verifier, *images, far)
    expected = FaceVerificationPipeline.__call__(verifier, images[0].image, images[1].image, threshold=0.0, flip=True)
    assert found.similarity == pytest.approx(expected["similarity"]) and 0.5 < found.similarity < 0.999999
    assert found.is_same is same and found.flip


def test_similarity_and_decision_are_shown(hub, pictures):
    files = [str(pictures / "noise.png"), str(pictures / "gray.png")]
    accepted = _text(verify_page(NO_FOLDERS, "alice/faces", *files, 1e-2))
    assert "Accepted as the same" in accepted and "Decided at FAR 0.01: similarity from 0.5000" in accepted
    assert "converted from grayscale to RGB" in accepted and "Embeddings with those of the mirrored images" in accepted
    assert "Not accepted as the same" in verify_page(NO_FOLDERS, "alice/faces", *files, 1e-3)
    undecided = _text(verify_page(NO_FOLDERS, "alice/faces-plain", *files, None))
    assert "Not decided" in undecided and "no stored threshold" in undecided and "without those of" in undecided


def test_no_class_centers_are_fetched(hub, pictures):
    hub.log.clear()
    verify_page(NO_FOLDERS, "alice/faces", *[str(pictures / "noise.png")] * 2, 1e-2)
    assert hub.log and not hub.requests("GET", "class_centers") and not hub.requests("HEAD", "class_centers")


@pytest.mark.parametrize(
    "model, first, second, message",
    [
        ("alice/faces", "noise.png", None, "Verification compares two images; add both."),
        ("alice/faces", "noise.png", "notes.png", "notes.png is not an image"),
        ("alice/private", "noise.png", "noise.png", "or it is private"),
        ("", "noise.png", "noise.png", "No model is chosen"),
    ],
)
def test_errors_of_verify_are_words(hub, pictures, model, first, second, message):
    files = [name and str(pictures / name) for name in (first, second)]
    html = verify_page(NO_FOLDERS, model, *files, None)
    assert 'role="alert"' in html and message in html and "card" not in html
