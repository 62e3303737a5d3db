{{/* What every pod has: no token of Kubernetes, no root, nothing writable but its volumes. */}}

{{- define "clade.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "clade.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where pods may run: (dict "root" . "at" values "component" name) */}}
{{- define "clade.placement" -}}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .at.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if .at.antiAffinity }}
affinity:
  podAntiAffinity:
    {{- if eq .at.antiAffinity "hard" }}
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "clade.selector" (list .root .component) | nindent 12 }}
    {{- else }}
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {{- include "clade.selector" (list .root .component) | nindent 14 }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* Annotations of a pod: (dict "root" . "own" map "port" "9600") */}}
{{- define "clade.podAnnotations" -}}
{{- if and .port .root.Values.metrics.scrapeAnnotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- with .own }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "clade.envFrom" -}}
{{- with .Values.objectStore.existingSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}

{{- define "clade.shared.mount" -}}
{{- with .Values.sharedVolume }}
{{- if .existingClaim }}
- {name: shared, mountPath: {{ .mountPath | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "clade.shared.volume" -}}
{{- with .Values.sharedVolume.existingClaim }}
- name: shared
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end }}
{{- end -}}

{{/* A folder of the node, or of the pod: (dict "name" "state" "hostPath" "" "limit" "") */}}
{{- define "clade.folder" -}}
- name: {{ .name }}
  {{- if .hostPath }}
  hostPath: {path: {{ .hostPath | quote }}, type: Directory}
  {{- else if .limit }}
  emptyDir: {sizeLimit: {{ .limit }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end -}}
