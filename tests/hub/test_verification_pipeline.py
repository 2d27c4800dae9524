"""The pipeline `face-verification`: what it answers, by which threshold, and what it refuses."""

from functools import partial

import numpy as np
import PIL.Image
import pytest
import torch
from toys import resnet, vit
from transformers import pipeline

from headshare_hf import HeadShareImageProcessor, HeadShareModel
from headshare_hf.evaluation.thresholds import store_thresholds
from headshare_hf.hub import FaceVerificationPipeline
from headshare_hf.models import CENTERS_FILE


def _entry(far: float, similarity: float, flip: bool = True) -> dict:
    return {
        "far": far,
        "rule": "at_most",
        "similarity": similarity,
        "set": "lfw",
        "num_impostor": 3000,
        "flip": flip,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    resnet(head_type="arcface").save_pretrained(path)
    HeadShareImageProcessor(channel_order="bgr").save_pretrained(path)
    # Reading the class centers would fail.
    (path / CENTERS_FILE).write_bytes(b"not read")
    return path


@pytest.fixture
def calibrated(folder):
    store_thresholds(folder, [_entry(1e-2, 0.5), _entry(1e-3, 0.9999)])
    return pipeline("face-verification", model=str(folder), device="cpu")


@pytest.fixture
def plain(folder):
    pipe = pipeline("face-verification", model=str(folder), device="cpu")
    pipe.model.config.verification_thresholds = None
    return pipe


@pytest.fixture(scope="module")
def faces():
    generator = np.random.default_rng(0)
    shapes = [(40, 40, 3), (32, 48, 3), (32, 32, 3)]
    return [PIL.Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def _cosine(folder, faces, flip):
    """As the pipeline should compute it, written out."""
    processor, model = HeadShareImageProcessor.from_pretrained(folder), HeadShareModel.from_pretrained(folder).eval()
    pixels = processor(faces, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        rows = model(pixels).embeddings.double()
        if flip:
            rows = rows + model(torch.flip(pixels, [3])).embeddings.double()
    return float(torch.nn.functional.cosine_similarity(rows[0], rows[1], dim=0))


def test_it_is_a_task_of_transformers(calibrated):
    assert isinstance(calibrated, FaceVerificationPipeline)
    assert isinstance(calibrated.model, HeadShareModel) and calibrated.image_processor.channel_order == "bgr"


def test_the_strictest_stored_threshold_decides(calibrated, folder, faces):
    answer = calibrated(faces[0], faces[1])
    assert answer.pop("similarity") == pytest.approx(_cosine(folder, faces, flip=True), abs=1e-6)
    assert answer == {"is_same": False, "threshold": 0.9999, "far": 1e-3, "rule": "at_most"}
    assert calibrated(faces[0], faces[0])["is_same"] is True


def test_far_chooses_and_threshold_overrides(calibrated, faces):
    chosen = calibrated(faces[0], faces[1], far=1e-2)
    assert chosen["is_same"] is True and chosen["threshold"] == 0.5 and chosen["far"] == 1e-2
    given = calibrated(faces[0], faces[1], threshold=1.0)
    assert given["similarity"] == chosen["similarity"]
    assert given["is_same"] is False and given["threshold"] == 1.0 and given["far"] is None and given["rule"] is None


def test_a_call_replaces_what_the_pipeline_was_made_with(folder, calibrated, faces):
    pipe = pipeline("face-verification", model=str(folder), device="cpu", far=1e-2)
    assert pipe(faces[0], faces[1])["far"] == 1e-2
    assert pipe(faces[0], faces[1], threshold=0.1)["threshold"] == 0.1
    assert pipe(faces[0], faces[1], far=1e-3)["far"] == 1e-3


def test_flip_goes_with_the_threshold(plain, folder, faces):
    for flip in (None, False, True):
        found = plain(faces[0], faces[1], threshold=0.3, flip=flip)["similarity"]
        assert found == pytest.approx(_cosine(folder, faces, flip=bool(flip)), abs=1e-6)
    assert _cosine(folder, faces, True) != pytest.approx(_cosine(folder, faces, False), abs=1e-6)


def test_a_similarity_that_equals_the_threshold_is_accepted(plain, faces):
    similarity = plain(faces[0], faces[1], threshold=0.3)["similarity"]
    assert plain(faces[0], faces[1], threshold=similarity)["is_same"] is True
    assert plain(faces[0], faces[1], threshold=np.nextafter(similarity, 2))["is_same"] is False


def test_all_forms_of_input_agree(plain, faces, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(3)]
    for face, path in zip(faces, paths, strict=True):
        face.save(path)
    expected = [plain(faces[0], faces[other], threshold=0.3)["similarity"] for other in range(3)]
    assert len(set(expected)) == 3 and expected[0] == pytest.approx(1)
    dicts = [{"image_a": paths[0], "image_b": path} for path in paths]
    forms = [
        plain([(faces[0], other) for other in faces], threshold=0.3),
        plain([(faces[0], other) for other in faces], threshold=0.3, batch_size=2),
        plain(dicts, threshold=0.3),
        list(plain(((paths[0], path) for path in paths), threshold=0.3)),
        [plain(pair, threshold=0.3) for pair in dicts],
        [plain((paths[0], path), threshold=0.3) for path in paths],
    ]
    for answers in forms:
        assert [answer["similarity"] for answer in answers] == pytest.approx(expected, abs=1e-6)
    assert plain([], threshold=0.3) == []


def test_a_saved_pipeline_loads_without_remote_code(calibrated, faces, tmp_path):
    calibrated.save_pretrained(tmp_path)
    again = pipeline("face-verification", model=str(tmp_path), device="cpu")
    assert again(faces[0], faces[1]) == calibrated(faces[0], faces[1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "no stored threshold; give `threshold`, .*--store-thresholds"),
        ({"threshold": 1.5}, r"`threshold` is 1.5; it must be a cosine in \[-1, 1\]"),
        ({"threshold": 0.5, "far": 0.01}, "`far` chooses a stored threshold and `threshold` replaces it"),
        ({"flip": True}, "`flip` belongs to the stored thresholds"),
    ],
)
def test_wrong_choices_are_refused(plain, faces, options, message):
    with pytest.raises(ValueError, match=message):
        plain(faces[0], faces[1], **options)


def test_an_unknown_far_lists_those_stored(calibrated, faces):
    with pytest.raises(ValueError, match="no threshold is stored for the FAR 0.0001; stored: 0.001, 0.01"):
        calibrated(faces[0], faces[1], far=1e-4)


@pytest.mark.parametrize(
    "pair, message",
    [
        ({"image_a": 1}, "this is the keys image_a"),
        ((1, 2, 3), r"this is tuple \(1, 2, 3\)"),
        (["a.png", "b.png"], "this is str 'a.png'"),
        ("a.png", "compares two images and got one"),
    ],
)
def test_what_is_no_pair_is_refused(plain, pair, message):
    with pytest.raises(ValueError, match=message):
        plain(pair, threshold=0.5)
    with pytest.raises(ValueError, match="compares two images and got one"):
        plain(PIL.Image.new("RGB", (8, 8)), threshold=0.5)


def test_other_models_and_missing_processors_are_refused():
    with pytest.raises(ValueError, match="needs a HeadShareModel, not a ViTForImageClassification"):
        FaceVerificationPipeline(model=vit(), image_processor=HeadShareImageProcessor(), device="cpu")
    for make in (FaceVerificationPipeline, partial(pipeline, "face-verification")):
        with pytest.raises(
            ValueError,
            match="needs an `image_processor`, and none was given, .*; load the one that the model was trained",
        ):
            make(model=resnet().headshare, device="cpu")


def test_the_image_processor_may_be_in_another_place(folder, tmp_path):
    HeadShareImageProcessor(image_mean=[0.1] * 3).save_pretrained(tmp_path)
    model = HeadShareModel.from_pretrained(folder)
    for own in (str(folder), model):
        for place in (tmp_path, str(tmp_path)):
            pipe = pipeline("face-verification", model=own, image_processor=place, device="cpu")
            assert list(pipe.image_processor.image_mean) == [0.1] * 3


def test_an_image_processor_that_cannot_be_loaded_is_not_replaced(folder, tmp_path):
    verify = partial(pipeline, "face-verification", device="cpu")
    with pytest.raises(ValueError, match=f"{tmp_path} has no image processor"):
        verify(model=str(folder), image_processor=tmp_path)
    with pytest.raises(ValueError, match=f"the `image_processor` cannot be loaded .*, although {folder} has one, and"):
        verify(model=str(folder), image_processor=str(tmp_path))
    with pytest.raises(ValueError, match="needs an `image_processor`, .* none could be loaded from where it was said"):
        verify(model=HeadShareModel.from_pretrained(folder), image_processor=str(tmp_path))


def test_no_token_stays_with_the_network(folder):
    pipe = pipeline("face-verification", model=str(folder), token="hf_secret", device="cpu")
    assert "hf_secret" not in str([*vars(pipe.model).values(), *vars(pipe).values()])
