"""What malformed, forbidden and hostile input gets. docs/malformed-input.md is this file as a table.

Every case runs on a stream of its own, and after every case two bystanders are as well as before:
another stream of the same connection and the subscription of another client.
"""

import os
import struct
import time
from dataclasses import dataclass

import pytest

from felix_testlib import frames, tokens
from felix_testlib.frames import ACKED, KEYED, PUBLISH, frame, message, text
from felix_testlib.slow import FACTOR, scaled, wait_until

NS = "default"
MEBI = 1 << 20
FRAME_MAX = 16 * MEBI

# ---- what may follow


@dataclass
class Error:
    """An `error` message; the code is only sent to a client that offered ERROR_CODES."""

    text: str
    code: str | None = None


@dataclass
class Ack:
    """The answer to the acknowledged publish 7. A refusal comes as `publish_error` to a client that
    offered ERROR_CODES, because a binary one without 0x0200 could not carry its code."""

    text: str | None = None
    code: str | None = None


@dataclass
class Answer:
    """A JSON message with at least these members."""

    type: str
    members: dict


class FIN:
    """The broker ends its side, and stops reading ours unless we ended it."""


class STAYS:
    """The stream goes on: an acknowledged publish on it works."""


class NOTHING:
    """No answer for a while, and the stream goes on."""


@dataclass
class Case:
    id: str
    data: object  # bytes, or a function of the module's scope that makes them
    then: tuple
    auth: bool = True  # has the stream authenticated before?
    fin: bool = False  # do we end our side after the data?
    perms: tuple | None = None  # grants instead of all
    words: dict | None = None  # negotiation words of the auth


def case(id, data, *then, **more):
    return pytest.param(Case(id, data, then, **more), id=id)


def good_publish(request_id=7):
    return frames.publish("t1", NS, "orders", [b"x"], request_id=request_id)


def publish_with(raw, acked=True, flags=0, mode=1):
    prefix = struct.pack(">QB", 7, mode) if acked else b""
    return frame(PUBLISH | (ACKED if acked else 0) | flags, prefix + raw)


def json_publish(**changes):
    members = {
        "tenant_id": "t1", "namespace": NS, "stream": "orders", "payload": "aGk=",
        "request_id": 7, "ack": "per_message",
    }  # fmt: skip
    members.update(changes)
    return message("publish", **{k: v for k, v in members.items() if v is not ...})


def raw_publish(request_id="7", payload='"aGk="', extra=""):
    """A JSON publish with literal pieces."""
    return text(
        '{"type":"publish","tenant_id":"t1","namespace":"default","stream":"orders",'
        f'"payload":{payload},"request_id":{request_id},"ack":"per_message"{extra}}}'
    )


def subscribe(**changes):
    members = {"tenant_id": "t1", "namespace": NS, "stream": "orders"}
    members.update(changes)
    return message("subscribe", **members)


def cache(op, **changes):
    members = {
        "tenant_id": "t1", "namespace": NS, "cache": "sessions", "key": "k", "request_id": 7,
    }  # fmt: skip
    members.update({"value": "dg=="} if op == "put" else {})
    members.update(changes)
    return message("cache_" + op, **{k: v for k, v in members.items() if v is not ...})


BODY = frames.publish_body("t1", NS, "orders", [b"x"])
MALFORMED = Ack("malformed publish batch", "invalid_request")
LEGACY = {"flags": None, "features": None, "hi": None}
NOT_FOUND = "stream not found: tenant=t1 namespace=default stream=nowhere"
NO_CACHE = "cache scope not found: t1/default/nowhere"

FRAMING = [
    case("magic", frame(0, b"{}", magic=0x464C5832), FIN),
    case("magic_of_http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
         FIN, auth=False),
    case("version", frame(0, b"{}", version=2),
         FIN),
    case("length_one_over_the_limit", frame(0, b"", length=FRAME_MAX + 1),
         FIN),
    case("length_of_four_gigabytes", frame(PUBLISH, b"", length=0xFFFFFFFF),
         FIN),
    case("length_over_64_kib_before_auth", frame(0, b"", length=(64 << 10) + 1),
         FIN, auth=False),
    case("flag_0x8000", frame(0x8000, b"abc") + good_publish(),
         Error("unsupported frame flags", "invalid_request"), Ack(), STAYS),
    case("flag_0x8000_before_auth", frame(0x8000, b"abc"),
         Error("unsupported frame flags"), NOTHING, auth=False),
    case("flag_idempotent", publish_with(bytes(16) + BODY, flags=0x0100),
         Error("unsupported frame flags", "invalid_request"), STAYS),
    case("flag_events_skipped", frame(0x0800, b"{}"),
         Error("unsupported frame flags", "invalid_request"), STAYS),
    case("flag_events_timestamps_before_auth", frame(0x4000, b""),
         Error("unsupported frame flags"), NOTHING, auth=False),
    case("header_cut_short", frame(0, b"")[:5], FIN, fin=True),
    case("body_cut_short", frame(0, b"{}", length=100),
         FIN, fin=True),
    case("body_cut_short_before_auth", frame(0, b"{}", length=100),
         FIN, fin=True, auth=False),
    case("empty_body", frame(0, b""), FIN),
]  # fmt: skip

