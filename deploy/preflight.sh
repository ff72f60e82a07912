#!/usr/bin/env bash
# Check the machine's prerequisites before anything is downloaded, and print one line for each missing one.
#
#   preflight.sh            for every run: Python and Java
#   preflight.sh horovod    also for building Horovod: C headers, a compiler, make
set -u
python=${PYTHON:-python3.11}
faults=0
fault() { echo "setup: $1" >&2; faults=1; }

if ! command -v "$python" >/dev/null 2>&1; then
    fault "no $python found. Install Python 3.11 with its venv module (Debian: apt-get install python3.11-venv), or call make PYTHON=/path/to/python3.11."
elif [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != 3.11 ]; then
    fault "$python is $("$python" --version 2>&1), but Python 3.11 is needed. Call make PYTHON=/path/to/python3.11."
elif ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    fault "$python has no venv module. Install it (Debian: apt-get install python3.11-venv)."
fi

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
if ! command -v "$java" >/dev/null 2>&1; then
    fault "no Java found. Install Java 17 (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME."
else
    version=$("$java" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' | head -n 1)
    case "$version" in
        17 | 21) ;;
        *) fault "$java is version ${version:-unknown}, but Spark 4.2 needs Java 17 or 21. Set JAVA_HOME to one." ;;
    esac
fi

if [ "${1:-}" = horovod ]; then
    if [ $faults = 0 ] && ! [ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h" ]; then
        fault "$python has no C headers, which Horovod's build needs. Install them (Debian: apt-get install python3.11-dev)."
    fi
    for tool in g++ make; do
        command -v "$tool" >/dev/null 2>&1 || fault "no $tool found, which Horovod's build needs. Install it (Debian: apt-get install build-essential)."
    done
fi
exit $faults
