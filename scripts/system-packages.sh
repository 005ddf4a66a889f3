# shellcheck shell=bash
# Which Debian packages Felix needs, and how a bare machine gets them. Sourced by ./dev.
#
# Happy path: one dpkg-query call finds everything installed, and nothing else happens. Otherwise
# only what is missing is installed: by root, or through sudo. On Debian 12 ngtcp2 1.11 is in
# bookworm-backports; that source is derived from the machine's own apt sources
# (scripts/backports-source.awk). Debian 13 has it in its main archive.
#
# Not a Debian: nothing is installed; the tools are probed, and what is missing is named.

FELIX_NGTCP2_MIN=1.11

# shellcheck disable=SC2034 # used by ./dev, as is the next table

# package|probe. A package that dpkg does not know as installed is still fine when its probe works
# (a meson from elsewhere, a library under /usr/local).
BASE_PACKAGES="
gcc|command -v gcc
libc6-dev|test -e /usr/include/stdio.h
meson|command -v meson
ninja-build|command -v ninja
pkg-config|command -v pkg-config
libgnutls28-dev|pkg-config --exists gnutls
libmicrohttpd-dev|pkg-config --exists libmicrohttpd
libdeflate-dev|pkg-config --exists libdeflate
libyaml-dev|pkg-config --exists yaml-0.1
libcmocka-dev|pkg-config --exists cmocka
nettle-dev|pkg-config --exists nettle
libngtcp2-dev|pkg-config --exists 'libngtcp2 >= $FELIX_NGTCP2_MIN'
libngtcp2-crypto-gnutls-dev|pkg-config --exists 'libngtcp2_crypto_gnutls >= $FELIX_NGTCP2_MIN'
libipsec-mb-dev|test \"\$(uname -m)\" != x86_64 || test -e /usr/include/intel-ipsec-mb.h
python3|command -v python3
python3-venv|python3 -c 'import ensurepip, venv'
scdoc|command -v scdoc
"
# shellcheck disable=SC2034
GATE_PACKAGES="
clang-19|command -v clang-19
clang-format-19|command -v clang-format-19
clang-tidy-19|command -v clang-tidy-19
libclang-rt-19-dev|test -e /usr/lib/llvm-19/lib/clang/19/lib/linux
llvm-19|command -v llvm-symbolizer-19
cppcheck|command -v cppcheck
valgrind|command -v valgrind
strace|command -v strace
iproute2|command -v ip
shellcheck|command -v shellcheck
"

# packages_missing TABLE: prints the packages of TABLE that are neither installed nor found by probe.
packages_missing() {
    local table=$1 known="" package probe installed
    local -a names=()
    while IFS='|' read -r package probe; do
        [ -n "$package" ] && names+=("$package")
    done <<<"$table"
    if command -v dpkg-query >/dev/null; then
        # shellcheck disable=SC2016 # the format is dpkg-query's, not the shell's
        known=$(dpkg-query -W -f='${db:Status-Status} ${binary:Package} ${Version}\n' \
            "${names[@]}" 2>/dev/null) || true
    fi
    while IFS='|' read -r package probe; do
        [ -n "$package" ] || continue
        installed="(^|[[:space:]])installed $package(:[a-z0-9]+)? ([^[:space:]]+)"
        if [[ $known =~ $installed ]]; then
            [[ $package == libngtcp2-* ]] || continue
            dpkg --compare-versions "${BASH_REMATCH[3]}" ge "$FELIX_NGTCP2_MIN" && continue
        fi
        eval "$probe" >/dev/null 2>&1 || echo "$package"
    done <<<"$table"
}

# Runs its arguments as root; says what is wrong when nobody here is.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Prints the files that apt reads its sources from.
apt_source_files() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ -s "$file" ] && echo "$file"
    done
    return 0
}

# Makes sure that apt knows a source of ngtcp2 >= FELIX_NGTCP2_MIN on Debian 12.
ensure_backports() {
    local codename=$1 entry status=0
    local -a files=()
    mapfile -t files < <(apt_source_files)
    [ "${#files[@]}" -gt 0 ] || die "apt has no sources here; cannot install ngtcp2 $FELIX_NGTCP2_MIN"
    entry=$(awk -v codename="$codename" -f "$FELIX_ROOT/scripts/backports-source.awk" "${files[@]}") ||
        status=$?
    case $status in
    0)
        step "setup" "adding $codename-backports (from your own mirror) for ngtcp2 >= $FELIX_NGTCP2_MIN"
        printf '# Written by Felix ./dev setup: ngtcp2 >= %s is only here on %s.\n%s' \
            "$FELIX_NGTCP2_MIN" "$codename" "$entry"$'\n' |
            as_root tee /etc/apt/sources.list.d/felix-backports.sources >/dev/null
        ;;
    3) ;; # configured already
    *) die "no apt source of Debian $codename found to derive $codename-backports from;" \
        "add that suite, or install ngtcp2 >= $FELIX_NGTCP2_MIN (libngtcp2, libngtcp2_crypto_gnutls)" ;;
    esac
}

# packages_install REASON DRY_RUN TABLE...: installs what is missing of the tables.
packages_install() {
    local reason=$1 dry_run=$2 table codename="" id="" suite=""
    shift 2
    local -a missing=() wanted=()
    mapfile -t missing < <(packages_missing "$(printf '%s\n' "$@")")
    [ "${#missing[@]}" -gt 0 ] || return 0

    if ! command -v apt-get >/dev/null; then
        die "missing: ${missing[*]} (names of Debian 12). This system has no apt-get: install them by hand"
    fi
    step "setup" "$reason needs ${#missing[@]} missing package(s): ${missing[*]}"
    if [ "$dry_run" = yes ]; then
        return 0
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        die "neither root nor sudo here. As root, run:  ./dev setup   or:  apt-get install ${missing[*]}"
    fi

    # shellcheck disable=SC1091 # a file of the system
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    if [ "$codename" = bookworm ] && [[ " ${missing[*]} " == *" libngtcp2-"* ]]; then
        ensure_backports "$codename"
        suite=/$codename-backports
    fi
    for id in "${missing[@]}"; do
        case $id in
        libngtcp2-*) wanted+=("$id$suite") ;;
        *) wanted+=("$id") ;;
        esac
    done
    # A source that has nothing to do with us may be unreachable: then the install decides.
    run_logged setup-apt-update as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 update ||
        note "apt-get update reported errors; trying the install all the same"
    run_logged setup-apt-install as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${wanted[@]}" ||
        die "apt-get could not install: ${wanted[*]}"

    for table in "$@"; do
        mapfile -t missing < <(packages_missing "$table")
        [ "${#missing[@]}" -eq 0 ] || die "still missing after the install: ${missing[*]}"
    done
}