BINARY = [
    case("count_lies", publish_with(frames.publish_body("t1", NS, "orders", [b"x"], 0xFFFFFFFF)),
         MALFORMED, STAYS),
    case("count_one_too_many", publish_with(frames.publish_body("t1", NS, "orders", [b"x"], 2)),
         MALFORMED, STAYS),
    case("payload_length_lies", publish_with(BODY[:-5] + struct.pack(">I", 2) + b"x"), MALFORMED, STAYS),
    case("payload_length_of_four_gigabytes",
         publish_with(BODY[:-5] + struct.pack(">I", 0xFFFFFFFF) + b"x"), MALFORMED, STAYS),
    case("body_of_the_prefix_alone", publish_with(b""), MALFORMED, STAYS),
    case("body_ends_in_a_name", publish_with(BODY[:3]), MALFORMED, STAYS),
    case("body_ends_before_the_count", publish_with(frames.publish_body("t1", NS, "orders", [])[:-4]),
         MALFORMED, STAYS),
    case("name_is_not_utf8", publish_with(frames.publish_body("t1", NS, b"\xff\xfe", [b"x"])),
         MALFORMED, STAYS),
    case("key_length_lies", publish_with(b"\xff\xff" + b"k" + BODY, flags=KEYED), MALFORMED, STAYS),
    case("ack_mode_0", publish_with(BODY, mode=0), FIN),
    case("ack_mode_3", publish_with(BODY, mode=3), FIN),
    case("request_id_cut_short", frame(PUBLISH | ACKED, bytes(8)),
         FIN),
    case("unacked_count_lies", publish_with(frames.publish_body("t1", NS, "orders", [b"x"], 9), acked=False),
         FIN),
    case("unacked_name_is_not_utf8",
         publish_with(frames.publish_body("t1", b"\xc0\x80", "orders", [b"x"]), acked=False),
         FIN),
    case("bytes_after_the_last_payload_are_ignored", publish_with(BODY + b"more"), Ack(), STAYS),
    case("empty_batch_is_a_success", publish_with(frames.publish_body("t1", NS, "orders", [])), Ack(), STAYS),
    case("tenant_mismatch", publish_with(frames.publish_body("t2", NS, "orders", [b"x"])),
         Ack("tenant mismatch", "forbidden"), STAYS),
    case("unacked_tenant_mismatch",
         publish_with(frames.publish_body("t2", NS, "orders", [b"x"]), acked=False), FIN),
    case("forbidden", publish_with(BODY), Ack("forbidden", "forbidden"), perms=()),
    case("unacked_forbidden", publish_with(BODY, acked=False), FIN,
         perms=("stream.publish:stream:t1/default/other",)),
    case("forbidden_before_not_found", publish_with(frames.publish_body("t1", NS, "nowhere", [b"x"])),
         Ack("forbidden", "forbidden"), perms=("stream.publish:stream:t1/default/orders",)),
    case("unknown_stream", publish_with(frames.publish_body("t1", NS, "nowhere", [b"x"])),
         Ack(NOT_FOUND, "not_found"), STAYS),
    case("unacked_unknown_stream_is_dropped",
         publish_with(frames.publish_body("t1", NS, "nowhere", [b"x"]), acked=False), NOTHING, STAYS),
    case("stream_name_of_256_bytes", publish_with(frames.publish_body("t1", NS, "s" * 256, [b"x"])),
         Ack("forbidden", "forbidden"), STAYS),
    case("names_of_65535_bytes",
         publish_with(frames.publish_body("t1", "n" * 65535, "s" * 65535, [b"x"])), Ack("forbidden", "forbidden"), STAYS),
    case("namespace_with_a_slash", publish_with(frames.publish_body("t1", "default/orders", "", [b"x"])),
         Ack("forbidden", "forbidden"), STAYS),
    case("empty_names", publish_with(frames.publish_body("t1", "", "", [b"x"])),
         Ack("stream not found: tenant=t1 namespace= stream=", "not_found"), STAYS),
    case("legacy_malformed", publish_with(BODY[:-1]), MALFORMED, STAYS, words=LEGACY),
    case("legacy_forbidden", publish_with(BODY), Ack("forbidden"), perms=(), words=LEGACY),
    case("legacy_unknown_stream", publish_with(frames.publish_body("t1", NS, "nowhere", [b"x"])),
         Ack(NOT_FOUND), STAYS, words=LEGACY),
    case("before_auth", good_publish(), Error("auth required"), FIN, auth=False),
    case("unacked_before_auth", publish_with(BODY, acked=False), Error("auth required"), FIN, auth=False),
    case("malformed_before_auth", publish_with(b"\xff"), Error("auth required"), FIN, auth=False),
]  # fmt: skip


