"""FLX1 frames, written from the specification and not from the broker's code."""

import json
import struct
from dataclasses import dataclass

MAGIC = 0x464C5831
VERSION = 1

PUBLISH = 0x0001
EVENT = 0x0002
EVENT_SHARED = 0x0004
ACKED = 0x0008
ACK = 0x0010
OFFSETS = 0x0020
KEYED = 0x0040
IDEMPOTENT = 0x0100
ACK_CODE = 0x0200
ACK_OFFSET = 0x1000
TIMESTAMPS = 0x4000
ACK_LEVEL = 0x8000
CACHE = 0x8006

CACHE_DELETE = 0x0004
ERROR_CODES = 0x0800
UNSUPPORTED = 0x2000
ACK_ON_COMMIT = 0x00080000
SUBSCRIPTION_LAGGED = 0x00200000

# What the published clients send (wire extensions, 1.2), and what a broker of the first stage
# answers, byte for byte (section 6).
CLIENT_FLAGS = 8191
CLIENT_FEATURES = 4218945535
CLIENT_FEATURES_HI = 15
AUTH_OK = bytes.fromhex(
    "464c5831000100000000003d7b2274797065223a22617574685f6f6b222c227365727665725f666c616773223a313237"
    "2c227365727665725f6665617475726573223a31303234347d"
)

# What one that may keep durable streams answers beside that: its flags and features.
FLAGS_DURABLE = 0x507F
FEATURES_DURABLE = 10244 | ACK_ON_COMMIT | SUBSCRIPTION_LAGGED

BIND, GET, PUT, DELETE = 1, 2, 3, 4
DONE, VALUE, MISS, REFUSED = 0, 1, 2, 3


@dataclass
class Frame:
    flags: int
    body: bytes

    def json(self):
        assert self.flags == 0, f"not a JSON frame: flags {self.flags:#06x}, body {self.body[:80]!r}"
        return json.loads(self.body)


def frame(flags, body, magic=MAGIC, version=VERSION, length=None):
    length = len(body) if length is None else length
    return struct.pack(">IHHI", magic, version, flags, length) + body


def message(type_, **members):
    return text({"type": type_, **members})


def text(value):
    """A JSON frame of an object, or of the text itself."""
    if not isinstance(value, (str, bytes)):
        value = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return frame(0, value.encode() if isinstance(value, str) else value)


def auth(tenant, token, flags=CLIENT_FLAGS, features=CLIENT_FEATURES, hi=CLIENT_FEATURES_HI, own=None):
    members = {"tenant_id": tenant, "token": token}
    if own is not None:
        members["felix_c"] = own
    for name, value in (("flags", flags), ("features", features), ("features_hi", hi)):
        if value is not None:
            members["client_" + name] = value
    return message("auth", **members)


def short(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">H", len(data)) + data


def items(payloads, count=None, times=None):
    """With times, one for each payload in microseconds, the items of an event frame with 0x4000."""
    out = struct.pack(">I", len(payloads) if count is None else count)
    stamps = [b""] * len(payloads) if times is None else [struct.pack(">Q", t) for t in times]
    return out + b"".join(t + struct.pack(">I", len(p)) + p for t, p in zip(stamps, payloads))


def publish_body(tenant, namespace, stream, payloads, count=None):
    return short(tenant) + short(namespace) + short(stream) + items(payloads, count)


def publish(tenant, namespace, stream, payloads, request_id=None, key=None, mode=1, count=None):
    """0x0001, with a request id 0x0009, with a key also 0x0040."""
    flags, prefix = PUBLISH, b""
    if request_id is not None:
        flags |= ACKED
        prefix += struct.pack(">QB", request_id, mode)
    if key is not None:
        flags |= KEYED
        prefix += short(key)
    return frame(flags, prefix + publish_body(tenant, namespace, stream, payloads, count))


@dataclass
class Ack:
    ok: bool
    request_id: int
    message: str
    code: int = 0
    retry: int = 0
    offset: int | None = None
    level: int | None = None


