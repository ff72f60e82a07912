#!/usr/bin/env bash
# Build Horovod 0.28.1 from its source release into DIR, once for each version of Python and torch.
#
#   build_horovod_wheel.sh DIR          Gloo, for CPUs
#
# The release asks for C++14 while torch's headers want 17 or later: two lines of its CMake files change, nothing else.
set -euo pipefail
version=0.28.1
wheels=${1:?usage: build_horovod_wheel.sh DIR}
python=$(realpath --no-symlinks "$(command -v "${PYTHON:-python}")")
tag=$("$python" -c 'import sys, torch; print("cp%d%d-torch%s" % (*sys.version_info[:2], torch.__version__))')
mkdir -p "$wheels"
stamp=$wheels/.horovod-$version-$tag
if [ -e "$stamp" ] && compgen -G "$wheels/horovod-$version-*.whl" >/dev/null; then exit 0; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/build.log
echo "setup: building Horovod $version from source (about two minutes on two cores, once)"
build() {  # called in a condition, where set -e is off: hence the &&
    cd "$work" && export PATH="$(dirname "$python"):$PATH" &&
    "$python" -m pip download --no-deps --no-build-isolation --no-binary :all: "horovod==$version" &&
    tar xzf "horovod-$version.tar.gz" && cd "horovod-$version" &&
    sed -i 's/CMAKE_CXX_STANDARD 14/CMAKE_CXX_STANDARD 20/' CMakeLists.txt horovod/torch/CMakeLists.txt &&
    HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITHOUT_MPI=1 \
    HOROVOD_WITH_GLOO=1 HOROVOD_CPU_OPERATIONS=GLOO CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS="-j$(nproc)" \
        "$python" -m pip wheel --no-build-isolation --no-deps -w "$work/wheel" .
}
if ! (build) >"$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "setup: Horovod's build failed; its last lines stand above." >&2
    exit 1
fi
rm -f "$wheels"/horovod-"$version"-*.whl "$wheels"/.horovod-*
mv "$work"/wheel/horovod-"$version"-*.whl "$wheels/"
touch "$stamp"