def undecodable(id, body, **more):
    return case("json_" + id, text(body) if isinstance(body, (str, bytes)) else body, FIN, **more)


DEPTH_128 = "[" * 127 + "]" * 127  # inside one object: 128 levels
JSON = [
    undecodable("garbage", "hello"),
    undecodable("array", '["publish","t1","default","orders","aGk=",7,"per_message"]'),
    undecodable("number", "1"),
    undecodable("no_type", "{}"),
    undecodable("type_is_a_number", '{"type":1}'),
    undecodable("type_twice", '{"type":"cache_get","type":"cache_get"}'),
    undecodable("bom", "\ufeff" + '{"type":"topology"}'),
    undecodable("trailing_text", '{"type":"topology"} x'),
    undecodable("trailing_comma", '{"type":"topology",}'),
    undecodable("comment", '{"type":"topology"/**/}'),
    undecodable("single_quotes", "{'type':'topology'}"),
    undecodable("nan", raw_publish(extra=',"x":NaN')),
    undecodable("infinity", raw_publish(extra=',"x":-Infinity')),
    undecodable("request_id_1_0", raw_publish(request_id="1.0")),
    undecodable("request_id_exponent", raw_publish(request_id="1e2")),
    undecodable("request_id_2_to_64", raw_publish(request_id="18446744073709551616")),
    undecodable("request_id_negative", raw_publish(request_id="-1")),
    undecodable("request_id_text", raw_publish(request_id='"7"')),
    undecodable("request_id_leading_zero", raw_publish(request_id="07")),
    undecodable("depth_129", raw_publish(extra=',"x":[' + DEPTH_128 + "]")),
    undecodable("depth_of_a_million", raw_publish(extra=',"x":' + "[" * 1_000_000)),
    undecodable("known_member_twice", raw_publish(extra=',"request_id":7')),
    undecodable("member_missing", json_publish(stream=...)),
    undecodable("member_null", json_publish(stream=None)),
    undecodable("member_of_another_kind", json_publish(stream=["orders"])),
    undecodable("not_utf8", b'{"type":"cache_get","key":"\xff"}'),
    undecodable("overlong_utf8", b'{"type":"cache_get","key":"\xc0\xaf"}'),
    undecodable("surrogate_escape_alone", '{"type":"topology","x":"\\ud800"}'),
    undecodable("raw_control_character", '{"type":"topology","x":"\x01"}'),
    undecodable("ack_in_capitals", json_publish(ack="Per_Message")),
    undecodable("base64_url_alphabet", json_publish(payload="-_8=")),
    undecodable("base64_without_padding", json_publish(payload="aGk")),
    undecodable("base64_unused_bits", json_publish(payload="aGl=")),
    undecodable("base64_newline", json_publish(payload="aGk=\n")),
    undecodable("base64_too_much_padding", json_publish(payload="aGk==")),
    undecodable("cache_value_null", cache("put", value=None)),
    undecodable("cache_ttl_negative", cache("put", ttl_ms=-1)),
    undecodable("start_of_another_kind", subscribe(start="Latest")),
    undecodable("start_with_two_members", subscribe(start={"offset": 1, "x": 1})),
    undecodable("start_negative", subscribe(start={"offset": -1})),
    case("json_before_auth", text("hello"), FIN, auth=False),
    case("json_client_flags_65536",
         lambda s: frames.auth("t1", s.token(), flags=65536), FIN, auth=False),
    case("json_request_id_2_to_64_minus_1_is_fine", raw_publish(request_id="18446744073709551615"),
         Answer("publish_ok", {"request_id": 2**64 - 1}), STAYS),
    case("json_depth_128_is_fine", raw_publish(extra=',"x":' + DEPTH_128),
         Answer("publish_ok", {"request_id": 7}), STAYS),
    case("json_unknown_members_are_skipped", raw_publish(extra=',"x":1,"x":{"y":[1.5e3,null]}'),
         Answer("publish_ok", {"request_id": 7}), STAYS),
    case("json_member_order_and_space_are_free",
         text(' {"request_id" : 7 , "payload":"" ,\n"stream":"orders","namespace":"default",'
              '"tenant_id":"t1","type":"publish"}\n'), Answer("publish_ok", {"request_id": 7}), STAYS),
]  # fmt: skip

