"""Keys, scopes, limits, and that nobody reaches what is another's."""

import dataclasses
import os
import stat
import time

import pytest
from fastapi.routing import APIRoute

from sonic_ms.cli import main
from sonic_ms.serve import audit, janitor
from sonic_ms.serve.database import Database
from sonic_ms.serve.tenants import Limits, Tenants
from tests.serve.test_http import upload


def routes(app):
    for route in app.routes:
        for inner in getattr(getattr(route, "original_router", None), "routes", [route]):
            if isinstance(inner, APIRoute):
                yield inner


def test_anothers_id_is_unknown_on_every_route(two_tenants):
    client, a, b = two_tenants
    video = client.make(headers=a).json()["id"]
    client.until(video, "completed", headers=a)
    image = upload(client, headers=a)["id"]
    names = {"/v1/videos": video, "/v1/uploads": image, "/talks": video.replace("video_", "tlk_")}
    seen = set()
    for route in routes(client.app):
        if "{name}" not in route.path:
            continue
        name = next(one for start, one in names.items() if route.path.startswith(start))
        for method in route.methods:
            theirs = client.request(method, route.path.format(name=name), headers=b)
            unknown = name[:-32] + "0" * 32
            nobodys = client.request(method, route.path.format(name=unknown), headers=b)
            assert theirs.status_code == nobodys.status_code == 404, route.path
            assert method == "HEAD" or theirs.json()["detail"] == nobodys.json()["detail"].replace(unknown, name)
            seen.add((method, route.path))
    assert len(seen) == 11  # a new route is counted here
    assert client.get(f"/v1/videos?after={video}", headers=b).status_code == 404
    for field in ("input_reference", "audio_reference"):
        assert client.make(headers=b, **{field: image}).status_code == 404
    assert client.get("/v1/videos", headers=b).json()["data"] == []
    assert client.get("/v1/audit", headers=b).json()["data"] == []
    assert client.get(f"/v1/videos/{video}", headers=a).json()["state"] == "completed"
    assert client.get(f"/v1/uploads/{image}", headers=a).status_code == 200


def test_the_test_above_knows_the_routes(client):
    assert {"/v1/videos/{name}/content", "/talks/{name}", "/v1/uploads/{name}/faces"} <= {
        route.path for route in routes(client.app)
    }


def test_every_route_but_the_page_and_health_wants_a_key(two_tenants):
    client, _, _ = two_tenants
    free = {"/", "/page/{name:path}", "/healthz", "/readyz"}
    for route in routes(client.app):
        for method in route.methods:
            path = route.path.replace("{name:path}", "x").replace("{name}", "x")
            status = client.request(method, path, json={}).status_code
            if route.path not in free:
                assert status == 401, route.path
    assert client.get("/v1/videos", headers={"Authorization": "Bearer sk-sonic-wrong"}).status_code == 401


def test_the_same_idempotency_key_of_two_tenants_is_two(two_tenants):
    client, a, b = two_tenants
    one, other = (client.make(headers={**who, "Idempotency-Key": "k"}).json()["id"] for who in (a, b))
    assert one != other


@pytest.fixture
def tenants(tmp_path):
    database = Database(tmp_path)
    yield Tenants(database)
    database.close()


def test_keys_are_stored_as_hashes_and_end(tenants, tmp_path):
    key = tenants.add_key("a", days=1)
    assert tenants.caller(f"Bearer {key}").tenant == "a"
    assert key.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    import base64

    for text in (f"{key}:", f"user:{key}", key):
        assert tenants.caller("Basic " + base64.b64encode(text.encode()).decode()).tenant == "a"
    name = tenants.list_keys()[0]["id"]
    tenants.database.connection.execute("UPDATE keys SET expires_at = ?", (time.time() - 1,))
    with pytest.raises(Exception, match="no valid key"):
        tenants.caller(f"Bearer {key}")
    tenants.database.connection.execute("UPDATE keys SET expires_at = NULL")
    assert tenants.revoke(name) and not tenants.revoke(name)
    with pytest.raises(Exception, match="no valid key"):
        tenants.caller(f"Bearer {key}")
    assert not tenants.any_key()


def with_limits(client, scopes=None, **limits):
    """Headers of a new tenant's key."""
    key = client.service.tenants.add_key("c", scopes or ("read", "create"), limits=limits)
    return {"Authorization": f"Bearer {key}"}


def test_scopes(two_tenants):
    client, _, _ = two_tenants
    reader = with_limits(client, ("read",))
    assert client.get("/v1/videos", headers=reader).status_code == 200
    assert client.make(headers=reader).status_code == 403
    maker = with_limits(client)
    assert client.make(headers=maker).status_code == 202
    assert client.make(headers=maker, visible_label="none").json()["code"] == "missing_scope"
    assert client.get("/metrics", headers=maker).status_code == 403
    assert client.get("/v1/audit", headers=maker).status_code == 403
    assert client.delete("/v1/videos/x", headers=maker).status_code == 403


