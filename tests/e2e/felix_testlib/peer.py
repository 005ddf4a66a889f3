"""A QUIC peer that says exactly what a test wants it to say.

`Peer` is one connection over aioquic's sans-I/O state machine, driven by one background thread for
all peers of the process, so that tests are plain synchronous code and a peer keeps answering
(acknowledgements, pings) while its test does something else.
"""

import os
import selectors
import socket
import ssl
import struct
import threading
import time

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, stream_is_client_initiated

from . import frames
from .slow import scaled

TIMEOUT = 10.0
CRYPTO_ERROR = 0x100


class PeerTimeout(AssertionError):
    """Nothing came in time."""


class EndOfStream(AssertionError):
    """The stream ended (FIN, reset, or the connection) where a frame was expected."""


class _Driver(threading.Thread):
    """Reads all sockets, runs all timers. `lock` guards every connection."""

    def __init__(self):
        super().__init__(name="peers", daemon=True)
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.selector = selectors.DefaultSelector()
        self.peers = set()
        self.wake_in, self.wake_out = os.pipe()
        os.set_blocking(self.wake_in, False)
        os.set_blocking(self.wake_out, False)
        self.selector.register(self.wake_in, selectors.EVENT_READ, None)
        self.start()

    def wake(self):
        try:
            os.write(self.wake_out, b"x")
        except BlockingIOError:
            pass

    def run(self):
        while True:
            with self.lock:
                timers = [p.quic.get_timer() for p in self.peers if not p.frozen]
            due = min((t for t in timers if t is not None), default=None)
            timeout = None if due is None else max(0.0, due - time.monotonic())
            ready = self.selector.select(timeout)
            with self.lock:
                for key, _ in ready:
                    if key.data is None:
                        try:
                            os.read(self.wake_in, 4096)
                        except BlockingIOError:
                            pass
                    else:
                        key.data._receive(key.fileobj)
                now = time.monotonic()
                for peer in list(self.peers):
                    due = None if peer.frozen else peer.quic.get_timer()
                    if due is not None and due <= now:
                        peer.quic.handle_timer(now)
                        peer._transmit()
                self.changed.notify_all()


_driver = None
_driver_lock = threading.Lock()


def driver():
    global _driver
    with _driver_lock:
        if _driver is None:
            _driver = _Driver()
        return _driver


class Stream:
    """One QUIC stream of a peer."""

    def __init__(self, peer, stream_id):
        self.peer, self.id = peer, stream_id
        self.received = bytearray()
        self.fin = False
        self.reset_code = None
        self.stop_code = None

    # -- sending

    def send(self, data, fin=False):
        with self.peer.driver.lock:
            self.peer.quic.send_stream_data(self.id, data, end_stream=fin)
            self.peer._transmit()
        return self

    def finish(self):
        return self.send(b"", fin=True)

    def reset(self, code=0):
        with self.peer.driver.lock:
            self.peer.quic.reset_stream(self.id, code)
            self.peer._transmit()

    def stop(self, code=0):
        """STOP_SENDING: we do not want more."""
        with self.peer.driver.lock:
            self.peer.quic.stop_stream(self.id, code)
            self.peer._transmit()

    # -- receiving

    def _ended(self):
        return self.fin or self.reset_code is not None or self.peer.closed is not None

    def _how_it_ended(self):
        return (
            f"stream {self.id}: fin {self.fin}, reset {self.reset_code}, stop {self.stop_code}, "
            f"left {bytes(self.received[:80])!r}, connection {self.peer.closed}"
        )

    def _frame_bytes(self):
        if len(self.received) < 12:
            return None
        magic, version, _, length = struct.unpack_from(">IHHI", self.received)
        assert magic == frames.MAGIC and version == 1, bytes(self.received[:32])
        return 12 + length if len(self.received) >= 12 + length else None

    def frame(self, timeout=TIMEOUT):
        """The next frame, whole."""
        self.peer._wait(lambda: self._frame_bytes() or self._ended(), timeout, f"a frame on {self.id}")
        with self.peer.driver.lock:
            total = self._frame_bytes()
            if total is None:
                raise EndOfStream(self._how_it_ended())
            raw = bytes(self.received[:total])
            del self.received[:total]
        return frames.Frame(struct.unpack_from(">H", raw, 6)[0], raw[12:])

    def json(self, timeout=TIMEOUT):
        return self.frame(timeout).json()

    def expect(self, type_, timeout=TIMEOUT, **members):
        """The next frame is this message; members that are not named are not compared."""
        got = self.json(timeout)
        assert got["type"] == type_, got
        for name, value in members.items():
            assert got.get(name) == value, got
        return got

    def ack(self, timeout=TIMEOUT):
        return frames.decode_ack(self.frame(timeout))

    def events(self, timeout=TIMEOUT):
        return frames.decode_events(self.frame(timeout))

    def payloads(self, count, timeout=TIMEOUT):
        """The next `count` payloads, over as many event frames as it takes."""
        out = []
        while len(out) < count:
            out += self.events(timeout).payloads
        assert len(out) == count, f"{len(out)} instead of {count}"
        return out

    def expect_fin(self, timeout=TIMEOUT):
        """Nothing more but a clean end."""
        self.peer._wait(self._ended, timeout, f"FIN on {self.id}")
        assert self.fin and self.reset_code is None and not self.received, self._how_it_ended()

    def expect_stop(self, timeout=TIMEOUT):
        self.peer._wait(
            lambda: self.stop_code is not None or self.peer.closed, timeout, f"STOP on {self.id}"
        )
        assert self.stop_code == 0, self._how_it_ended()

    def expect_end(self, timeout=TIMEOUT):
        """An end of any kind, with no frame before it."""
        self.peer._wait(self._ended, timeout, f"the end of {self.id}")
        assert not self.received, self._how_it_ended()
        assert self.peer.closed is None, self._how_it_ended()

    def expect_silence(self, seconds):
        """Nothing arrives and nothing ends for this long."""
        time.sleep(seconds)
        with self.peer.driver.lock:
            assert not self.received and not self._ended(), self._how_it_ended()


