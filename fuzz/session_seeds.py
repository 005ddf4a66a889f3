#!/usr/bin/env python3
"""Writes the seeds of fuzz_session.c that were made by hand: session_seeds.py FOLDER

A seed is a byte of options and then steps, as the comment of fuzz_session.c and its switch say.
"""
import sys
from pathlib import Path

DROP_OLD, WAIT, TIGHT, SLOW, SHORT, MADE, TWO = 4, 8, 16, 32, 64, 128, 1
BLOCK, DROP_NEW = 0, 2
DURABLE = 6  # stream c, with the policy drop_new
TIMES = 32  # of auth: timestamps are wanted
ALL, SOME, OTHER, BAD = 0, 1, 2, 6
T1, T2 = 0, 2
A, B, C, NONE = 0, 4, 8, 12
ACKED, KEYED = 1, 2


def op(number, x=0, *arguments):
    return bytes([number | x << 4, *arguments])


def connect(reactor=0):
    return op(0, reactor)


def open_(peer=0, uni=0):
    return op(1, peer << 1 | uni)


def select(stream):
    return op(2, stream)


def auth(person=ALL, how=0):
    return op(3, person, how)


def frame(flags, body):
    return op(4, 0, flags >> 8, flags & 255, len(body)) + body


def raw(data):
    return op(5, 0, len(data)) + data


def publish(flags, target, request_id=1, count=2, item_bytes=3):
    return op(6, flags, target, request_id, count, item_bytes)


def message(kind, target, how=0, number=0):
    return op(7, kind, target, how, number)


def rare(which, x=0):
    return op(13, x, which)


def network(blocks, x=0):
    return op(11, x, blocks)


PUBLISH, BATCH, SUBSCRIBE, PUT, GET, DELETE = range(6)
BIND, FRAME_GET, FRAME_PUT, FRAME_DELETE, FRAME_TTL, FAR_HANDLE = 0, 1, 2, 3, 4, 8
FIN, RESET, REFUSE = op(9, 0), op(9, 1), op(9, 2)
TURN, SETTLE = op(10), op(15)
READY = open_() + auth() + SETTLE


def cache(kind, target=T1, number=0):
    return op(14, kind, target, number)


def time(seconds):
    return op(12, seconds)


def chunk(size):
    return op(8, size)


def subscribed(how=0, target=T1 | A, number=0):
    return open_() + auth() + message(SUBSCRIBE, target, how, number) + SETTLE


