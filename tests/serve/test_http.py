"""Requests and answers: the form, errors, ranges, events, idempotency."""

import json

import pytest

from sonic_ms.errors import OUTCOMES, SonicError
from sonic_ms.pipeline import MODELS
from sonic_ms.serve.forms import form_schema
from sonic_ms.serve.problems import of_error


def upload(client, kind="image", data=b"image", headers=None):
    answer = client.post("/v1/uploads", files={"file": (f"my.{kind}", data)}, data={"kind": kind}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_every_option_of_the_command_line_is_a_field(client):
    fields = MODELS["sonic-edge"].Options.model_fields
    assert set(fields) <= set(form_schema("sonic-edge")["properties"])
    described = client.get("/openapi.json").json()["paths"]["/v1/videos"]["post"]["requestBody"]
    assert set(fields) <= set(described["content"]["multipart/form-data"]["schema"]["properties"])
    values = {name: field.default for name, field in fields.items()} | {
        "duration": 1.5, "visible_label": "zh", "face_box": (1, 2, 30, 40.5), "smooth_motion": True, "seed": 2**62,
    }  # fmt: skip
    texts = {name: ",".join(map(str, one)) if isinstance(one, tuple) else str(one) for name, one in values.items()}
    texts["max_audio_seconds"] = "10"
    answer = client.make(**{name: text for name, text in texts.items() if name != "seed"}, seed=texts["seed"])
    assert answer.status_code == 202, answer.text
    options = answer.json()["options"]
    assert options == json.loads(json.dumps(values)) | {"max_audio_seconds": 10.0}


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"min_resolution": "63"}, "min_resolution", "expected a whole number from 64 to 4096 pixels"),
        ({"min_resolution": "many"}, "min_resolution", "expected a whole number from 64"),
        ({"keep_resolution": "perhaps"}, "keep_resolution", "expected true or false"),
        ({"face_box": "1,2,3"}, "face_box", "expected four numbers"),
        ({"inference_steps": "5"}, "inference_steps", "is for sonic-base"),
        ({"dynamic_scale": "nan"}, "dynamic_scale", "expected 0 to 3"),
        ({"sped": "1"}, "sped", "unknown keys 'sped'"),
        ({"size": "big"}, "size", "expected WIDTHxHEIGHT"),
        ({"metadata": "[1]"}, "metadata", "expected at most 16 texts"),
        ({"webhook_url": "http://example.org"}, "webhook_url", "https://"),
        ({"max_audio_seconds": "601"}, "max_audio_seconds", "at most 600"),
        ({"audio_reference": "https://example.org/a.wav"}, "audio_reference", "addresses are not fetched"),
    ],
)
def test_a_wrong_field_is_named(client, fields, param, words):
    if "audio_reference" in fields:
        answer = client.post("/v1/videos", files={"input_reference": b"x"}, data=fields)
    else:
        answer = client.make(**fields)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["param"] == problem["error"]["param"] == param
    assert words in problem["detail"] and "\n" not in problem["detail"]
    assert client.get("/v1/videos").json()["data"] == []
    assert not list(client.service.folders.data.glob("tenants/*/*/*"))


def test_the_table_of_errors_has_every_kind():
    kinds = set(SonicError.__subclasses__())
    assert kinds == set(OUTCOMES)
    for kind, (_, status) in OUTCOMES.items():
        assert of_error(kind("what")).status == status
    assert of_error(ValueError("secret")).status == 500 and "secret" not in of_error(ValueError("secret")).detail


