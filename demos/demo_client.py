"""The demo's user: publishes, subscribes and caches with the published Felix client.

demo_client.py HOST:PORT DATA_DIR HTTP_HOST:PORT
"""

import pathlib
import sys
import threading
import time
import urllib.request

import felix

MESSAGES = 1000
SUBSCRIBERS = 3


def connect(address, data_dir):
    return felix.Client(
        address,
        tenant_id="t1",
        token=(data_dir / "token").read_text(),
        ca_file=str(data_dir / "ca.pem"),
    )


def fan_out(address, data_dir):
    publisher = connect(address, data_dir)
    received = [0] * SUBSCRIBERS
    in_order = [True] * SUBSCRIBERS

    def consume(index, subscription):
        for expected in range(MESSAGES):
            event = subscription.next_event(timeout=10)
            if event is None:
                return
            received[index] += 1
            in_order[index] &= event.payload == b"order %d" % expected

    clients = [connect(address, data_dir) for _ in range(SUBSCRIBERS)]
    threads = []
    for index, client in enumerate(clients):
        subscription = client.subscribe("t1", "default", "orders")
        threads.append(threading.Thread(target=consume, args=(index, subscription)))
        threads[-1].start()
    start = time.monotonic()
    for number in range(MESSAGES):
        publisher.publish("t1", "default", "orders", b"order %d" % number)
    for thread in threads:
        thread.join()
    took = time.monotonic() - start
    print(f"   published {MESSAGES} messages, each acknowledged, in {took:.2f} s")
    print(f"   {SUBSCRIBERS} subscribers received {received}, in order: {all(in_order)}")
    return received == [MESSAGES] * SUBSCRIBERS and all(in_order)


def resume(address, data_dir):
    client = connect(address, data_dir)
    last = client.subscribe("t1", "default", "orders", start=MESSAGES - 2)
    again = [last.next_event(timeout=5) for _ in range(2)]
    print(f"   a late subscriber from offset {MESSAGES - 2}: {[e.payload.decode() for e in again]}")
    return [e.offset for e in again] == [MESSAGES - 2, MESSAGES - 1]


def cache(address, data_dir):
    client = connect(address, data_dir)
    client.cache_put("t1", "default", "sessions", "alice", b"logged in", ttl=0.5)
    hit = client.cache_get("t1", "default", "sessions", "alice")
    time.sleep(0.7)
    gone = client.cache_get("t1", "default", "sessions", "alice")
    client.cache_put("t1", "default", "sessions", "bob", b"stays")
    removed = client.cache_delete("t1", "default", "sessions", "bob")
    print(f"   cache: put with 0.5 s to live, get -> {hit}, 0.7 s later -> {gone}")
    print(f"   cache: delete returns what was there -> {removed}")
    return hit == b"logged in" and gone is None and removed == b"stays"


def numbers(http):
    page = urllib.request.urlopen(f"http://{http}/metrics", timeout=5).read().decode()
    wanted = ("felix_publish_items_total", "felix_delivered_items_total", "felix_cache_hits_total")
    for line in page.splitlines():
        if line.split(" ")[0] in wanted:
            print(f"   {line}")
    return "felix_ready 1" in page


def main():
    address, data_dir, http = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    good = [
        fan_out(address, data_dir),
        resume(address, data_dir),
        cache(address, data_dir),
        numbers(http),
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
