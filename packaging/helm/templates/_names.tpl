{{/* The prefix of all names: the release's name, with the chart's if that is another. */}}
{{- define "recodex-monitor.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a component; the context is (list $ component). */}}
{{- define "recodex-monitor.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: recodex-monitor
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels of an object of a component. */}}
{{- define "recodex-monitor.labels" -}}
{{- $ := index . 0 -}}
{{ include "recodex-monitor.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The metadata of an object of a component. */}}
{{- define "recodex-monitor.metadata" -}}
{{- $ := index . 0 -}}
name: {{ include "recodex-monitor.fullname" $ }}-{{ index . 1 }}
namespace: {{ $.Release.Namespace }}
labels:
  {{- include "recodex-monitor.labels" . | nindent 2 }}
{{- end -}}