MESSAGES = [
    case("unknown_type", message("topology", request_id=9),
         Answer("unsupported", {"request_type": "topology", "request_id": 9}), STAYS),
    case("unknown_type_without_an_id", message("shard_owners", request_id="x"),
         Answer("unsupported", {"request_type": "shard_owners"}), STAYS),
    case("unknown_extension", message("extension", name="acme.frobnicate", request_id=3, body={"a": [1]}),
         Answer("unsupported", {"request_type": "extension", "extension": "acme.frobnicate",
                                "request_id": 3}), STAYS),
    case("unknown_type_of_a_client_that_did_not_offer_unsupported", message("topology"),
         Error("unsupported request"), FIN, words=LEGACY),
    case("unknown_type_before_auth", message("topology"), Error("auth required"), FIN, auth=False),
    *[
        case(f"from_client_{type_}", message(type_, **members),
             Error("unexpected message type", "invalid_request"), FIN)
        for type_, members in {
            "ok": {}, "auth_ok": {"server_flags": 7}, "publish_ok": {"request_id": 1},
            "publish_error": {"request_id": 1, "message": "x"}, "subscribed": {"subscription_id": 1},
            "event_stream_hello": {"subscription_id": 1}, "cache_ok": {"request_id": 1},
            "cache_value": {"tenant_id": "t", "namespace": "n", "cache": "c", "key": "k", "value": None},
            "event": {"tenant_id": "t", "namespace": "n", "stream": "s", "payload": ""},
        }.items()
    ],
    case("from_client_subscribe_cursor_error",
         message("subscribe_cursor_error", reason="too_old", requested=1, available=2),
         Error("subscribe_cursor_error is a server-to-client message", "invalid_request"), FIN),
    case("from_client_error", message("error", message="you are wrong"), FIN),
    case("second_auth", lambda s: frames.auth("t1", s.token()),
         Error("auth already established", "invalid_request"), FIN),
    case("publish_before_auth", json_publish(), Error("auth required"), FIN, auth=False),
    case("subscribe_before_auth", subscribe(), Error("auth required"), FIN, auth=False),
    case("cache_get_before_auth", cache("get"), Error("auth required"), FIN, auth=False),
    case("cache_put_before_auth", cache("put"), Error("auth required"), FIN, auth=False),
    case("publish_without_request_id", json_publish(request_id=...),
         Error("missing request_id for acked publish", "invalid_request"), STAYS),
    case("publish_batch_without_request_id",
         message("publish_batch", tenant_id="t1", namespace=NS, stream="orders", payloads=[]),
         Error("missing request_id for acked publish batch", "invalid_request"), STAYS),
    case("publish_unknown_stream", json_publish(stream="nowhere"),
         Answer("publish_error", {"request_id": 7, "message": NOT_FOUND, "code": "not_found"}), STAYS),
    case("publish_tenant_mismatch", json_publish(tenant_id="t2"), Error("tenant mismatch", "forbidden"), FIN),
    case("publish_forbidden", json_publish(),
         Answer("publish_error", {"request_id": 7, "message": "forbidden", "code": "forbidden"}), FIN, perms=()),
    case("publish_forbidden_without_request_id", json_publish(request_id=..., ack="none"),
         Error("forbidden", "forbidden"), FIN, perms=()),
    case("subscribe_unknown_stream", subscribe(stream="nowhere"), Error(NOT_FOUND, "not_found"), FIN),
    case("subscribe_tenant_mismatch", subscribe(tenant_id="t2"), Error("tenant mismatch", "forbidden"), FIN),
    case("subscribe_forbidden", subscribe(), Error("forbidden", "forbidden"), FIN,
         perms=("stream.publish:stream:t1/*",)),
    case("subscribe_in_the_future", subscribe(start={"offset": 2**63}),
         Answer("subscribe_cursor_error", {"reason": "in_future", "requested": 2**63}), FIN),
    case("cache_unknown", cache("get", cache="nowhere"), Error(NO_CACHE, "not_found"), STAYS),
    case("cache_unknown_without_request_id", cache("get", cache="nowhere", request_id=...),
         Error(NO_CACHE, "not_found"), FIN),
    case("cache_put_unknown", cache("put", cache="nowhere"), Error(NO_CACHE, "not_found"), STAYS),
    case("cache_delete_unknown", cache("delete", cache="nowhere"), Error(NO_CACHE, "not_found"), STAYS),
    case("cache_tenant_mismatch", cache("get", tenant_id="t2"), Error("tenant mismatch", "forbidden"), FIN),
    case("cache_put_forbidden", cache("put"), Error("forbidden", "forbidden"), FIN,
         perms=("cache.read:cache:t1/default/sessions",)),
    case("cache_get_forbidden", cache("get"), Error("forbidden", "forbidden"), FIN,
         perms=("cache.write:cache:t1/default/sessions",)),
    case("cache_delete_forbidden", cache("delete"), Error("forbidden", "forbidden"), FIN,
         perms=("cache.read:cache:t1/default/sessions",)),
    case("cache_name_of_256_bytes", cache("get", cache="c" * 256), Error("forbidden", "forbidden"), FIN),
]  # fmt: skip


