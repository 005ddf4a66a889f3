#!/usr/bin/env bash
# First speed: a table of what one broker does on this machine, each case three times.
# Lossless settings (queues block, publishes wait), TLS on, client and broker as two processes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${FELIX_BIN_DIR:-build/bin}
work=$(mktemp -d)
trap 'kill "$broker" 2>/dev/null || true; rm -rf "$work"' EXIT
FELIX_SUB_QUEUE_POLICY=block FELIX_PUB_INGRESS_WAIT=1 "$bin/felix-broker" --dev \
    --data-dir "$work" --quic-bind 127.0.0.1:0 --metrics-bind 127.0.0.1:0 \
    >"$work/ready" 2>"$work/log" &
broker=$!
until grep -q '^felix-broker ready' "$work/ready"; do
    kill -0 "$broker" || { cat "$work/log" >&2; exit 1; }
    sleep 0.05
done
quic=$(sed -n 's/.* quic=\([^ ]*\).*/\1/p' "$work/ready")
load() { for _ in 1 2 3; do "$bin/load" --server "$quic" --data-dir "$work" "$@"; done; }
load --fanout 1 --batch 64 --payload 0 --total 4000000
load --fanout 1 --batch 64 --payload 256 --total 2000000
load --fanout 1 --batch 64 --payload 1024 --total 800000
load --fanout 1 --batch 64 --payload 4096 --total 200000
load --fanout 10 --batch 64 --payload 256 --total 500000
load --fanout 10 --batch 64 --payload 4096 --total 60000
load --fanout 1 --batch 1 --payload 256 --total 20000 --acked
load --fanout 10 --batch 1 --payload 256 --total 5000 --acked
