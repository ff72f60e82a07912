#!/usr/bin/env bash
# Install a program that tests start, unless it is installed. The program has the name of its Debian package.
#
#   debian_package.sh redis-server
#
# Exits with 0 even if the installation fails. Tests that need the program then fail with its name.
set -u
package=${1:?usage: debian_package.sh PACKAGE}
command -v "$package" >/dev/null 2>&1 && exit 0

install() { apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1; }

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "setup: $package"
    export DEBIAN_FRONTEND=noninteractive
    install || { apt-get update -qq >/dev/null 2>&1; install; }
fi
command -v "$package" >/dev/null 2>&1 ||
    echo "setup: $package is missing, and tests need it. Install it (Debian: apt-get install $package)." >&2
exit 0
