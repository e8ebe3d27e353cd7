{{- define "elements-exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* A label has at most 63 characters, and a StatefulSet adds a hash of ten characters to its name. */}}
{{- define "elements-exporter.release" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of the release, followed by the account if there are several. */}}
{{- define "elements-exporter.fullname" -}}
{{- $release := include "elements-exporter.release" . -}}
{{- with .Values.account -}}
{{- $release = printf "%s-%s" ($release | trunc 31 | trimSuffix "-") . -}}
{{- end -}}
{{- $release -}}
{{- end -}}

{{- define "elements-exporter.selector" -}}
app.kubernetes.io/name: {{ include "elements-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- with .Values.account }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Renders a template for each account, or once if there are no accounts. Takes a dict with root and template. The
values of an account are those of the chart, overridden by the account's auth and config. */}}
{{- define "elements-exporter.ofEachAccount" -}}
{{- $root := .root -}}
{{- $template := .template -}}
{{- range default (list dict) $root.Values.accounts -}}
{{- $own := dict "auth" (default dict .auth) "config" (default dict .config) -}}
{{- $values := mergeOverwrite (deepCopy $root.Values) $own -}}
{{- $_ := set $values "account" (default (default "" $root.Values.account) .name) -}}
{{- $_ := set $values "accounts" list -}}
{{- $context := dict "Values" $values "Release" $root.Release "Chart" $root.Chart "Template" $root.Template "Files" $root.Files "Capabilities" $root.Capabilities -}}
{{- include "elements-exporter.validate" $context -}}
{{- with include $template $context | trim }}
---
{{ . }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "elements-exporter.labels" -}}
{{ include "elements-exporter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "elements-exporter.serviceAccountName" -}}
{{- $own := .Values.serviceAccount.create | ternary (include "elements-exporter.release" .) "default" -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end -}}

{{- define "elements-exporter.secretName" -}}
{{- default (include "elements-exporter.fullname" .) .Values.auth.existingSecret -}}
{{- end -}}

{{- define "elements-exporter.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The keys of the Secret that become files. */}}
{{- define "elements-exporter.secretKeys" -}}
{{- $keys := list -}}
{{- with .Values.auth -}}
{{- if .registrations -}}
{{- range .registrations -}}
{{- $keys = append $keys .clientSecretKey -}}
{{- end -}}
{{- else if .certificateKey -}}
{{- $keys = compact (list .certificateKey .privateKeyKey .certificatePasswordKey) -}}
{{- else -}}
{{- $keys = list .clientSecretKey -}}
{{- end -}}
{{- end -}}
{{- uniq $keys | toJson -}}
{{- end -}}

{{/* The configuration file of one registration. Takes a dict with root, clientId and clientSecretKey. */}}
{{- define "elements-exporter.config" -}}
{{- $files := "/etc/elements_exporter/secret" -}}
{{- $auth := dict "client_id" .clientId -}}
{{- with .root.Values.auth -}}
{{- if .certificateKey -}}
{{- $_ := set $auth "certificate_file" (printf "%s/%s" $files .certificateKey) -}}
{{- with .privateKeyKey -}}
{{- $_ := set $auth "private_key_file" (printf "%s/%s" $files .) -}}
{{- end -}}
{{- with .certificatePasswordKey -}}
{{- $_ := set $auth "certificate_password_file" (printf "%s/%s" $files .) -}}
{{- end -}}
{{- else -}}
{{- $_ := set $auth "client_secret_file" (printf "%s/%s" $files $.clientSecretKey) -}}
{{- end -}}
{{- end -}}
{{- $set := dict "auth" $auth "state" (dict "file" "/var/lib/elements_exporter/state") -}}
{{- if .root.Values.attributes -}}
{{- $_ := set $set "customers" (dict "attributes_file" "/etc/elements_exporter/attributes/attributes.csv") -}}
{{- end -}}
{{- mergeOverwrite (deepCopy .root.Values.config) $set | toYaml -}}
{{- end -}}

{{/* Rejects invalid combinations of values before anything is rendered. */}}
{{- define "elements-exporter.validate" -}}
{{- with .Values.auth -}}
{{- if and .registrations (ne (len .registrations) (int $.Values.shards)) -}}
{{- fail (printf "auth.registrations: expected %d entries, one per shard, but found %d" (int $.Values.shards) (len .registrations)) -}}
{{- end -}}
{{- if not (or .registrations .clientId) -}}
{{- fail "auth.clientId is required: the client id of the app registration" -}}
{{- end -}}
{{- if and (not .existingSecret) (not .clientSecret) -}}
{{- fail "auth.existingSecret is required: a Secret with the client secret or the certificate" -}}
{{- end -}}
{{- if and .existingSecret .clientSecret -}}
{{- fail "auth.existingSecret and auth.clientSecret: set one of them" -}}
{{- end -}}
{{- if and .clientSecret (or .certificateKey .registrations) -}}
{{- fail "auth.clientSecret cannot be combined with auth.certificateKey or auth.registrations" -}}
{{- end -}}
{{- if and .certificateKey .registrations -}}
{{- fail "auth.registrations and auth.certificateKey: set one of them" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
{{- fail "serviceMonitor and podMonitor: enable one of them, because each scrapes everything" -}}
{{- end -}}
{{- if and .Values.state.existingClaim .Values.account -}}
{{- fail "state.existingClaim cannot be combined with accounts, because each account needs a separate state" -}}
{{- end -}}
{{- if and .Values.state.existingClaim (gt (int .Values.shards) 1) -}}
{{- fail "state.existingClaim cannot be combined with several shards, because each shard needs a separate state" -}}
{{- end -}}
{{- end -}}
