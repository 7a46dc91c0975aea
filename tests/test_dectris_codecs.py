"""What the codecs read of the emulator's messages; the learned layout reads what the full reader reads."""

import json
from typing import Any

import cbor2
import numpy as np
import pytest
from beamsieve.stream.decode.decompress import decompress
from beamsieve.stream.emulators.compress import Compressor
from beamsieve.stream.emulators.dectris_messages import Blob, SeriesInfo, WriterV1, WriterV2
from beamsieve.stream.flow.frame import BadData
from beamsieve.stream.sources.wire import dectris_v1, dectris_v2
from beamsieve.stream.sources.wire.messages import End, Foreign, Image, Start
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPE = (30, 40)
EV = 1.602176634e-19


def info(**changes: Any) -> Any:
    facts: dict[str, Any] = {
        "series": 7, "shape": SHAPE, "dtype": np.dtype("u2"), "images": 100, "unique": "ABC", "energy_J": 8000 * EV,
        "distance_m": 0.5, "pixel_size_m": 1e-4, "period_s": 0.01,
        "pixel_mask": (np.arange(1200).reshape(SHAPE) % 3).astype("u4"),
        "flatfield": np.linspace(0.9, 1.1, 1200, dtype="f4").reshape(SHAPE),
    }  # fmt: skip
    return SeriesInfo(**(facts | changes))


def blob(array: Any, compression: str = "bslz4") -> Any:
    with Compressor(compression) as compressor:
        return Blob.of(compressor.compress(array))


def pixels(seed: int = 0, dtype: str = "u2") -> Any:
    return np.random.default_rng(seed).poisson(2, SHAPE).astype(dtype)


def views(parts: Any) -> Any:
    return [memoryview(part) for part in parts]


def codec_1() -> Any:
    """A fresh codec, its messages of any kind."""
    return dectris_v1.Codec()


def codec_2() -> Any:
    """A fresh codec, its messages of any kind."""
    return dectris_v2.Codec()


def as_bytes(message: Any) -> Any:
    """A message with its pixels as bytes, for comparing."""
    if not isinstance(message, Image):
        return message
    arrays: Any = {n: (bytes(e.buffer), e.shape, e.dtype, e.compression) for n, e in message.images.items()}
    return message._replace(images=arrays)


def test_start_of_stream_2_in_si_units() -> None:
    start = codec_2().parse(memoryview(WriterV2(info()).start()[0][0]))
    assert isinstance(start, Start)
    check_facts(start.info, "threshold_1")
    assert (start.series, start.unique, start.problems) == (7, "ABC", ())
    assert start.info["channels"] == ("threshold_1",)