class Peer:
    """One connection to a broker. Use as a context manager, or close it."""

    def __init__(
        self,
        port,
        ca=None,
        alpn=None,
        server_name="localhost",
        max_stream_data=16 << 20,
        max_data=64 << 20,
        idle_timeout=30.0,
        datagram_bytes=1200,
        hold_windows=False,
        streams_uni=None,
        wait=True,
        configure=None,
    ):
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=alpn,
            server_name=server_name,
            max_stream_data=max_stream_data,
            max_data=max_data,
            idle_timeout=idle_timeout,
            max_datagram_size=datagram_bytes,
            verify_mode=ssl.CERT_REQUIRED if ca else ssl.CERT_NONE,
            supported_versions=[1],
        )
        if ca:
            configuration.load_verify_locations(cafile=ca)
        if configure:
            configure(configuration)
        self.driver = driver()
        self.address = ("127.0.0.1", port)
        self.quic = QuicConnection(configuration=configuration)
        if hold_windows:
            # Flow control is never widened: a peer that stops reading.
            self.quic._write_stream_limits = lambda **_: None
            self.quic._write_connection_limits = lambda **_: None
        if streams_uni is not None:
            self.quic._local_max_streams_uni.value = streams_uni
            self.quic._local_max_streams_uni.sent = streams_uni
        self.streams = {}
        self.incoming = []
        self.ready = False
        self.alpn = None
        self.closed = None  # (error code, reason) once the connection is over
        self.frozen = False
        self.largest_datagram = 0
        self.datagrams_in = 0
        self.last_datagram = b""
        self._drop_outgoing = None
        self.socket = self._open_socket()
        with self.driver.lock:
            self.driver.peers.add(self)
            self.quic.connect(self.address, now=time.monotonic())
            self._transmit()
        if wait:
            self.wait_ready()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def widen(self):
        """A peer that did not read (hold_windows) reads from now on."""
        with self.driver.lock:
            del self.quic._write_stream_limits, self.quic._write_connection_limits
            self._transmit()

    # -- streams

    def bi(self):
        return self._open(False)

    def uni(self):
        return self._open(True)

    def _open(self, unidirectional):
        with self.driver.lock:
            assert self.closed is None, f"connection is over: {self.closed}"
            stream_id = self.quic.get_next_available_stream_id(is_unidirectional=unidirectional)
            stream = self.streams[stream_id] = Stream(self, stream_id)
            # Makes aioquic count the stream; nothing is sent by it.
            self.quic._get_or_create_stream_for_send(stream_id)
            return stream

    def accept(self, timeout=TIMEOUT):
        """The next stream that the broker opened."""
        self._wait(lambda: self.incoming or self.closed, timeout, "a stream of the broker's")
        with self.driver.lock:
            assert self.incoming, f"connection is over: {self.closed}"
            return self.incoming.pop(0)

    # -- Felix on top

    def authenticated(self, tenant, token, **words):
        """A bidirectional stream that has authenticated."""
        stream = self.bi()
        stream.send(frames.auth(tenant, token, **words))
        if words.get("flags", frames.CLIENT_FLAGS) is None:
            stream.expect("ok")
        else:
            stream.expect("auth_ok")
        return stream

    def subscribe(self, tenant, token, namespace, stream, words=None, fin=True, **members):
        """Returns (subscription id, event stream) of a subscription that was accepted."""
        control = self.authenticated(tenant, token, **(words or {}))
        control.send(
            frames.message(
                "subscribe", tenant_id=tenant, namespace=namespace, stream=stream, **members
            ),
            fin=fin,
        )
        got = control.expect("subscribed")
        control.expect_fin()
        event_stream = self.accept()
        event_stream.expect("event_stream_hello", subscription_id=got["subscription_id"])
        return got["subscription_id"], event_stream

    # -- the connection

    def wait_ready(self, timeout=TIMEOUT):
        self._wait(lambda: self.ready or self.closed, timeout, "the handshake")
        assert self.ready and self.closed is None, f"handshake failed: {self.closed}"
        return self

    def wait_closed(self, timeout=TIMEOUT):
        self._wait(lambda: self.closed, timeout, "the end of the connection")
        return self.closed

    def ping(self, timeout=TIMEOUT):
        """A round trip: everything sent before has arrived and was worked on."""
        uid = object()
        with self.driver.lock:
            self._pongs = getattr(self, "_pongs", set())
            self.quic.send_ping(id(uid))
            self._transmit()
        self._wait(lambda: id(uid) in self._pongs or self.closed, timeout, "a pong")
        assert self.closed is None, self.closed

    def update_key(self):
        with self.driver.lock:
            self.quic.request_key_update()
            self._transmit()

    def change_connection_id(self):
        with self.driver.lock:
            self.quic.change_connection_id()
            self._transmit()

    def rebind(self):
        """Go on from another local port, as behind a NAT that forgot us."""
        with self.driver.lock:
            old = self.socket
            self.driver.selector.unregister(old)
            old.close()
            self.socket = self._open_socket()

    def freeze(self):
        """Say nothing more: no acknowledgements, no timers, no close."""
        with self.driver.lock:
            self.frozen = True

    def close(self, code=0, reason=""):
        with self.driver.lock:
            if self in self.driver.peers:
                if self.closed is None and not self.frozen:
                    self.quic.close(error_code=code, reason_phrase=reason)
                    self._transmit()
                self._forget()

    def abandon(self):
        """Disappear without a word."""
        with self.driver.lock:
            self._forget()

    # -- inside

    def _open_socket(self):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.bind(("127.0.0.1", 0))
        s.setblocking(False)
        self.driver.selector.register(s, selectors.EVENT_READ, self)
        self.driver.wake()
        return s

    def _forget(self):
        if self in self.driver.peers:
            self.driver.peers.discard(self)
            self.driver.selector.unregister(self.socket)
            self.socket.close()
            if self.closed is None:
                self.closed = (None, "closed by the test")

    def _wait(self, predicate, timeout, what):
        deadline = time.monotonic() + scaled(timeout)
        with self.driver.changed:
            while not predicate():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise PeerTimeout(f"not within {scaled(timeout):.1f} s: {what}")
                self.driver.changed.wait(left)

    def _receive(self, sock):
        for _ in range(256):
            try:
                data, address = sock.recvfrom(65535)
            except BlockingIOError:
                break
            except OSError:
                break
            if self.frozen or sock is not self.socket:
                continue
            self.datagrams_in += 1
            self.last_datagram = data
            self.largest_datagram = max(self.largest_datagram, len(data))
            self.quic.receive_datagram(data, address, now=time.monotonic())
        if self.quic._network_paths:  # none any more once a late packet met a closed connection
            self._transmit()

    def _transmit(self):
        if self.frozen:
            return
        for data, address in self.quic.datagrams_to_send(now=time.monotonic()):
            if self._drop_outgoing and self._drop_outgoing(data):
                continue
            try:
                self.socket.sendto(data, address)
            except (BlockingIOError, OSError):
                pass
        self._take_events()
        self.driver.changed.notify_all()
        if threading.current_thread() is not self.driver:
            self.driver.wake()

    def _take_events(self):
        while True:
            event = self.quic.next_event()
            if event is None:
                return
            if isinstance(event, events.HandshakeCompleted):
                self.ready, self.alpn = True, event.alpn_protocol
            elif isinstance(event, events.StreamDataReceived):
                stream = self._stream(event.stream_id)
                stream.received += event.data
                stream.fin = stream.fin or event.end_stream
            elif isinstance(event, events.StreamReset):
                self._stream(event.stream_id).reset_code = event.error_code
            elif isinstance(event, events.StopSendingReceived):
                self._stream(event.stream_id).stop_code = event.error_code
            elif isinstance(event, events.PingAcknowledged):
                self._pongs.add(event.uid)
            elif isinstance(event, events.ConnectionTerminated):
                self.closed = (event.error_code, event.reason_phrase)

    def _stream(self, stream_id):
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self.streams[stream_id] = Stream(self, stream_id)
            if not stream_is_client_initiated(stream_id):
                self.incoming.append(stream)
        return stream
