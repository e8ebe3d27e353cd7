{{/* The endpoint of a monitor: a dict with root and the values of the monitor. */}}
{{- define "elements-exporter.endpoint" -}}
port: metrics
{{- with .root.Values.web.routePrefix }}
path: {{ . }}/metrics
{{- end }}
{{- if .root.Values.web.tls }}
scheme: https
{{- end }}
interval: {{ .monitor.interval }}
scrapeTimeout: {{ .monitor.scrapeTimeout }}
{{- with .monitor.endpoint }}
{{ toYaml . }}
{{- end }}
relabelings:
  # The operator gives every target these labels, and the exporter has some of them itself, with another meaning: the
  # service that is backed up, the endpoint of the API, the container of an object. Prometheus would rename the
  # exporter's to exported_service and so on, and no rule or dashboard would find them.
  - action: labeldrop
    regex: service|endpoint|container|pod
  # The address of a pod is another after each restart. A name that stays lets series go on.
  {{- if gt (int .root.Values.shards) 1 }}
  - sourceLabels: [__meta_kubernetes_namespace, __meta_kubernetes_pod_name]
    separator: /
    targetLabel: instance
  # Two exporters of one job stand in for each other, as the rules see it. Shards do not: each is a job of its own.
  - sourceLabels: [__meta_kubernetes_pod_name]
    targetLabel: job
  {{- else }}
  - sourceLabels: [__meta_kubernetes_namespace]
    regex: (.*)
    replacement: $1/{{ include "elements-exporter.fullname" .root }}
    targetLabel: instance
  {{- end }}
  {{- with .monitor.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