def refused_token(id, make):
    return case(
        "auth_" + id, make, Error("auth failed", "unauthenticated"), FIN, auth=False
    )


def offers(token, tenant="t1"):
    return lambda s: frames.auth(tenant, token(s))


def soon(seconds):
    return int(time.time()) + seconds


def flipped(token):
    """The same token with one bit of its signature changed."""
    head, signature = token.rsplit(".", 1)
    raw = bytearray(tokens.base64.urlsafe_b64decode(signature + "=="))
    raw[10] ^= 1
    return head + "." + tokens.b64url(bytes(raw))


AUTH = [
    refused_token("empty", offers(lambda s: "")),
    refused_token("garbage", offers(lambda s: "not.a.token")),
    refused_token("not_base64", offers(lambda s: "!.!.!")),
    refused_token("two_parts", offers(lambda s: s.token().rsplit(".", 1)[0])),
    refused_token("four_parts", offers(lambda s: s.token() + ".x")),
    refused_token("wrong_key", offers(lambda s: tokens.Issuer("t1", kid="e2e-t1").token())),
    refused_token("bit_flipped_in_the_signature", offers(lambda s: flipped(s.token()))),
    refused_token("key_of_another_tenant", offers(lambda s: s.issuers["t2"].token(tid="t1"))),
    refused_token("alg_none", offers(lambda s: s.issuers["t1"].unsigned())),
    refused_token("alg_hs256", offers(lambda s: s.issuers["t1"].hs256())),
    refused_token("alg_rs256_header", offers(lambda s: s.token(header={"typ": "JWT", "alg": "RS256"}))),
    refused_token("expired", offers(lambda s: s.token(exp=soon(-70)))),
    refused_token("not_yet_valid", offers(lambda s: s.token(nbf=soon(120)))),
    refused_token("no_exp", offers(lambda s: s.token(exp=...))),
    refused_token("exp_text", offers(lambda s: s.token(exp="tomorrow"))),
    refused_token("wrong_issuer", offers(lambda s: s.token(iss="somebody"))),
    refused_token("wrong_audience", offers(lambda s: s.token(aud="felix-controlplane"))),
    refused_token("audience_list", offers(lambda s: s.token(aud=["felix-broker"]))),
    refused_token("wrong_tid", offers(lambda s: s.token(tid="t2"))),
    refused_token("no_tid", offers(lambda s: s.token(tid=...))),
    refused_token("token_of_another_tenant", offers(lambda s: s.token("t2"))),
    refused_token("no_sub", offers(lambda s: s.token(sub=...))),
    refused_token("no_iat", offers(lambda s: s.token(iat=...))),
    refused_token("perms_missing", offers(lambda s: s.token(perms=...))),
    refused_token("perms_text", offers(lambda s: s.token(perms="stream.publish:stream:t1/*"))),
    refused_token("perms_unknown_action", offers(lambda s: s.token(perms=["stream.destroy:stream:t1/*"]))),
    refused_token("perms_without_colon", offers(lambda s: s.token(perms=["stream.publish"]))),
    refused_token("unknown_tenant", offers(lambda s: s.token(), tenant="t9")),
    refused_token("empty_tenant", offers(lambda s: s.token(), tenant="")),
    refused_token("token_of_20_kib", offers(lambda s: s.token(sub="x" * 20_000))),
    case("auth_expired_within_the_leeway", lambda s: frames.auth("t1", s.token(exp=soon(-20))),
         Answer("auth_ok", {}), STAYS, auth=False),
    case("auth_nbf_within_the_leeway", lambda s: frames.auth("t1", s.token(nbf=soon(20))),
         Answer("auth_ok", {}), STAYS, auth=False),
    case("auth_unknown_kid_is_not_fatal",
         lambda s: frames.auth("t1", s.token(header={"alg": "EdDSA", "kid": "gone"})),
         Answer("auth_ok", {}), STAYS, auth=False),
    case("auth_frame_of_64_kib",
         lambda s: (lambda a: frame(0, a[12:].ljust(64 << 10, b" ")))(frames.auth("t1", s.token())),
         Answer("auth_ok", {}), STAYS, auth=False),
]  # fmt: skip


