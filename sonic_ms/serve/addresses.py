"""Where a webhook may go: public addresses, found out before the connection is made and connected to as found."""

import http.client
import ipaddress
import socket
import ssl
from urllib.parse import urlsplit

NAT64 = ipaddress.ip_network("64:ff9b::/96")
TIMEOUT = 10.0  # seconds for connecting, and for each answer


class Refused(Exception):
    """The address is not one that we send to."""


def check_url(url, private=False):
    """(scheme, host, port, path) of an address. private: http and any host will do. Raises Refused."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused(f"{url[:200]!r} is no address ({error})") from error
    if parts.scheme != "https" and not (private and parts.scheme == "http"):
        raise Refused(f"{url[:200]!r}: expected an address that begins with https://")
    if not parts.hostname or parts.username is not None or parts.password is not None or len(url) > 2000:
        raise Refused(f"{url[:200]!r}: expected https://host/path without user and password")
    if not url.isascii() or any(one <= " " for one in url):
        raise Refused(f"{url[:200]!r}: expected plain characters, the others written as %..")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), path


def is_public(address):
    """Whether an IP address, as text, belongs to the public internet; one that hides another in it does not."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6 and (ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip in NAT64):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def resolve(host, port, private=False):
    """An address of a host to connect to. Raises Refused when any of its addresses is not public, OSError."""
    found = [one[4][0] for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not private and (wrong := next((one for one in found if not is_public(one)), None)):
        raise Refused(f"{host} leads to {wrong}, which is no public address")
    return found[0]


def post(url, body, headers, private=False):
    """Status of the answer to a POST, which is not followed. Raises Refused, OSError, HTTPException."""
    scheme, host, port, path = check_url(url, private)
    address = resolve(host, port, private)  # once: a second answer of the name server is not asked for
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    connection.sock = socket.create_connection((address, port), TIMEOUT)
    try:
        if scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        shown = f"[{host}]" if ":" in host else host
        default = {"https": 443, "http": 80}[scheme]
        headers = {"Host": shown if port == default else f"{shown}:{port}", **headers}
        connection.request("POST", path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()
