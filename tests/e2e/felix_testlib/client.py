"""The published client (felix-client) with the arguments of a broker under test."""

import time

import felix

from .slow import scaled

NAMESPACE = "default"


def connect(broker, tenant=None, token=None, **more):
    more.setdefault("ca_file", broker.ca)
    if token is None and "token_provider" not in more:
        token = broker.token
    return felix.Client(
        broker.address, tenant_id=tenant or broker.tenant, token=token, **more
    )


def take(subscription, count, seconds=30):
    """The next `count` events, in order."""
    events, deadline = [], time.monotonic() + scaled(seconds)
    while len(events) < count:
        left = deadline - time.monotonic()
        assert left > 0, f"{len(events)} of {count} events in time"
        event = subscription.next_event(timeout=left)
        assert event is not None, f"subscription ended or timed out after {len(events)} of {count}"
        events.append(event)
    return events


def payloads(events):
    return [e.payload for e in events]
