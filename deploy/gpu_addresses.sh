#!/usr/bin/env bash
# GPU discovery script for Spark: prints this machine's GPUs as {"name": "gpu", "addresses": ["0", "1"]}.
# The variable GPU_ADDRESSES="0 1" sets the addresses; without it, nvidia-smi lists them.
set -euo pipefail
addresses=${GPU_ADDRESSES:-$(nvidia-smi --query-gpu=index --format=csv,noheader)}
quoted=$(printf '"%s", ' $addresses)
echo "{\"name\": \"gpu\", \"addresses\": [${quoted%, }]}"
