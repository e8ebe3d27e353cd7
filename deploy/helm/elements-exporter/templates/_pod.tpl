{{- define "elements-exporter.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .Values.state.storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .Values.state.size }}
{{- end -}}

{{/* Pod template of the Deployment and of the StatefulSet. */}}
{{- define "elements-exporter.pod" -}}
{{- $sharded := gt (int .Values.shards) 1 -}}
metadata:
  labels:
    {{- include "elements-exporter.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Without --config.auto-reload, the exporter does not detect a changed configuration, so a change restarts the pods.
    checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  # The exporter does not use the Kubernetes API, so it needs neither a token nor service links.
  serviceAccountName: {{ include "elements-exporter.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  # The exporter completes pending responses and saves its state, which takes at most ten seconds.
  terminationGracePeriodSeconds: 20
  containers:
    - name: elements-exporter
      image: {{ include "elements-exporter.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        {{- if .Values.auth.registrations }}
        # One registration, and therefore one file, per pod.
        - --config.file=/etc/elements_exporter/config/elements-{{ $sharded | ternary "$(POD_INDEX)" "0" }}.yml
        {{- else }}
        - --config.file=/etc/elements_exporter/config/elements.yml
        {{- end }}
        {{- if $sharded }}
        # Kubernetes expands the variables; no shell is needed.
        - --shard=$(POD_INDEX)/{{ .Values.shards }}
        {{- end }}
        - --log.level={{ .Values.log.level }}
        - --log.format={{ .Values.log.format }}
        {{- if .Values.web.existingSecret }}
        - --web.config.file=/etc/elements_exporter/web/web.yml
        {{- end }}
        {{- with .Values.web.routePrefix }}
        - --web.route-prefix={{ . }}
        {{- end }}
        {{- with .Values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if or $sharded .Values.extraEnv }}
      env:
        {{- if $sharded }}
        - name: POD_INDEX
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      ports:
        - name: metrics
          containerPort: 10027
      # Neither probe calls the API: an API outage does not make a pod unhealthy, and a restart would not help.
      {{- if .Values.web.existingSecret }}
      # The password also protects these paths, and the kubelet does not have it. The health check treats a response that
      # requires the password as healthy.
      livenessProbe:
        exec:
          command:
            - /usr/local/bin/elements_exporter
            - healthcheck
            - --web.config.file=/etc/elements_exporter/web/web.yml
            {{- with .Values.web.routePrefix }}
            - --web.route-prefix={{ . }}
            {{- end }}
        periodSeconds: 30
        timeoutSeconds: 5
      # Without a password, the probe checks that the exporter serves TLS and is ready. With a password or required
      # client certificates, it only checks that the exporter accepts connections.
      readinessProbe:
        exec:
          command:
            - /usr/local/bin/elements_exporter
            - healthcheck
            - --ready
            - --web.config.file=/etc/elements_exporter/web/web.yml
            {{- with .Values.web.routePrefix }}
            - --web.route-prefix={{ . }}
            {{- end }}
        timeoutSeconds: 5
      {{- else }}
      livenessProbe:
        httpGet:
          path: {{ .Values.web.routePrefix }}/-/healthy
          port: metrics
        periodSeconds: 30
        timeoutSeconds: 5
      # The pod is ready once the customer list has been fetched or restored. Scrapes do not depend on readiness; see the
      # Service. Without restored state, a rollout with invalid credentials does not complete.
      readinessProbe:
        httpGet:
          path: {{ .Values.web.routePrefix }}/-/ready
          port: metrics
        timeoutSeconds: 5
      {{- end }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/elements_exporter/config
          readOnly: true
        {{- if .Values.attributes }}
        - name: attributes
          mountPath: /etc/elements_exporter/attributes
          readOnly: true
        {{- end }}
        # The whole volume is mounted, because changes to the Secret do not update a subPath.
        - name: secret
          mountPath: /etc/elements_exporter/secret
          readOnly: true
        {{- if .Values.web.existingSecret }}
        - name: web
          mountPath: /etc/elements_exporter/web
          readOnly: true
        {{- end }}
        - name: state
          mountPath: /var/lib/elements_exporter
  volumes:
    - name: config
      configMap:
        name: {{ include "elements-exporter.fullname" . }}
    {{- if .Values.attributes }}
    - name: attributes
      configMap:
        name: {{ include "elements-exporter.fullname" . }}-attributes
    {{- end }}
    - name: secret
      secret:
        secretName: {{ include "elements-exporter.secretName" . }}
        # Readable only by the pod's group.
        defaultMode: 0440
        items:
          {{- range include "elements-exporter.secretKeys" . | fromJsonArray }}
          - key: {{ . }}
            path: {{ . }}
          {{- end }}
    {{- with .Values.web.existingSecret }}
    - name: web
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- if not .Values.state.persistent }}
    - name: state
      emptyDir: {}
    {{- else if not $sharded }}
    - name: state
      persistentVolumeClaim:
        claimName: {{ default (include "elements-exporter.fullname" .) .Values.state.existingClaim }}
    {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
