"""Alignment against the method of Umeyama by singular values, and against SciPy's interpolation."""

import numpy as np
import PIL.Image
import pytest
import torch
from scipy.ndimage import map_coordinates

from headshare_hf.data import align_faces, face_template, similarity_transform


LANDMARKS = np.array([[61.0, 70.5], [101.3, 62.0], [88.0, 95.2], [74.9, 118.0], [108.1, 110.4]])


def umeyama(source, target):
    """As in the paper, TPAMI 13(4), equations 34 to 43."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, d, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(d) @ sign) / a.var(0).sum()
    return np.column_stack([scale * rotation, target.mean(0) - scale * rotation @ source.mean(0)])


def warp(image, matrix, shape):
    """Bilinear, with black outside, one channel at a time."""
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    y, x = np.mgrid[: shape[0], : shape[1]]
    source = inverse @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    padded = np.pad(image.astype(float), ((0, 0), (1, 1), (1, 1)))
    rows = [map_coordinates(c, [source[1] + 1, source[0] + 1], order=1, mode="constant") for c in padded]
    return np.stack(rows).reshape(-1, *shape)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("num_points", [2, 3, 5])
def test_transform_equals_umeyama(num_points):
    generator = np.random.default_rng(num_points)
    source = generator.normal(50, 20, (40, num_points, 2))
    target = generator.normal(20, 30, (40, num_points, 2))  # some of them nearer to a mirror image
    expected = np.stack([umeyama(a, b) for a, b in zip(source, target, strict=True)])
    found = similarity_transform(source, target)
    assert found.dtype == torch.float64 and found.shape == (40, 2, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(similarity_transform(torch.tensor(source[3]), target[3]), expected[3], rtol=1e-9)


def test_transform_finds_the_one_that_was_applied():
    angle, scale, shift = 0.3, 1.7, np.array([4.0, -9.0])
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = similarity_transform(LANDMARKS, LANDMARKS @ linear.T + shift).numpy()
    np.testing.assert_allclose(found, np.column_stack([linear, shift]), atol=1e-12)


def test_templates():
    square = face_template()
    assert square.shape == (5, 2) and square[0].tolist() == [38.2946, 51.6963] and square[4, 1] == 92.2041
    assert (square - face_template((112, 96))).tolist() == pytest.approx(np.array([[8.0, 0.0]] * 5))
    torch.testing.assert_close(face_template(224), 2 * square)
    torch.testing.assert_close(face_template((56, 56)), square / 2)


@pytest.mark.parametrize("size", [(96, 112), (112, 100), 0])
def test_sizes_without_template(size):
    with pytest.raises(ValueError, match="there is no template for faces of .*; use a square size or"):
        face_template(size)


@pytest.mark.parametrize("size", [112, (112, 96), 64])
def test_warp_equals_scipy(size):
    image = noise(3, 130, 150)
    shape = (size, size) if isinstance(size, int) else size
    expected = warp(image, umeyama(LANDMARKS, face_template(size).numpy()), shape)
    found = align_faces(torch.from_numpy(image)[None], LANDMARKS[None], size)
    assert found.dtype == torch.uint8 and found.shape == (1, 3, *shape)
    assert np.abs(found[0].numpy() - expected).max() < 0.51  # rounded to whole numbers


def test_outside_is_black_and_the_edge_fades():
    """As with `borderValue=0` of OpenCV: half a pixel outside of a white image is half as bright."""
    template = face_template()
    white = torch.full((1, 1, 112, 112), 255, dtype=torch.uint8)
    moved = align_faces(white, (template - torch.tensor([10.5, 0.0])).unsqueeze(0))
    assert moved[0, 0, 5, :10].tolist() == [0] * 10 and moved[0, 0, 5, 11:].eq(255).all()
    assert moved[0, 0, 5, 10] in (127, 128)


def test_an_aligned_face_stays():
    images = torch.from_numpy(noise(2, 1, 112, 112))
    assert torch.equal(align_faces(images, face_template().expand(2, 5, 2)), images)


def test_images_of_different_size_and_mode():
    first, second = noise(80, 90, 3), noise(130, 120)
    landmarks = np.stack([0.7 * LANDMARKS, LANDMARKS]).astype(np.float32)
    found = align_faces([PIL.Image.fromarray(first), PIL.Image.fromarray(second)], landmarks)
    assert found.shape == (2, 3, 112, 112) and found.any()
    assert torch.equal(found[:1], align_faces(torch.from_numpy(first).permute(2, 0, 1)[None], landmarks[:1]))
    gray = align_faces(torch.from_numpy(second)[None, None], landmarks[1:])
    assert torch.equal(found[1:], gray.expand(1, 3, -1, -1))


def test_landmarks_land_on_the_template():
    """Bright squares at the landmarks of a large image appear where the template has them."""
    image = np.zeros((300, 300), dtype=np.uint8)
    points = (2 * LANDMARKS + 20).round().astype(int)
    for x, y in points:
        image[y - 3 : y + 4, x - 3 : x + 4] = 255
    aligned = align_faces(torch.from_numpy(image)[None, None], points[None])[0, 0]
    matrix = umeyama(points.astype(float), face_template().numpy())
    for x, y in points @ matrix[:, :2].T + matrix[:, 2]:
        assert aligned[round(y), round(x)] > 200
    assert (aligned > 128).sum() < 5 * 7 * 7


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.stack([LANDMARKS, np.full((5, 2), 3.3)]), "the points of element 1 coincide or give no direction"),
        (np.stack([LANDMARKS, np.zeros((5, 2))]), "the points of element 1 coincide or give no direction"),
        (np.stack([LANDMARKS, LANDMARKS * np.nan]), r"the source points at \[1, 0, 0\] are not finite: nan"),
        (LANDMARKS[None], r"`landmarks` have shape \(1, 5, 2\) for 2 images"),
        (np.zeros((2, 68, 2)), r"`landmarks` have shape \(2, 68, 2\) for 2 images; expected \(batch_size, 5, 2\)"),
    ],
)
def test_landmarks_that_are_refused(landmarks, message):
    with pytest.raises(ValueError, match=message):
        align_faces(torch.zeros(2, 3, 20, 20, dtype=torch.uint8), landmarks)


def test_points_that_are_refused():
    with pytest.raises(ValueError, match="the points coincide or give no direction"):
        similarity_transform(LANDMARKS, np.full((5, 2), 0.1))
    with pytest.raises(ValueError, match="the target points at"):
        similarity_transform(LANDMARKS, np.full((5, 2), np.inf))
    for source, target in ((LANDMARKS, LANDMARKS[:4]), (LANDMARKS[:1], LANDMARKS[:1]), (LANDMARKS.T, LANDMARKS.T)):
        with pytest.raises(ValueError, match="cannot be brought to points of shape"):
            similarity_transform(source, target)


@pytest.mark.parametrize("images", [torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)])
def test_images_that_are_refused(images):
    with pytest.raises(ValueError, match="expected uint8 of"):
        align_faces(images, LANDMARKS[None])
    with pytest.raises(ValueError, match="for 0 images"):
        align_faces([], np.zeros((0, 5, 2)))
