"""The real networks on real pictures (where both are at hand)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from e3dge_video.errors import BackendError
from e3dge_video.faces.alignment import Similarity, eg3d_crop, ffhq_crop, warp_crop
from e3dge_video.faces.landmarks import LandmarkBackend, LandmarkOptions, load_backend
from e3dge_video.faces.smoothing import smooth_crops

Still = Callable[[str], NDArray[np.uint8]]
ALIGNED = ("aligned_307.jpg", "aligned_443.jpg", "aligned_494.jpg")


@pytest.fixture(scope="module", params=["mesh", "dlib"])
def backend(request: pytest.FixtureRequest) -> LandmarkBackend:
    try:
        return load_backend(LandmarkOptions(backend=request.param))
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def mesh() -> LandmarkBackend:
    try:
        return load_backend(LandmarkOptions(backend="mesh"))
    except BackendError as error:
        pytest.skip(str(error))


def eye_distance(points: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0)))


def test_pictures_without_a_face_give_none(backend: LandmarkBackend) -> None:
    rng = np.random.default_rng(0)
    for picture in (np.full((240, 320, 3), 128), rng.integers(0, 255, (300, 200, 3)), np.zeros((8, 8, 3))):
        assert backend.detect(picture.astype(np.uint8), 0) == []


@pytest.mark.media
@pytest.mark.parametrize("name", ALIGNED)
def test_aligned_pictures_are_their_own_ffhq_crop(backend: LandmarkBackend, read_still: Still, name: str) -> None:
    picture = read_still(name)
    (face,) = backend.detect(picture, 0)
    crop = ffhq_crop(face.points)
    np.testing.assert_allclose(crop.centre / 1024, 0.5, atol=0.015)
    assert 0.95 < crop.side / 1024 < 1.03
    assert abs(np.degrees(crop.angle)) < 1
    # On real faces EG3D's crop is a little smaller and stands lower.
    eg3d = eg3d_crop(face.points)
    assert 0.85 < eg3d.side / crop.side < 1.05 and 0.03 < (eg3d.centre - crop.centre)[1] / crop.side < 0.13


@pytest.mark.media
def test_back_ends_agree_and_points_lie_where_ibug_wants_them(read_still: Still) -> None:
    mesh, dlib = (load_or_skip(name) for name in ("mesh", "dlib"))
    for name in ALIGNED:
        picture = read_still(name)
        a, b = mesh.detect(picture, 0)[0].points, dlib.detect(picture, 0)[0].points
        distance = np.linalg.norm(a - b, axis=1) / eye_distance(b)
        assert distance[17:].mean() < 0.065 and distance[[36, 39, 42, 45]].mean() < 0.05


def load_or_skip(name: str) -> LandmarkBackend:
    try:
        return load_backend(LandmarkOptions(backend=name))  # type: ignore[arg-type]
    except BackendError as error:
        pytest.skip(str(error))


@pytest.mark.media
def test_faces_that_hog_misses_and_small_ones_are_found(mesh: LandmarkBackend, read_still: Still) -> None:
    assert len(mesh.detect(read_still("wild_glasses_frown.jpg"), 0)) == 1
    assert len(mesh.detect(read_still("two_people.jpg"), 0)) == 2
    small = np.full((1080, 1920, 3), 90, dtype=np.uint8)
    portrait = read_still("wild_bw_375x500.jpg")[::2, ::2]
    small[400 : 400 + portrait.shape[0], 1200 : 1200 + portrait.shape[1]] = portrait  # a face 70 px wide
    (face,) = mesh.detect(small, 0)
    assert 1200 < face.box[0] < face.box[2] < 1400


@pytest.mark.media
def test_points_follow_shift_zoom_and_roll(mesh: LandmarkBackend, read_still: Still) -> None:
    picture = read_still("wild_512.jpg")
    (base,) = mesh.detect(picture, 0)
    for parameters in ((256.0, 256.0, 512 / 1.3, 0.0), (300.3, 240.9, 512.0, 0.25), (256.0, 256.0, 900.0, -0.2)):
        view = Similarity.from_parameters((*parameters[:2], np.log(parameters[2]), parameters[3]))
        (face,) = mesh.detect(warp_crop(picture, view, 512), 0)
        back = view.into_frame(face.points, 512)
        error = np.linalg.norm(back - base.points, axis=1).mean() / eye_distance(base.points)
        assert error < 0.03


@pytest.mark.media
def test_tracking_keeps_up_with_violent_shakes(mesh: LandmarkBackend, read_clip: Callable) -> None:
    frames, _ = read_clip("clips/strong_motion.mp4", 40)
    (face,) = mesh.detect(frames[0], 0)
    for i, frame in enumerate(frames[1:], 1):
        tracked = mesh.track(frame, i, face)
        assert tracked is not None and tracked.score > 0.9
        # Lag would show as a distance to a fresh detection that knows nothing of the past.
        (fresh,) = mesh.detect(frame, i)
        lag = np.linalg.norm(tracked.points.mean(axis=0) - fresh.points.mean(axis=0)) / eye_distance(fresh.points)
        assert lag < 0.05
        face = tracked


@pytest.mark.media
def test_blinks_are_seen(mesh: LandmarkBackend, read_clip: Callable) -> None:
    frames, _ = read_clip("clips/talk_frontal.mp4", 12)

    def opening(index: int) -> float:
        p = mesh.detect(frames[index], 0)[0].points
        lids = np.linalg.norm(p[[37, 38, 43, 44]] - p[[41, 40, 47, 46]], axis=1).mean()
        return float(lids) / eye_distance(p)

    assert opening(6) < 0.6 * opening(0)  # she blinks in frames 5 to 8


@pytest.mark.media
def test_smoothing_calms_a_real_crop(mesh: LandmarkBackend, read_clip: Callable) -> None:
    frames, times = read_clip("clips/talk_frontal.mp4", 40)
    (face,) = mesh.detect(frames[0], 0)
    points = [face.points]
    for i, frame in enumerate(frames[1:], 1):
        face = mesh.track(frame, i, face) or face
        points.append(face.points)
    raw = eg3d_crop(np.stack(points))
    smooth = smooth_crops(raw, times, np.zeros(len(times), dtype=int))

    def jitter(crop: Similarity) -> float:
        return float(np.linalg.norm(np.diff(crop.corners(), 2, axis=0), axis=-1).mean())

    assert jitter(smooth) < 0.45 * jitter(raw)
    assert np.linalg.norm(smooth.corners() - raw.corners(), axis=-1).max() < 0.04 * raw.side.max()
