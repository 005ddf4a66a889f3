"""QUIC packets made by hand: Initials in bulk, garbage, unknown versions. Source: RFC 9000, 9001."""

import os
import socket
import ssl
import struct

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SALT_V1 = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")


def _hmac(key, data):
    h = hmac.HMAC(key, hashes.SHA256())
    h.update(data)
    return h.finalize()


def _expand(secret, label, length):
    name = b"tls13 " + label
    return _hmac(secret, struct.pack(">HB", length, len(name)) + name + b"\0\x01")[:length]


def _varint(value):
    return struct.pack(">H", 0x4000 | value)


def client_hello(alpn=None):
    """(source connection id, CRYPTO frame contents) of a client that exists only on paper."""
    configuration = QuicConfiguration(
        is_client=True, server_name="localhost", verify_mode=ssl.CERT_NONE,
        alpn_protocols=alpn, supported_versions=[1],
    )  # fmt: skip
    connection = QuicConnection(configuration=configuration)
    connection.connect(("127.0.0.1", 1), now=0.0)
    # The crypto stream of the Initial space holds the ClientHello.
    from aioquic.tls import Epoch

    sender = connection._crypto_streams[Epoch.INITIAL].sender
    return connection.host_cid, bytes(sender._buffer)


class InitialFactory:
    """Valid Initials with one ClientHello and a fresh destination id each: one connection each."""

    def __init__(self):
        self.scid, hello = client_hello()
        self.payload = b"\x06\x00" + _varint(len(hello)) + hello

    def packet(self, dcid=None, token=b""):
        dcid = dcid or os.urandom(8)
        secret = _expand(_hmac(SALT_V1, dcid), b"client in", 32)
        key = _expand(secret, b"quic key", 16)
        iv = _expand(secret, b"quic iv", 12)
        hp = _expand(secret, b"quic hp", 16)
        number = b"\0\0\0\0"
        fixed = struct.pack(">BI", 0xC3, 1) + bytes([len(dcid)]) + dcid
        fixed += bytes([len(self.scid)]) + self.scid + _varint(len(token)) + token
        plain = self.payload.ljust(1200 - len(fixed) - 2 - 4 - 16, b"\0")
        header = fixed + _varint(4 + len(plain) + 16) + number
        sealed = AESGCM(key).encrypt(iv, plain, header)
        mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update(sealed[:16])
        first = bytes([header[0] ^ (mask[0] & 0x0F)])
        masked = bytes(a ^ b for a, b in zip(number, mask[1:5], strict=True))
        return first + header[1:-4] + masked + sealed


def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    s.bind(("127.0.0.1", 0))
    return s


def parse_long(data):
    """(first byte, version, destination id, source id, rest) of a long-header packet."""
    first, version, n = struct.unpack_from(">BIB", data)
    dcid = data[6 : 6 + n]
    m = data[6 + n]
    at = 7 + n
    return first, version, dcid, data[at : at + m], data[at + m :]
