{{- define "elements-exporter.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .Values.state.storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .Values.state.size }}
{{- end -}}

{{/* The pod of the Deployment and of the StatefulSet. */}}
{{- define "elements-exporter.pod" -}}
{{- $sharded := gt (int .Values.shards) 1 -}}
metadata:
  labels:
    {{- include "elements-exporter.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # The exporter reads its configuration again at a signal only, so a change of it starts new pods.
    checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  # The exporter asks nothing of Kubernetes, neither by a token nor by the addresses of other services.
  serviceAccountName: {{ include "elements-exporter.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  # Answers under way are drained and the state is saved, which takes ten seconds at most.
  terminationGracePeriodSeconds: 20
  containers:
    - name: elements-exporter
      image: {{ include "elements-exporter.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        {{- if .Values.auth.registrations }}
        # A registration, and so a file, for each pod.
        - --config.file=/etc/elements_exporter/config/elements-{{ $sharded | ternary "$(POD_INDEX)" "0" }}.yml
        {{- else }}
        - --config.file=/etc/elements_exporter/config/elements.yml
        {{- end }}
        {{- if $sharded }}
        # Kubernetes puts the values in; no shell is needed.
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
      # Neither asks the API. An outage there makes no pod unhealthy, and a restart would not mend it.
      {{- if .Values.web.existingSecret }}
      # A password guards these paths, too, and the kubelet has none; being asked for one is a sign of life.
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
      # Without a password it can be told that TLS is served, and whether the exporter is ready; with one, or where a
      # certificate is asked for, only that it serves.
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
      # From the first list of customers on, or from a state that was restored. Scrapes do not wait for it: see the
      # Service. It holds back a rollout whose credentials do not work.
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
        # The whole volume and no subPath, which a change of the Secret would never reach.
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
    - name: secret
      secret:
        secretName: {{ include "elements-exporter.secretName" . }}
        # For the group of the pod, and for nobody else.
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
