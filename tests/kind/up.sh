#!/usr/bin/env bash
# Make a kind cluster that the cluster suite can use: the simulator's image loaded, GPUs advertised on the workers.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=docker.io/kprof/vllm-simulator:dev
gpus=${GPUS:-8}

for tool in docker kind kubectl; do
  command -v "$tool" >/dev/null || { echo "$tool is not on PATH" >&2; exit 3; }
done

docker build --file tests/kind/Dockerfile --tag "$image" .
kind get clusters | grep -qx kprof || kind create cluster --config tests/kind/cluster.yaml --wait 120s
kind load docker-image "$image" --name kprof
for node in $(kubectl --context kind-kprof get nodes -l '!node-role.kubernetes.io/control-plane' -o name); do
  kubectl --context kind-kprof patch "$node" --subresource=status --type=json \
    -p "[{\"op\": \"add\", \"path\": \"/status/capacity/nvidia.com~1gpu\", \"value\": \"$gpus\"}]"
done
echo "ready: kind get kubeconfig --name kprof > kind.kubeconfig; KUBECONFIG=kind.kubeconfig make e2e"
