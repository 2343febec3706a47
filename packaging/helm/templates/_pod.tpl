{{/*
The pod template of a component. The context is a dict: root, component, config (whose config it
has), args, and what differs: ports, env, served, account, restart, spread, volumes.
*/}}
{{- define "recodex-monitor.pod" -}}
{{- $ := .root -}}
{{- $values := index $.Values .component -}}
{{- $name := include "recodex-monitor.fullname" $ -}}
{{- $config := .config | default .component -}}
metadata:
  annotations:
    # A changed config replaces the pods.
    checksum/config: {{ printf "%s\n%s" (toYaml $.Values.settings) (include "recodex-monitor.config" (list $ $config)) | sha256sum }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  labels:
    {{- include "recodex-monitor.selector" (list $ .component) | nindent 4 }}
spec:
  {{- if .account }}
  serviceAccountName: {{ $name }}
  {{- else }}
  automountServiceAccountToken: false
  {{- end }}
  {{- with .restart }}
  restartPolicy: {{ . }}
  {{- end }}
  enableServiceLinks: false
  {{- with $.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $values.pod }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    {{- with $.Values.fsGroup }}
    fsGroup: {{ int64 . }}
    {{- end }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile:
      type: RuntimeDefault
  {{- if not .restart }}
  terminationGracePeriodSeconds: 20
  {{- end }}
  {{- if .spread }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "recodex-monitor.selector" (list $ .component) | nindent 10 }}
  {{- end }}
  containers:
    - name: monitor
      image: "{{ $.Values.image.repository }}:{{ $.Values.image.tag | default $.Chart.AppVersion }}"
      {{- with $.Values.image.pullPolicy }}
      imagePullPolicy: {{ . }}
      {{- end }}
      args: {{ .args | toJson }}
      envFrom:
        - configMapRef:
            name: {{ $name }}-settings
      env:
        - name: CREDENTIALS_DIRECTORY
          value: /run/secrets/recodex-monitor
        {{- if eq .component "producer" }}
        # The pod's ordinal plus one is its range of sites.
        - name: POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- end }}
      {{- if not .restart }}
      ports:
        - name: http
          containerPort: 9000
        {{- if eq .component "relay" }}
        - name: websocket
          containerPort: 4567
        - name: zeromq
          containerPort: 7894
        {{- end }}
      startupProbe:
        httpGet:
          path: /healthz
          port: http
        periodSeconds: 2
        failureThreshold: 30
      livenessProbe:
        httpGet:
          path: /healthz
          port: http
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet:
          path: /readyz
          port: http
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      {{- end }}
      {{- if .served }}
      # Wait until no Service sends clients here; then SIGTERM, and a drain of up to 5 s.
      lifecycle:
        preStop:
          sleep:
            seconds: 5
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: ["ALL"]
      volumeMounts:
        - name: config
          mountPath: /etc/recodex/monitor
          readOnly: true
        - name: secrets
          mountPath: /run/secrets/recodex-monitor
          readOnly: true
        - name: state
          mountPath: /var/lib/recodex-monitor
        - name: tmp
          mountPath: /tmp
  volumes:
    - name: config
      configMap:
        name: {{ $name }}-{{ $config }}
    - name: secrets
      secret:
        secretName: {{ $.Values.secretName }}
        defaultMode: 0440
    {{- if eq .state "claim" }}
    - name: state
      persistentVolumeClaim:
        claimName: {{ $name }}-{{ .component }}
    {{- else if eq .state "scratch" }}
    - name: state
      emptyDir:
        sizeLimit: 256Mi
    {{- end }}
    - name: tmp
      emptyDir:
        sizeLimit: 64Mi
{{- end -}}

{{/* The spec of a component's volume. */}}
{{- define "recodex-monitor.claim" -}}
accessModes: ["ReadWriteOnce"]
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .storage }}
{{- end -}}

{{/* Keeps all but one pod of a component while nodes are drained. */}}
{{- define "recodex-monitor.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "recodex-monitor.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "recodex-monitor.selector" . | nindent 6 }}
{{- end -}}
