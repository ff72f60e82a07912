#!/usr/bin/env bash
# Build a wheel of Horovod 0.28.1 from source, once for each version of Python and torch.
#
#   build_horovod_wheel.sh DIR                                Gloo, for CPUs, into DIR/gloo
#   HOROVOD_GPU_OPERATIONS=NCCL build_horovod_wheel.sh DIR    NCCL, for CUDA GPUs, into DIR/nccl; no GPU is needed
#
# For NCCL, nvcc is taken from HOROVOD_CUDA_HOME, CUDA_HOME, the PATH, /usr/local/cuda or the package cuda-toolkit[nvcc],
# and NCCL from HOROVOD_NCCL_HOME or from torch's packages. Horovod's other variables work as documented, such as
# HOROVOD_BUILD_CUDA_CC_LIST=80,90 to compile for fewer GPU types.
#
# The release is set to C++14, and to C++11 for CUDA, but torch's headers and nvcc need C++17 or later. The script changes
# three lines of its CMake files, and nothing else.
set -euo pipefail
version=0.28.1
wheels=${1:?usage: build_horovod_wheel.sh DIR}
python=$(realpath --no-symlinks "$(command -v "${PYTHON:-python}")")
refuse() { echo "setup: $1" >&2; exit 1; }

case ${HOROVOD_GPU_OPERATIONS-} in
    "") operations=gloo; unset HOROVOD_GPU_OPERATIONS ;;
    NCCL) operations=nccl ;;
    *) refuse "HOROVOD_GPU_OPERATIONS is $HOROVOD_GPU_OPERATIONS, but NCCL is all that is built for GPUs; unset it for CPUs." ;;
esac
wheels=$wheels/$operations
tag=$("$python" -c 'import sys, torch; print("cp%d%d-torch%s" % (*sys.version_info[:2], torch.__version__))')
stamp=$wheels/.horovod-$version-$tag
if [ -e "$stamp" ] && compgen -G "$wheels/horovod-$version-*.whl" >/dev/null; then exit 0; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/build.log

find_cuda() {  # exports HOROVOD_CUDA_HOME and CUDA_HOME, or exits with an error
    local wanted installed home found=
    wanted=$("$python" -c 'import torch; print(torch.version.cuda or "")')
    [ -n "$wanted" ] || refuse "HOROVOD_GPU_OPERATIONS=NCCL, but this torch is built for CPUs; install one built for CUDA."
    installed=$site/nvidia/cu${wanted%%.*}
    for home in "${HOROVOD_CUDA_HOME-}" "${CUDA_HOME-}" "$(dirname "$(dirname "$(command -v nvcc)")")" /usr/local/cuda "$installed"; do
        if [ -x "$home/bin/nvcc" ]; then found=$home; break; fi
    done
    [ -n "$found" ] || refuse "HOROVOD_GPU_OPERATIONS=NCCL needs nvcc, and there is none in CUDA_HOME (${CUDA_HOME:-not set}), on the PATH or in /usr/local/cuda. Install the CUDA toolkit $wanted, or the package cuda-toolkit[nvcc,nvtx]==$wanted.*, or unset HOROVOD_GPU_OPERATIONS."
    home=$("$found/bin/nvcc" --version | sed -nE 's/.*release ([0-9]+)\..*/\1/p')
    [ "$home" = "${wanted%%.*}" ] || refuse "$found/bin/nvcc is of CUDA ${home:-unknown}, but torch is built for CUDA $wanted; set CUDA_HOME to a toolkit ${wanted%%.*}.x."
    if ! [ -e "$found/lib64/libcudart.so" ]; then  # pip packages have neither this folder nor unversioned libraries for the linker
        mkdir -p "$work/cuda/lib"
        ln -s "$found"/{bin,include,nvvm} "$work/cuda/"
        ln -s "$found"/lib/* "$work/cuda/lib/"
        ln -s "$found"/lib/libcudart.so.* "$work/cuda/lib/libcudart.so"
        ln -s lib "$work/cuda/lib64"
        found=$work/cuda
    fi
    export HOROVOD_CUDA_HOME=$found CUDA_HOME=$found
}

find_nccl() {  # exports HOROVOD_NCCL_HOME, or exits with an error
    local torchs=$site/nvidia/nccl
    [ -z "${HOROVOD_NCCL_HOME-}${HOROVOD_NCCL_INCLUDE-}" ] || return 0
    [ -e "$torchs/include/nccl.h" ] || refuse "HOROVOD_GPU_OPERATIONS=NCCL needs nccl.h, and $torchs has none; set HOROVOD_NCCL_HOME to a folder with include/nccl.h and lib/libnccl.so."
    mkdir -p "$work/nccl/lib"
    ln -s "$torchs/include" "$work/nccl/include"
    ln -s "$torchs/lib/libnccl.so.2" "$work/nccl/lib/libnccl.so"  # at run time, torch's library is loaded already
    export HOROVOD_NCCL_HOME=$work/nccl HOROVOD_NCCL_LINK=SHARED
}

if [ $operations = nccl ]; then
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    find_cuda
    find_nccl
fi

echo "setup: building Horovod $version with $operations from source (minutes, once)"
build() {  # && because set -e has no effect inside a condition
    cd "$work" && export PATH="$(dirname "$python"):${CUDA_HOME:+$CUDA_HOME/bin:}$PATH" &&
    "$python" -m pip download --no-deps --no-build-isolation --no-binary :all: "horovod==$version" &&
    tar xzf "horovod-$version.tar.gz" && cd "horovod-$version" &&
    sed -i 's/CMAKE_CXX_STANDARD 14/CMAKE_CXX_STANDARD 20/' CMakeLists.txt horovod/torch/CMakeLists.txt &&
    sed -i 's/CMAKE_CUDA_STANDARD 11/CMAKE_CUDA_STANDARD 17/' horovod/common/ops/cuda/CMakeLists.txt &&
    HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITHOUT_MPI=1 \
    HOROVOD_WITH_GLOO=1 HOROVOD_CPU_OPERATIONS=GLOO CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS="-j$(nproc)" \
        "$python" -m pip wheel --no-build-isolation --no-deps -w "$work/wheel" .
}
if ! (build) >"$log" 2>&1; then
    { grep -m 3 -A 12 -E '(^| )(CMake Error|fatal error|error:)' "$log" || tail -n 40 "$log"; } >&2
    refuse "Horovod's build failed; its first errors stand above."
fi
mkdir -p "$wheels"
rm -f "$wheels"/horovod-"$version"-*.whl "$wheels"/.horovod-*
mv "$work"/wheel/horovod-"$version"-*.whl "$wheels/"
touch "$stamp"