# ---- running a case


@pytest.fixture(scope="module")
def bystander(scope):
    """Another client's subscription and the stream that publishes to it."""
    from felix_testlib.peer import Peer

    with Peer(scope.broker.port, ca=scope.broker.ca, idle_timeout=600) as p:
        token = scope.token()
        _, events = p.subscribe("t1", token, NS, "other")
        yield Bystander(p.authenticated("t1", token), events)


class Bystander:
    def __init__(self, control, events):
        self.control, self.events, self.count = control, events, 0

    def is_well(self, seconds=5):
        self.count += 1
        payload = b"well %d" % self.count
        self.control.send(
            frames.publish("t1", NS, "other", [payload], request_id=self.count)
        )
        assert self.control.ack(seconds).ok
        assert self.events.payloads(1, seconds) == [payload]


def check(stream, case, expectation):
    codes = case.auth and case.words is None or case.id.startswith("auth_")
    if isinstance(expectation, Error):
        got = stream.json()
        assert got["type"] == "error", got
        assert got["message"] == expectation.text, got
        assert got.get("code") == (expectation.code if codes else None), got
    elif isinstance(expectation, Ack):
        if expectation.text is None or not codes:
            got = stream.ack()
            assert got == frames.Ack(expectation.text is None, 7, expectation.text or "")
            return
        got = stream.expect("publish_error", request_id=7, message=expectation.text)
        assert got.get("code") == expectation.code, got
    elif isinstance(expectation, Answer):
        stream.expect(expectation.type, **expectation.members)
    elif expectation is FIN:
        stream.expect_fin()
        if not case.fin:
            stream.expect_stop()
    elif expectation is NOTHING:
        stream.expect_silence(0.2)
    elif expectation is STAYS:
        stream.send(good_publish(request_id=4711))
        assert stream.ack() == frames.Ack(True, 4711, "")


@pytest.mark.parametrize("case", FRAMING + BINARY + JSON + MESSAGES + AUTH)
def test_bad_input_gets_its_answer_and_nobody_else_notices(scope, bystander, connect_peer, case):
    peer = connect_peer(scope.broker)
    witness = peer.authenticated("t1", scope.token())
    changes = {} if case.perms is None else {"perms": list(case.perms)}
    if case.auth:
        stream = peer.authenticated("t1", scope.token(**changes), **(case.words or {}))
    else:
        stream = peer.bi()
    data = case.data(scope) if callable(case.data) else case.data
    stream.send(data, fin=case.fin)
    for expectation in case.then:
        check(stream, case, expectation)
    witness.send(good_publish())
    assert witness.ack().ok
    assert peer.closed is None
    bystander.is_well()


