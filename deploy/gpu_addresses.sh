#!/usr/bin/env bash
# Spark's discovery script: prints this machine's GPUs as {"name": "gpu", "addresses": ["0", "1"]}.
# GPU_ADDRESSES="0 1" names them, where nothing else should be asked; otherwise nvidia-smi is.
set -euo pipefail
addresses=${GPU_ADDRESSES:-$(nvidia-smi --query-gpu=index --format=csv,noheader)}
quoted=$(printf '"%s", ' $addresses)
echo "{\"name\": \"gpu\", \"addresses\": [${quoted%, }]}"
