#!/usr/bin/env bash
# One installable archive out of the archives of the layers, in which only felix_* is global.
#
#     make-static-library.sh OUTPUT ARCHIVE...
#
# Inner names carry no prefix (ring_push): in a plain archive they would collide with the user's.
set -euo pipefail
output=$1
shift
object=$(dirname "$output")/felix-static.o
ld -r -o "$object" --whole-archive "$@"
objcopy --wildcard --keep-global-symbol='felix_*' "$object"
rm -f "$output"
ar rcs "$output" "$object"
rm -f "$object"