def check_facts(facts: Any, channel: str) -> None:
    expected = {
        "energy_J": 8000 * EV, "distance_m": 0.5, "x_pixel_size_m": 1e-4, "y_pixel_size_m": 1e-4,
        "beam_center_x_px": 20, "beam_center_y_px": 15, "exposure_s": 0.01, "frame_s": 0.01, "saturation_value": 65534,
        "wavelength_m": 12398.42 / 8000 * 1e-10,
    }  # fmt: skip
    assert {name: facts[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert (facts["image_size"], facts["dtype"], facts["images_expected"]) == (SHAPE, "uint16", 100)
    np.testing.assert_array_equal(facts["pixel_mask"][channel], info().pixel_mask)
    np.testing.assert_array_equal(facts["flatfield"][channel], info().flatfield)


@pytest.mark.parametrize("flat", [False, True])
def test_start_of_stream_1_in_si_units(flat: bool) -> None:
    messages = WriterV1(info(), flat=flat).start()
    assert len(messages) == (8 if flat else 1)
    codec = codec_1()
    (start,) = [message for parts in messages for message in codec.feed(views(parts))]
    assert isinstance(start, Start)
    check_facts(start.info, "")
    assert start.problems == ()


@pytest.mark.parametrize("detail", ["none", "basic", "all"])
@pytest.mark.parametrize("flat", [False, True])
def test_header_details_of_stream_1(detail: str, flat: bool) -> None:
    codec = codec_1()
    writer = WriterV1(info(), detail=detail, flat=flat)
    got = [m for parts in [*writer.start(), writer.image(0, Blob.of(b""), {})] for m in codec.feed(views(parts))]
    assert [type(m) for m in got] == [Start, Image]
    assert ("energy_J" in got[0].info) == (detail != "none")
    assert bool(got[0].info["pixel_mask"]) == (detail == "all")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("compression", ["none", "lz4", "bslz4", "bszstd"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_images(version: int, compression: str, dtype: str) -> None:
    if (version, compression) == (1, "bszstd"):
        with pytest.raises(ValueError, match="stream 1"):
            WriterV1(info(compression=compression))
        return
    facts = info(dtype=np.dtype(dtype), compression=compression)
    writer = WriterV2(facts) if version == 2 else WriterV1(facts)
    array = pixels(dtype=dtype)
    parts = views(writer.image(3, blob(array, compression), {"note": "x"}))
    image = codec_2().parse(parts[0]) if version == 2 else codec_1().feed(parts)[0]
    assert (image.series, image.unique, image.number) == (7, "ABC" if version == 2 else "", 3)
    np.testing.assert_array_equal(decompress(next(iter(image.images.values()))), array)
    times = {name: image.info[name] for name in ("start_s", "stop_s", "real_s")}
    assert times == pytest.approx({"start_s": 0.03, "stop_s": 0.04, "real_s": 0.01})
    assert image.info["user_data"] == {"note": "x"}


def test_ends_and_foreign_messages() -> None:
    assert codec_2().parse(memoryview(WriterV2(info()).end()[0])) == End(7, "ABC")
    assert codec_1().feed(views(WriterV1(info()).end())) == [End(7, "")]
    assert codec_2().parse(memoryview(cbor2.dumps({"type": "calibration"}))) == Foreign("calibration")
    assert codec_1().feed([memoryview(b'{"htype":"dother-1.0"}')]) == [Foreign("dother")]


def jungfraujoch(number: Any, dims: Any = SHAPE) -> Any:
    """An image as Jungfraujoch documents it: signed, one channel called default, spots and profiles beside it."""
    raw = cbor2.CBORTag(77, np.full(dims, -5, "<i2").tobytes())
    return cbor2.dumps(
        {
            "type": "image", "series_id": 1, "series_unique_id": "JF", "image_id": number,
            "real_time": [1, 1000], "start_time": [number, 1000], "end_time": [number + 1, 1000],
            "spots": [{"x": 1.5 * number, "y": 2.0, "I": 10.0}] * (number % 3), "spot_count": number % 3,
            "data": {"default": cbor2.CBORTag(40, [list(dims), raw])},
        }
    )  # fmt: skip


def test_jungfraujoch() -> None:
    codec = codec_2()
    for number in range(100):
        image = codec.parse(memoryview(jungfraujoch(number)))
        assert image.number == number
        assert (decompress(image.images["default"]) == -5).all()
    start = {"type": "start", "series_id": 1, "detector_distance": 0.12, "error_value": -32768, "channels": ["default"]}
    facts = codec.parse(memoryview(cbor2.dumps(start))).info
    assert (facts["distance_m"], facts["error_value"]) == (0.12, -32768)
    with pytest.raises(BadData, match="2023"):
        codec.parse(memoryview(cbor2.dumps({"type": "image", "image_id": 1, "series_id": 1, "data": b"raw"})))


def test_a_compressed_mask_is_decoded_and_a_bad_one_costs_only_itself() -> None:
    mask = info().pixel_mask
    small = cbor2.CBORTag(70, cbor2.CBORTag(56500, ["bslz4", 4, blob(mask).data]))
    lying = cbor2.CBORTag(70, cbor2.CBORTag(56500, ["bslz4", 4, b"\xff" * 100]))
    fields = {
        "type": "start", "series_id": 1, "image_size_x": 40, "image_size_y": 30,
        "pixel_mask": {"a": cbor2.CBORTag(40, [[30, 40], small]), "b": cbor2.CBORTag(40, [[30, 40], lying])},
        "flatfield": {"a": cbor2.CBORTag(40, [[2, 2], cbor2.CBORTag(85, bytes(16))])},
    }  # fmt: skip
    start = codec_2().parse(memoryview(cbor2.dumps(fields)))
    np.testing.assert_array_equal(start.info["pixel_mask"]["a"], mask)
    assert (list(start.info["pixel_mask"]), start.info["flatfield"]) == (["a"], {})
    assert [text.split(":")[1].strip() for text in start.problems] == [
        "pixel_mask['b']",
        "flatfield['a'] has shape (2, 2), the image (30, 40)",
    ]


def test_column_major_images() -> None:
    array = pixels()
    tagged = cbor2.CBORTag(1040, [list(SHAPE), cbor2.CBORTag(69, array.tobytes(order="F"))])
    message = {"type": "image", "series_id": 1, "image_id": 0, "data": {"t": tagged}}
    image = codec_2().parse(memoryview(cbor2.dumps(message)))
    assert image.images["t"].compression == "none/F"
    np.testing.assert_array_equal(decompress(image.images["t"]), array)


def series(numbers: Any, data: Any, channels: Any = ("threshold_1", "threshold_2")) -> Any:
    """Images whose numbers, times and pixels have every length there is."""
    for number, content in zip(numbers, data, strict=True):
        arrays = {
            name: cbor2.CBORTag(40, [[2, 2], cbor2.CBORTag(69, cbor2.CBORTag(56500, ["bslz4", 2, content + bytes(i)]))])
            for i, name in enumerate(channels)
        }
        yield cbor2.dumps(
            cbor2.CBORTag(
                55799,
                {
                    "type": "image", "stop_time": [number * 7, 50], "series_id": 7, "data": arrays, "image_id": number,
                    "series_unique_id": "X", "start_time": [number, 50_000_000], "real_time": 0.5, "user_data": "u",
                },
            )
        )  # fmt: skip


many = st.lists(st.integers(0, 300) | st.integers(0, 2**63 - 1), min_size=2, max_size=12)


@settings(max_examples=50, deadline=None)
@given(many, st.data())
def test_the_learned_layout_reads_what_the_full_reader_reads(numbers: Any, data: Any) -> None:
    contents = [data.draw(st.sampled_from([0, 5, 23, 24, 255, 256, 70000])) * b"z" for _ in numbers]
    learning = codec_2()
    for message in series(numbers, contents):
        view = memoryview(message)
        assert as_bytes(learning.parse(view)) == as_bytes(codec_2().parse(view))


def test_the_learned_layout_is_used() -> None:
    codec = codec_2()
    messages = [memoryview(m) for m in series(range(1000), [b"abc"] * 1000)]
    codec.parse(messages[0])
    learned = codec._learned
    assert learned is not None
    assert all(learned.parse(m) is not None for m in messages[1:])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_changed_message_is_read_as_without_learning(data: Any) -> None:
    """Whatever byte changes: the same message, or the same refusal."""
    first, second = (bytearray(m) for m in series([1, 2], [b"abc" * 10] * 2))
    codec = codec_2()
    codec.parse(memoryview(bytes(first)))
    for _ in range(data.draw(st.integers(1, 3))):
        second[data.draw(st.integers(0, len(second) - 1))] = data.draw(st.integers(0, 255))
    view = memoryview(bytes(second[: data.draw(st.integers(len(second) - 3, len(second)))]))
    assert answer(codec, view) == answer(codec_2(), view)


def answer(codec: Any, view: Any) -> Any:
    try:
        return repr(as_bytes(codec.parse(view)))
    except BadData as error:
        return error.reason, error.detail


def image_message(
    number: bytes = b"\x01", times: bytes = b"\x82\x01\x02", blob: bytes = b"\x48abcdefgh", tail: bytes = b""
) -> memoryview:
    """An uncompressed 2 by 2 image, its variable pieces as raw CBOR."""
    head = b"\xa5\x64type\x65image\x69series_id\x07\x68image_id" + number + b"\x6astart_time" + times
    return memoryview(head + b"\x64data\xa1\x61t\xd8\x28\x82\x82\x02\x02\xd8\x45" + blob + tail)


@pytest.mark.parametrize(
    "changes",
    [
        {"tail": b"\x00"},
        {"tail": b"x" * 100},
        {"blob": b"\x49abcdefgh"},
        {"blob": b"\x58\x80abcdefgh"},
        {"blob": b"\x5b" + b"\xff" * 8},
        {"blob": b"\x47abcdefg"},
        {"blob": b"\x46abcdef"},
        {"number": b"\x1b\x80" + bytes(7)},
        {"number": b"\x1b" + b"\xff" * 8},
        {"number": b"\x20"},
        {"times": b"\x82\x01\x00"},
        {"times": b"\x82\x00\x00"},
        {"times": b"\x82\x20\x02"},
        {"times": b"\x81\x01"},
        {"times": b"\xfb" + bytes(8)},
    ],
)
def test_what_the_learned_layout_must_leave_to_the_full_reader(changes: Any) -> None:
    codec = codec_2()
    codec.parse(image_message())
    learned = codec._learned
    assert learned.parse(image_message(b"\x18\xff", b"\x82\x18\x64\x19\x01\x00")).info == {"start_s": 100 / 256}
    view = image_message(**changes)
    assert learned.parse(view) is None
    assert answer(codec, view) == answer(codec_2(), view)


def flat_run(writer: Any, count: int = 3) -> Any:
    messages = [*writer.start(), *(writer.image(n, Blob.of(b"ab"), {}) for n in range(count)), writer.end()]
    return [part for parts in messages for part in parts]


def test_stream_1_as_a_flat_run_of_parts() -> None:
    codec = codec_1()
    got = [m for part in flat_run(WriterV1(info(), flat=True)) for m in codec.feed([memoryview(part)])]
    assert [type(m) for m in got] == [Start, Image, Image, Image, End]
    assert not codec.pending


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(8, 19), min_size=1, max_size=4))
def test_a_flat_run_that_lacks_parts_finds_its_way_back(lost: Any) -> None:
    parts = [p for i, p in enumerate(flat_run(WriterV1(info(), flat=True))) if i not in lost]
    codec = codec_1()
    got = [m for part in parts for m in codec.feed([memoryview(part)])]
    assert isinstance(got[0], Start)
    assert isinstance(got[-1], End)
    for number in range(3):
        if not lost & set(range(8 + 4 * number, 12 + 4 * number)):
            assert any(isinstance(m, Image) and m.number == number for m in got)


def test_a_cut_multipart_image_is_one_fault_and_names_the_image() -> None:
    writer = WriterV1(info())
    codec = codec_1()
    (fault,) = codec.feed(views(writer.image(5, Blob.of(b"ab"), {})[:3]))
    assert (fault.series, fault.number, fault.error.reason) == (7, 5, "cut")
    (image,) = codec.feed(views(writer.image(6, Blob.of(b"ab"), {})))
    assert image.number == 6


def test_a_flat_field_under_another_name() -> None:
    """tickit-devices says flatfield-1.0 where the detector says dflatfield-1.0."""
    (header,) = WriterV1(info()).start()
    parts = list(header)
    assert json.loads(parts[2])["htype"] == "dflatfield-1.0"
    parts[2] = parts[2].replace(b"dflatfield", b"flatfield")
    (start,) = codec_1().feed(views(parts))
    np.testing.assert_array_equal(start.info["flatfield"][""], info().flatfield)