# ---- streams that only we may send on


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda s: good_publish(), id="publish_before_auth"),
        pytest.param(lambda s: json_publish(), id="json_publish_before_auth"),
        pytest.param(lambda s: b"GET / HTTP/1.1\r\n\r\n", id="magic"),
        pytest.param(lambda s: frames.auth("t1", "not.a.token"), id="bad_token"),
        pytest.param(lambda s: frames.auth("t1", s.token()) * 2, id="second_auth"),
        pytest.param(lambda s: frames.auth("t1", s.token()) + subscribe(), id="subscribe"),
        pytest.param(lambda s: frames.auth("t1", s.token()) + cache("get"), id="cache"),
        pytest.param(lambda s: frames.auth("t1", s.token()) + text("x"), id="json"),
        pytest.param(
            lambda s: frames.auth("t1", s.token())
            + publish_with(frames.publish_body("t2", NS, "orders", [b"x"]), acked=False),
            id="tenant_mismatch",
        ),
        pytest.param(
            lambda s: frames.auth("t1", s.token(perms=[])) + publish_with(BODY, acked=False),
            id="forbidden",
        ),
        pytest.param(
            lambda s: frames.auth("t1", s.token()) + publish_with(BODY[:-1], acked=False),
            id="malformed",
        ),
    ],
)
def test_a_bad_ingress_stream_is_stopped(scope, bystander, connect_peer, data):
    peer = connect_peer(scope.broker)
    stream = peer.uni().send(data(scope))
    stream.expect_stop()
    assert peer.authenticated("t1", scope.token()).send(good_publish()).ack().ok
    bystander.is_well()


def test_an_ingress_publish_to_an_unknown_stream_is_dropped_and_the_stream_goes_on(
    scope, connect_peer, name
):
    peer = connect_peer(scope.broker)
    _, events = peer.subscribe("t1", scope.token(), NS, "orders")
    stream = peer.uni().send(
        frames.auth("t1", scope.token())
        + publish_with(frames.publish_body("t1", NS, "nowhere", [b"x"]), acked=False)
        + frames.publish("t1", NS, "orders", [name.encode()])
    )
    while events.payloads(1) != [name.encode()]:
        pass
    assert stream.stop_code is None


# ---- subscriptions


def test_a_duplicate_subscription_id_is_refused_and_the_first_lives_on(scope, connect_peer, name):
    peer = connect_peer(scope.broker)
    _, events = peer.subscribe("t1", scope.token(), NS, "orders", subscription_id=5)
    second = peer.authenticated("t1", scope.token()).send(subscribe(subscription_id=5))
    second.expect("error", message="subscription_id is already in use", code="invalid_request")
    second.expect_fin()
    publisher = peer.authenticated("t1", scope.token())
    publisher.send(frames.publish("t1", NS, "orders", [name.encode()], request_id=1))
    assert publisher.ack().ok
    while events.payloads(1) != [name.encode()]:
        pass


def test_ids_of_the_brokers_choice_never_collide_with_ids_of_a_clients(scope, connect_peer):
    peer = connect_peer(scope.broker)
    taken = [peer.subscribe("t1", scope.token(), NS, "orders")[0]]
    chosen, _ = peer.subscribe("t1", scope.token(), NS, "orders", subscription_id=taken[0] + 1)
    assert chosen == taken[0] + 1
    taken.append(chosen)
    for _ in range(3):
        taken.append(peer.subscribe("t1", scope.token(), NS, "orders")[0])
    assert len(set(taken)) == len(taken), taken


def test_too_many_subscriptions_of_one_connection_are_refused(start_scope, connect_peer):
    s = start_scope(env={"FELIX_MAX_SUBSCRIPTIONS_PER_CONN": "2"})
    peer = connect_peer(s.broker)
    first = [peer.subscribe("t1", s.token(), NS, "orders") for _ in range(2)]
    third = peer.authenticated("t1", s.token()).send(subscribe())
    third.expect("error", message="max subscriptions per connection exceeded", code="limit_exceeded")
    third.expect_fin()
    # A place becomes free when a subscription ends, and other connections have their own.
    first[0][1].stop()

    def place_is_free():
        again = peer.authenticated("t1", s.token()).send(subscribe())
        return again.json()["type"] == "subscribed"

    wait_until(place_is_free, 5, "a free place")
    connect_peer(s.broker).subscribe("t1", s.token(), NS, "orders")


def test_a_client_that_allows_no_event_streams_gets_an_error_and_not_silence(scope, connect_peer):
    peer = connect_peer(scope.broker, streams_uni=0)
    control = peer.authenticated("t1", scope.token()).send(subscribe(), fin=True)
    assert control.json()["type"] == "error"
    control.expect_fin()


# ---- time


