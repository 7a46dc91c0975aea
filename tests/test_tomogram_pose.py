"""Boxes are cut out of a tomogram, edges and all, and turned into a pose that is the same for turned copies."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from beamsieve.models.tomograms.boxes import boxes, cut
from beamsieve.models.tomograms.pose import _PRODUCTS, Poses, _central, posed_boxes, poses, reach, unposed
from beamsieve.models.tomograms.volume import ArrayVolume, Floats
from scipy import ndimage
from scipy.spatial.transform import Rotation

Doubles = npt.NDArray[np.float64]

SIZE = 56
"""Edge of the volumes: as far as a turned box of 32 reaches."""
MIDDLE = SIZE // 2
LOBES = [((0, 0, 0), 7), ((8, 2, 0), 4), ((-3, 7, 2), 3), ((1, -2, -7), 3)]
"""Centres x, y, z and radii, voxels, of an object with no symmetry, not even that of a mirror."""


def places(at: tuple[float, float, float] = (MIDDLE, MIDDLE, MIDDLE)) -> Doubles:
    """x, y, z of every voxel of a volume from ``at``: (z, y, x, 3)."""
    z, y, x = np.meshgrid(*[np.arange(SIZE, dtype=np.float64)] * 3, indexing="ij")
    return np.stack([x, y, z], -1) - at


def globule(rotation: Doubles, at: tuple[float, float, float] = (MIDDLE, MIDDLE, MIDDLE)) -> Doubles:
    """The object turned by ``rotation``: its own x, y, z are rotation @ the tomogram's."""
    own = places(at) @ rotation.T
    above = np.max([r - np.sqrt(np.square(own - c).sum(-1)) for c, r in LOBES], axis=0)
    return np.asarray(1 / (1 + np.exp(-above / 0.7)))


def surface(rotation: Doubles) -> Doubles:
    """Two leaflets of a vesicle of 60 voxels radius; its normal is the third row of ``rotation``."""
    own = places() @ rotation.T
    away = np.linalg.norm(own - (0, 0, -60), axis=-1) - 60
    return np.asarray(np.exp(-((away - 1.5) ** 2) / 2) + np.exp(-((away + 1.5) ** 2) / 2))


def noisy(clean: Doubles, snr: float, seed: int) -> Floats:
    """With noise of the variance of the object's box over ``snr``."""
    core = clean[MIDDLE - 16 : MIDDLE + 16, MIDDLE - 16 : MIDDLE + 16, MIDDLE - 16 : MIDDLE + 16]
    spread = core.std() / np.sqrt(snr)
    return (clean + np.random.default_rng(seed).normal(scale=spread, size=clean.shape)).astype(np.float32)


def smooth_volume(seed: int = 0) -> Floats:
    """Something that linear interpolation follows closely."""
    found = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(80, 80, 80)), 4)
    return np.asarray(found / found.std(), np.float32)


def turns(n: int, seed: int = 0) -> Doubles:
    return np.asarray(Rotation.random(n, random_state=seed).as_matrix())


def angle(a: Doubles, b: Doubles) -> float:
    """Degrees between two rotations."""
    return float(np.degrees(Rotation.from_matrix(a @ b.T).magnitude()))


def pose_of(data: Doubles | Floats) -> Poses:
    box, good = boxes(ArrayVolume(data, 14.2), [[MIDDLE, MIDDLE, MIDDLE]])
    assert good.all()
    return poses(box)


def test_boxes_are_cut_where_they_are_asked_for() -> None:
    data = np.random.default_rng(0).normal(5, 3, (40, 50, 60)).astype(np.float32)
    found, good = boxes(ArrayVolume(data, 14.2), np.array([[30, 20, 17], [30.49, 19.5, 16.6]]), 8)
    expected = data[13:21, 16:24, 26:34]
    np.testing.assert_allclose(found[0], (expected - expected.mean()) / expected.std(), atol=1e-5)
    np.testing.assert_array_equal(found[0], found[1])
    assert found.dtype == np.float32
    assert good.tolist() == [True, True]


def test_beyond_a_face_the_volume_is_mirrored_as_often_as_it_takes() -> None:
    data = np.random.default_rng(0).normal(size=(9, 12, 14)).astype(np.float32)
    wide = np.pad(data, 30, mode="symmetric")
    for low in ((-5, 2, 3), (-20, -30, 10), (7, 11, 13), (2, 3, 4)):
        a, b, c = (start + 30 for start in low)
        np.testing.assert_array_equal(
            cut(ArrayVolume(data, 1), low, (6, 6, 20)), wide[a : a + 6, b : b + 6, c : c + 20]
        )


