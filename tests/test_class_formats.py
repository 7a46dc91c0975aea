"""2-D classes for other programs: their own libraries read the files, and their conventions align the particles."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import starfile
import yaml
from beamsieve.models.classes2d.averages import turned
from beamsieve.stream.formats import cryosparc, cryosparc_classes, relion_classes, star
from beamsieve.stream.formats.cryosparc_classes import Aligned
from beamsieve.stream.formats.relion import Optics
from beamsieve.stream.formats.relion_classes import ClassifiedStack, ModelClass
from cryosparc.dataset import NUMPY_FORMAT, Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

Floats = npt.NDArray[np.float32]
EDGE = 64
#: A shape without any symmetry: x, y from the middle and height of four blobs.
BLOBS = ((14.0, 0.0, 1.0), (-6.0, 9.0, 0.7), (0.0, -11.0, 0.5), (5.0, 5.0, -0.6))
ANGLE, SHIFT, PIXEL_A = 37.0, (4.5, -3.0), 3.5


def rotation(degrees: float) -> npt.NDArray[np.float64]:
    """On (x, y), y down the rows: x turns towards y."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s], [s, c]])


def drawn(places: npt.NDArray[np.float64]) -> Floats:
    """Blobs at ``places`` (4, 2), x and y from pixel [32, 32]; nothing is interpolated."""
    y, x = np.mgrid[:EDGE, :EDGE] - EDGE // 2
    image = np.zeros((EDGE, EDGE))
    for (px, py), (_, _, height) in zip(places, BLOBS, strict=True):
        image += height * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18)
    return image.astype(np.float32)


CLASS = np.array([blob[:2] for blob in BLOBS])
#: Where the blobs lie in the particle: p_class = R(angle) (p_particle - shift), turned about.
PARTICLE = CLASS @ rotation(ANGLE) + np.array(SHIFT)


