{{/*
Certificates and tokens that helm makes, once for each rendering and kept across upgrades: what the
cluster has is looked up, and taken again unless what it is for has changed. `helm template` sees no
cluster and makes everything anew each time.

Two authorities, and neither trusts the other's certificates: with one, a worker's certificate
would open etcd.
*/}}

{{/* Puts .Values.made together, unless that was done; prints nothing. */}}
{{- define "clade.make" -}}
{{- if not (hasKey .Values "made") -}}
{{- $name := include "clade.fullname" . -}}
{{- $made := dict -}}
{{- $_ := set .Values "made" $made -}}
{{- if not .Values.tls.existingSecrets.coordinator -}}
{{- include "clade.make.authority" (dict "root" . "key" "ca" "secret" (printf "%s-ca" $name) "commonName" (printf "%s authority" $name)) -}}
{{- $service := printf "%s.%s.svc" $name .Release.Namespace -}}
{{- $headless := printf "*.%s-coordinator.%s.svc" $name .Release.Namespace -}}
{{- $names := list $headless (printf "%s.%s" $headless .Values.clusterDomain) $name (printf "%s.%s" $name .Release.Namespace) $service (printf "%s.%s" $service .Values.clusterDomain) "localhost" -}}
{{- include "clade.make.leaf" (dict "root" . "key" "coordinator" "authority" "ca" "secret" (include "clade.secret.coordinator" .) "commonName" (printf "%s coordinator" $name) "names" (concat $names .Values.tls.extraNames)) -}}
{{- end -}}
{{- if .Values.etcd.enabled -}}
{{- include "clade.make.authority" (dict "root" . "key" "etcdCa" "secret" (printf "%s-etcd-ca" $name) "commonName" (printf "%s etcd authority" $name)) -}}
{{- /* Members' names one by one: etcd resolves those of a peer's certificate to find its address among them. */ -}}
{{- $members := concat (splitList "\n" (include "clade.etcdMembers" .)) (list (printf "%s-etcd.%s.svc" $name .Release.Namespace) "localhost") -}}
{{- include "clade.make.leaf" (dict "root" . "key" "etcd" "authority" "etcdCa" "secret" (printf "%s-etcd-tls" $name) "commonName" (printf "%s etcd" $name) "names" $members) -}}
{{- include "clade.make.leaf" (dict "root" . "key" "etcdClient" "authority" "etcdCa" "secret" (include "clade.secret.etcdClient" .) "commonName" (printf "%s coordinator" $name) "names" (list)) -}}
{{- end -}}
{{- if not .Values.tokens.existingSecret -}}
{{- include "clade.make.token" (dict "root" . "key" "adminToken" "secret" (printf "%s-admin-token" $name)) -}}
{{- include "clade.make.token" (dict "root" . "key" "workerToken" "secret" (include "clade.secret.workerToken" .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "clade.make.authority" -}}
{{- $old := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- if $old -}}
{{- $_ := set .root.Values.made .key (buildCustomCert (index $old.data "tls.crt") (index $old.data "tls.key")) -}}
{{- else -}}
{{- $_ := set .root.Values.made .key (genCAWithKey .commonName 3650 (genPrivateKey "ecdsa")) -}}
{{- end -}}
{{- end -}}

{{/* A certificate for `names`; the old one if it is for the same and in the first half of its life. */}}
{{- define "clade.make.leaf" -}}
{{- $tls := .root.Values.tls -}}
{{- $authority := index .root.Values.made .authority -}}
{{- $purpose := printf "%s %s %d %d %s" .commonName (join "," .names) (int $tls.days) (int $tls.generation) $authority.Cert | sha256sum -}}
{{- $now := now | unixEpoch | int64 -}}
{{- $old := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- $issued := dig "metadata" "annotations" "clade/issued" "0" $old | int64 -}}
{{- $half := mul (int $tls.days) 43200 -}}
{{- if and (eq $purpose (dig "metadata" "annotations" "clade/purpose" "" $old)) (lt (sub $now $issued) $half) -}}
{{- $_ := set .root.Values.made .key (dict "Cert" (index $old.data "tls.crt" | b64dec) "Key" (index $old.data "tls.key" | b64dec) "Purpose" $purpose "Issued" $issued) -}}
{{- else -}}
{{- $leaf := genSignedCertWithKey .commonName nil .names (int $tls.days) $authority (genPrivateKey "ecdsa") -}}
{{- $_ := set .root.Values.made .key (dict "Cert" $leaf.Cert "Key" $leaf.Key "Purpose" $purpose "Issued" $now) -}}
{{- end -}}
{{- end -}}

{{/*
A token of this generation; the one before it stays with it, for coordinators to accept until
every holder has read the new one.
*/}}
{{- define "clade.make.token" -}}
{{- $generation := int .root.Values.tokens.generation | toString -}}
{{- $old := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- $held := dig "data" "token" "" $old | b64dec -}}
{{- $before := dig "data" "before" "" $old | b64dec -}}
{{- if and $held (eq $generation (dig "metadata" "annotations" "clade/generation" "" $old)) -}}
{{- $_ := set .root.Values.made .key (dict "Token" $held "Before" $before "Generation" $generation) -}}
{{- else -}}
{{- $_ := set .root.Values.made .key (dict "Token" (printf "clade_%s" (randAlphaNum 43)) "Before" $held "Generation" $generation) -}}
{{- end -}}
{{- end -}}

{{/*
Changes when a coordinator must start anew: for its certificate with etcd. The one that it serves
with, and the tokens, it reads again by itself.
*/}}
{{- define "clade.checksum.coordinator" -}}
{{- include "clade.make" . -}}
{{- dig "etcdClient" "Cert" "" .Values.made | sha256sum -}}
{{- end -}}

{{/* etcd reads its certificate for each handshake, but its authority only when it starts. */}}
{{- define "clade.checksum.etcd" -}}
{{- include "clade.make" . -}}
{{- .Values.made.etcdCa.Cert | sha256sum -}}
{{- end -}}

{{/*
The file of hashes, as coordinators read it: all that the chart knows of its form. The tokens before
these are good until the next generation, under the very same name, so that no worker's stream is
ended. A worker's name is the start of the names it may go by: those of this release's pods.
*/}}
{{- define "clade.tokens" -}}
{{- $made := .Values.made -}}
{{- $entries := list -}}
{{- range $role, $token := dict "admin" $made.adminToken "worker" $made.workerToken -}}
{{- $name := ternary $role (printf "%s-worker" (include "clade.fullname" $)) (eq $role "admin") -}}
{{- range $secret := compact (list $token.Token $token.Before) -}}
{{- $entry := dict "name" $name "role" $role "sha256" (sha256sum $secret) "expires" "never" -}}
{{- /* All workers share one token, and their nodes are named by Kubernetes. */ -}}
{{- if eq $role "worker" }}{{ $_ := set $entry "nodes" "any" }}{{ end -}}
{{- $entries = append $entries $entry -}}
{{- end -}}
{{- end -}}
{{- toYaml (concat $entries .Values.tokens.extra) -}}
{{- end -}}
