{{/* The endpoint of a monitor. Takes a dict with root and monitor, the values of the monitor. */}}
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
  # The operator adds these labels to every target. The exporter uses some of them with other meanings: the service that
  # is backed up, the API endpoint, and the container of an object. Prometheus would rename the exporter's labels to
  # exported_service and so on, and rules and dashboards would not find them.
  - action: labeldrop
    regex: service|endpoint|container|pod
  # A pod's address changes with each restart. A constant instance keeps the series continuous.
  {{- if gt (int .root.Values.shards) 1 }}
  - sourceLabels: [__meta_kubernetes_namespace, __meta_kubernetes_pod_name]
    separator: /
    targetLabel: instance
  # The rules treat exporters of one job as replicas. Shards are not replicas, so each is a separate job.
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