def test_quotas(two_tenants):
    client, a, _ = two_tenants
    few = with_limits(client, queued=2)
    assert [client.make(4, headers=few).status_code for _ in range(3)] == [202, 202, 429]
    assert client.make(headers=a).status_code == 202  # nobody else's
    short = {**with_limits(client, queued=100, video_seconds_a_day=3)}
    assert client.make(headers=short).status_code == 202
    day = client.service.database.connection
    day.execute("INSERT INTO usage VALUES ('c', date('now'), 1, 2.5, 1) ON CONFLICT DO UPDATE SET video_seconds = 2.5")
    answer = client.make(headers=short)
    assert (answer.status_code, answer.json()["code"]) == (429, "daily_limit") and "retry-after" in answer.headers
    small = with_limits(client, video_seconds_a_day=9999, bytes=5)
    assert client.make(headers=small).json()["code"] == "storage_limit"
    fast = with_limits(client, requests_a_minute=3)
    assert 429 in [client.get("/v1/videos", headers=fast).status_code for _ in range(5)]


def test_every_limit_is_held():
    assert {one.name for one in dataclasses.fields(Limits)} == {
        "queued", "video_seconds_a_day", "bytes", "requests_a_minute",
    }  # fmt: skip


def test_usage_outlives_the_videos(client):
    name = client.make().json()["id"]
    client.until(name, "completed")
    client.delete(f"/v1/videos/{name}")
    day = client.get("/v1/usage").json()["data"][0]
    assert (day["jobs"], day["video_seconds"]) == (1, 2.0)


def test_results_expire_with_their_rows(client):
    name = client.make().json()["id"]
    client.until(name, "completed")
    client.service.janitor.tidy(time.time() + 8 * 86400)
    video = client.get(f"/v1/videos/{name}").json()
    assert (video["status"], video["state"], video["error"]["code"]) == ("failed", "expired", "expired")
    answer = client.get(f"/v1/videos/{name}/content")
    assert (answer.status_code, answer.json()["code"]) == (410, "expired")
    assert not list(client.service.folders.data.glob("tenants/*/*/*"))  # the inputs too
    client.service.janitor.tidy(time.time() + 40 * 86400)
    assert client.get(f"/v1/videos/{name}").status_code == 404


def test_a_file_that_went_by_itself_is_gone_too(client):
    name = client.make().json()["id"]
    client.until(name, "completed")
    for path in client.service.folders.data.glob("tenants/*/results/*"):
        path.unlink()
    assert client.get(f"/v1/videos/{name}/content").status_code == 410
    assert client.get(f"/v1/videos/{name}").json()["state"] == "expired"


def test_files_without_a_row_are_removed_at_the_start(start, tmp_path):
    with start() as client:
        name = client.make().json()["id"]
        client.until(name, "completed")
        results = client.service.files.path("local/results/left.mp4")
        results.write_bytes(b"x")
    with start() as client:
        assert not results.exists()
        assert client.get(f"/v1/videos/{name}/content").status_code == 200


def test_erase(two_tenants):
    client, a, b = two_tenants
    mine, running, other = (client.make(seed, headers=who).json()["id"] for seed, who in ((0, a), (4, a), (0, b)))
    client.until(mine, "completed", headers=a)
    upload(client, headers=a)
    assert client.delete("/v1/data", headers=a).json()["jobs"] == 2
    assert client.get("/v1/videos", headers=a).json()["data"] == []
    assert client.get(f"/v1/videos/{running}", headers=a).status_code == 404
    end = time.monotonic() + 3
    while list(client.service.folders.data.glob("tenants/a/*/*")):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert client.get(f"/v1/videos/{other}", headers=b).status_code == 200


def test_the_audit_shows_when_it_was_changed(client):
    name = client.make().json()["id"]
    client.until(name, "completed")
    client.delete(f"/v1/videos/{name}")
    actions = [row["action"] for row in client.get("/v1/audit").json()["data"]]
    assert actions == ["job.created", "job.completed", "job.deleted"]
    database = client.service.database
    assert audit.check(database) == (3, None)
    database.connection.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    assert audit.check(database) == (1, 2)


def test_files_are_their_owners_alone(client):
    client.until(client.make().json()["id"], "completed")
    assert stat.S_IMODE(os.stat(client.service.folders.data).st_mode) & 0o077 == 0


def test_the_janitor_keeps_what_jobs_need(client):
    name = client.make(4).json()["id"]
    client.service.janitor.tidy(time.time() + 2 * 86400)
    assert len(list(client.service.folders.data.glob("tenants/*/uploads/*"))) == 2
    client.post(f"/v1/videos/{name}/cancel")
    assert janitor.KEEP_KEYS == 86400


def test_the_command_makes_lists_and_revokes_keys(tmp_path, capsys):
    data = ["--data", str(tmp_path / "data")]
    assert main(["keys", "add", "studio", *data, "--scopes", "read", "--limit", "queued=5"]) == 0
    key = capsys.readouterr().out.strip()
    assert key.startswith("sk-sonic-")
    assert main(["keys", "list", *data]) == 0
    line = capsys.readouterr().out
    assert "studio  read  good" in line and key not in line
    assert main(["keys", "revoke", line.split()[0], *data]) == 0
    assert main(["keys", "list", *data]) == 0
    assert "revoked" in capsys.readouterr().out
    for wrong in (["add", "../up"], ["add"], ["revoke", "none"], ["add", "a", "--scopes", "all"],
                  ["add", "a", "--limit", "x=1"], ["add", "a", "--limit", "queued=many"]):  # fmt: skip
        assert main(["keys", *wrong, *data]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_no_other_address_without_keys(tmp_path, capsys):
    assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path)]) == 2
    assert "sonic-ms keys add" in capsys.readouterr().err


def test_one_server_a_folder(client, capsys):
    assert main(["serve", "--port", "0", "--data", str(client.service.folders.data)]) == 2
    assert "used by another server" in capsys.readouterr().err