def test_a_stream_of_one_byte_per_moment_disturbs_nobody(scope, bystander, connect_peer):
    peer = connect_peer(scope.broker)
    stream = peer.bi()
    data = frames.auth("t1", scope.token())
    for i in range(20):
        stream.send(data[i : i + 1])
        bystander.is_well(2)
        time.sleep(0.1)
    stream.send(data[20:])
    stream.expect("auth_ok")


def test_a_stream_that_starts_and_falls_silent_ends_after_the_auth_timeout(
    start_scope, connect_peer
):
    s = start_scope(env={"FELIX_AUTH_TIMEOUT_MS": "1000"})
    peer = connect_peer(s.broker)
    control = peer.authenticated("t1", s.token())
    start = time.monotonic()
    one_byte = peer.bi().send(b"F")
    half = peer.bi().send(frames.auth("t1", s.token())[:40])
    one_way = peer.uni().send(frames.auth("t1", s.token())[:40])
    for late in (one_byte, half):
        late.expect("error", message="auth required")
        late.expect_fin()
        late.expect_stop()
    one_way.expect_stop()
    assert 0.7 < time.monotonic() - start
    # The connection and its other streams live on.
    control.send(good_publish())
    assert control.ack().ok
    assert peer.closed is None


def test_a_connection_without_streams_is_tolerated(start_scope, connect_peer):
    """The pooled clients open connections for later use (wire specification, 8.3 and 12)."""
    s = start_scope(env={"FELIX_AUTH_TIMEOUT_MS": "1000"})
    peer = connect_peer(s.broker)
    time.sleep(scaled(2.5))
    control = peer.authenticated("t1", s.token()).send(good_publish())
    assert control.ack().ok


# ---- memory


def test_announced_lengths_cost_no_memory(start_scope, connect_peer):
    s = start_scope()
    peer = connect_peer(s.broker)
    token = s.token()
    warm = peer.authenticated("t1", token)
    before = s.broker.rss_bytes()
    for _ in range(200):
        peer.authenticated("t1", token).send(frame(PUBLISH | ACKED, b"x", length=FRAME_MAX))
    peer.ping()
    assert s.broker.rss_bytes() - before < 64 * MEBI
    warm.send(good_publish())
    assert warm.ack().ok


def test_four_million_empty_payloads_in_one_frame(start_scope, connect_peer):
    s = start_scope()
    peer = connect_peer(s.broker, datagram_bytes=4000)
    _, events = peer.subscribe("t1", s.token(), NS, "other")
    stream = peer.authenticated("t1", s.token())
    before = s.broker.rss_bytes()
    count = 4_000_000
    body = frames.publish_body("t1", NS, "orders", [], count) + bytes(4 * count)
    stream.send(frame(PUBLISH | ACKED, struct.pack(">QB", 7, 1) + body))
    stream.ack(60)
    assert s.broker.rss_bytes() - before < 256 * MEBI
    stream.send(frames.publish("t1", NS, "other", [b"x"], request_id=8))
    assert stream.ack().ok and events.payloads(1) == [b"x"]


def test_a_subscriber_that_stops_reading_costs_its_own_queue_only(start_scope, connect_peer):
    s = start_scope()
    token = s.token()
    stalled = connect_peer(s.broker, hold_windows=True, max_stream_data=64 << 10, max_data=256 << 10)
    stalled.subscribe("t1", token, NS, "orders")
    gone = connect_peer(s.broker)
    gone.subscribe("t1", token, NS, "orders")
    gone.freeze()
    reader = connect_peer(s.broker)
    _, events = reader.subscribe("t1", token, NS, "orders")
    _, same = stalled.subscribe("t1", token, NS, "other")
    publisher = connect_peer(s.broker, datagram_bytes=4000).authenticated("t1", token)
    before = s.broker.rss_bytes()
    payload = os.urandom(16 << 10)
    rounds = 2000  # 32 MiB
    for i in range(rounds):
        publisher.send(frames.publish("t1", NS, "orders", [payload], request_id=i))
        assert publisher.ack().ok
        assert events.payloads(1) == [payload]
    grown = s.broker.rss_bytes() - before
    # A sanitizer's shadow and quarantine grow along.
    assert grown < (128 if FACTOR == 1 else 640) * MEBI, f"{grown / MEBI:.0f} MiB"
    assert s.broker.metric("felix_sub_queue_dropped_total") > 0
    # Another subscription of the stalled connection still gets what fits into the window.
    publisher.send(frames.publish("t1", NS, "other", [b"small"], request_id=1))
    assert publisher.ack().ok
    assert same.payloads(1) == [b"small"]
