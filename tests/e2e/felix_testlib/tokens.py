"""Keys, tokens (good and bad ones) and certificates, made here and not by the broker."""

import base64
import datetime
import hashlib
import hmac
import ipaddress
import json
import os
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID


def b64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value):
    return json.dumps(value, separators=(",", ":")).encode()


def every_permission(tenant):
    return [
        f"stream.publish:stream:{tenant}/*/*",
        f"stream.subscribe:stream:{tenant}/*/*",
        f"cache.read:cache:{tenant}/*/*",
        f"cache.write:cache:{tenant}/*/*",
    ]


class Issuer:
    """Signs tokens for one tenant and knows every way to get it wrong."""

    def __init__(self, tenant, kid="e2e-1", seed=None):
        self.tenant, self.kid = tenant, kid
        self.seed = seed or os.urandom(32)
        self.key = ed25519.Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public(self):
        return self.key.public_key().public_bytes_raw()

    def jwk(self):
        return {
            "kty": "OKP", "kid": self.kid, "alg": "EdDSA", "use": "sig", "crv": "Ed25519",
            "x": b64url(self.public),
        }  # fmt: skip

    def claims(self, **changes):
        now = int(time.time())
        claims = {
            "iss": "felix-auth", "aud": "felix-broker", "sub": "p:e2e", "tid": self.tenant,
            "iat": now, "exp": now + 900, "perms": every_permission(self.tenant),
        }  # fmt: skip
        claims.update(changes)
        return {k: v for k, v in claims.items() if v is not ...}

    def token(self, header=None, signer=None, **changes):
        """A claim given as `...` is left out."""
        head = {"typ": "JWT", "alg": "EdDSA", "kid": self.kid} if header is None else header
        signed = b64url(_json(head)) + "." + b64url(_json(self.claims(**changes)))
        sign = signer or self.key.sign
        return signed + "." + b64url(sign(signed.encode()))

    def unsigned(self):
        return self.token(header={"typ": "JWT", "alg": "none"}, signer=lambda _: b"")

    def hs256(self):
        """Signed symmetrically with the public key: the classic confusion of algorithms."""
        head = {"typ": "JWT", "alg": "HS256", "kid": self.kid}
        return self.token(
            header=head, signer=lambda m: hmac.new(self.public, m, hashlib.sha256).digest()
        )


def jwks(*issuers):
    """The form with several tenants."""
    tenants = {}
    for issuer in issuers:
        tenants.setdefault(issuer.tenant, {"keys": []})["keys"].append(issuer.jwk())
    return json.dumps({"tenants": tenants})


def write_certificate(directory, name="tls", common_name="felix test"):
    """A self-signed end-entity certificate for localhost; returns the paths of both PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path = os.path.join(directory, name + ".crt")
    key_path = os.path.join(directory, name + ".key")
    # Each file is replaced in one step, as an operator's tool would do it.
    for path, data, mode in (
        (cert_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644),
        (
            key_path,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
            0o600,
        ),
    ):
        temporary = path + ".new"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
            out.write(data)
        os.rename(temporary, path)
    return cert_path, key_path
