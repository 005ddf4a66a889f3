#!/usr/bin/env bash
# Runs examples of libfelix under valgrind against a broker of their own: no invalid access, no use of
# what was never written, nothing left behind.
#
#     check-valgrind.sh BUILD_DIR
set -euo pipefail
build=$(realpath "$1")
work=$(mktemp -d)
broker=""
cleanup() {
    [ -z "$broker" ] || kill "$broker" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap cleanup EXIT

mkfifo "$work/ready"
env -u FELIX_DATA_DIR HOME="$work" "$build/bin/felix-broker" --dev --data-dir "$work/data" \
    --quic-bind 127.0.0.1:0 --metrics-bind 127.0.0.1:0 >"$work/ready" 2>"$work/broker.log" &
broker=$!
if ! read -r -t 20 line <"$work/ready" || [[ ! $line =~ quic=([0-9.:]+) ]]; then
    cat "$work/broker.log"
    echo "the broker does not start"
    exit 1
fi
export FELIX_SERVER=${BASH_REMATCH[1]} FELIX_DATA_DIR=$work/data

runs=0 failed=0
# check STATUS NAME ARGUMENT...: one example, which has to end with STATUS.
check() {
    local wanted=$1 status=0
    shift
    runs=$((runs + 1))
    valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite,indirect,possible \
        --error-exitcode=99 --num-callers=20 "$build/examples/$1" "${@:2}" >"$work/out" 2>&1 ||
        status=$?
    [ "$status" -ne "$wanted" ] || return 0
    echo "== $*: exit status $status instead of $wanted"
    head -n 60 "$work/out"
    failed=$((failed + 1))
}

check 0 publish_batch valgrind 200
check 0 publish_async valgrind 500
check 0 resume valgrind "$work/offset" 500
check 0 cache valgrind
check 0 cache_async valgrind 200
check 0 errors
check 0 drain valgrind 500
FELIX_SERVER=127.0.0.1:1 check 1 publish valgrind
echo "$runs examples, $failed with findings"
[ "$failed" -eq 0 ]
