#!/usr/bin/env bash
# Judges the chart and the Dockerfiles without a cluster: lints, renders four times,
# holds what comes out against Kubernetes' schemas and against this folder's claims. Fetches
# nothing; deploy/setup/{helm,chart}.sh have put the tools in place. Under a minute.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$here/../.." && pwd)
helm=$project/assets/helm/helm
tools=$project/.venv-chart/bin
chart=$project/charts/clade
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Neither a user's cluster nor his plugins and settings have a say.
install -m 600 /dev/null "$work/kubeconfig"
export KUBECONFIG=$work/kubeconfig HELM_PLUGINS=$work/plugins
export HELM_CACHE_HOME=$work/cache HELM_CONFIG_HOME=$work/config HELM_DATA_HOME=$work/data
say() { printf 'chart: %s\n' "$*"; }

"$tools/yamllint" --strict --config-file "$here/yamllint.yaml" \
  "$chart/Chart.yaml" "$chart/values.yaml" "$chart/ci" "$here/yamllint.yaml"
for values in default small large long; do
  given=()
  release=lab
  case $values in
    small | large) given=(--values "$chart/ci/$values-values.yaml") ;;
    # The longest name that helm gives a release.
    long) release=a-release-whose-name-is-as-long-as-helm-lets-it-be-lo ;;
  esac
  "$helm" lint --strict --quiet "$chart" "${given[@]}"
  rendered=$work/$values.yaml
  "$helm" template "$release" "$chart" --namespace research --kube-version 1.33 "${given[@]}" >"$rendered"
  # The schemas know no objects of the Prometheus operator.
  "$tools/python" "$here/objects.py" "$rendered" PodMonitor >"$work/$values-core.yaml"
  for version in 1.25 1.33; do
    "$tools/kubernetes-validate" -k "$version" --strict --quiet "$work/$values-core.yaml"
  done
  say "values $values: fits Kubernetes 1.25 and 1.33"
done
"$tools/python" "$here/rendered.py" "$work/default.yaml" "$work/small.yaml" "$work/large.yaml" "$work/long.yaml"
"$tools/python" "$here/refusals.py" "$helm" "$chart"
"$tools/python" "$here/upgrade.py" "$helm" "$chart"
"$tools/hadolint" --failure-threshold style "$project"/deploy/images/*.Dockerfile
say 'Dockerfiles are clean'
