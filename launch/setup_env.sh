#!/usr/bin/env bash
# Create the Python environment of one engine (TensorFlow build), print its interpreter:
#
#   python="$(bash launch/setup_env.sh [--with-tests] [--with-horovod] [--with-onnx])"
#
# stdout is the interpreter's path, stderr the rest. $PYTHON chooses the Python to
# build on, $ALEXNET_TF the engine: 1.15, 1.15-intel, 2.15 or 2.15-cuda. Exit code 2
# means that it is not possible.
set -euo pipefail
exec 3>&1 1>&2

say() { echo "setup_env: $*"; }
trap 'exit 130' INT
fail() {
  say "$@"
  exit 2
}

# Print facts about an interpreter, its path last. TensorFlow is found by its metadata,
# because importing it takes seconds.
probe='
import sys
sys.path.remove("")
import ensurepip, glob, os, platform, re, venv
pattern = re.compile(r"((\w+_)?tensorflow(_[cg]pu)?-[12]\.15\.\d+)")
names = [os.path.basename(path) for folder in sys.path
         for path in glob.glob(glob.escape(folder) + "/*.dist-info")]
builds = [match.group(1) for match in map(pattern.match, names) if match]
print(platform.python_version(), platform.machine(), (builds + ["-"])[0],
      sys.executable)'

candidates() { # VERSION...: print interpreters to look at, the likeliest first
  local version environment
  if [[ -n ${PYTHON:-} ]]; then
    type -P "$PYTHON" || echo "$PYTHON"
    return
  fi
  type -ap python3 python || true
  for version in "$@"; do
    type -ap "python$version" || true
    compgen -G "${PYENV_ROOT:-$home/.pyenv}/versions/$version*/bin/python$version" || true
    [[ -z $(type -P uv) ]] || uv python find --no-project "$version" 2>/dev/null || true
    # Conda's own list of its environments.
    while IFS= read -r environment; do
      compgen -G "$environment/bin/python$version" || true
    done < <(cat "$home/.conda/environments.txt" 2>/dev/null)
  done
}

