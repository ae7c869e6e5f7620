"""The C2PA manifest: signed by a certificate of a test authority, valid, and invalid after one flipped byte."""

import contextlib
import datetime
import socket
import sys
import threading

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sonic_ms.cli import main
from sonic_ms.errors import EngineError, InputMissingError, OutputError, UsageError
from sonic_ms.labels import aigc, manifest, mp4, write
from sonic_ms.labels.save import Labels, Operator, save_video
from sonic_ms.media.video import Video

PEM = serialization.Encoding.PEM
KEYS = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "odd": lambda: ec.generate_private_key(ec.SECP256K1()),
}


def certificate(name, public, authority, days, is_authority, usage=ExtendedKeyUsageOID.EMAIL_PROTECTION):
    now = datetime.datetime.now(datetime.timezone.utc)
    subject, issuer = (
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"), x509.NameAttribute(NameOID.COMMON_NAME, one)])
        for one in (name, "Test CA")
    )
    other = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
         "decipher_only"), False)  # fmt: skip
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    first, last = (now + datetime.timedelta(days=day) for day in days)
    builder = builder.not_valid_before(first).not_valid_after(last)
    for extension, critical in (
        (x509.BasicConstraints(is_authority, None), True),
        (x509.KeyUsage(not is_authority, key_cert_sign=is_authority, crl_sign=is_authority, **other), True),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False),
        *(() if is_authority else ((x509.ExtendedKeyUsage([usage]), False),)),
    ):
        builder = builder.add_extension(extension, critical)
    return builder.sign(authority, hashes.SHA256()).public_bytes(PEM)


def write_pair(folder, kind="es256", days=(-1, 30), **options):
    """Paths of a chain and of its key, as an operator would have them."""
    authority, key = KEYS["es256"](), KEYS[kind]()
    chain = certificate("Operator", key.public_key(), authority, days, False, **options)
    chain += certificate("Test CA", authority.public_key(), authority, (-60, 60), True)
    paths = folder / f"{kind}{days[1]}.pem", folder / f"{kind}{days[1]}.key"
    paths[0].write_bytes(chain)
    paths[1].write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return tuple(map(str, paths))


@pytest.fixture
def pair(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("keys"))


def make(path, signer=None):
    frames = [np.full((48, 64, 3), 90, np.uint8)] * 30
    video = Video(lambda: iter(frames), (64, 48), 30, np.zeros(19200, "f4"), labels=Labels("00" * 16, watermark=False))
    return save_video(video, path, progress=False, operator=Operator("example.org", signer))


@pytest.mark.parametrize("kind", ["es256", "es384", "ed25519", "ps256"])
def test_a_signed_video_is_valid_and_a_flipped_byte_is_not(tmp_path, tmp_path_factory, kind, capsys):
    signer = manifest.load_signer(*write_pair(tmp_path_factory.mktemp("keys"), kind))
    assert signer.algorithm == kind
    path = make(tmp_path / "a.mp4", signer)
    assert manifest.check(path).startswith("Valid, signed by Operator (Test)")
    assert aigc.parse(mp4.read_keys(path)["AIGC"]).ContentProducer == "example.org"
    assert [one.name for one in tmp_path.iterdir()] == ["a.mp4"]
    data = bytearray(path.read_bytes())
    data[data.index(b"mdat") + 100] ^= 1
    path.write_bytes(data)
    assert manifest.check(path) == "Invalid: assertion.bmffHash.mismatch"
    assert main(["label", str(path)]) == 12
    assert "C2PA: Invalid: assertion.bmffHash.mismatch" in capsys.readouterr().out


def test_the_manifest_says_how_it_was_made(tmp_path, pair):
    path = make(tmp_path / "a.mp4", manifest.load_signer(*pair))
    assert manifest.SOURCE.encode() in path.read_bytes() and b"c2pa.created" in path.read_bytes()