HEADER = b"FLX1\0\1"
SEEDS = {
    "auth": (0, READY + FIN),
    "auth_plain": (0, open_() + auth(ALL, 3) + SETTLE),
    "auth_all_features": (0, open_() + auth(ALL, 4) + SETTLE),
    "auth_twice": (0, READY + auth() + SETTLE),
    "auth_bad_token": (0, open_() + auth(BAD) + SETTLE),
    "auth_wrong_tenant": (0, open_() + auth(ALL, 8) + SETTLE),
    "auth_late": (0, open_() + time(9) + TURN + auth() + SETTLE),
    "auth_in_pieces": (0, open_() + chunk(7) + auth() + SETTLE),
    "auth_uni": (0, open_(0, 1) + auth() + publish(0, T1 | A) + FIN + SETTLE),
    "no_auth_publish": (0, open_() + publish(ACKED, T1 | A) + SETTLE),
    "no_auth_get": (0, open_() + message(GET, T1) + SETTLE),
    "publish_plain": (0, subscribed() + READY + publish(0, T1 | A) + SETTLE),
    "publish_acked": (0, subscribed() + READY + publish(ACKED | 4, T1 | A, 9) + SETTLE),
    "publish_keyed": (0, subscribed() + READY + publish(ACKED | KEYED, T1 | A) + FIN + SETTLE),
    "publish_lone": (0, subscribed() + READY + publish(0, T1 | A, 1, 1) * 3 + SETTLE),
    "publish_empty": (0, READY + publish(ACKED, T1 | A, 1, 0) + SETTLE),
    "publish_none": (0, READY + publish(ACKED, T1 | NONE) + publish(0, T1 | NONE) + SETTLE),
    "publish_wrong_tenant": (0, READY + publish(ACKED, T2 | A) + publish(0, T2 | A) + SETTLE),
    "publish_forbidden": (0, open_() + auth(SOME) + publish(ACKED, T1 | B) + SETTLE),
    "publish_json": (0, subscribed() + READY + message(PUBLISH, T1, 13, 5) + SETTLE),
    "publish_json_no_id": (0, READY + message(PUBLISH, T1, 12) + SETTLE),
    "publish_json_batch": (0, subscribed() + READY + message(BATCH, T1, 81, 5) + SETTLE),
    "publish_json_none": (0, READY + message(BATCH, T1 | NONE, 81, 5) + SETTLE),
    "publish_split": (SHORT, subscribed() + READY + publish(0, T1 | A, 1, 20, 1) + SETTLE),
    "publish_large": (TIGHT, READY + publish(ACKED, T1 | A, 1, 200, 200) + SETTLE),
    "subscribe_earliest": (SHORT, READY + publish(0, T1 | A, 1, 9) + subscribed(17)),
    "subscribe_offset": (0, READY + publish(0, T1 | A, 1, 9) + subscribed(24, T1 | A, 3)),
    "subscribe_future": (0, subscribed(24, T1 | A, 9)),
    "subscribe_id_twice": (0, subscribed(2, T1, 1) + subscribed(2, T1, 1)),
    "subscribe_none": (0, subscribed(0, T1 | NONE)),
    "subscribe_limit": (SLOW, subscribed() * 3),
    "subscribe_no_grant": (0, connect() + rare(0) + subscribed()),
    "subscribe_refused": (TWO, open_() + auth() + message(SUBSCRIBE, T1) + REFUSE + SETTLE),
    "unsubscribe": (0, subscribed() + rare(220) + READY + publish(0, T1 | A) + SETTLE),
    "slow_block": (BLOCK | SLOW | TIGHT, subscribed() + READY
                   + (publish(ACKED, T1 | A, 3, 2, 90) + TURN) * 6 + network(20) + TURN + SETTLE),
    "slow_drop_new": (DROP_NEW | SLOW, subscribed() + READY
                      + (publish(0, T1 | A, 3, 2, 90) + TURN) * 9 + network(20) + SETTLE),
    "slow_drop_old": (DROP_OLD | SLOW, subscribed() + READY
                      + (publish(0, T1 | A, 3, 2, 90) + TURN) * 9 + network(20) + SETTLE),
    "budget_two_streams": (TWO | TIGHT, READY + READY + publish(ACKED, T1 | A, 1, 1, 60)
                           + publish(ACKED, T1 | B, 2, 1, 60) + select(0)
                           + publish(ACKED, T1 | C, 1, 1, 60) + REFUSE + FIN + SETTLE),
    "budget_of_the_gone": (TWO | TIGHT, READY + publish(0, T1 | A, 1, 1, 20)
                           + publish(0, T1 | B, 1, 1, 20) + publish(0, T1 | C, 1, 1, 20) + FIN
                           + network(255) + SETTLE),
    "window_of_two": (TWO | SLOW | TIGHT, connect() + subscribed() + subscribed(0, T1 | B)
                      + READY + publish(ACKED, T1 | A, 1, 9, 90) + network(255, 2) + TURN
                      + publish(ACKED, T1 | B, 2, 1, 9) + TURN + SETTLE),
    "budget_waits": (TWO | TIGHT | WAIT, READY + publish(0, T1 | A, 1, 1, 60)
                     + publish(0, T1 | B, 2, 1, 60) + publish(0, T1 | C, 2, 1, 60) + SETTLE),
    "fan_out": (TWO, connect(0) + connect(1) + subscribed()
                + open_(1) + auth() + message(SUBSCRIBE, T1) + SETTLE
                + open_(1) + auth() + publish(ACKED, T1 | A) + publish(ACKED, T1 | B) + SETTLE),
    "cache": (0, READY + message(PUT, T1, 1, 9) + message(GET, T1, 1, 2)
              + message(DELETE, T1, 1, 3) + message(GET, T1, 1, 4) + SETTLE),
    "cache_lone": (0, READY + message(GET, T1) + SETTLE),
    "cache_remote": (TWO, READY + (message(PUT, T1 | 32, 1, 9) + message(GET, T1 | 32, 1, 2)
                                   + message(GET, T1 | 64, 1, 3)) * 2 + FIN + SETTLE),
    "cache_ttl": (0, READY + message(PUT, T1, 3, 9) + time(2) + TURN + message(GET, T1, 1) + SETTLE),
    "cache_evicts": (SHORT, READY + b"".join(message(PUT, T1 | k << 5, 1, 55) for k in range(4))
                     + SETTLE),
    "cache_none": (0, READY + message(GET, T1 | 16, 1) + message(PUT, T1 | 16, 0) + SETTLE),
    "cache_forbidden": (0, open_() + auth(SOME) + message(GET, T1, 1) + SETTLE),
    "cache_wrong_tenant": (0, READY + message(PUT, T2, 1) + SETTLE),
    "frames": (0, READY + cache(BIND) + cache(FRAME_PUT, T1, 4) + cache(FRAME_GET, T1, 8)
               + cache(FRAME_DELETE, T1, 12) + cache(FRAME_GET, T1, 16) + FIN + SETTLE),
    "frames_remote": (TWO, READY + cache(BIND) + b"".join(
        cache(FRAME_PUT, k << 5, 4) + cache(FRAME_GET, k << 5, 8) for k in range(4)) + FIN + SETTLE),
    "frames_remote_reset": (TWO, READY + cache(BIND) + b"".join(
        cache(FRAME_PUT, k << 5, 4) for k in range(4)) + RESET + SETTLE),
    "frames_remote_large": (TWO, READY + cache(BIND) + b"".join(
        cache(FRAME_PUT, k << 5, 252) for k in range(4)) * 8 + SETTLE),
    "frames_not_bound": (0, READY + cache(FRAME_GET) + cache(FAR_HANDLE | FRAME_GET, T1, 200) + SETTLE),
    "frames_far_bind": (0, READY + cache(FAR_HANDLE, T1, 200) + cache(FAR_HANDLE, T1, 255) + SETTLE),
    "frames_bound_again": (0, READY + cache(BIND) + cache(BIND, 16) + cache(FRAME_GET) + SETTLE),
    "frames_forbidden": (0, open_() + auth(SOME) + cache(BIND) + cache(FRAME_PUT) + SETTLE),
    "frames_wrong_tenant": (0, READY + cache(BIND, T2) + cache(FRAME_GET) + SETTLE),
    "frames_ttl": (0, READY + cache(BIND) + cache(FRAME_PUT | FRAME_TTL, T1, 4) + time(2) + TURN
                   + cache(FRAME_GET) + SETTLE),
    "frames_not_agreed": (0, open_() + auth(ALL, 16) + cache(BIND) + cache(FRAME_GET) + SETTLE),
    "frames_in_pieces": (0, READY + chunk(5) + cache(BIND) + cache(FRAME_PUT, T1, 252)
                         + cache(FRAME_GET) + SETTLE),
    "frames_malformed": (0, READY + frame(0x8006, b"\2\xff" + bytes(10)) + frame(0x8006, b"\2")
                         + SETTLE),
    "frames_and_json": (TWO, READY + cache(BIND) + b"".join(
        cache(FRAME_PUT, k << 5, 4) + message(GET, k << 5, 1) for k in range(4)) + SETTLE),
    "unknown_type": (0, READY + frame(0, b'{"type":"what","request_id":4}') + SETTLE),
    "unknown_type_plain": (0, open_() + auth(ALL, 3) + frame(0, b'{"type":"what"}') + SETTLE),
    "unknown_flags": (0, READY + frame(0x8000, b"abc") + message(GET, T1, 1) + SETTLE),
    "unknown_flags_uni": (0, open_(0, 1) + auth() + frame(0x8000, b"abc") + SETTLE),
    "from_broker": (0, READY + message(8, T1) + SETTLE),
    "malformed_json": (0, READY + frame(0, b'{"type":') + SETTLE),
    "malformed_acked": (0, READY + frame(9, b"\0\0\0\0\0\0\0\5\2\0") + frame(9, b"\0") + SETTLE),
    "malformed_plain": (0, READY + frame(1, b"\0\2t1\0\1n") + SETTLE),
    "bad_magic": (0, open_() + raw(b"GET / HTTP/1.1\r\n") + SETTLE),
    "bad_version": (0, open_() + raw(b"FLX1\0\2\0\0\0\0\0\0") + SETTLE),
    "too_large": (0, open_() + raw(HEADER + b"\0\0\1\0\0\0") + SETTLE),
    "half_a_frame": (0, READY + raw(HEADER + b"\0\1\0\0\0\x20half") + FIN + SETTLE),
    "frame_in_pieces": (0, READY + chunk(3) + publish(ACKED, T1 | A) + message(GET, T1, 1) + SETTLE),
    "reset": (0, READY + publish(ACKED, T1 | A) + RESET + SETTLE),
    "reset_waiting": (TWO | TIGHT, READY + publish(ACKED, T1 | A, 1, 1, 90)
                      + publish(ACKED, T1 | B, 2, 1, 90) + publish(ACKED, T1 | C, 2, 1, 90) + RESET
                      + SETTLE),
    "close_with_waiting": (TWO | TIGHT, connect() + READY + publish(ACKED, T1 | A, 1, 1, 90)
                           + publish(ACKED, T1 | B, 2, 1, 90) + rare(100) + SETTLE),
    "stream_deleted": (SLOW, subscribed() + READY + publish(0, T1 | A) + rare(128)
                       + publish(ACKED, T1 | A) + rare(160) + publish(ACKED, T1 | A) + SETTLE),
    "drain": (0, READY + publish(ACKED, T1 | A) + rare(192) + open_() + auth() + SETTLE),
    "durable_acks": (DURABLE, READY + publish(ACKED, T1 | C) * 2 + message(PUBLISH, T1 | C, 13, 5)
                     + publish(0, T1 | C, 1, 1) + SETTLE),
    "durable_times": (DURABLE, open_() + auth(ALL, TIMES) + message(SUBSCRIBE, T1 | C) + SETTLE
                      + READY + publish(ACKED, T1 | C, 1, 9) + SETTLE
                      + open_() + auth(ALL, TIMES) + message(SUBSCRIBE, T1 | C, 17) + SETTLE),
    "durable_history": (DURABLE | SHORT, READY + publish(ACKED, T1 | C, 1, 20) * 4 + SETTLE
                        + subscribed(17, T1 | C) + subscribed(24, T1 | C, 3)
                        + open_() + auth(ALL, TIMES) + message(SUBSCRIBE, T1 | C, 17) + SETTLE),
    "durable_lagged": (DURABLE | SLOW, subscribed(0, T1 | C) + READY
                       + (publish(ACKED, T1 | C, 3, 2, 90) + TURN + TURN) * 9 + network(20) + SETTLE),
    "durable_lagged_unasked": (DURABLE | SLOW, open_() + auth(ALL, 3) + message(SUBSCRIBE, T1 | C) + SETTLE
                               + READY + (publish(ACKED, T1 | C, 3, 2, 90) + TURN + TURN) * 9 + SETTLE),
    "made_on_first_use": (MADE, READY + publish(ACKED, T1 | 128) + publish(ACKED, T1 | B | 128)
                          + publish(ACKED, T1 | C | 128) + SETTLE),
}

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (options, steps) in SEEDS.items():
        (folder / name).write_bytes(bytes([options]) + steps)
