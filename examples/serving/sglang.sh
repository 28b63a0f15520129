#!/bin/sh
# Starts an SGLang server on this machine's CPU: one for prefill, one for decode, or one that does
# both without any transfer. kvx takes the place of the backend's engine.
#
#     MODEL=FOLDER sglang.sh prefill|decode mooncake|nixl [OPTION OF sglang.launch_server]...
#     MODEL=FOLDER sglang.sh alone [OPTION OF sglang.launch_server]...
#
# PORT       where it serves: 8100 for prefill, 8200 for decode, 8300 alone
# SIDE_PORT  the bootstrap server of prefill: 8998
# KVX_DROP_IN  which engines kvx replaces; empty for none
set -eu
here=$(cd "$(dirname "$0")" && pwd)

role=$1
shift
case $role in
prefill) port=8100 ;;
decode) port=8200 ;;
alone) port=8300 ;;
*)
    echo "sglang.sh: $role is neither prefill nor decode nor alone" >&2
    exit 2
    ;;
esac

if [ "$role" != alone ]; then
    backend=$1
    shift
    set -- --disaggregation-mode "$role" --disaggregation-transfer-backend "$backend" \
        --disaggregation-bootstrap-port "${SIDE_PORT:-8998}" "$@"
fi
if [ "$role" = decode ]; then
    # Backing retracted requests up wants pinned memory, which wants CUDA.
    set -- --disaggregation-decode-retraction-backup none "$@"
fi

# With a GPU, this line alone makes kvx out of a deployment on Mooncake or NIXL.
export KVX_DROP_IN="${KVX_DROP_IN-nixl,mooncake}"

# What follows is for a machine that has no GPU, and nothing to download a model from.
export PYTHONPATH="$here/cpu/sglang${PYTHONPATH:+:$PYTHONPATH}"
export SGLANG_USE_CPU_ENGINE=1 CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1
# Where ranks are more than NUMA nodes, a core for each is asked for; nobody is bound without AMX.
export SGLANG_CPU_OMP_THREADS_BIND="${SGLANG_CPU_OMP_THREADS_BIND-0|0|0|0}"
# torch from PyPI brings NCCL, which SGLang would use between ranks wherever it finds it.
export SGLANG_NCCL_SO_PATH=none
export SGLANG_HOST_IP=127.0.0.1 MOONCAKE_PROTOCOL=tcp
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
exec python -m sglang.launch_server --model-path "$MODEL" --served-model-name tiny \
    --host 127.0.0.1 --port "${PORT:-$port}" --device cpu --dtype float32 \
    --attention-backend torch_native --sampling-backend pytorch --grammar-backend none \
    --disable-cuda-graph --disable-custom-all-reduce --disable-overlap-schedule \
    --page-size 16 --max-total-tokens 8192 --chunked-prefill-size 512 \
    --context-length 2048 --random-seed 0 --skip-server-warmup --sleep-on-idle "$@"