def test_boxes_of_nothing_and_outside_are_not_good() -> None:
    data = np.zeros((40, 40, 40), np.float32)
    data[:, :, 20:] = np.random.default_rng(0).normal(size=(40, 40, 20))
    data[35, 35, 35] = np.nan
    at = np.array([[8, 8, 8], [30, 8, 8], [-0.6, 8, 8], [30, 8, 39.5], [34, 34, 34]])
    found, good = boxes(ArrayVolume(data, 14.2), at, 8)
    assert good.tolist() == [False, True, False, False, False]
    assert (found[~good] == 0).all()
    assert np.isfinite(found).all()
    assert boxes(ArrayVolume(data, 14.2), np.empty((0, 3)), 8)[0].shape == (0, 8, 8, 8)
    for wrong in (30, 0, 2):
        with pytest.raises(ValueError, match=f"edge: {wrong} is no multiple of 4"):
            boxes(ArrayVolume(data, 14.2), [[8, 8, 8]], wrong)


def test_turned_copies_come_to_the_same_pose() -> None:
    truth = turns(6)
    volumes = [globule(r) for r in truth]
    found = [pose_of(v) for v in volumes]
    # Rows of the pose are axes in the tomogram; seen from the object they are the same for all.
    own = [pose.rotation[0] @ r.T for pose, r in zip(found, truth, strict=True)]
    assert max(angle(one, own[0]) for one in own) < 4
    turned = [
        posed_boxes(ArrayVolume(v, 14.2), [[MIDDLE] * 3], pose)[0].ravel()
        for v, pose in zip(volumes, found, strict=True)
    ]
    assert np.corrcoef(turned).min() > 0.97


def test_turned_copies_come_to_about_the_same_pose_in_noise() -> None:
    truth = turns(12, seed=3)
    found = [pose_of(noisy(globule(r), 0.1, seed)) for seed, r in enumerate(truth)]
    own = [pose.rotation[0] @ r.T for pose, r in zip(found, truth, strict=True)]
    clean = pose_of(globule(np.eye(3))).rotation[0]
    # By chance alone one in 2000 would be as near. Of those that are not, an axis points the other way.
    assert np.median([angle(one, clean) for one in own]) < 15


def test_surfaces_come_to_lie_flat_in_the_middle() -> None:
    for seed, rotation in enumerate(turns(6, seed=5)):
        data = noisy(surface(rotation), 0.1, seed)
        pose = pose_of(data)
        tilt = np.degrees(np.arccos(min(1, abs(float(pose.rotation[0, 2] @ rotation[2])))))
        assert tilt < 8
        box = posed_boxes(ArrayVolume(data, 14.2), [[MIDDLE] * 3], pose)[0][0]
        heights = box.mean((1, 2))
        assert abs(int(heights.argmax()) - 16) <= 2
        assert heights.max() > 5 * max(box.mean((0, 1)).max(), box.mean((0, 2)).max())


def test_the_heavier_tail_is_on_the_positive_side() -> None:
    # Along x a heavy end at −, a light far end at +: the sum of cubes is positive towards the far end.
    for sign in (1, -1):
        own = places() * [sign, 1, 1]
        shape = [((-4, 0, 0), 5.0), ((6, 0, 0), 3.0), ((0, 0, 5), 3.5)]
        data = np.max([1 / (1 + np.exp((np.linalg.norm(own - c, axis=-1) - r) / 0.7)) for c, r in shape], axis=0)
        axis = pose_of(data).rotation[0, 0]
        assert axis[0] * sign > 0.9


def test_moments_about_the_centre_follow_from_those_about_the_middle() -> None:
    rng = np.random.default_rng(0)
    at, mass, centre = rng.uniform(-16, 16, (300, 3)), rng.uniform(0, 1, 300), np.array([[1.5, -3, 2]], np.float32)
    products = np.stack([np.prod(at[:, list(of)], axis=1) for of in _PRODUCTS], 1)
    second, third = _central((mass @ products)[None].astype(np.float32), centre)
    away, share = at - centre, mass / mass.sum()
    np.testing.assert_allclose(second[0], np.einsum("n,ni,nj->ij", share, away, away), atol=0.01)
    np.testing.assert_allclose(third[0], np.einsum("n,ni,nj,nk->ijk", share, away, away, away), atol=0.1)