def decode_ack(f):
    known = ACK | ACK_CODE | ACK_OFFSET | ACK_LEVEL
    assert f.flags & ACK and not f.flags & ~known, f"flags {f.flags:#06x} {f.body!r}"
    status, request_id, n = struct.unpack_from(">BQH", f.body)
    assert status in (0, 1), status
    ack = Ack(status == 0, request_id, f.body[11 : 11 + n].decode())
    if f.flags & ACK_CODE:
        ack.code, ack.retry = struct.unpack_from(">HB", f.body, 11 + n)
    at = 11 + n + (3 if f.flags & ACK_CODE else 0)
    if f.flags & ACK_OFFSET:
        (ack.offset,) = struct.unpack_from(">Q", f.body, at)
        at += 8
    if f.flags & ACK_LEVEL:
        ack.level = f.body[at]
        at += 1
    assert at == len(f.body), "bytes after the acknowledgement"
    return ack


# What a broker answers that offers cache frames.
AUTH_OK_CACHE_FRAMES = message("auth_ok", server_flags=127, server_features=10244, felix_c=1)


@dataclass
class CacheRequest:
    op: int
    handle: int
    request_id: int | None = None
    key: str = ""
    value: bytes = b""
    ttl_ms: int | None = None
    names: tuple = ()


def cache_bind(handle, tenant, namespace, cache):
    return frame(CACHE, struct.pack(">BBH", BIND, 0, handle) + b"".join(map(short, (tenant, namespace, cache))))


def cache_request(op, handle, request_id, key, value=b"", ttl_ms=None):
    key = key.encode()
    ttl = b"" if ttl_ms is None else struct.pack(">Q", ttl_ms)
    head = struct.pack(">BBHQI", op, int(ttl_ms is not None), handle, request_id, len(key))
    return frame(CACHE, head + ttl + key + value)


def decode_cache_request(f):
    assert f.flags == CACHE, f"not a cache frame: flags {f.flags:#06x}, body {f.body[:80]!r}"
    op, flags, handle = struct.unpack_from(">BBH", f.body)
    if op == BIND:
        names, at = [], 4
        for _ in range(3):
            (n,) = struct.unpack_from(">H", f.body, at)
            names.append(f.body[at + 2 : at + 2 + n].decode())
            at += 2 + n
        assert at == len(f.body) and flags == 0
        return CacheRequest(op, handle, names=tuple(names))
    request_id, n = struct.unpack_from(">QI", f.body, 4)
    at, ttl_ms = 16, None
    if flags:
        assert (op, flags) == (PUT, 1)
        (ttl_ms,) = struct.unpack_from(">Q", f.body, at)
        at += 8
    key, value = f.body[at : at + n].decode(), f.body[at + n :]
    assert op == PUT or not value
    return CacheRequest(op, handle, request_id, key, value, ttl_ms)


def cache_reply(status, request_id, rest=b"", code=0):
    return frame(CACHE, struct.pack(">BBHQ", status, 0, code, request_id) + rest)


def decode_cache_reply(f):
    """(status, request id, value or text, code)"""
    assert f.flags == CACHE, f"not a cache frame: flags {f.flags:#06x}, body {f.body[:80]!r}"
    status, zero, code, request_id = struct.unpack_from(">BBHQ", f.body)
    assert zero == 0 and (code == 0 or status == REFUSED)
    return status, request_id, f.body[12:], code


@dataclass
class Events:
    flags: int
    payloads: list
    subscription_id: int | None = None
    base_offset: int | None = None
    times: list | None = None


def decode_events(f):
    assert f.flags & (EVENT | EVENT_SHARED), f"not an event frame: {f.flags:#06x} {f.body[:80]!r}"
    events, at = Events(f.flags, []), 0
    if not f.flags & EVENT_SHARED:
        (events.subscription_id,) = struct.unpack_from(">Q", f.body)
        at += 8
    if f.flags & OFFSETS:
        (events.base_offset,) = struct.unpack_from(">Q", f.body, at)
        at += 8
    (count,) = struct.unpack_from(">I", f.body, at)
    at += 4
    if f.flags & TIMESTAMPS:
        events.times = []
    for _ in range(count):
        if f.flags & TIMESTAMPS:
            events.times += struct.unpack_from(">Q", f.body, at)
            at += 8
        (n,) = struct.unpack_from(">I", f.body, at)
        events.payloads.append(f.body[at + 4 : at + 4 + n])
        assert len(events.payloads[-1]) == n, "truncated event frame"
        at += 4 + n
    assert at == len(f.body), "bytes after the last event"
    return events
