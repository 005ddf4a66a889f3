#!/usr/bin/env bash
# What ./dev demo shows: a development broker; streams with fan-out and a cache, through our command
# line and through the published Python client; a durable stream that outlives its broker; a short
# measurement with latencydemo and cachedemo; a clean stop. Ends by itself; leaves nothing behind.
# From ./dev: FELIX_BIN_DIR (programs) and FELIX_PYTHON (the virtual environment's interpreter).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin=$FELIX_BIN_DIR python=$FELIX_PYTHON
unset FELIX_BIN_DIR FELIX_PYTHON # no settings of Felix
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
FELIX_SUB_QUEUE_POLICY=block FELIX_PUB_INGRESS_WAIT=1 "$bin/felix-broker" --dev \
    --data-dir "$work/data" --quic-bind 127.0.0.1:0 --metrics-bind 127.0.0.1:0 \
    >"$work/ready" 2>"$work/log" &
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

# The command line, found by its data directory; what is typed is shown.
felix() {
    printf '   $ felix %s\n' "$*" >&2
    FELIX_SERVER=$quic FELIX_DATA_DIR=$work/data "$bin/felix" "$@"
}

say "2. Streams with our command line: one message reaches three subscribers."
subscribers=()
for i in 1 2 3; do
    # From the earliest message on: it does not matter who comes first.
    felix sub greetings --from earliest --count 1 >"$work/sub$i" 2>/dev/null &
    subscribers+=($!)
done
felix pub greetings hello
for i in 1 2 3; do
    wait "${subscribers[$((i - 1))]}"
    echo "     subscriber $i got: $(cat "$work/sub$i")"
done

say "3. The cache with our command line: a value that lives for a second."
felix cache put sessions alice 42 --ttl 1s
echo "     got: $(felix cache get sessions alice)"
sleep 1.1
felix cache get sessions alice --quiet || echo "     expired: exit status $?"

say "4. The published Python client (felix-client from PyPI, unchanged) against the same broker."
"$python" demos/demo_client.py "$quic" "$work/data" "$http"

say "5. A durable stream: its broker is killed in the middle of publishing (kill -9) and started again."
"$bin/durable-restart" | sed 's/^/   /'

say "6. How fast it is here, through our client library, TLS on, each with a broker in its own process."
echo "   one message at a time, 256 bytes, acknowledged, from its making to its last byte at the subscriber:"
"$bin/latencydemo" --batch 1 --payload 256 --warmup 200 --total 2000 |
    grep -E '^  (p50|p99|p999) |accounting'
echo "   batches of 64 to ten subscribers, 256 bytes:"
"$bin/latencydemo" --binary --fanout 10 --batch 64 --payload 256 --total 200000 |
    grep -E '^  delivered throughput|accounting'
echo "   cache, 32 operations in flight, 256 bytes:"
"$bin/cachedemo" --concurrency 32 --payloads 256 --samples 20000 |
    grep -E '^(put|get_hit|get_miss): ' | sed 's/^/  /'

say "7. A stop: what was accepted is delivered, connections are closed with a reason."
kill -TERM "$broker"
if wait "$broker"; then echo "   the broker drained and ended with status 0"; else
    echo "   the broker ended with status $?" >&2
    exit 1
fi
broker=""
say "Done. README.md says how to go on."
