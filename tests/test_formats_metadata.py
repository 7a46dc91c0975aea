"""What EPU's XML and SerialEM's mdoc say of a micrograph, and what happens when they say it strangely."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import mdocfile
import pytest
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.formats.epu import read_epu
from beamsieve.stream.formats.mdoc import mdoc_info, read_mdoc
from hypothesis import given
from hypothesis import strategies as st

PAIR = (
    "<a:KeyValueOfstringanyType><a:Key>{}</a:Key>"
    '<a:Value i:type="b:{}" xmlns:b="x">{}</a:Value></a:KeyValueOfstringanyType>'
)
EPU = f"""<MicroscopeImage xmlns="http://schemas.datacontract.org/2004/07/Fei.SharedObjects"
 xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
 <name>Empty</name>
 <CustomData xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays">
  {PAIR.format("DoseOnCamera", "double", "16.07")}
  {PAIR.format("Dose", "double", "4.1E+21")}
  {PAIR.format("AppliedDefocus", "double", "-2.7E-06")}
 </CustomData>
 <SpatialScale>
  <offset><x><numericValue>0</numericValue></x></offset>
  <pixelSize><x><numericValue>8.3E-11</numericValue><unit/></x><y><numericValue>8.3E-11</numericValue></y></pixelSize>
 </SpatialScale>
 <microscopeData>
  <acquisition>
   <acquisitionDateTime>2025-01-08T15:49:18.1158288+00:00</acquisitionDateTime>
   <camera>
    <CameraSpecificInput xmlns:a="y"><a:KeyValueOfstringanyType><a:Key>FractionationSettings</a:Key>
     <a:Value xmlns:b="z"><b:NumberOffractions>50</b:NumberOffractions></a:Value></a:KeyValueOfstringanyType>
    </CameraSpecificInput>
    <ExposureTime>0.89</ExposureTime><Name>EF-CCD</Name>
    <ReadoutArea xmlns:a="w"><a:height>4092</a:height><a:width>5760</a:width></ReadoutArea>
   </camera>
   <plateCamera><ExposureTime>0</ExposureTime></plateCamera>
  </acquisition>
  <core><ApplicationSoftware>EPU</ApplicationSoftware></core>
  <gun><AccelerationVoltage>300000</AccelerationVoltage></gun>
  <instrument><InstrumentModel>TITAN</InstrumentModel></instrument>
  <optics><BeamShift xmlns:a="v"><a:_x>0.06</a:_x><a:_y>-0.15</a:_y></BeamShift><Defocus>4.8E-07</Defocus>
   <TemMagnification><NominalMagnification>105000</NominalMagnification></TemMagnification></optics>
  <stage><Position><A>-0.0174532925</A><B>0</B><X>-9.7E-05</X><Y>-0.00015</Y><Z>8.5E-05</Z></Position></stage>
 </microscopeData>