def test_poses_are_rotations_and_shifts_to_the_centre_of_mass() -> None:
    data = globule(np.eye(3), (MIDDLE + 3, MIDDLE - 2, MIDDLE + 1))
    there, here = pose_of(data), pose_of(globule(np.eye(3)))
    np.testing.assert_allclose(there.shift[0] - here.shift[0], [3, -2, 1], atol=0.3)
    noise = np.random.default_rng(0).normal(size=(20, 32, 32, 32)).astype(np.float32)
    found = poses(noise)
    np.testing.assert_allclose(np.linalg.det(found.rotation), 1, atol=1e-5)
    np.testing.assert_allclose(found.rotation @ found.rotation.transpose(0, 2, 1), [np.eye(3)] * 20, atol=1e-5)
    assert np.abs(found.shift).max() <= 4
    one = poses(noise[7:8])
    np.testing.assert_allclose(one.rotation, found[7:8].rotation, atol=1e-3)
    assert len(found[found.shift[:, 0] > 0]) == (found.shift[:, 0] > 0).sum()


def test_a_box_of_nothing_stays_as_it_is() -> None:
    found = poses(np.zeros((2, 32, 32, 32), np.float32))
    np.testing.assert_array_equal(found.rotation, [np.eye(3)] * 2)
    np.testing.assert_array_equal(found.shift, 0)
    assert len(poses(np.zeros((0, 32, 32, 32), np.float32))) == 0


def test_a_pose_says_where_each_voxel_comes_from() -> None:
    data = smooth_volume()
    rng = np.random.default_rng(2)
    given = Poses(turns(3).astype(np.float32), rng.uniform(-4, 4, (3, 3)).astype(np.float32))
    at = np.array([[40, 40, 40], [38, 43, 41], [6, 70, 40]])
    found, good = posed_boxes(ArrayVolume(data, 14.2), at, given, 32)
    assert good.all()
    z, y, x = np.meshgrid(*[np.arange(32)] * 3, indexing="ij")
    q = np.stack([x.ravel(), y.ravel(), z.ravel()]) - 16
    for box, p, r, s in zip(found, at, given.rotation, given.shift, strict=True):
        # All of them are in the tomogram, or its mirror image: also the corners that a turned box would lack.
        from_ = p[:, None] + s[:, None] + r.T @ q
        exact = ndimage.map_coordinates(data, from_[::-1], order=1, mode="reflect")
        np.testing.assert_allclose(box.ravel(), (exact - exact.mean()) / exact.std(), atol=2e-3)


def test_a_pose_of_no_turn_is_the_box() -> None:
    data = np.random.default_rng(0).normal(size=(70, 70, 70)).astype(np.float32)
    at = [[30, 33, 36], [2, 68, 35]]
    still = Poses(np.tile(np.eye(3, dtype=np.float32), (2, 1, 1)), np.zeros((2, 3), np.float32))
    np.testing.assert_allclose(
        posed_boxes(ArrayVolume(data, 14.2), at, still)[0], boxes(ArrayVolume(data, 14.2), at)[0], atol=2e-4
    )
    moved = Poses(still.rotation, np.array([[1, 2, -3], [0, 0, 0]], np.float32))
    np.testing.assert_allclose(
        posed_boxes(ArrayVolume(data, 14.2), at, moved)[0][0],
        boxes(ArrayVolume(data, 14.2), [[31, 35, 33]])[0][0],
        atol=2e-4,
    )


def test_boxes_turned_back_lie_as_in_the_tomogram() -> None:
    data = smooth_volume(1)
    volume = ArrayVolume(data, 14.2)
    at = np.array([[40, 38, 42], [36, 40, 40]])
    straight, _ = boxes(volume, at)
    given = Poses(turns(2, seed=9).astype(np.float32), np.array([[2.5, -1, 3], [0, 0, 0]], np.float32))
    back = unposed(posed_boxes(volume, at, given)[0], given)
    ball = np.linalg.norm(np.stack(np.meshgrid(*[np.arange(32) - 16] * 3)), axis=0) < 11
    for one, other in zip(back, straight, strict=True):
        assert np.corrcoef(one[ball], other[ball])[0, 1] > 0.99
    # Where the posed box does not reach there is nothing.
    assert (unposed(np.ones((2, 32, 32, 32), np.float32), given)[:, 0, 0, 0] == 0).any()


def test_posing_reads_no_further_than_it_says() -> None:
    class Read(ArrayVolume):
        furthest = 0

        def read(self, low: tuple[int, int, int], high: tuple[int, int, int]) -> Floats:
            far = [max(100 - a, b - 101) for a, b in zip(low, high, strict=True)]
            self.furthest = max(self.furthest, *far)
            return super().read(low, high)

    volume = Read(np.zeros((200, 200, 200), np.int8), 14.2)
    for sign in (4, -4):
        given = Poses(turns(1).astype(np.float32), np.full((1, 3), sign, np.float32))
        posed_boxes(volume, [[100.4, 99.6, 100]], given)
    assert 30 < volume.furthest <= reach(32)
