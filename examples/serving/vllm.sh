#!/bin/sh
# Starts a vLLM server on this machine's CPU: one for prefill, one for decode, or one that does both
# without any transfer. kvx takes the place of the connector's engine.
#
#     MODEL=FOLDER vllm.sh prefill|decode nixl|mooncake [OPTION OF vllm serve]...
#     MODEL=FOLDER vllm.sh alone [OPTION OF vllm serve]...
#
# PORT       where it serves: 8100 for prefill, 8200 for decode, 8300 alone
# SIDE_PORT  where connectors meet: NIXL's side channel (5600 for prefill, 5700 for decode), or the
#            bootstrap server of Mooncake's prefill (8998)
# KVX_DROP_IN  which engines kvx replaces; empty for none
set -eu
here=$(cd "$(dirname "$0")" && pwd)

role=$1
shift
case $role in
prefill) kv_role=kv_producer port=8100 side_port=5600 ;;
decode) kv_role=kv_consumer port=8200 side_port=5700 ;;
alone) port=8300 ;;
*)
    echo "vllm.sh: $role is neither prefill nor decode nor alone" >&2
    exit 2
    ;;
esac

if [ "$role" != alone ]; then
    connector=$1
    shift
    case $connector in
    nixl)
        # A lease that lasts: on a busy CPU a decode step takes seconds.
        config='{"kv_connector": "NixlConnector", "kv_role": "'$kv_role'", "kv_buffer_device": "cpu",
            "kv_connector_extra_config": {"kv_lease_duration": 300}}'
        export VLLM_NIXL_SIDE_CHANNEL_HOST=127.0.0.1
        export VLLM_NIXL_SIDE_CHANNEL_PORT="${SIDE_PORT:-$side_port}"
        ;;
    mooncake)
        config='{"kv_connector": "MooncakeConnector", "kv_role": "'$kv_role'",
            "kv_connector_extra_config": {"mooncake_protocol": "tcp"}}'
        export VLLM_MOONCAKE_BOOTSTRAP_PORT="${SIDE_PORT:-8998}"
        ;;
    *)
        echo "vllm.sh: $connector is neither nixl nor mooncake" >&2
        exit 2
        ;;
    esac
    set -- --kv-transfer-config "$config" "$@"
fi

# With a GPU, this line alone makes kvx out of a deployment on NIXL or Mooncake.
export KVX_DROP_IN="${KVX_DROP_IN-nixl,mooncake}"

# What follows is for a machine that has no GPU, and nothing to download a model from.
export PYTHONPATH="$here/cpu/vllm${PYTHONPATH:+:$PYTHONPATH}"
export VLLM_TARGET_DEVICE=cpu CUDA_VISIBLE_DEVICES=
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1
export VLLM_HOST_IP=127.0.0.1 VLLM_LOOPBACK_IP=127.0.0.1
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
exec vllm serve "$MODEL" --served-model-name tiny --host 127.0.0.1 --port "${PORT:-$port}" \
    --dtype float32 --max-model-len 2048 --max-num-seqs 8 --enforce-eager \
    --no-enable-prefix-caching --generation-config vllm --seed 0 "$@"
