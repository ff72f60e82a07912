#!/usr/bin/env bash
# Have a redis-server for tests and benchmarks, which start it on ports of their own. None is no reason to stop.
set -u
command -v redis-server >/dev/null 2>&1 && exit 0

install() { apt-get install -y -qq redis-server >/dev/null 2>&1; }

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "setup: redis-server"
    export DEBIAN_FRONTEND=noninteractive
    install || { apt-get update -qq >/dev/null 2>&1; install; }
fi
command -v redis-server >/dev/null 2>&1 ||
    echo "setup: no redis-server, so tests that need it will be skipped. Install it (Debian: apt-get install redis-server)." >&2
exit 0
