{{/*
The flags of the programs, and of their environment: all of them, and nowhere else. No secret is
among them: files hold those.
*/}}

{{- define "clade.flags.coordinator" -}}
{{- $name := include "clade.fullname" . -}}
{{- $endpoints := .Values.etcd.external.endpoints -}}
{{- if .Values.etcd.enabled -}}
{{- $endpoints = list -}}
{{- range splitList "\n" (include "clade.etcdMembers" .) -}}
{{- $endpoints = append $endpoints (printf "https://%s:2379" .) -}}
{{- end -}}
{{- end -}}
- --listen=0.0.0.0:7600
- --advertise=https://$(POD_NAME).{{ $name }}-coordinator.{{ .Release.Namespace }}.svc:7600
- --cluster={{ $name }}
- --etcd={{ join "," $endpoints }}
- --etcd-prefix=/clade/{{ .Release.Namespace }}/{{ $name }}
- --etcd-ca=/etc/clade/etcd/ca.crt
- --etcd-cert=/etc/clade/etcd/tls.crt
- --etcd-key=/etc/clade/etcd/tls.key
- --tls-cert=/etc/clade/tls/tls.crt
- --tls-key=/etc/clade/tls/tls.key
- --client-ca=/etc/clade/tls/ca.crt
- --tokens=/etc/clade/tokens/tokens
- --metrics-listen=0.0.0.0:9600
{{- end -}}

{{/* (list . pool) */}}
{{- define "clade.flags.worker" -}}
{{- $root := index . 0 -}}
{{- $pool := index . 1 -}}
{{- $coordinators := list -}}
{{- range splitList "\n" (include "clade.coordinators" $root) -}}
{{- $coordinators = append $coordinators (printf "https://%s:7600" .) -}}
{{- end -}}
- agent
- --coordinator={{ join "," $coordinators }}
- --ca=/etc/clade/ca/ca.crt
{{- if $root.Values.tls.existingSecrets.worker }}
- --cert=/etc/clade/tls/tls.crt
- --key=/etc/clade/tls/tls.key
{{- else }}
- --token-file=/etc/clade/token/token
{{- end }}
- --name=$(POD_NAME)
- --node=$(NODE_NAME)
{{- with $pool.domain }}
- --domain={{ . }}
{{- end }}
- --label=pool={{ $pool.name }}
{{- range $key, $value := $pool.labels }}
- --label={{ $key }}={{ $value }}
{{- end }}
- --slots={{ $pool.slots }}
- --threads-per-rank={{ $pool.threadsPerRank }}
- --device={{ $pool.device }}
{{- /* Two pods of a StatefulSet may share a node, and no two agents one folder. */}}
- --state=/var/lib/clade{{ if eq $pool.kind "StatefulSet" }}/$(POD_NAME){{ end }}
- --cache=/var/cache/clade
- --cache-size={{ int $pool.cache.gigabytes }}G
{{- end -}}

{{/* Variables of both programs for the object store, with what a program calls its log's filter. */}}
{{- define "clade.env" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  value: {{ index . 2 | quote }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- range $key, $value := $root.Values.objectStore.env }}
- name: {{ $key }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "clade.flags.etcd" -}}
{{- $name := include "clade.fullname" . -}}
{{- $peers := list -}}
{{- range splitList "\n" (include "clade.etcdMembers" .) -}}
{{- $peers = append $peers (printf "%s=https://%s:2380" (splitList "." . | first) .) -}}
{{- end -}}
- --name=$(POD_NAME)
- --data-dir=/var/lib/etcd/data
- --listen-client-urls=https://0.0.0.0:2379
- --advertise-client-urls=https://$(POD_NAME).{{ $name }}-etcd.{{ .Release.Namespace }}.svc:2379
- --listen-peer-urls=https://0.0.0.0:2380
- --initial-advertise-peer-urls=https://$(POD_NAME).{{ $name }}-etcd.{{ .Release.Namespace }}.svc:2380
- --initial-cluster={{ join "," $peers }}
- --initial-cluster-token={{ .Release.Namespace }}-{{ $name }}
- --initial-cluster-state={{ .Values.etcd.initialClusterState }}
- --client-cert-auth
- --trusted-ca-file=/etc/etcd/tls/ca.crt
- --cert-file=/etc/etcd/tls/tls.crt
- --key-file=/etc/etcd/tls/tls.key
- --peer-client-cert-auth
- --peer-trusted-ca-file=/etc/etcd/tls/ca.crt
- --peer-cert-file=/etc/etcd/tls/tls.crt
- --peer-key-file=/etc/etcd/tls/tls.key
- --listen-metrics-urls=http://0.0.0.0:2381
- --auto-compaction-mode=periodic
- --auto-compaction-retention=1h
- --quota-backend-bytes=2147483648
{{- end -}}