</MicroscopeImage>"""
SAID = {
    "pixel_a": 0.83,
    "voltage_kv": 300.0,
    "exposure_s": 0.89,
    "magnification": 105000.0,
    "defocus_um": 0.48,
    "applied_defocus_um": -2.7,
    "dose_e_a2": 41.0,
    "stage_x_um": -97.0,
    "stage_y_um": -150.0,
    "stage_z_um": 85.0,
    "tilt_deg": -1.0,
    "beam_shift_x": 0.06,
    "beam_shift_y": -0.15,
    "frames": 50,
    "camera_nx": 5760,
}


def put(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def numbers(found: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in found.items() if not isinstance(value, str)}


def test_epu_in_units_of_the_field(tmp_path: Path) -> None:
    found = read_epu(put(tmp_path / "a.xml", EPU))
    assert numbers(found) == pytest.approx(SAID)
    assert (found["acquired"], found["instrument"], found["software"], found["camera"]) == (
        "2025-01-08T15:49:18.1158288+00:00",
        "TITAN",
        "EPU",
        "EF-CCD",
    )


def test_namespaces_do_not_matter(tmp_path: Path) -> None:
    plain = EPU.replace("a:", "").replace("b:", "").replace("i:", "").replace('xmlns="http', 'other="http')
    assert numbers(read_epu(put(tmp_path / "a.xml", plain))) == pytest.approx(SAID)
    prefixed = EPU.replace("<name>Empty</name>", "").replace("<gun>", "<q:gun>").replace("</gun>", "</q:gun>")
    assert read_epu(put(tmp_path / "b.xml", prefixed))["voltage_kv"] == 300


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_of_windows(tmp_path: Path, encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>' + EPU
    assert read_epu(put(tmp_path / "a.xml", text.encode(encoding)))["voltage_kv"] == 300


def test_values_no_microscope_has_are_left_out(tmp_path: Path) -> None:
    text = EPU.replace("8.3E-11", "0").replace("300000", "NaN").replace("4.1E+21", "1E999").replace("-9.7E-05", "east")
    found = read_epu(put(tmp_path / "a.xml", text))
    assert not {"pixel_a", "voltage_kv", "dose_e_a2", "stage_x_um"} & set(found)
    assert found["stage_y_um"] == pytest.approx(-150)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol">'
    + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i > 1 else "&lol;" * 10}">' for i in range(1, 10))
    + "]><MicroscopeImage>&l9;</MicroscopeImage>"
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><MicroscopeImage><name>&x;</name></MicroscopeImage>'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "document type"),
        (OUTSIDE, "document type"),
        ("", "not well-formed"),
        (EPU[: len(EPU) // 2], "not well-formed"),
        (EPU[:-5], "not well-formed"),
        ("<a><b>1</b></a>", "no MicroscopeImage"),
        ("<MicroscopeImage/>", "no MicroscopeImage"),
        ("<MicroscopeImage>" + "<a>" * 5000 + "</a>" * 5000 + "</MicroscopeImage>", "nested"),
        ("<MicroscopeImage>" + "x" * (5 << 20) + "</MicroscopeImage>", "more than 4 MiB"),
        ('<?xml version="1.0" encoding="klingon"?><MicroscopeImage>1</MicroscopeImage>', "encoding"),
        ("<MicroscopeImage>&undefined;</MicroscopeImage>", "not well-formed"),
    ],
    ids=["bomb", "external", "empty", "half", "cut", "other", "nothing", "deep", "large", "encoding", "entity"],
)
def test_xml_that_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadData, match=why) as found:
        read_epu(put(tmp_path / "a.xml", text))
    assert found.value.reason == "xml"
    assert "a.xml" in found.value.detail


@given(st.binary(max_size=300))
def test_random_bytes_in_an_xml(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(BadData):
        read_epu(put(Path(folder) / "a.xml", data))


# mdoc

SESSION = "\r\n".join(
    [
        "PixelSpacing = 1.35",
        "Voltage = 300",
        "ImageFile = grid1.mrc",
        "",
        "[T = SerialEM: Digitized on Titan   30-Nov-15  10:17:06    ]",
        "",
        "[ZValue = 0]",
        "TiltAngle = 0.01",
        "StagePosition = -118.5 37.25",
        "StageZ = 120.1",
        "Magnification = 53000",
        "ExposureDose = 39.5",
        "PixelSpacing = 1.35",
        "Defocus = -2.31",
        "TargetDefocus = -2.5",
        "ExposureTime = 2.6",
        "NumSubFrames = 40",
        r"SubFramePath = X:\frames\session one\a_0001.tif",
        "DateTime = 30-Nov-15  15:43:30",
        "",
        "[ZValue = 1]",
        "ExposureDose = 41",
        r"SubFramePath = \\server\share\a_0002.tif",
        "NumSubFrames = 39",
        "DateTime = 06-Nov-2024  15:43:30",
        "",
    ]
)


def test_mdoc_by_section_and_by_the_movie_it_names(tmp_path: Path) -> None:
    path = put(tmp_path / "a.mdoc", SESSION)
    first = mdoc_info(path)
    expected = {
        "pixel_a": 1.35,
        "voltage_kv": 300.0,
        "dose_e_a2": 39.5,
        "exposure_s": 2.6,
        "magnification": 53000.0,
        "defocus_um": -2.31,
        "applied_defocus_um": -2.5,
        "stage_x_um": -118.5,
        "stage_y_um": 37.25,
        "stage_z_um": 120.1,
        "tilt_deg": 0.01,
        "frames": 40,
    }
    assert numbers(first) == pytest.approx(expected)
    assert first["acquired"] == "2015-11-30T15:43:30"
    second = mdoc_info(path, "a_0002.tif")
    assert (second["dose_e_a2"], second["frames"], second["acquired"]) == (41, 39, "2024-11-06T15:43:30")
    assert second["voltage_kv"] == 300
    assert mdoc_info(path, "another.tif") == first


def test_mdoc_as_mdocfile_reads_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    path = put(tmp_path / "a.mdoc", SESSION)
    theirs = mdocfile.read(path)
    ours = read_mdoc(path)
    assert len(ours.sections) == len(theirs) == 2
    for section, (_, row) in zip(ours.sections, theirs.iterrows(), strict=True):
        assert float(section["ExposureDose"]) == row["ExposureDose"]
        assert int(section["NumSubFrames"]) == row["NumSubFrames"]
        assert section["SubFramePath"] == str(row["SubFramePath"])
        assert int(section["index"]) == row["ZValue"]
    assert ours.titles[0].strip() == "SerialEM: Digitized on Titan   30-Nov-15  10:17:06"
    assert float(ours.top["Voltage"]) == theirs["Voltage"].iloc[0]


@pytest.mark.parametrize(
    "text",
    [
        "[FrameSet = 0]\nDefocus = -1.5\nExposureDose = 30\n",
        "ExposureDose = 30\nDefocus = -1.5\n",
        "a line that says nothing\n[FrameSet = 0]\nDefocus=-1.5\n  ExposureDose   =  30  \n",
        "Title = a = b = c\n[ZValue = 0]\nExposureDose = 30\nDefocus = -1.5\nStagePosition = x y\nVoltage =\n",
        "[T = µm in another encoding]\n[ZValue = 0]\nDefocus = -1.5\nExposureDose = 30\n",
        "\ufeffExposureDose = 30\nDefocus = -1.5\n",
    ],
    ids=["frame-set", "no-section", "comment", "odd-values", "encoding", "bom"],
)
def test_mdocs_of_other_programs(tmp_path: Path, text: str) -> None:
    data = text.encode("latin-1") if "µ" in text else text.encode()
    found = mdoc_info(put(tmp_path / "a.mdoc", data))
    assert (found["defocus_um"], found["dose_e_a2"]) == (-1.5, 30)


@pytest.mark.parametrize("data", [b"", b"nothing here\n", b"\0" * 50, b"[ZValue = 0\n", bytes(range(256))])
def test_what_is_no_mdoc(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadData, match=r"a\.mdoc") as found:
        mdoc_info(put(tmp_path / "a.mdoc", data))
    assert found.value.reason == "mdoc"


def test_companions_that_are_gone() -> None:
    for read in (read_epu, mdoc_info):
        with pytest.raises(BadData, match="cannot be read") as found:
            read("/nowhere/a")
        assert found.value.reason == "vanished"
