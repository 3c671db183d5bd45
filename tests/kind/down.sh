#!/usr/bin/env bash
# Delete the kind cluster of the cluster suite.
set -euo pipefail
kind delete cluster --name kprof