def applied(image: Floats, matrix: npt.NDArray[np.float64], move: npt.NDArray[np.float64]) -> Floats:
    """out = matrix (in + move) on (x, y) from pixel (int)(size / 2), as RELION's transformations.h documents."""
    back = np.linalg.inv(matrix)[::-1, ::-1]  # from (y, x) of the output to those of the input
    middle = np.full(2, EDGE // 2)
    found: Floats = ndimage.affine_transform(image, back, middle - move[::-1] - back @ middle, order=3)
    return found


def like(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def stack(n: int = 3, name: str = "Extract/a.mrcs", micrograph: str | None = "Movies/a b.mrc") -> ClassifiedStack:
    at = np.arange(n, dtype=np.float32)
    return ClassifiedStack(
        Optics(1.75, 300.0, 2.7, 0.1, PIXEL_A, EDGE),
        np.arange(1, n + 1, dtype=np.int32),
        np.array([1, 2, 1], np.int32)[:n],
        np.array([ANGLE, 181.0, -0.0], np.float32)[:n],
        np.array([np.array(SHIFT) * PIXEL_A, (1, 2), (0, 0)], np.float32)[:n],
        name,
        micrograph,
        np.float32(100) + at,
        np.float32(200.25) + at,
        at / np.float32(4),
    )


def aligned(path: str | None = "J1/a.mrc", located: bool = True) -> Aligned:
    place = cryosparc.Located(
        "g/a.mrc", "Movies/a.mrc", (3000, 4000), 1.75, 120.0, *(np.array([5, 6], np.float32),) * 3
    )
    return Aligned(
        "a",
        np.array([0, 4], np.int32),
        np.array([1, 0], np.int32),
        np.array([ANGLE, -170], np.float32),
        np.array([SHIFT, (0, 0)], np.float32),
        np.array([0.5, 0.25], np.float32),
        EDGE,
        PIXEL_A,
        path,
        place if located else None,
    )


# Conventions


def test_our_angle_and_shift_align_the_drawn_particle() -> None:
    assert like(turned(drawn(PARTICLE)[None], [ANGLE], [SHIFT])[0], drawn(CLASS)) > 0.999
    assert like(drawn(PARTICLE), drawn(CLASS)) < 0.7


def test_relions_psi_and_origin_align_the_particle_as_relion_applies_them() -> None:
    rows = star.parse(relion_classes.encode_data([stack()]).decode().splitlines(), Path("x"))["particles"]
    value = {name: float(rows.rows[0][rows.columns.index(name)]) for name in ("rlnAnglePsi", "rlnOriginXAngst")}
    y = float(rows.rows[0][rows.columns.index("rlnOriginYAngst")])
    move = np.array([value["rlnOriginXAngst"], y]) / PIXEL_A
    particle = drawn(PARTICLE)
    assert like(applied(particle, rotation(value["rlnAnglePsi"]), move), drawn(CLASS)) > 0.999
    assert like(applied(particle, rotation(-value["rlnAnglePsi"]), move), drawn(CLASS)) < 0.9
    assert like(applied(particle, rotation(value["rlnAnglePsi"]), -move), drawn(CLASS)) < 0.9


def test_cryosparcs_pose_and_shift_put_the_class_where_the_particle_is() -> None:
    rows = np.load(io.BytesIO(cryosparc_classes.encode_particles([aligned()])))
    pose, shift = float(rows["alignments2D/pose"][0]), rows["alignments2D/shift"][0].astype(float)
    # p_particle = R(pose) p_class - shift
    placed = applied(drawn(CLASS), rotation(math.degrees(pose)), rotation(-math.degrees(pose)) @ -shift)
    assert like(placed, drawn(PARTICLE)) > 0.999


@given(st.floats(-2000, 2000, width=32))
def test_angles_keep_their_direction_and_end_in_one_turn(angle: float) -> None:
    ours = np.array([angle], np.float32)
    turn, psi, pose = np.radians(angle), relion_classes.psi(ours), cryosparc_classes.pose(ours)
    assert -180 <= psi[0] <= 180
    assert -3.15 < pose[0] < 3.15
    assert np.exp(1j * np.radians(psi[0])) == pytest.approx(np.exp(1j * turn), abs=1e-4)
    assert np.exp(1j * pose[0]) == pytest.approx(np.exp(-1j * turn), abs=1e-4)


# RELION


def test_starfile_reads_particles_in_classes(tmp_path: Path) -> None:
    path = tmp_path / "run_it001_data.star"
    path.write_bytes(relion_classes.encode_data([stack(), stack(2, "Extract/b.mrcs")]))
    found = starfile.read(path)
    assert set(found) == {"optics", "particles"}
    particles = found["particles"]
    assert particles["rlnClassNumber"].tolist() == [1, 2, 1, 1, 2]
    assert particles["rlnImageName"].tolist()[2:4] == ["000003@Extract/a.mrcs", "000001@Extract/b.mrcs"]
    assert particles["rlnMicrographName"].tolist()[0] == "Movies/a b.mrc"
    assert particles["rlnAnglePsi"].tolist()[:3] == pytest.approx([37, -179, 0])
    assert particles["rlnOriginXAngst"].tolist()[0] == pytest.approx(-SHIFT[0] * PIXEL_A)
    assert particles["rlnCoordinateY"].tolist()[0] == pytest.approx(200.25)
    # What RELION's observation model insists on.
    optics = found["optics"]
    assert {"rlnVoltage", "rlnSphericalAberration", "rlnImagePixelSize", "rlnImageSize"} <= set(optics.columns)
    assert particles["rlnOpticsGroup"].tolist() == [1] * 5
    assert "-0.000000" not in path.read_text()


def test_a_column_that_one_stack_does_not_know_is_left_out() -> None:
    bare = ClassifiedStack(*(getattr(stack(), name) for name in ("optics", "image", "number", "angle", "shift_a")))
    text = relion_classes.encode_data([stack(), bare]).decode()
    for name in ("rlnCoordinateX", "rlnImageName", "rlnMicrographName", "rlnAutopickFigureOfMerit"):
        assert name not in text
    assert len(star.parse(text.splitlines(), Path("x"))["particles"].rows) == 6


def test_no_particles_make_a_table_that_still_reads() -> None:
    blocks = star.parse(relion_classes.encode_data([]).decode().splitlines(), Path("x"))
    assert blocks["particles"].rows == []


def test_the_model_names_each_class_and_the_optimiser_names_the_model(tmp_path: Path) -> None:
    model = [ModelClass(0.75, 12.5), ModelClass(0.25, math.nan)]
    path = tmp_path / "run_it002_model.star"
    path.write_bytes(relion_classes.encode_model("Class2D/run_it002_classes.mrcs", EDGE, 3.5, model))
    found = starfile.read(path)
    general, classes = found["model_general"], found["model_classes"]
    assert general["rlnReferenceDimensionality"] == 2
    assert (general["rlnNrClasses"], general["rlnPixelSize"]) == (2, 3.5)
    assert classes["rlnReferenceImage"].tolist()[1] == "000002@Class2D/run_it002_classes.mrcs"
    assert classes["rlnClassDistribution"].tolist() == [0.75, 0.25]
    assert classes["rlnEstimatedResolution"].tolist() == [12.5, math.inf]
    path.write_bytes(relion_classes.encode_optimiser("Class2D/run", 2, diameter_a=120))
    optimiser = starfile.read(path, always_dict=True)["optimiser_general"]
    assert optimiser["rlnModelStarFile"] == "Class2D/run_it002_model.star"
    assert optimiser["rlnExperimentalDataStarFile"] == "Class2D/run_it002_data.star"
    assert (optimiser["rlnDoCorrectCtf"], optimiser["rlnParticleDiameter"]) == (0, 120)


# cryoSPARC


def test_cryosparc_tools_reads_particles_in_classes(tmp_path: Path) -> None:
    path = tmp_path / "particles.cs"
    path.write_bytes(cryosparc_classes.encode_particles([aligned(), aligned("J1/a_longer_name.mrc")]))
    found = Dataset.load(path)
    assert found["alignments2D/class"].tolist() == [1, 0, 1, 0]
    assert found["alignments2D/class_posterior"].tolist() == [1] * 4
    assert found["alignments2D/psize_A"].tolist() == [PIXEL_A] * 4
    assert found["alignments2D/cross_cor"].tolist() == [0.5, 0.25] * 2
    assert found["blob/path"].tolist() == ["J1/a.mrc"] * 2 + ["J1/a_longer_name.mrc"] * 2
    assert found["blob/idx"].tolist() == [0, 4, 0, 4]
    assert found["blob/shape"].tolist() == [[EDGE, EDGE]] * 4
    assert found["location/micrograph_path"][0] == "Movies/a.mrc"
    found.save(tmp_path / "again.cs", format=NUMPY_FORMAT)
    assert len(Dataset.load(tmp_path / "again.cs")) == 4


def test_a_pick_keeps_its_identity_and_images_without_places_get_one() -> None:
    place = aligned().located
    assert place is not None
    rows = np.load(io.BytesIO(cryosparc_classes.encode_particles([aligned()])))
    assert rows["uid"].tolist() == cryosparc.table([place])["uid"].tolist()
    bare = np.load(io.BytesIO(cryosparc_classes.encode_particles([aligned(None, located=False), aligned()])))
    assert not [name for name in bare.dtype.names if name.startswith(("blob", "location", "pick_stats"))]
    assert len(set(bare["uid"].tolist())) == 4
    assert len(np.load(io.BytesIO(cryosparc_classes.encode_particles([])))) == 0


def test_templates_and_groups_are_what_cryosparc_looks_for(tmp_path: Path) -> None:
    path = tmp_path / "templates.cs"
    path.write_bytes(cryosparc_classes.encode_templates("J1/templates.mrc", EDGE, 3.5, [9.5, math.nan]))
    found = Dataset.load(path)
    assert found["blob/idx"].tolist() == [0, 1]
    assert found["blob/res_A"].tolist() == [9.5, 0]
    assert len(set(found["uid"].tolist())) == 2
    made = "2026-01-31 12:00:00.000000"
    slots = ["alignments2D", "blob"]
    group = yaml.safe_load(
        cryosparc_classes.encode_group("particle", "particles.cs", slots, 7, created=made, version="0.3")
    )
    assert group["results"]["alignments2D"] == {
        "metafile": ">particles.cs",
        "num_items": 7,
        "type": "particle.alignments2D",
    }
    assert list(group["results"]) == slots
    assert group["group"]["type"] == "particle"
