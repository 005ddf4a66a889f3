#!/usr/bin/env bash
# What ./dev demo shows: a development broker, the published Python client against it, the health
# page and the numbers, short measurements, a clean stop. Ends by itself; leaves nothing behind.
# From ./dev: FELIX_BIN_DIR (programs) and FELIX_PYTHON (the virtual environment's interpreter).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
broker=""
cleanup() {
    [ -z "$broker" ] || kill "$broker" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

say() { printf '\n-- %s\n' "$*"; }

say "1. A broker for development: it makes its own certificate, keys, token and scope."
# Lossless: a full subscriber's queue holds the publisher up instead of dropping.
FELIX_SUB_QUEUE_POLICY=block FELIX_PUB_INGRESS_WAIT=1 "$FELIX_BIN_DIR/felix-broker" --dev --data-dir "$work/data" --quic-bind 127.0.0.1:0 \
    --metrics-bind 127.0.0.1:0 >"$work/ready" 2>"$work/log" &
broker=$!
for _ in $(seq 100); do
    grep -q '^felix-broker ready' "$work/ready" && break
    kill -0 "$broker" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.05
done
quic=$(sed -n 's/.* quic=\([^ ]*\).*/\1/p' "$work/ready")
http=$(sed -n 's/.* http=\([^ ]*\).*/\1/p' "$work/ready")
[ -n "$quic" ] || { echo "the broker did not start:" >&2; cat "$work/log" >&2; exit 1; }
echo "   QUIC on $quic, health and metrics on $http"

say "2. The published Python client (felix-client from PyPI, unchanged) over QUIC."
"$FELIX_PYTHON" demos/demo_client.py "$quic" "$work/data" "$http"

say "3. How fast it is here, through our client library, TLS on, each with a broker in its own process."
echo "   one message at a time, 256 bytes, acknowledged, from its making to its last byte at the subscriber:"
"$FELIX_BIN_DIR/latencydemo" --batch 1 --payload 256 --warmup 200 --total 2000 |
    grep -E '^  (p50|p99|p999) |accounting'
echo "   batches of 64 to ten subscribers, 256 bytes (the delay is queueing, not latency):"
"$FELIX_BIN_DIR/latencydemo" --binary --fanout 10 --batch 64 --payload 256 --total 200000 |
    grep -E '^    p50 |  delivered throughput|accounting'
echo "   cache, 32 operations in flight, 256 bytes:"
"$FELIX_BIN_DIR/cachedemo" --concurrency 32 --payloads 256 --samples 20000 |
    grep -E '^(put|get_hit|get_miss): |^Cache get' | sed 's/^/  /'

say "4. A stop: what was accepted is delivered, connections are closed with a reason."
kill -TERM "$broker"
if wait "$broker"; then echo "   the broker drained and ended with status 0"; else
    echo "   the broker ended with status $?" >&2
    exit 1
fi
broker=""
say "Done. README.md says how to go on."
