#!/usr/bin/env bash
# Prepares this checkout: Debian packages that are missing, and a virtual environment in .venv.
# Asks nothing. Writes nothing outside the checkout except Debian packages.
#   setup.sh          what the demo needs
#   setup.sh test     and what the tests need (a browser, PostgreSQL)
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf 'setup: %s\n' "$*"; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 1
    fi
}

apt_updated=""
apt_install() {
    command -v apt-get >/dev/null || return 1
    if [ -z "$apt_updated" ]; then
        as_root apt-get update -qq >/dev/null || return 1
        apt_updated=yes
    fi
    say "installing Debian package(s) $*"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Debian's packages start a broker on port 1883 and a database on 5432. Nobody asked for those:
# policy-rc.d keeps them from starting during the installation, and is removed again.
install_without_start() {
    local policy=/usr/sbin/policy-rc.d made=""
    if [ ! -e "$policy" ] && printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null 2>&1; then
        as_root chmod 0755 "$policy"
        made=yes
    fi
    local done=0
    apt_install "$@" || done=1
    if [ -n "$made" ]; then as_root rm -f "$policy"; fi
    return "$done"
}

# The tests make clusters of their own; the package shall make none.
install_postgres() {
    local config=/etc/postgresql-common/createcluster.conf
    if [ ! -e "$config" ]; then
        as_root mkdir -p "${config%/*}" || return 1
        printf 'create_main_cluster = false\n' | as_root tee "$config" >/dev/null || return 1
    fi
    install_without_start postgresql
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "no Python 3.11 or newer found; on Debian 12: apt-get install python3" >&2
    return 1
}

make_venv() {
    [ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null && return
    local python
    python=$(find_python)
    say "virtual environment in .venv with $("$python" --version)"
    rm -rf .venv
    if ! "$python" -m venv .venv 2>/dev/null; then
        rm -rf .venv
        apt_install python3-venv || {
            say "python3-venv is missing; run: apt-get install python3-venv" >&2
            return 1
        }
        "$python" -m venv .venv
    fi
}

export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=

make_venv
stamp=.venv/.installed
wanted=$(cat pyproject.toml constraints.txt deploy/scripts/setup.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    say "installing Python packages (a minute or so)"
    .venv/bin/python -m pip install -q -c constraints.txt -e '.[dev]' 2>&1 | { grep -v '^WARNING' || true; }
    .venv/bin/python -c 'import gridtokenx_wire, pymodbus, solders, fastapi, pytest' # or stop here
    printf '%s' "$wanted" >"$stamp"
fi

export PATH="$PATH:/usr/sbin:/sbin"
if ! command -v mosquitto >/dev/null && ! install_without_start mosquitto; then
    say "no mosquitto and no way to install Debian packages; the demo takes the pip package iotcore"
    .venv/bin/python -m pip install -q -c constraints.txt iotcore
fi

if [ "${1:-}" = test ] && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    install_postgres || say "no PostgreSQL; its tests are skipped without it: apt-get install postgresql"
fi
if [ "${1:-}" = test ] && ! command -v chromium >/dev/null; then
    apt_install chromium || say "no chromium; the browser tests need it: apt-get install chromium"
fi
