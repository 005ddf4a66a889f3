"""A network between client and broker that a test can cut."""

import selectors
import socket
import threading


class Relay:
    """Forwards UDP datagrams to 127.0.0.1:`port` and back, a socket of its own for each client."""

    def __init__(self, port):
        self.to = ("127.0.0.1", port)
        self.front = self._socket()
        self.port = self.front.getsockname()[1]
        self.backs, self.clients = {}, {}
        self.up = True
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.front, selectors.EVENT_READ)
        self.stop_in, self.stop_out = socket.socketpair()
        self.selector.register(self.stop_in, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self._run, daemon=True)

    @staticmethod
    def _socket():
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.bind(("127.0.0.1", 0))
        return s

    def cut(self):
        self.up = False

    def mend(self):
        self.up = True

    def _back_of(self, client):
        if client not in self.backs:
            self.backs[client] = back = self._socket()
            self.clients[back] = client
            self.selector.register(back, selectors.EVENT_READ)
        return self.backs[client]

    def _pass(self, s):
        data, sender = s.recvfrom(65536)
        if not self.up:
            return
        if s is self.front:
            self._back_of(sender).sendto(data, self.to)
        else:
            self.front.sendto(data, self.clients[s])

    def _run(self):
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.stop_in:
                    return
                try:
                    self._pass(key.fileobj)
                except ConnectionRefusedError:
                    continue

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop_out.send(b"x")
        self.thread.join()
        for s in [self.front, self.stop_in, self.stop_out, *self.clients]:
            s.close()
