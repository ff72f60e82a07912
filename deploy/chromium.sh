#!/usr/bin/env bash
# Have a Chromium for the tests of the report, which look at its page in it. None is no reason to stop.
set -u
command -v chromium >/dev/null 2>&1 && exit 0

install() { apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1; }

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "setup: chromium"
    export DEBIAN_FRONTEND=noninteractive
    install || { apt-get update -qq >/dev/null 2>&1; install; }
fi
command -v chromium >/dev/null 2>&1 ||
    echo "setup: no chromium, so tests that need it will be skipped. Install it (Debian: apt-get install chromium)." >&2
exit 0