def test_other_bodies(client):
    assert client.post("/v1/videos", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post("/v1/videos", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/videos", content=b"--y", headers=broken).status_code in (400, 422)
    assert client.post("/v1/videos", json={}).json()["param"] == "input_reference"
    answer = client.post("/v1/videos", json={"input_reference": {"image_url": "https://example.org"}})
    assert answer.json()["code"] == "urls_not_taken"


def test_a_body_is_counted_while_it_comes(start):
    with start(max_image=1000, max_audio=1000) as client:
        sent = 0

        def body():
            nonlocal sent
            yield b'--x\r\nContent-Disposition: form-data; name="input_reference"; filename="a"\r\n\r\n'
            for _ in range(64):
                sent += 1 << 20
                yield bytes(1 << 20)

        answer = client.post("/v1/videos", content=body(), headers={"content-type": "multipart/form-data; boundary=x"})
        assert answer.status_code == 413
        files = {"input_reference": bytes(1001), "audio_reference": b"a"}
        answer = client.post("/v1/videos", files=files)
        assert (answer.status_code, answer.json()["param"]) == (413, "input_reference")
        assert not list(client.service.folders.data.glob("tenants/*/*/*"))


def test_uploads_are_used_again(client):
    image, audio = upload(client), upload(client, "audio", b"audio")
    fields = {"input_reference": image["id"], "audio_reference": audio["id"]}
    names = [client.post("/v1/videos", json={**fields, "seed": seed}).json()["id"] for seed in (10, 11)]
    for name in names:
        client.until(name, "completed")
    assert client.get(f"/v1/uploads/{image['id']}").json() == image
    assert client.get(f"/v1/uploads/{image['id']}/faces").json()["faces"] == [[1, 2, 30, 40], [40, 2, 9, 9]]
    wrong = client.post("/v1/videos", json={"input_reference": audio["id"], "audio_reference": audio["id"]})
    assert (wrong.status_code, wrong.json()["param"]) == (422, "input_reference")
    assert client.delete(f"/v1/uploads/{image['id']}").json()["deleted"]
    assert client.get(f"/v1/uploads/{image['id']}").status_code == 404


def test_an_upload_in_use_stays(client):
    image = upload(client)
    name = client.make(4, input_reference=image["id"]).json()["id"]
    assert client.delete(f"/v1/uploads/{image['id']}").status_code == 409
    client.post(f"/v1/videos/{name}/cancel")


def test_lists_have_pages(client):
    names = [client.make(seed).json()["id"] for seed in range(10, 15)]
    first = client.get("/v1/videos", params={"limit": 2}).json()
    assert [one["id"] for one in first["data"]] == names[:2:-1] and first["has_more"]
    rest = client.get("/v1/videos", params={"limit": 9, "after": first["last_id"]}).json()
    assert [one["id"] for one in rest["data"]] == names[2::-1] and not rest["has_more"]
    assert [one["id"] for one in client.get("/v1/videos?order=asc").json()["data"]] == names
    assert client.get("/v1/videos?after=video_none").status_code == 404
    assert client.get("/v1/videos?limit=0").status_code == 422


def test_content_in_ranges_and_not_at_all(anywhere):
    client = anywhere
    name = client.make().json()["id"]
    client.until(name, "completed")
    whole = client.get(f"/v1/videos/{name}/content")
    assert whole.headers["content-type"] == "video/mp4" and whole.headers["accept-ranges"] == "bytes"
    part = client.get(f"/v1/videos/{name}/content", headers={"Range": "bytes=0-1"})
    assert (part.status_code, part.content) == (206, whole.content[:2])
    assert part.headers["content-range"] == f"bytes 0-1/{len(whole.content)}"
    assert client.get(f"/v1/videos/{name}/content", headers={"Range": "bytes=999999-"}).status_code == 416
    again = client.get(f"/v1/videos/{name}/content", headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    tail = client.get(f"/v1/videos/{name}/content", headers={"Range": "bytes=-5"})
    assert (tail.status_code, tail.content) == (206, whole.content[-5:])
    old = client.get(f"/v1/videos/{name}/content", headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert (old.status_code, old.content) == (200, whole.content)
    assert client.head(f"/v1/videos/{name}/content").headers["content-length"] == str(len(whole.content))
    saved = client.get(f"/v1/videos/{name}/content?download=true")
    assert saved.headers["content-disposition"].startswith("attachment")
    assert client.get(f"/v1/videos/{name}/content?variant=thumbnail").status_code == 422


def test_content_before_it_is_there(client):
    running, failed = client.make(4).json()["id"], client.make(3).json()["id"]
    client.until(failed, "failed")
    assert client.get(f"/v1/videos/{running}/content").json()["code"] == "not_ready"
    assert client.get(f"/v1/videos/{failed}/content").json()["code"] == "no_video"
    client.post(f"/v1/videos/{running}/cancel")


def events(client, name, **headers):
    """[(number, name, data)] of a stream that ends."""
    with client.stream("GET", f"/v1/videos/{name}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks = "".join(answer.iter_text()).split("\n\n")
    assert blocks[0] == "retry: 2000"
    found = []
    for block in blocks[1:]:
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return found


def test_events_rise_end_and_are_replayed(client):
    name = client.make(6).json()["id"]
    found = events(client, name)
    numbers = [number for number, _, _ in found]
    assert numbers == sorted(set(numbers))
    assert [kind for _, kind, _ in found][:2] == ["status", "status"] and found[-1][1] == "completed"
    assert found[-1][2]["sha256"] == client.get(f"/v1/videos/{name}").json()["sha256"]
    assert any(kind == "progress" and data["frames_done"] for _, kind, data in found)
    missed = events(client, name, **{"Last-Event-ID": str(numbers[-3])})
    assert [number for number, _, _ in missed] == numbers[-2:]
    assert events(client, name, **{"Last-Event-ID": "nonsense"})[0][0] == numbers[0]


def test_the_same_key_makes_one_job(client):
    headers = {"Idempotency-Key": "k1"}
    first, again = client.make(headers=headers), client.make(headers=headers)
    assert again.json()["id"] == first.json()["id"] and again.headers["idempotent-replayed"] == "true"
    other = client.make(7, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(client.get("/v1/videos").json()["data"]) == 1
    assert len(list(client.service.folders.data.glob("tenants/*/uploads/*"))) == 2
    client.until(first.json()["id"], "completed")
    client.delete(f"/v1/videos/{first.json()['id']}")
    assert client.make(headers=headers).status_code == 410


def test_sync_answers_with_the_video(client):
    files = {"input_reference": b"i", "audio_reference": b"a"}
    answer = client.post("/v1/videos/sync", files=files)
    assert answer.status_code == 200 and answer.content == answer.headers["x-video-id"].encode() * 100
    failed = client.post("/v1/videos/sync", files=files, data={"seed": "3"})
    assert (failed.status_code, failed.json()["code"]) == (422, "face_error")


def test_d_ids_talks(client):
    image = client.post("/images", files={"image": ("me.jpg", b"i")}).json()
    audio = client.post("/audios", files={"audio": ("me.wav", b"a")}).json()
    script = {"type": "audio", "audio_url": audio["url"]}
    made = client.post("/talks", json={"source_url": image["url"], "script": script, "name": "n", "more": 1})
    assert made.status_code == 201 and made.json()["id"].startswith("tlk_") and "result_url" not in made.json()
    name = made.json()["id"]
    client.until(name.replace("tlk_", "video_"), "completed")
    talk = client.get(f"/talks/{name}").json()
    assert talk["status"] == "done" and client.get(talk["result_url"]).status_code == 200
    assert client.delete(f"/talks/{name}").status_code == 200 and client.get(f"/talks/{name}").status_code == 404
    spoken = {"source_url": image["url"], "script": {"type": "text", "input": "hello"}}
    assert client.post("/talks", json=spoken).json()["code"] == "usage_error"
    abroad = {"source_url": "https://example.org/a.jpg", "script": script}
    assert client.post("/talks", json=abroad).json()["code"] == "urls_not_taken"
    assert client.post("/talks", json={}).status_code == 422


def test_headers_of_every_answer(client):
    for path in ("/healthz", "/v1/videos", "/nowhere", "/v1/videos/none"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-request-id"].startswith("req_")
        assert "default-src 'none'" in headers["content-security-policy"]
    assert client.get("/healthz", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.get("/healthz", headers={"X-Request-Id": "a b\x7f"}).headers["x-request-id"].startswith("req_")


def test_without_keys_only_this_machines_page_may_ask(client):
    assert client.get("/v1/videos", headers={"Host": "evil.example"}).status_code == 421
    assert client.post("/v1/videos", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.get("/v1/videos", headers={"Origin": "http://localhost"}).status_code == 200


def test_consent(start):
    with start(needs_consent=True, consent_version="7", consent_text="They agree.") as client:
        answer = client.make()
        assert (answer.status_code, answer.json()["code"]) == (409, "needs_consent")
        assert (answer.json()["consent_version"], answer.json()["policy_text"]) == ("7", "They agree.")
        assert client.make(consent="true").status_code == 202
        details = client.get("/v1/audit").json()["data"][0]["details"]
        assert (details["consent"], details["consent_version"]) == (True, "7") and len(details["image"]) == 64


def test_the_label_is_there_unless_it_is_left_out(client):
    assert client.make().json()["options"]["visible_label"] == "en"
    assert client.make(visible_label="none").json()["options"]["visible_label"] is None


def test_a_full_disk_is_told(client, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sonic_ms.serve.uploads.os.replace", full)
    answer = client.make()
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert not list(client.service.folders.data.glob("tenants/*/*/*"))
