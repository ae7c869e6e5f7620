"""The C2PA manifest: who made a file and how, signed with the operator's certificate. Needs the extra `c2pa`.

Source: C2PA specification 2 as the package c2pa-python implements it. It is the last thing that is done to a file: any
byte that changes later makes it invalid.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sonic_ms import __version__
from sonic_ms.errors import EngineError, InputMissingError, OutputError, UsageError

# A real photo and a real voice, put together by a trained model.
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}  # a file must not make us ask an address
ALGORITHMS = {  # curve, or kind of a public key, in cryptography -> C2PA's name of what it signs with
    "secp256r1": "es256",
    "secp384r1": "es384",
    "secp521r1": "es512",
    "Ed25519PublicKey": "ed25519",
    "RSAPublicKey": "ps256",
}


@dataclass(frozen=True)
class Signer:
    """certificates: PEM, the operator's first, then those up to the root's. key: PEM. algorithm: as C2PA names it."""

    certificates: bytes
    key: bytes
    algorithm: str


def library() -> Any:
    """The package c2pa. Raises EngineError without it."""
    try:
        import c2pa
    except ImportError as error:
        raise EngineError(f"C2PA needs the package c2pa-python ({error}); pip install 'sonic_ms[c2pa]'") from error
    return c2pa


def load_signer(certificates: str, key: str) -> Signer:
    """The operator's certificate and its key from PEM files, seen to fit and to be valid today.

    Raises EngineError, InputMissingError, UsageError.
    """
    library()
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    read = []
    for what, path in (("certificate", certificates), ("key", key)):
        try:
            read.append(Path(path).read_bytes())
        except OSError as error:
            raise InputMissingError(f"C2PA {what} {path}: {error.strerror}; check the path") from error
    try:
        leaf = x509.load_pem_x509_certificates(read[0])[0]
    except ValueError as error:
        raise UsageError(f"C2PA certificate {certificates}: no PEM; expected the chain, own first") from error
    try:
        private: Any = serialization.load_pem_private_key(read[1], None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"C2PA key {key}: no PEM without a password; convert it with openssl pkey") from error
    public: Any = leaf.public_key()
    if private.public_key() != public:
        raise UsageError(f"C2PA key {key}: does not belong to the certificate {certificates}; give the one that does")
    first, last = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if not first <= datetime.datetime.now(datetime.timezone.utc) <= last:
        raise UsageError(
            f"C2PA certificate {certificates}: valid from {first:%Y-%m-%d} to {last:%Y-%m-%d} only; renew it"
        )
    # PKCS#8 is the one form that the library reads
    plain = serialization.NoEncryption()
    text = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    kind = getattr(public, "curve", public)
    algorithm = ALGORITHMS.get(getattr(kind, "name", type(kind).__name__))
    if algorithm is None:
        raise UsageError(f"C2PA key {key}: of a kind that C2PA does not know; expected EC P-256, Ed25519 or RSA")
    return Signer(read[0], text, algorithm)


def sign(source: Path, target: Path, signer: Signer) -> None:
    """Write `source`, an mp4, with a manifest as `target`, and look whether it is valid. Raises OutputError."""
    c2pa = library()
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE}
    manifest = {
        "claim_generator_info": [{"name": "sonic_ms", "version": __version__}],
        "format": "video/mp4",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    info = c2pa.C2paSignerInfo(
        alg=signer.algorithm.encode(), sign_cert=signer.certificates, private_key=signer.key, ta_url=None
    )
    try:
        with open(source, "rb") as plain, open(target, "w+b") as signed:
            builder = c2pa.Builder(json.dumps(manifest), c2pa.Context.from_dict(OFFLINE))
            builder.sign(c2pa.Signer.from_info(info), "video/mp4", plain, signed)
    except c2pa.C2paError as error:
        raise OutputError(
            f"C2PA: the certificate cannot sign ({error}); see docs/labels.md for what it needs"
        ) from error
    if not (line := check(target)).startswith("Valid"):
        raise OutputError(f"C2PA: the manifest that was written is not valid ({line}); report it")


def check(path: Path | str) -> str:
    """The manifest of an mp4 in one line: none, Valid or Invalid and why. Raises EngineError without the package."""
    c2pa = library()
    try:
        with (
            open(path, "rb") as file,
            c2pa.Reader("video/mp4", file, context=c2pa.Context.from_dict(OFFLINE)) as reader,
        ):
            report = json.loads(reader.json())
            state = reader.get_validation_state()
    except c2pa.C2paError as error:
        return "none" if "ManifestNotFound" in str(error) else f"Invalid: {' '.join(str(error).split())}"
    failures = report.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    # an authority that nobody here knows does not make a manifest invalid
    codes = sorted({one["code"] for one in failures} - {"signingCredential.untrusted"})
    signed = report["manifests"][report["active_manifest"]].get("signature_info", {})
    if state not in ("Valid", "Trusted"):
        return f"Invalid: {', '.join(codes)}"
    line = f"{state}, signed by {signed.get('common_name')} ({signed.get('issuer')})"
    return f"{line}; no authority that is known here vouches for that name" if state == "Valid" else line
