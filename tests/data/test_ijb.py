"""The tables of IJB-B and IJB-C: what is read, every refusal with file and line, and faces in batches."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from golden_data import golden_path
from ijb_files import SMALL, write_protocol
from torch.utils.data import DataLoader

from headshare_hf.data import CorruptImageError, IjbIdentification, IjbImages, IjbProtocol, collate
from headshare_hf.data.alignment import align_faces
from headshare_hf.models import HeadShareImageProcessor


TEMPLATES, LANDMARKS, PAIRS = "ijbc_face_tid_mid.txt", "ijbc_name_5pts_score.txt", "ijbc_template_pair_label.txt"
GALLERY, PROBES = "ijbc_1N_gallery_G1.csv", "ijbc_1N_probe_mixed.csv"


@pytest.fixture
def folder(tmp_path):
    write_protocol(tmp_path)
    return tmp_path


@pytest.fixture
def processor():
    return HeadShareImageProcessor(
        size={"height": 112, "width": 112}, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
    )


def change(folder, name, edit):
    """Rewrites a table after `edit` has changed its list of lines."""
    path = folder / "meta" / name
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in edit(lines)))
    return path


def set_line(number, text):
    return lambda lines: [*lines[: number - 1], text, *lines[number:]]


def set_field(number, field, text, delimiter=" "):
    def edit(lines):
        fields = lines[number - 1].split(delimiter)
        return set_line(number, delimiter.join([*fields[:field], text, *fields[field + 1 :]]))(lines)

    return edit


@pytest.mark.parametrize("name", ["ijbb", "ijbc"])
def test_everything_is_where_the_files_have_it(name, tmp_path):
    write_protocol(tmp_path, name=name)
    protocol = IjbProtocol.read(tmp_path)
    rows = [line.split() for line in (tmp_path / "meta" / f"{name}_face_tid_mid.txt").read_text().splitlines()]
    assert protocol.name == name and protocol.image_names.tolist() == [row[0] for row in rows]
    assert protocol.template_ids[protocol.image_template].tolist() == [int(row[1]) for row in rows]
    assert protocol.image_media.tolist() == [int(row[2]) for row in rows]
    assert (np.diff(protocol.template_ids) > 0).all()
    rows = [line.split() for line in (tmp_path / "meta" / f"{name}_name_5pts_score.txt").read_text().splitlines()]
    assert np.allclose(protocol.landmarks.reshape(-1, 10), np.array([row[1:11] for row in rows], dtype=float))
    assert np.allclose(protocol.detector_scores, [float(row[11]) for row in rows])
    rows = [line.split() for line in (tmp_path / "meta" / f"{name}_template_pair_label.txt").read_text().splitlines()]
    assert protocol.template_ids[protocol.pair_first].tolist() == [int(row[0]) for row in rows]
    assert protocol.template_ids[protocol.pair_second].tolist() == [int(row[1]) for row in rows]
    assert protocol.is_same.tolist() == [row[2] == "1" for row in rows]
    assert (protocol.num_images, protocol.num_templates, protocol.num_pairs) == (160, 40, 200)


def test_lines_may_end_as_on_windows(folder):
    expected = IjbProtocol.read(folder)
    for path in (folder / "meta").glob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    found = IjbProtocol.read(folder)
    assert (found.pair_second == expected.pair_second).all() and (found.image_names == expected.image_names).all()


def test_size_is_compared_with_the_published_one(folder):
    with pytest.raises(ValueError, match="has 160 images and ijbc has 469375; copy the `meta` folder again"):
        IjbProtocol.read(folder).check_official_size()
    protocol = IjbProtocol.read(folder)
    full = {"image_names": range(469375), "template_ids": range(23124)}
    with pytest.raises(ValueError, match="has 15658488 pairs and ijbc has 15658489"):
        replace(protocol, **full, is_same=range(15658488)).check_official_size()
    replace(protocol, **full, is_same=range(15658489)).check_official_size()


def test_folder_must_have_one_protocol(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="has neither ijbb_face_tid_mid.txt nor ijbc_face_tid_mid.txt"):
        IjbProtocol.read(tmp_path / "other")
    (folder / "meta" / "ijbb_face_tid_mid.txt").write_text("1.jpg 1 1\n")
    with pytest.raises(ValueError, match="has tables of ijbb and of ijbc"):
        IjbProtocol.read(folder)


@pytest.mark.parametrize("name", [LANDMARKS, PAIRS])
def test_missing_file(name, folder):
    (folder / "meta" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} does not exist; it belongs to the protocol's `meta` folder"):
        IjbProtocol.read(folder)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (TEMPLATES, set_line(5, "5.jpg 7"), r"line 5: '5.jpg 7' is not of the form 'image template media'"),
        (TEMPLATES, set_line(160, "160.jpg 7 "), "line 160: '160.jpg 7 ' is not of the form"),
        (TEMPLATES, set_line(6, "6 b.jpg 7 8"), "line 6: '6 b.jpg 7 8' is not of the form"),
        (TEMPLATES, set_field(3, 1, "-4"), "line 3: template -4 is negative"),
        (TEMPLATES, set_field(4, 2, "-1"), "line 4: media -1 is negative"),
        (TEMPLATES, set_field(3, 1, "99999999999"), "cannot be read: .*99999999999.*; expected lines of the form"),
        (LANDMARKS, set_field(9, 4, "x"), r"line 9: '9.jpg .* x .*' is not of the form 'image x1 y1"),
        (LANDMARKS, set_field(9, 4, "nan"), "line 9: a landmark or the score is not finite"),
        (
            LANDMARKS,
            set_field(7, 0, "8.jpg"),
            "line 7: image '8.jpg', but line 7 of the table of templates has '7.jpg'",
        ),
        (LANDMARKS, set_field(7, 11, "0"), "line 7: the detector's score is 0.0; it must be positive"),
        (LANDMARKS, set_field(9, 11, "inf"), "line 9: a landmark or the score is not finite"),
        (LANDMARKS, lambda lines: lines[:-3], "has 157 lines and the table of templates has 160"),
        (PAIRS, set_line(200, "1 2"), "line 200: '1 2' is not of the form 'template other label'"),
        (PAIRS, set_line(11, ""), "line 11: '' is not of the form"),
        (PAIRS, set_line(11, "1  2 0"), "line 11: '1  2 0' is not of the form"),
        (PAIRS, set_field(12, 2, "2"), r"line 12: label 2; it must be 1 \(same person\) or 0"),
        (PAIRS, set_field(13, 0, "77777"), r"line 13: template 77777 has no images .*\(1 lines name such one\)"),
        (PAIRS, set_field(14, 1, "-3"), "line 14: template -3 has no images"),
        (PAIRS, set_field(15, 1, "0"), "line 15: template 0 has no images"),
        (PAIRS, lambda lines: [], "is empty; expected lines of the form 'template other label'"),
    ],
)
def test_bad_lines_are_named(name, edit, message, folder):
    path = change(folder, name, edit)
    with pytest.raises(ValueError, match=message) as error:
        IjbProtocol.read(folder)
    assert str(path) in str(error.value)


def test_template_that_lost_its_images_is_named(folder):
    template = (folder / "meta" / PAIRS).read_text().split()[1]
    lines = (folder / "meta" / TEMPLATES).read_text().splitlines()
    keep = [row for row, line in enumerate(lines) if line.split()[1] != template]
    for name in (TEMPLATES, LANDMARKS):
        change(folder, name, lambda lines: [lines[row] for row in keep])
    with pytest.raises(ValueError, match=f"line 1: template {template} has no images in the table of templates"):
        IjbProtocol.read(folder)


@pytest.mark.parametrize("name", ["ijbb", "ijbc"])
def test_galleries_and_probes(name, tmp_path):
    write_protocol(tmp_path, name=name)
    protocol = IjbProtocol.read(tmp_path)
    identification = IjbIdentification.read(protocol)
    assert list(identification.galleries) == (["S1", "S2"] if name == "ijbb" else ["G1", "G2"])
    found = [*identification.galleries.values(), (identification.probe_templates, identification.probe_subjects)]
    kinds = [f"gallery_{gallery}" for gallery in identification.galleries] + ["probe_mixed"]
    for (rows, subjects), kind in zip(found, kinds, strict=True):
        lines = (tmp_path / "meta" / f"{name}_1N_{kind}.csv").read_text().splitlines()[1:]
        expected = {tuple(map(int, line.split(",")[:2])) for line in lines}
        pairs = list(zip(protocol.template_ids[rows].tolist(), subjects.tolist(), strict=True))
        assert set(pairs) == expected and len(pairs) == len(expected)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (GALLERY, lambda lines: lines[1:], "line 1: expected headings"),
        (GALLERY, set_line(3, "1,x,a,1"), "line 3: '1,x,a,1' does not start with the numbers template,person"),
        (GALLERY, lambda lines: lines[:1], "has no lines below its headings; copy it again"),
        (PROBES, set_field(4, 0, "99999", ","), "line 4: template 99999 has no images"),
    ],
)
def test_bad_identification_files(name, edit, message, folder):
    path = change(folder, name, edit)
    with pytest.raises(ValueError, match=message) as error:
        IjbIdentification.read(IjbProtocol.read(folder))
    assert str(path) in str(error.value)


def test_a_template_shows_one_person(folder):
    lines = (folder / "meta" / PROBES).read_text().splitlines()
    template, person, *rest = lines[1].split(",")
    change(folder, PROBES, lambda lines: [*lines, f"{template},1{person},{','.join(rest)}"])
    message = f"line {len(lines) + 1}: template {template} shows person 1{person}, but person {person} in line 2"
    with pytest.raises(ValueError, match=message):
        IjbIdentification.read(IjbProtocol.read(folder))


def test_a_person_has_one_template_in_a_gallery(folder):
    change(folder, GALLERY, lambda lines: [lines[0], *(set_field(1, 1, "5", ",")([line])[0] for line in lines[1:])])
    with pytest.raises(ValueError, match=f"{GALLERY}: person 5 has 6 templates; a gallery has one of each"):
        IjbIdentification.read(IjbProtocol.read(folder))


def test_missing_gallery(folder):
    (folder / "meta" / GALLERY).unlink()
    with pytest.raises(FileNotFoundError, match=f"{GALLERY} does not exist; it belongs to the protocol"):
        IjbIdentification.read(IjbProtocol.read(folder))


@pytest.fixture
def with_images(folder):
    (folder / "loose_crop").mkdir()
    generator = np.random.default_rng(0)
    for number in range(1, SMALL.images + 1):
        pixels = generator.integers(0, 256, (30 + number % 3, 25, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).resize((120, 130)).save(folder / "loose_crop" / f"{number}.jpg")
    return IjbProtocol.read(folder)


def test_faces_are_aligned_and_normalized(with_images, processor):
    faces = IjbImages(with_images, processor)
    assert len(faces) == SMALL.images
    batch = next(iter(DataLoader(faces, batch_size=5, collate_fn=collate)))["pixel_values"]
    images = [PIL.Image.open(with_images.folder / "loose_crop" / f"{number}.jpg") for number in range(1, 6)]
    expected = align_faces(images, with_images.landmarks[:5], 112).float() / 127.5 - 1
    assert batch.shape == (5, 3, 112, 112) and torch.allclose(batch, expected, atol=1e-5)
    assert torch.equal(faces[3]["pixel_values"], batch[3])
    assert torch.equal(faces.__getitems__([4, 1])["pixel_values"], batch[[4, 1]])


def test_refusals_of_images(with_images, processor):
    faces = IjbImages(with_images, processor)
    with pytest.raises(IndexError, match="index 160 is outside of 0 to 159"):
        faces[160]
    (with_images.folder / "loose_crop" / "3.jpg").write_bytes(b"no image")
    with pytest.raises(CorruptImageError, match=r"image 2 of ijbc \(file .*3.jpg\) cannot be decoded"):
        faces.__getitems__([0, 2])
    (with_images.folder / "loose_crop" / "3.jpg").unlink()
    with pytest.raises(CorruptImageError, match=r"image 2 of ijbc \(file .*3.jpg\) cannot be decoded"):
        faces[2]
    with pytest.raises(ValueError, match="there is no template for faces of 112x100"):
        IjbImages(with_images, HeadShareImageProcessor(size={"height": 112, "width": 100}))


def test_no_images_are_needed_for_stored_features(processor):
    protocol = IjbProtocol.read(golden_path("face/ijb_small"))
    assert (protocol.num_images, protocol.num_templates, protocol.num_pairs) == (900, 120, 6000)
    with pytest.raises(FileNotFoundError, match="loose_crop does not exist; it has the images of ijbc"):
        IjbImages(protocol, processor)


def test_faces_of_one_channel(with_images):
    gray = HeadShareImageProcessor(size={"height": 112, "width": 112}, image_mean=[0.4], image_std=[0.25])
    found = IjbImages(with_images, gray).__getitems__([0, 7])["pixel_values"]
    images = [PIL.Image.open(with_images.folder / "loose_crop" / f"{number}.jpg") for number in (1, 8)]
    faces = align_faces(images, with_images.landmarks[[0, 7]], 112)
    for face, pixels in zip(faces, found, strict=True):
        expected = np.asarray(PIL.Image.fromarray(face.permute(1, 2, 0).numpy()).convert("L"), dtype=np.float32)
        np.testing.assert_allclose(pixels[0], (expected / 255 - 0.4) / 0.25, rtol=0, atol=1e-5)
    assert found.shape == (2, 1, 112, 112)
