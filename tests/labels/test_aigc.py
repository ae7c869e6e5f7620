"""The implicit label: what may stand in it, where it is in the file, and that no file is left half labelled."""

import json
import os

import numpy as np
import pytest

from sonic_ms.cli import main
from sonic_ms.errors import OutputError, UsageError, VideoError
from sonic_ms.labels import aigc, mp4, write
from sonic_ms.labels.save import Labels, Operator, save_video
from sonic_ms.media.video import Video, VideoWriter, probe

NUMBER = "00112233445566778899aabbccddeeff"
OPERATOR = Operator("example.org")


def still(n=30, size=(64, 48)):
    return Video(lambda: iter([np.full((size[1], size[0], 3), 90, np.uint8)] * n), size, n, np.zeros(n * 640, "f4"),
                 labels=Labels(NUMBER, watermark=False))  # fmt: skip


@pytest.fixture
def labelled(tmp_path):
    return save_video(still(), tmp_path / "a.mp4", progress=False, operator=OPERATOR)


@pytest.fixture
def plain(tmp_path):
    with VideoWriter(tmp_path / "plain.mp4", (64, 48)) as writer:
        for _ in range(10):
            writer.write(np.full((48, 64, 3), 90, np.uint8))
    return writer.path


def with_key(tmp_path, text):
    path = tmp_path / "theirs.mp4"
    with VideoWriter(path, (64, 48), keys={"AIGC": text, "title": "kept"}) as writer:
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    return path


def test_every_video_has_the_label(labelled):
    """The seven names in their order, bare JSON, under the key AIGC of moov.udta.meta."""
    text = mp4.read_keys(labelled)["AIGC"]
    assert list(json.loads(text).items()) == [
        ("Label", "1"),
        ("ContentProducer", "example.org"),
        ("ProduceID", NUMBER),
        ("ReservedCode1", ""),
        ("ContentPropagator", "example.org"),
        ("PropagateID", NUMBER),
        ("ReservedCode2", ""),
    ]
    assert " " not in text
    assert b"mdta" in labelled.read_bytes() and text.encode() in labelled.read_bytes()


def test_a_label_that_cannot_be_read_back_leaves_no_file(tmp_path, monkeypatch):
    """As when ffmpeg drops the key without a word."""
    monkeypatch.setattr("sonic_ms.media.video.key_arguments", lambda keys: ["-movflags", "+faststart"])
    with pytest.raises(OutputError, match="the label AIGC was not written as asked"):
        save_video(still(), tmp_path / "a.mp4", progress=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("producer", ["", "a b", 'a"b', "a\\b", "生成", "a\n"])
def test_characters_that_the_standard_leaves_out(producer):
    with pytest.raises(UsageError, match=r"producer is .*; expected letters"):
        aigc.first(producer, NUMBER)


def test_characters_that_the_standard_allows():
    allowed = "".join(chr(code) for code in (0x21, *range(0x23, 0x5C), *range(0x5D, 0x7F)))
    assert aigc.parse(aigc.first(allowed, NUMBER).text()).ContentProducer == allowed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "expected an object"),
        ('{"Label":"1"}', "ContentProducer, ProduceID"),
        (aigc.first("a", "b").text().replace('"1"', "1"), "Label is 1, expected a string"),
        (aigc.first("a", "b").text().replace('"1"', '"7"'), "Label is '7', expected 1, 2 or 3"),
        (aigc.first("a", "b").text().replace('"a"', '"a b"'), "ContentProducer is 'a b'"),
    ],
)
def test_a_label_that_is_not_valid(text, message):
    with pytest.raises(ValueError, match=message):
        aigc.parse(text)


def test_write_labels_a_file_and_keeps_the_rest(plain):
    before = probe(plain)
    plain.chmod(0o640)
    assert write.write_labels(plain, OPERATOR) == []
    label = aigc.parse(mp4.read_keys(plain)["AIGC"])
    assert label == aigc.first("example.org", label.ProduceID) and len(label.ProduceID) == 32
    assert probe(plain) == before and plain.stat().st_mode & 0o777 == 0o640
    write.write_labels(plain, OPERATOR)
    assert aigc.parse(mp4.read_keys(plain)["AIGC"]) == label  # our own stays as it is


