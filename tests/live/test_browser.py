"""The page in headless Chromium with a fake microphone: the mouth that is received says what was sent."""

import base64
import threading
import time

import cv2
import numpy as np
import pytest
import soxr

from sonic_ms.edge.curves import OPEN
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.evaluate.frames import lip_gap
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.pipeline import load_model
from tests.live.conftest import served

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]

FRAMES = 90  # watched
KEEP_FRAMES = """() => {
  window.seen = [];
  const video = document.getElementById("face"), canvas = document.createElement("canvas");
  const keep = (now, what) => {
    canvas.width = video.videoWidth; canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    window.seen.push([what.rtpTimestamp, canvas.toDataURL("image/jpeg", 0.9)]);
    video.requestVideoFrameCallback(keep);
  };
  video.requestVideoFrameCallback(keep);
}"""


@pytest.fixture(scope="module")
def model():
    return load_model(engine="onnxruntime")


@pytest.fixture
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                "--no-sandbox", "--disable-dev-shm-usage", "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={DEMO_AUDIO}",
                "--autoplay-policy=no-user-gesture-required",
            ],
        )  # fmt: skip
        yield chromium
        chromium.close()


class Watched:
    """Keeps what a session was sent, resampled, and which sound every frame belongs to."""

    def __init__(self, session):
        self.sent, self.positions = [], []
        push, pull, resample = session._queue.push, session.pull, soxr.ResampleStream(48000, 16000, 1, "float32")

        def pushed(chunk, rate, now):
            assert rate == 48000
            self.sent.append(resample.resample_chunk(chunk.mean(1).astype(np.float32) / 32768))
            push(chunk, rate, now)

        def pulled():
            frame = pull()
            self.positions.append(frame.position)
            return frame

        session._queue.push, session.pull = pushed, pulled

    def curve(self, generator):
        """The opening that an offline video of the sound would show, for every frame of the session."""
        curves, _ = generator.curves(np.concatenate(self.sent), EdgeOptions())
        opening = np.maximum(curves[:, OPEN], 0)
        known = [0 if position is None else min(round(25 * position), len(opening) - 1) for position in self.positions]
        return np.where([position is None for position in self.positions], 0, opening[known])


def openings(frames, generator):
    """(frame numbers from the first one seen (n,), opening (n,)) of JPEG data URLs, measured as in a finished video."""
    times = np.array([time for time, _ in frames])
    data = [np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8) for _, url in frames]
    pictures = [np.ascontiguousarray(cv2.imdecode(one, cv2.IMREAD_COLOR)[..., ::-1]) for one in data]
    found = list(generator.detector.track(iter(pictures)))
    seen = np.array([one is not None for one in found])
    assert seen.mean() > 0.9
    numbers = np.round((times - times[0]) / 90000 * 25).astype(int)
    return numbers[seen], np.array([lip_gap(one.points[:, :2].astype(np.float64)) for one in found if one])


def likeness(numbers, gaps, curve):
    """Correlation of the gaps with a curve, by the frame that was seen first, of the session's first three seconds."""
    starts = range(min(75, len(curve) - numbers[-1]))
    return max(np.corrcoef(gaps, curve[start + numbers])[0, 1] for start in starts)


def test_the_mouth_in_the_browser_follows_the_microphone(model, browser):
    watched = []

    def open_session(microphone):
        session = model.live(str(DEMO_IMAGE), microphone=microphone, min_resolution=128)
        watched.append(Watched(session))
        return session

    model.live(str(DEMO_IMAGE), min_resolution=128).close()
    page = browser.new_page()
    with served(open_session) as address:
        page.goto(f"http://{address}/")
        page.evaluate(KEEP_FRAMES)
        page.click("#microphone")
        page.wait_for_function(f"window.seen.length > {FRAMES}", timeout=120000)
        frames = page.evaluate("window.seen")
        left = time.monotonic()
        page.close()
        while any(thread.name == "sonic-ms live" for thread in threading.enumerate()):
            time.sleep(0.02)
            assert time.monotonic() - left < 2, "a closed tab keeps the processor busy"
    numbers, gaps = openings(frames, model.generator)
    curve = watched[0].curve(model.generator)
    right, wrong = likeness(numbers, gaps, curve), likeness(numbers, gaps, curve[::-1])
    assert right > 0.5 and right > wrong + 0.15, (right, wrong, len(numbers))
