"""A broker that says exactly what a test wants it to say, for clients under test.

It completes handshakes and splits streams into frames; everything else is up to `on_frame(stream,
frame)` of the test, which runs on the broker's own thread. `stream.say`, `stream.finish`,
`stream.reset` and `connection.open_event_stream` are what it can answer with.
"""

import asyncio
import struct
import threading

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration

from . import frames, tokens
from .slow import scaled


class Stream:
    def __init__(self, connection, stream_id):
        self.connection, self.id, self.data = connection, stream_id, b""
        self.authenticated = False

    def say(self, *data):
        self.connection._quic.send_stream_data(self.id, b"".join(data))
        self.connection.transmit()

    def finish(self):
        self.connection._quic.send_stream_data(self.id, b"", end_stream=True)
        self.connection.transmit()

    def reset(self, code=0):
        self.connection._quic.reset_stream(self.id, code)
        self.connection.transmit()

    def take_frame(self):
        if len(self.data) < 12:
            return None
        magic, version, flags, length = struct.unpack_from(">IHHI", self.data)
        assert (magic, version) == (frames.MAGIC, frames.VERSION)
        if len(self.data) < 12 + length:
            return None
        body, self.data = self.data[12 : 12 + length], self.data[12 + length :]
        return frames.Frame(flags, body)


class _Connection(QuicConnectionProtocol):
    def __init__(self, *args, broker, **words):
        super().__init__(*args, **words)
        self.broker, self.streams = broker, {}

    def quic_event_received(self, event):
        if not isinstance(event, events.StreamDataReceived):
            return
        stream = self.streams.setdefault(event.stream_id, Stream(self, event.stream_id))
        stream.data += event.data
        while (frame := stream.take_frame()) is not None:
            self.broker.handle(stream, frame)

    def open_event_stream(self, subscription_id):
        """A new one, which has said hello."""
        stream = Stream(self, self._quic.get_next_available_stream_id(is_unidirectional=True))
        stream.say(frames.message("event_stream_hello", subscription_id=subscription_id))
        return stream


class FakeBroker:
    tenant, token = "t1", "anything"

    def __init__(self, directory, on_frame, auth_answer=frames.AUTH_OK):
        self.ca, self.key = tokens.write_certificate(str(directory))
        self.on_frame, self.auth_answer = on_frame, auth_answer
        self.failures, self.port = [], None
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def handle(self, stream, frame):
        try:
            if not stream.authenticated:
                assert frame.json()["type"] == "auth", frame
                stream.authenticated = True
                stream.say(self.auth_answer)
            else:
                self.on_frame(stream, frame)
        except Exception as e:  # noqa: BLE001: told to the test, whatever it is
            self.failures.append(e)

    async def _serve(self):
        configuration = QuicConfiguration(is_client=False, max_datagram_frame_size=None)
        configuration.load_cert_chain(self.ca, self.key)
        server = await serve(
            "127.0.0.1", 0, configuration=configuration,
            create_protocol=lambda *args, **words: _Connection(*args, broker=self, **words),
        )  # fmt: skip
        self.port = server._transport.get_extra_info("sockname")[1]
        self.ready.set()
        return server

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(self._serve())
        self.loop.run_forever()

    def do(self, function, *args):
        """Run `function` on the broker's thread: what a test says to a stream from outside."""
        done = threading.Event()

        def run():
            function(*args)
            done.set()

        self.loop.call_soon_threadsafe(run)
        assert done.wait(scaled(10))

    def __enter__(self):
        self.thread.start()
        assert self.ready.wait(scaled(10)), "the fake broker does not start"
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.server.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(scaled(10))
        assert not self.failures, self.failures