def test_somebody_elses_label_becomes_the_propagator(tmp_path):
    path = with_key(tmp_path, aigc.first("them.example", "77").text())
    assert write.write_labels(path, OPERATOR) == ["the label of them.example is replaced; they are named as propagator"]
    keys = mp4.read_keys(path)
    label = aigc.parse(keys["AIGC"])
    assert (label.ContentProducer, label.ContentPropagator, label.PropagateID) == ("example.org", "them.example", "77")
    assert keys["title"] == "kept" and path.read_bytes().count(b"ContentProducer") == 1


def test_a_label_nobody_can_read_is_replaced_with_a_note(tmp_path):
    path = with_key(tmp_path, "made by a robot")
    assert "the label AIGC that was there is replaced: no JSON" in write.write_labels(path, OPERATOR)[0]
    assert aigc.parse(mp4.read_keys(path)["AIGC"]).ContentProducer == "example.org"


@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_cut_mp4_is_refused_and_left_alone(labelled, kept):
    data = labelled.read_bytes()[: int(kept * labelled.stat().st_size)]
    labelled.write_bytes(data)
    for work in (mp4.read_keys, lambda path: write.write_labels(path, OPERATOR)):
        with pytest.raises(VideoError, match=r"a\.mp4: cut short"):
            work(labelled)
    assert labelled.read_bytes() == data and os.listdir(labelled.parent) == ["a.mp4"]


def test_damaged_boxes_end_in_one_line(labelled):
    """Every byte of the index as 0, 1 and 255: a VideoError, or an answer."""
    data = labelled.read_bytes()
    place = data.index(b"udta")
    for position in range(place - 4, data.index(b"ContentProducer")):
        for value in (0, 1, 255):
            labelled.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
            try:
                mp4.read_keys(labelled)
            except VideoError as error:
                assert "\n" not in str(error)


def test_a_write_that_fails_leaves_the_file(plain, monkeypatch):
    before = plain.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write.write_labels(plain, OPERATOR)
    assert plain.read_bytes() == before and os.listdir(plain.parent) == ["plain.mp4"]


def test_the_command(capsys, plain):
    assert main(["label", str(plain)]) == 0
    assert "AIGC: none\n" in capsys.readouterr().out
    assert main(["label", str(plain), "--write", "--producer", "example.org"]) == 0
    assert "AIGC: generated, by example.org, number " in capsys.readouterr().out
    assert main(["label", str(plain), "--write", "--producer", "two words"]) == 2
    assert capsys.readouterr().err.startswith("sonic-ms: producer is 'two words'")
    assert main(["label", __file__]) == 12
    assert "not an mp4" in capsys.readouterr().err
    assert main(["label", str(plain) + ".gone"]) == 3


def test_the_command_fails_for_labels_that_are_not_valid(tmp_path, capsys):
    path = with_key(tmp_path, '{"Label":"1"}')
    report = tmp_path / "report.json"
    assert main(["label", str(path), "--json", str(report)]) == 12
    said = capsys.readouterr()
    assert "AIGC: not valid: ContentProducer" in said.out and "visible: none" in said.out
    assert said.err.splitlines() == [
        f"sonic-ms: video {path}: AIGC not valid, as the lines above say; the file was changed, or written wrong"
    ]
    assert json.loads(report.read_text())["AIGC"].startswith("not valid")
    assert main(["label", str(path), "--write"]) == 0  # which puts it right


def test_a_file_of_countless_boxes_is_refused(tmp_path):
    path = tmp_path / "many.mp4"
    path.write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\x08free" * mp4.MAX_BOXES)
    with pytest.raises(VideoError, match="made of more than 100000 boxes"):
        mp4.read_keys(path)
