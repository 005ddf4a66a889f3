"""The published client at the far end of a bad wire, as a program of its own because it lives in
another network namespace. Does what a user does and prints what came of it as JSON.

    far_client.py ADDRESS CA TOKEN TENANT MESSAGES
"""

import json
import sys
import threading
import time

import felix

NS = "default"
ACKNOWLEDGED, CACHED = 20, 20
PATIENCE = 20
# The client keeps 256 events that its user has not taken, and silently drops what comes beyond: a
# datagram that was lost and comes late may bring hundreds at once.
AHEAD = 200


class Reader(threading.Thread):
    """Takes events as they come."""

    def __init__(self, events, count):
        super().__init__(daemon=True)
        self.events, self.count, self.got = events, count, []
        self.changed = threading.Condition()
        self.start()

    def run(self):
        while len(self.got) < self.count:
            event = self.events.next_event(timeout=PATIENCE)
            with self.changed:
                if event is None:
                    self.count = len(self.got)  # nobody waits for more
                else:
                    self.got.append(event.payload)
                self.changed.notify_all()

    def wait(self, count):
        """Until so many have come, or no more will."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.got) >= min(count, self.count), PATIENCE)


def main():
    address, ca, token, tenant, messages = *sys.argv[1:5], int(sys.argv[5])
    start, times = time.monotonic(), {}

    def took(what):
        times[what] = round(time.monotonic() - start, 2)

    with felix.Client(address, tenant_id=tenant, token=token, ca_file=ca) as client:
        took("connected")
        with client.subscribe(tenant, NS, "far") as events:
            sent = [b"message %06d" % i for i in range(messages)]
            reader = Reader(events, messages + ACKNOWLEDGED)
            for i, payload in enumerate(sent):
                reader.wait(i - AHEAD)
                client.publish(tenant, NS, "far", payload, ack="none")
            acknowledged = [b"acknowledged %02d" % i for i in range(ACKNOWLEDGED)]
            for payload in acknowledged:
                client.publish(tenant, NS, "far", payload, ack="per_message")
            took("acknowledged")
            reader.join(2 * PATIENCE)
            took("delivered")
        values = {b"key %d" % i: b"value %d " % i * 50 for i in range(CACHED)}
        for key, value in values.items():
            client.cache_put(tenant, NS, "far", key.decode(), value)
        got = {key: client.cache_get(tenant, NS, "far", key.decode()) for key in values}
        took("cached")
    print(json.dumps({
        "delivered": len(reader.got),
        # Streams of their own keep no order between each other, so compare each kind.
        "in_order": [x for x in reader.got if x.startswith(b"m")] == sent,
        "acknowledged_in_order": [x for x in reader.got if x.startswith(b"a")] == acknowledged,
        "cached": got == values,
        "seconds": times,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
