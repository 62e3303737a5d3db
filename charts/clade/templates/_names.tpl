{{/* Names and labels. */}}

{{- define "clade.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 30 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 30 characters, so that `-worker-`, a pool of 12 and a revision's hash of 11 fit into 63. */}}
{{- define "clade.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "clade.name" .) .Release.Name -}}
{{- .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "clade.name" .) | trunc 30 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of one component: (list . "coordinator"). What never changes, for selectors. */}}
{{- define "clade.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "clade.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "clade.labels" -}}
{{- $root := index . 0 -}}
{{ include "clade.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{/* (list . .Values.coordinator.image) */}}
{{- define "clade.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{/* The stable names of coordinators, one a line, in order. */}}
{{- define "clade.coordinators" -}}
{{- $name := include "clade.fullname" . -}}
{{- range $i := until (int .Values.coordinator.replicas) -}}
{{- if $i }}{{ "\n" }}{{ end -}}
{{ printf "%s-coordinator-%d.%s-coordinator.%s.svc" $name $i $name $.Release.Namespace }}
{{- end -}}
{{- end -}}

{{- define "clade.etcdMembers" -}}
{{- $name := include "clade.fullname" . -}}
{{- range $i := until (int .Values.etcd.replicas) -}}
{{- if $i }}{{ "\n" }}{{ end -}}
{{ printf "%s-etcd-%d.%s-etcd.%s.svc" $name $i $name $.Release.Namespace }}
{{- end -}}
{{- end -}}

{{/* Names of Secrets, ours or the user's. */}}
{{- define "clade.secret.coordinator" -}}
{{- .Values.tls.existingSecrets.coordinator | default (printf "%s-coordinator-tls" (include "clade.fullname" .)) -}}
{{- end -}}
{{- define "clade.secret.tokens" -}}
{{- .Values.tokens.existingSecret | default (printf "%s-tokens" (include "clade.fullname" .)) -}}
{{- end -}}
{{- define "clade.secret.workerToken" -}}
{{- .Values.tokens.existingSecret | default (printf "%s-worker-token" (include "clade.fullname" .)) -}}
{{- end -}}
{{- define "clade.secret.etcdClient" -}}
{{- if .Values.etcd.enabled -}}
{{- printf "%s-etcd-client-tls" (include "clade.fullname" .) -}}
{{- else -}}
{{- .Values.etcd.external.existingSecret -}}
{{- end -}}
{{- end -}}