def test_without_a_signer_there_is_none(tmp_path):
    path = make(tmp_path / "a.mp4")
    assert not mp4.has_manifest(path) and manifest.check(path) == "none"


@pytest.mark.parametrize(("days", "words"), [((-30, -1), "valid from .* only; renew it"), ((1, 30), "valid from")])
def test_a_certificate_out_of_its_time(tmp_path, days, words):
    with pytest.raises(UsageError, match=words):
        manifest.load_signer(*write_pair(tmp_path, days=days))


def test_pairs_that_are_none(tmp_path, pair):
    with pytest.raises(InputMissingError, match=r"C2PA certificate .*gone\.pem: No such file"):
        manifest.load_signer(str(tmp_path / "gone.pem"), pair[1])
    with pytest.raises(InputMissingError, match=r"C2PA key .*: No such file"):
        manifest.load_signer(pair[0], str(tmp_path / "gone.key"))
    with pytest.raises(UsageError, match="does not belong to the certificate"):
        manifest.load_signer(pair[0], write_pair(tmp_path)[1])
    with pytest.raises(UsageError, match=r"C2PA certificate .*: no PEM"):
        manifest.load_signer(__file__, pair[1])
    with pytest.raises(UsageError, match=r"C2PA key .*: no PEM"):
        manifest.load_signer(pair[0], __file__)
    with pytest.raises(UsageError, match="of a kind that C2PA does not know"):
        manifest.load_signer(*write_pair(tmp_path, "odd"))


def test_a_certificate_that_may_not_sign_leaves_no_file(tmp_path, tmp_path_factory):
    pair = write_pair(tmp_path_factory.mktemp("keys"), usage=ExtendedKeyUsageOID.SERVER_AUTH)
    with pytest.raises(OutputError, match="C2PA: the certificate cannot sign"):
        make(tmp_path / "a.mp4", manifest.load_signer(*pair))
    assert list(tmp_path.iterdir()) == []


def test_without_the_package(pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(EngineError, match=r"pip install 'sonic_ms\[c2pa\]'"):
        manifest.load_signer(*pair)


def test_the_command(tmp_path, pair, capsys):
    path = make(tmp_path / "a.mp4")
    assert main(["label", str(path)]) == 0
    assert "C2PA: none\n" in capsys.readouterr().out
    flags = ["--producer", "example.org", "--c2pa-cert", pair[0], "--c2pa-key", pair[1]]
    assert main(["label", str(path), "--write", *flags]) == 0
    assert "C2PA: Valid, signed by Operator (Test)" in capsys.readouterr().out
    assert main(["label", str(path), "--write", *flags[:4]]) == 2
    assert "give both" in capsys.readouterr().err
    assert write.write_labels(path, Operator("example.org")) == [
        "the C2PA manifest that was there is left out: it does not hold for the changed file"
    ]
    assert not mp4.has_manifest(path)


def test_a_file_cannot_make_us_ask_an_address(tmp_path, pair):
    """A manifest that lies at an address is not fetched: nobody connects to the server."""
    signer = manifest.load_signer(*pair)
    info = c2pa.C2paSignerInfo(
        alg=signer.algorithm.encode(), sign_cert=signer.certificates, private_key=signer.key, ta_url=None
    )
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with contextlib.suppress(OSError):  # closed below
                while True:
                    asked.append(server.accept()[0].close())

        threading.Thread(target=answer, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa"
        action = {"action": "c2pa.created", "digitalSourceType": manifest.SOURCE}
        actions = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
        builder = c2pa.Builder({"format": "video/mp4", "assertions": actions})
        builder.set_no_embed()
        builder.set_remote_url(address)
        path = tmp_path / "remote.mp4"
        with open(make(tmp_path / "a.mp4"), "rb") as plain, open(path, "w+b") as remote:
            builder.sign(c2pa.Signer.from_info(info), "video/mp4", plain, remote)
        assert address.encode() in path.read_bytes()
        manifest.check(path)
    assert asked == []
