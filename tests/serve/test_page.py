"""The page in Debian's Chromium: with the real worker to a finished video, and with one that pretends for the rest."""

import base64
import contextlib
import io
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image

from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.serve import process
from sonic_ms.serve.app import create_app
from sonic_ms.serve.database import Database
from sonic_ms.serve.files import Folders
from sonic_ms.serve.settings import Settings
from sonic_ms.serve.tenants import Tenants
from tests.serve.conftest import FAKE, SMALL
from tests.support.page import violations

pytestmark = [pytest.mark.slow, pytest.mark.needs("chromium")]
SLOW, BRIEF, FAILS = "4", "6", "3"  # seeds of the worker that pretends: see fake_worker.py
SECOND = 1000


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium whose camera shows the demo's portrait and whose microphone hears the demo's speech."""
    from imageio_ffmpeg import get_ffmpeg_exe
    from playwright.sync_api import sync_playwright

    camera = tmp_path_factory.mktemp("camera") / "portrait.mjpeg"
    subprocess.run(
        [get_ffmpeg_exe(), "-v", "error", "-loop", "1", "-i", DEMO_IMAGE, "-frames:v", "5", camera], check=True
    )
    arguments = (
        "--no-sandbox", "--disable-dev-shm-usage", "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={DEMO_AUDIO}",
        f"--use-file-for-fake-video-capture={camera}",
    )  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Function (url, how a context is made) -> Page; what the page complains about fails the test."""
    complaints, contexts = [], []

    def open_page(url, **how):
        contexts.append(browser.new_context(**how))
        page = contexts[-1].new_page()
        watch(page, complaints)
        page.goto(url)
        page.wait_for_selector("h1:not(:empty)")
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def watch(page, complaints):
    page.set_default_timeout(20 * SECOND)
    page.on("filechooser", lambda chooser: None)  # from the start: Playwright is late for the first one otherwise
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if "Security Policy" in said.text else None)


@contextlib.contextmanager
def serving(folder, port=0, **settings):
    """A service in a thread of this process; gives (its address, its port)."""
    app = create_app(Settings(data=folder, **settings))
    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        port = listener.getsockname()[1]
        yield f"http://127.0.0.1:{port}/", port
    finally:
        app.state.service.drain()
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def pretending(tmp_path, monkeypatch):
    """Address of a service whose worker pretends."""
    monkeypatch.setattr(process, "WORKER", FAKE)
    with serving(tmp_path / "data") as (url, _):
        yield url


def fill(page, seed):
    """Choose photo and voice, and the seed for the worker that pretends."""
    page.set_input_files("#photo-file", DEMO_IMAGE)
    page.set_input_files("#voice-file", DEMO_AUDIO)
    page.wait_for_selector(".face")
    set_options(page, seed=seed)


def set_options(page, **options):
    page.locator("#options").evaluate("options => options.open = true")
    for name, value in options.items():
        page.fill(f"#option-{name}", value)


def until(page, expression):
    """Wait until JavaScript is true. Playwright's own wait evaluates in the page, whose policy forbids it."""
    end = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def card(page, state, name="portrait.jpg + speech.wav"):
    """The card of the newest video, once it has this state and is the one that was made of these files."""
    page.wait_for_selector(f"#jobs .job:first-child[data-state={state}]:has(h3:text-is('{name}'))")
    return page.locator(".job").first


def drop(page, target, *files):
    """Let files fall on an element. files: (name, kind, bytes)."""
    given = [(name, kind, base64.b64encode(data).decode()) for name, kind, data in files]
    page.evaluate(
        """([target, files]) => {
            const data = new DataTransfer();
            for (const [name, type, text] of files)
                data.items.add(new File([Uint8Array.from(atob(text), (one) => one.charCodeAt(0))], name, {type}));
            for (const kind of ["dragover", "drop"])
                document.querySelector(target).dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true}));
        }""",
        [target, given],
    )


