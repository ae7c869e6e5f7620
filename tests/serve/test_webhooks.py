"""Telling others: signed as the standard says, tried again, never to a private address."""

import http.server
import json
import socket
import threading
import time

import pytest
import standardwebhooks
from openai import OpenAI

from sonic_ms.serve import addresses
from sonic_ms.serve.addresses import Refused, check_url, is_public, post, resolve


class Receiver:
    """An HTTP server that answers with `statuses`, one after the other, the last for ever; `pause` seconds late."""

    def __init__(self, *statuses, pause=0.0):
        self.got, statuses = [], list(statuses)
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                receiver.got.append((dict(self.headers.items()), body))
                time.sleep(pause)
                self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
                self.send_header("Location", f"{receiver.url}elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, count=1, timeout=10):
        end = time.monotonic() + timeout
        while len(self.got) < count:
            assert time.monotonic() < end, self.got
            time.sleep(0.02)
        return self.got

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def sending(start, monkeypatch):
    monkeypatch.setattr("sonic_ms.serve.webhooks.LOOK", 0.05)

    def make(**settings):
        return start(private_webhooks=True, webhook_pauses=(0.05, 0.05), **settings)

    return make


def webhook(client, name, state, timeout=10):
    end = time.monotonic() + timeout
    while (found := client.get(f"/v1/videos/{name}").json()["webhook"])["state"] != state:
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found


def test_the_libraries_of_others_take_our_signature(sending):
    with Receiver(204) as receiver, sending() as client:
        name = client.make(webhook_url=receiver.url).json()["id"]
        headers, body = receiver.wait()[0]
        secret = client.get("/v1/webhook_secret").json()["secret"]
        event = standardwebhooks.Webhook(secret).verify(body, headers)
        assert (event["type"], event["data"]["id"]) == ("video.completed", name)
        unwrapped = OpenAI(api_key="x", webhook_secret=secret).webhooks.unwrap(body, headers)
        assert (unwrapped.type, unwrapped.data.id) == ("video.completed", name)
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(secret).verify(body.replace(name, "video_other"), headers)
        assert webhook(client, name, "delivered")["attempts"] == 1


@pytest.mark.parametrize(("seed", "kind"), [(3, "video.failed"), (4, "video.failed")])
def test_failures_are_told_too(sending, seed, kind):
    with Receiver(200) as receiver, sending() as client:
        name = client.make(seed, webhook_url=receiver.url).json()["id"]
        if seed == 4:
            client.post(f"/v1/videos/{name}/cancel")
        assert json.loads(receiver.wait()[0][1])["type"] == kind


def test_it_is_tried_again_with_the_same_id(sending):
    with Receiver(500, 302, 200) as receiver, sending() as client:
        name = client.make(webhook_url=receiver.url).json()["id"]
        assert webhook(client, name, "delivered")["attempts"] == 3
        assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


def test_it_is_given_up_with_the_reason(sending):
    with Receiver(500) as receiver, sending() as client:
        found = webhook(client, client.make(webhook_url=receiver.url).json()["id"], "given_up")
        assert (found["attempts"], found["last"]) == (3, "answered 500")
        assert 'sonic_ms_webhook_deliveries_total{result="given_up"} 1.0' in client.get("/metrics").text


def test_what_was_not_delivered_is_sent_after_a_restart(start, monkeypatch):
    monkeypatch.setattr("sonic_ms.serve.webhooks.LOOK", 0.05)
    with Receiver(200) as receiver:
        with start(private_webhooks=True, webhook_pauses=(0.1,)) as client:
            client.service.sender._stopping.set()  # nothing is sent by this server
            client.until(client.make(webhook_url=receiver.url).json()["id"], "completed")
        assert not receiver.got
        with start(private_webhooks=True):
            receiver.wait()


def test_a_slow_receiver_does_not_hold_up_others(sending):
    with Receiver(200, pause=3) as slow, Receiver(200) as quick, sending() as client:
        client.make(10, webhook_url=slow.url)
        slow.wait()
        client.make(11, webhook_url=quick.url)
        quick.wait(timeout=2)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1",
     "2002:7f00:1::", "ff02::1", "240.0.0.1"],
)  # fmt: skip
def test_private_addresses(address):
    assert not is_public(address)


def test_public_addresses():
    assert is_public("8.8.8.8") and is_public("2606:4700:4700::1111")


@pytest.mark.parametrize(
    "url",
    ["http://example.org", "ftp://example.org", "https://", "https://user:key@example.org", "https://[::1", "file:///etc",
     "https://exa mple.org", "https://example.org/\r\nX: y", "https://example.org:99999", "https://ex\u00e4mple.org"],
)  # fmt: skip
def test_odd_urls(url):
    with pytest.raises(Refused):
        check_url(url)


def test_a_name_is_asked_once_and_connected_to_as_found(monkeypatch):
    """A name server that answers a public address first and a private one then gains nothing."""
    answers = [["8.8.8.8"], ["127.0.0.1"]]
    connected = []

    def found(host, port, **_):
        return [(2, 1, 6, "", (one, port)) for one in answers.pop(0)]

    def connect(address, timeout):
        connected.append(address)
        raise OSError("no network here")

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(addresses.socket, "create_connection", connect)
    with pytest.raises(OSError, match="no network"):
        post("https://example.org/", "{}", {})
    assert connected == [("8.8.8.8", 443)] and len(answers) == 1
    answers[:] = [["8.8.8.8", "10.0.0.1"]]
    with pytest.raises(Refused, match=r"10\.0\.0\.1"):
        resolve("example.org", 443)


def test_a_private_receiver_is_refused_by_default(start, monkeypatch):
    monkeypatch.setattr("sonic_ms.serve.webhooks.LOOK", 0.05)
    with start(webhook_pauses=()) as client:
        found = webhook(client, client.make(webhook_url="https://127.0.0.1/").json()["id"], "given_up")
        assert "no public address" in found["last"]
