{{- define "sonic.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "sonic.labels" -}}
app.kubernetes.io/name: sonic-ms
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "sonic.selector" -}}
app.kubernetes.io/name: sonic-ms
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sonic.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- /* Whether queue and files are elsewhere, so that there may be several servers. */ -}}
{{- define "sonic.shared" -}}
{{- if and .Values.database.url .Values.files.url }}yes{{ end -}}
{{- end }}

{{- /* Every pod: nobody's root, nothing of the node. */ -}}
{{- define "sonic.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "sonic.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- /* Requests and limits alike. Takes (dict "of" {cpu, memory} "npu" {resource, count} or nothing). */ -}}
{{- define "sonic.resources" -}}
{{- $amounts := dict "cpu" .of.cpu "memory" .of.memory }}
{{- if and .npu .npu.count }}
{{- $_ := set $amounts .npu.resource (.npu.count | int) }}
{{- end }}
resources:
  requests:
    {{- toYaml $amounts | nindent 4 }}
  limits:
    {{- toYaml $amounts | nindent 4 }}
{{- end }}

{{- /* Where the queue and the files are, for servers and workers. */ -}}
{{- define "sonic.env" -}}
{{- if .Values.database.passwordSecret }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.passwordSecret }}
      key: password
{{- end }}
{{- if .Values.files.url }}
- name: AWS_DEFAULT_REGION
  value: {{ .Values.files.region | quote }}
{{- with .Values.files.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.files.secret }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.files.secret }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Ascend's runtime gives every device to a container that does not say this. */ -}}
{{- define "sonic.withoutNpu" -}}
- name: ASCEND_VISIBLE_DEVICES
  value: void
{{- end }}

{{- define "sonic.where" -}}
{{- if .Values.database.url }}
- --database={{ .Values.database.url }}
{{- end }}
{{- end }}

{{- define "sonic.rayHead" -}}
{{ include "sonic.name" . }}-ray-head
{{- end }}

{{- define "sonic.rayAddress" -}}
{{- if .Values.workers.ray.address -}}
{{ .Values.workers.ray.address }}
{{- else if .Values.workers.ray.kuberay -}}
ray://{{ include "sonic.name" . }}-ray-head-svc:10001
{{- else -}}
ray://{{ include "sonic.rayHead" . }}:10001
{{- end -}}
{{- end }}

{{- define "sonic.scratch" -}}
- name: tmp
  emptyDir: {}
{{- end }}

{{- /* Whether the servers make the videos, on NPUs. */ -}}
{{- define "sonic.serverNpu" -}}
{{- if and (eq .Values.workers.kind "local") (gt (int .Values.workers.npu.count) 0) }}yes{{ end -}}
{{- end }}

{{- define "sonic.serverEnv" -}}
{{- include "sonic.env" . }}
{{- if not (include "sonic.serverNpu" .) }}
{{ include "sonic.withoutNpu" . }}
{{- end }}
{{- with .Values.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}