def two_faces(astronaut, hopper):
    """JPEG with Grace Hopper left, whose face is larger, and Eileen Collins right."""
    both = np.concatenate([hopper[:512], astronaut], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(both).save(buffer, "JPEG")
    return buffer.getvalue()


def test_by_keyboard_from_files_to_a_video_that_plays(visit, server):
    page = visit(server.url)
    page.wait_for_selector("#option-seed", state="attached")

    def tab_to(name):
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == name:
                return
        raise AssertionError(f"the keyboard does not reach {name}")

    for name, file in (("photo", DEMO_IMAGE), ("voice", DEMO_AUDIO)):
        tab_to(f"{name}-choose")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(file)
    page.wait_for_selector(".face")
    page.focus("#options summary")
    page.keyboard.press("Enter")
    for name, value in (("duration", "1"), ("min_resolution", "64")):
        tab_to(f"option-{name}")
        page.keyboard.press("Control+A")
        page.keyboard.type(value)
    tab_to("submit")
    page.keyboard.press("Enter")
    made = card(page, "completed")
    assert page.locator("#news").inner_text() == "portrait.jpg + speech.wav is done."
    assert made.locator("figcaption .label").inner_text() == "AI-generated"
    until(page, "document.querySelector('.job video').duration > 0.9")
    with page.expect_download() as download:
        made.locator(".download").click()
    assert Path(download.value.path()).read_bytes()[4:8] == b"ftyp"
    assert not violations(page)


def test_a_recording_of_the_microphone_and_a_picture_of_the_camera_become_a_video(visit, server):
    page = visit(server.url, locale="zh-CN", viewport={"width": 390, "height": 844})
    page.click("#camera-open")
    until(page, "document.querySelector('#camera-view').videoWidth > 0")
    assert not violations(page)
    page.click("#camera-take")
    page.wait_for_selector(".face")
    page.click("#record")
    page.wait_for_selector("text=停止录音")
    until(page, "document.querySelector('#clock').textContent === '0:02'")
    page.click("#record")
    page.wait_for_selector("#voice-sound")
    set_options(page, min_resolution="64")
    page.click("#submit")
    made = card(page, "completed", "snapshot.jpg + recording.m4a")
    assert made.locator("figcaption .label").inner_text() == "AI生成"
    until(page, "document.querySelector('.job video').duration > 1.5")
    video = server.http.get("/v1/videos").json()["data"][0]
    assert video["options"]["visible_label"] == "zh" and 1.5 < float(video["seconds"]) < 4


def test_of_several_faces_in_a_dropped_photo_one_is_chosen(visit, server, astronaut, hopper):
    page = visit(server.url)
    drop(page, "#photo", ("both.jpg", "image/jpeg", two_faces(astronaut, hopper)))
    drop(page, "#voice", ("speech.wav", "audio/wav", DEMO_AUDIO.read_bytes()))
    until(page, "document.querySelectorAll('.face').length === 2")
    left, right = (page.locator(".face").nth(number).bounding_box() for number in (0, 1))
    picture = page.locator("#photo-image").bounding_box()
    middle = picture["x"] + picture["width"] * 600 / 1112
    assert left["x"] + left["width"] < middle < right["x"]
    assert left["width"] > right["width"] > 24
    page.focus(".face input")
    page.keyboard.press("ArrowRight")
    assert "face 2 will talk" in page.locator("#photo-status").inner_text()
    set_options(page, **SMALL)
    page.click("#submit")
    card(page, "completed", "both.jpg + speech.wav")
    assert server.http.get("/v1/videos").json()["data"][0]["options"]["face"] == "1"


def test_a_photo_without_a_face_and_a_file_that_is_none(visit, server, tmp_path):
    page = visit(server.url)
    grey = io.BytesIO()
    Image.new("RGB", (128, 128), "grey").save(grey, "PNG")
    drop(page, "body", ("grey.png", "image/png", grey.getvalue()))
    page.wait_for_selector("#photo-error span")
    assert page.locator("#photo-error").inner_text() == "No face that can be used was found in the photo."
    drop(page, "body", ("me.jpg", "image/jpeg", b"no photo at all"))
    page.wait_for_selector("#photo-error .detail")
    assert "me.jpg" in page.locator("#photo-error .detail").inner_text()
    page.click("#submit")
    assert "Choose or record" in page.locator("#voice-error").inner_text()
    assert page.evaluate("document.activeElement.id") == "photo-choose"
    page.set_input_files("#photo-file", DEMO_IMAGE)
    drop(page, "#voice", ("me.wav", "audio/wav", b"no recording at all"))
    page.wait_for_selector(".face")
    page.click("#submit")
    page.wait_for_selector("#voice-error .detail")
    assert "me.wav" in page.locator("#voice-error .detail").inner_text()


FRAMES_SEEN = """() => {
  window.seen = new Set();
  const video = document.getElementById("live-face"), canvas = document.createElement("canvas");
  const keep = () => {
    canvas.width = video.videoWidth; canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    window.seen.add(canvas.toDataURL());
    video.requestVideoFrameCallback(keep);
  };
  video.requestVideoFrameCallback(keep);
}"""


def test_the_face_speaks_while_one_speaks_and_a_closed_dialog_ends_it(visit, server):
    page = visit(server.url)
    page.set_default_timeout(90 * SECOND)
    page.click("#live-open")
    assert page.inner_text("#photo-error")  # without a photo
    page.set_input_files("#photo-file", DEMO_IMAGE)
    page.wait_for_selector(".face")
    page.click("#live-open")
    page.evaluate(FRAMES_SEEN)
    page.click("#live-microphone")
    page.wait_for_selector("#live-status[data-t='live.speaking']")
    end = time.monotonic() + 60
    while page.evaluate("window.seen.size") < 10:
        assert time.monotonic() < end
        page.wait_for_timeout(100)
    assert not page.inner_text("#live-error") and live_workers()
    page.click("#live-interrupt")
    page.click("#live-close")
    end = time.monotonic() + 2
    while live_workers():
        assert time.monotonic() < end
        time.sleep(0.05)


def live_workers():
    """Command lines of the processes of live sessions."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return [one for one in found if b"serve.live_worker" in one]


def test_a_job_survives_a_reload_and_another_tab_cancels_it(visit, pretending):
    page = visit(pretending)
    fill(page, SLOW)
    page.click("#submit")
    card(page, "in_progress")
    page.reload()
    made = card(page, "in_progress")
    until(page, "document.querySelector('.job progress').value > 0")
    before = made.locator("progress").evaluate("bar => bar.value")
    until(page, f"document.querySelector('.job progress').value > {before}")
    other = page.context.new_page()
    watch(other, visit.complaints)
    other.goto(pretending)
    card(other, "in_progress").locator(".cancel").click()
    card(other, "canceled")
    page.bring_to_front()
    assert card(page, "canceled").locator(".state").inner_text() == "Cancelled"
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator(".job .delete").click()
    page.wait_for_selector("#no-jobs")
    other.bring_to_front()
    other.wait_for_selector("#no-jobs")


def test_a_receiver_that_is_offline_catches_up(visit, pretending):
    page = visit(pretending)
    fill(page, BRIEF)
    page.click("#submit")
    card(page, "in_progress")
    page.context.set_offline(True)
    until(page, "document.querySelector('#ready').textContent.includes('cannot be reached')")
    assert page.locator(".job").count() == 1
    time.sleep(2)  # the job ends meanwhile
    page.context.set_offline(False)
    card(page, "completed")
    until(page, "document.querySelector('#ready').textContent === 'Ready'")


def test_a_server_that_comes_again_goes_on_where_it_was(visit, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "WORKER", FAKE)
    with serving(tmp_path / "data") as (url, port):
        page = visit(url)
        fill(page, BRIEF)
        page.click("#submit")
        card(page, "in_progress")
    until(page, "document.querySelector('#ready').textContent.includes('cannot be reached')")
    with serving(tmp_path / "data", port):
        card(page, "completed")


def test_what_is_sent_while_the_model_loads_is_made_later(visit, tmp_path, monkeypatch):
    wait = f'until [ -e {tmp_path}/go ]; do sleep 0.1; done; exec "$0" "$@"'
    monkeypatch.setattr(process, "WORKER", ("sh", "-c", wait, *FAKE))
    with serving(tmp_path / "data") as (url, _):
        page = visit(url)
        page.set_default_timeout(60 * SECOND)  # each look at a file waits in vain for a worker
        page.set_input_files("#photo-file", DEMO_IMAGE)
        page.set_input_files("#voice-file", DEMO_AUDIO)
        page.wait_for_selector("text=The model is loading. You can send already.")
        page.click("#submit")
        card(page, "queued")
        assert page.locator(".face").count() == 0
        (tmp_path / "go").touch()
        card(page, "completed")
        page.wait_for_selector(".face")


def test_a_wish_that_did_not_arrive_is_sent_again_and_made_once(visit, pretending):
    page = visit(pretending)
    fill(page, "0")
    page.evaluate(
        """() => {
            const usual = window.fetch;
            window.lost = 0;
            window.fetch = async (path, how) => {
                const answer = await usual(path, how);
                if (path !== "v1/videos" || window.lost++) return answer;
                throw new TypeError("it has arrived, and its answer is lost");
            };
        }"""
    )
    page.click("#submit")
    card(page, "completed")
    assert page.evaluate("window.lost") == 2 and page.locator(".job").count() == 1


def test_a_job_that_fails_says_why_in_the_language_of_the_page(visit, pretending):
    page = visit(pretending, locale="zh-CN")
    until(page, "document.documentElement.lang === 'zh-CN'")
    fill(page, FAILS)
    page.click("#submit")
    error = card(page, "failed").locator(".error")
    assert "照片中没有找到可用的面孔" in error.inner_text() and "no face found in the photo" in error.inner_text()
    page.select_option("#language", "en")
    until(page, "document.documentElement.lang === 'en'")
    assert "No face that can be used" in error.inner_text()
    assert page.locator("label[for=option-seed]").inner_text() == "Seed"
    page.reload()
    page.wait_for_selector("text=Make a portrait talk")


def test_a_service_with_keys_and_consent_asks_for_both(visit, tmp_path, monkeypatch):
    monkeypatch.setattr(process, "WORKER", FAKE)
    database = Database(Folders(tmp_path / "data").data)
    key = Tenants(database).add_key("a", ("read", "create", "delete"))
    database.close()
    with serving(tmp_path / "data", local=False, needs_consent=True, consent_text="They agree.") as (url, _):
        page = visit(url)
        page.fill("#key-value", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#key[open]")
        until(page, "document.querySelector('#key-value').value === ''")
        assert not violations(page)
        page.fill("#key-value", key)
        page.keyboard.press("Enter")
        fill(page, "0")
        page.click("#submit")
        page.wait_for_selector("#consent[open]")
        assert page.locator("#consent-text").inner_text() == "They agree."
        assert not violations(page)
        page.click("#consent [value=yes]")
        made = card(page, "completed")
        until(page, "document.querySelector('.job video').src.startsWith('blob:')")
        with page.expect_download() as download:
            made.locator(".download").click()
        assert Path(download.value.path()).stat().st_size > 100


@pytest.mark.parametrize("how", [
    {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "locale": "zh-CN"},
    {"viewport": {"width": 320, "height": 600}, "color_scheme": "dark", "reduced_motion": "reduce"},
    {},
])  # fmt: skip
def test_everyone_can_use_it(visit, pretending, how):
    """axe finds nothing, nothing is wider than the screen, and a finger hits what it aims at."""
    page = visit(pretending, **how)
    fill(page, SLOW)
    page.click("#submit")
    made = card(page, "in_progress")
    assert not violations(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, summary, .face, .option input")]
            .map((one) => [one.id || one.className, one.getBoundingClientRect()])
            .filter(([_, box]) => box.width && (box.width < 24 || box.height < 24)).map(([name]) => name)"""
    )
    assert small == []
    made.locator(".cancel").click()
    card(page, "canceled")