find_python() { # SUITS VERSION...: set version, machine, tensorflow and base
  local suits="$1" candidate facts note
  shift
  while IFS= read -r candidate; do
    if facts="$("$candidate" -E -c "$probe" 2>/dev/null)"; then
      read -r version machine tensorflow base <<<"$facts"
      [[ $base != "$root"/.venv/* ]] || continue # This is an environment of this clone.
      if "$suits"; then return; fi
      note="$base is Python $version on $machine"
    else
      note="$candidate does not start, or lacks the modules venv and ensurepip"
    fi
    [[ $seen == *"$note"* ]] || seen+=$'\n'"  - $note"
  done < <(candidates "$@")
  return 1
}

has_gpu() { nvidia-smi -L 2>/dev/null | grep -q "^GPU "; }

# NVIDIA's containers since 2021 have TensorFlow 1.15 on Python 3.8.
has_1_15() { [[ $version == 3.[78].* && $tensorflow == *-1.15.* && $wish != 1.15-intel ]]; }
has_1_15_for_gpus() { has_1_15 && [[ $tensorflow =~ ^(nvidia_tensorflow|tensorflow_gpu)- ]]; }
suits_1_15() { has_1_15 || [[ "$version $machine" == 3.7.*" x86_64" ]]; }
suits_2_15() { [[ $version =~ ^3\.(9|10|11)\. ]]; }
suits_2_15_cuda() { suits_2_15 && [[ $machine == x86_64 ]]; }

choose_engine() { # Set engine and reason, and what find_python sets
  [[ "||1.15|1.15-intel|2.15|2.15-cuda|" == *"|$wish|"* ]] ||
    fail "ALEXNET_TF is '$wish'; set it to 1.15, 1.15-intel, 2.15 or 2.15-cuda, or not \
at all"
  reason="ALEXNET_TF chooses it"
  if [[ -z $wish ]] && has_gpu; then
    if find_python has_1_15_for_gpus 3.8 3.7; then
      engine=1.15-found reason="$tensorflow is installed there"
      return
    elif find_python suits_2_15_cuda 3.11 3.10 3.9; then
      engine=2.15-cuda reason="nvidia-smi lists a GPU"
      return
    fi
  fi
  if [[ $wish != 2.15* ]] && find_python suits_1_15 3.7 3.8; then
    engine="${wish:-1.15-intel}"
    [[ -n $wish ]] || reason="the faster TensorFlow 1.15 on x86-64"
    if has_1_15; then engine=1.15-found reason="$tensorflow is installed there"; fi
  elif [[ $wish == 2.15-cuda ]] && find_python suits_2_15_cuda 3.11 3.10 3.9; then
    engine=2.15-cuda
  elif [[ $wish != 1.15* && $wish != 2.15-cuda ]] &&
    find_python suits_2_15 3.11 3.10 3.9; then
    engine=2.15
    [[ -n $wish ]] || reason="no Python 3.7 for 1.15 found${PYTHON:+ in \$PYTHON}"
  else
    fail "found no Python${PYTHON:+ in PYTHON=$PYTHON} for TensorFlow ${wish:-1.15 or 2.15}.
Install one of these, or set PYTHON to its path:
  - Python 3.7 for TensorFlow 1.15: 'pyenv install 3.7', 'uv python install 3.7' or
    'conda create -n py37 python=3.7'; on aarch64 it must have TensorFlow 1.15 in it
  - Python 3.8 with NVIDIA's TensorFlow 1.15 in it, as NVIDIA's containers have
  - Python 3.9, 3.10 or 3.11 for TensorFlow 2.15: 'apt install python3 python3-venv'
Looked at:${seen:- nothing, as no Python was found}"
  fi
}

run() { # WHAT COMMAND...: run with the output in $log; if it fails, show the errors
  local what="$1"
  shift
  say "$what ..."
  if "$@" >"$log" 2>&1; then return; fi
  grep -i -m 10 "error:" "$log" || true
  tail -n 10 "$log"
  if [[ -n $complete ]]; then keep_complete; fi # Pip has undone what failed.
  fail "$what failed: see above; the whole output is in $log. ${hint:-Behind a proxy or with \
a mirror of the package index, set HTTPS_PROXY or PIP_INDEX_URL.}"
}

pip() { "$python" -E -m pip --no-input "$@"; }
pip_install() { pip install --constraint "$pins" "$@"; }
install_package() { # [EXTRA]
  pip_install --no-build-isolation --use-pep517 --editable ".${1:+[$1]}"
}

install_base() {
  local extra="tf${engine//[.-]/}"
  rm -rf "$venv"
  run "creating $venv" "$base" -E -m venv "$venv"
  cp "$constraints" "$pins"
  run "installing pip" pip_install pip setuptools wheel
  if [[ $engine == 1.15-found ]]; then
    extra=""
    share_packages
  fi
  run "installing TensorFlow and the package (about a minute)" install_package "$extra"
  hint="Builds of TensorFlow for x86-64 need a CPU with AVX." \
    run "starting TensorFlow" "$python" -c "import tensorflow.compat.v1"
}

share_packages() { # Let the environment see the packages of its base, and replace none
  # --system-site-packages would add nothing if the base is itself an environment.
  "$base" -E -c 'import sys
for path in sys.path:
    if path.endswith("-packages"):
        print("import site; site.addsitedir(%r)" % path)' \
    >"$(compgen -G "$venv/lib/python*/site-packages")/base.pth"
  pip list --format=freeze | sed 's/==.*//' | tr 'A-Z_' 'a-z-' |
    awk -F== 'NR == FNR {found[$1]; next} !($1 in found)' - "$constraints" >"$pins"
}

install_tests() { run "installing the test tools" install_package test; }
install_onnx() { run "installing ONNX" install_package onnx; }

install_horovod() {
  # NVIDIA's containers have a Horovod with NCCL that was built for their TensorFlow.
  if [[ $engine == 1.15-found ]] &&
    "$python" -c "import horovod.tensorflow" >"$log" 2>&1; then return; fi
  # Each wheel is linked to one TensorFlow build. Pip's own cache would mix them up.
  read -r version machine tensorflow _ <<<"$("$python" -E -c "$probe")"
  wheels="${XDG_CACHE_HOME:-$home/.cache}/alexnet_estimator/wheels"
  mkdir -p "$wheels" 2>/dev/null && [[ -w $wheels ]] || wheels="$root/.venv/wheels"
  wheels+="/$tensorflow-python${version%.*}-$machine"
  # With NCCL, gradients go from GPU to GPU. Building it needs CUDA's compiler.
  if [[ $engine == 2.15-cuda || $tensorflow =~ ^(nvidia_|tensorflow_gpu) ]]; then
    nvcc="$(type -P nvcc "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" | head -n 1)" || true
  fi
  if [[ -n ${nvcc:-} ]]; then
    export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_CUDA_HOME="${nvcc%/bin/nvcc}"
    if (provide_horovod_wheel "$wheels-nccl"); then return; fi
    unset HOROVOD_GPU_OPERATIONS
    say "Horovod with NCCL cannot be built here; gradients will pass through host memory"
  fi
  provide_horovod_wheel "$wheels"
}

provide_horovod_wheel() { # FOLDER
  local wheels="$1"
  mkdir -p "$wheels"
  if ! use_horovod_wheel >"$log" 2>&1; then build_horovod_wheel; fi
}

use_horovod_wheel() {
  pip_install --only-binary horovod --find-links "$wheels" --force-reinstall horovod &&
    "$python" -c "import horovod.tensorflow"
}

build_horovod_wheel() {
  run "installing cmake" pip_install cmake
  local hint="Horovod needs a C++ compiler: 'apt install g++ make'."
  folder="$(mktemp -d)"
  trap 'rm -rf "$folder"' EXIT
  ln -s "$venv" "$folder/venv" # The compiler's options cannot have spaces in paths.
  export HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1
  export HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1
  MAKEFLAGS="-j$(nproc)" PATH="$folder/venv/bin:$PATH" python="$folder/venv/bin/python" \
    run "building Horovod (2-4 minutes, once)" pip wheel --no-build-isolation \
    --no-cache-dir --no-deps --constraint "$pins" --wheel-dir "$folder" horovod
  mv "$folder"/*.whl "$wheels"
  run "installing Horovod" use_horovod_wheel
}

find_complete() { # Set complete: the parts of the environment that are up to date
  local made_of=""
  { read -r made_of complete <"$stamp" && "$python" -c ""; } 2>/dev/null || made_of=""
  [[ $made_of == "$wanted" ]] || complete=""
}

keep_complete() { echo "$wanted $complete" >"$stamp"; }

is_complete() { # PART
  [[ " $complete " == *" $1 "* ]]
}

install_parts() { # PART...
  local part
  mkdir -p .venv
  exec 9>.venv/lock
  if ! flock -n 9; then
    say "waiting for another set-up of this clone"
    flock 9
  fi
  find_complete
  for part in "$@"; do
    if is_complete "$part"; then continue; fi
    rm -f "$stamp" # Without it, an environment is created again after an interruption.
    "install_$part"
    complete+=" $part"
    keep_complete
  done
}

parts=(base)
for argument; do
  case "$argument" in
    --with-tests | --with-horovod | --with-onnx) parts+=("${argument#--with-}") ;;
    *) fail "unknown argument $argument; known: --with-tests --with-horovod --with-onnx" ;;
  esac
done
root="$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
home=~ # This is also right if $HOME is not set.
wish="${ALEXNET_TF:-}" seen=""
choose_engine
say "engine $engine on Python $version ($base): $reason"

cd "$root"
export PIP_USER=0 # Some machines' pip configuration says otherwise.
venv="$root/.venv/$engine" log="$root/.venv/$engine.log"
python="$venv/bin/python" pins="$venv/constraints.txt" stamp="$venv/complete"
constraints="constraints/${engine%%-*}.txt"
wanted="$(sha256sum setup.py setup.cfg "$constraints" - <<<"$root $base $version $tensorflow" |
  sha256sum | cut -c 1-64)"
find_complete
for part in "${parts[@]}"; do
  if is_complete "$part"; then continue; fi
  install_parts "${parts[@]}"
  break
done
echo "$python" >&3
