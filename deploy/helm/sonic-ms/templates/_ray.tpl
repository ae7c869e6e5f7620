{{- /* Pods of a Ray cluster, for Deployments and for a RayCluster alike. Ports are fixed so that probes find them. */ -}}

{{- define "sonic.rayEnv" -}}
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
- name: PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION # Ray's protobuf, imported first, would be MindSpore's end
  value: python
{{- end }}

{{- define "sonic.rayVolumeMounts" -}}
- name: tmp
  mountPath: /tmp
- name: shm
  mountPath: /dev/shm
- name: data
  mountPath: /data
{{- end }}

{{- define "sonic.rayVolumes" -}}
{{ include "sonic.scratch" . }}
- name: data
  emptyDir: {}
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: 256Mi
{{- end }}

{{- define "sonic.rayHeadPod" -}}
{{ include "sonic.pod" . }}
containers:
  - name: ray-head
    {{- include "sonic.image" . | nindent 4 }}
    {{- include "sonic.container" . | nindent 4 }}
    {{- if not .Values.workers.ray.kuberay }}
    command: [ray, start]
    args:
      - --head
      - --block
      {{- range $name, $value := (include "sonic.rayHeadParams" . | fromYaml) }}
      - --{{ $name }}={{ $value }}
      {{- end }}
    {{- end }}
    env:
      {{- include "sonic.rayEnv" . | nindent 6 }}
      {{- include "sonic.withoutNpu" . | nindent 6 }}
    ports:
      - name: gcs
        containerPort: 6379
      - name: client
        containerPort: 10001
    livenessProbe:
      tcpSocket:
        port: gcs
      periodSeconds: 10
      failureThreshold: 6
      initialDelaySeconds: 30
    readinessProbe:
      tcpSocket:
        port: client
      periodSeconds: 5
    {{- include "sonic.resources" (dict "of" (dict "cpu" "1" "memory" "2Gi")) | nindent 4 }}
    volumeMounts:
      {{- include "sonic.rayVolumeMounts" . | nindent 6 }}
volumes:
  {{- include "sonic.rayVolumes" . | nindent 2 }}
{{- end }}

{{- define "sonic.rayWorkerPod" -}}
{{- $npu := gt (int .Values.workers.npu.count) 0 }}
{{- include "sonic.pod" . }}
terminationGracePeriodSeconds: {{ .Values.gracePeriodSeconds }}
containers:
  - name: ray-worker
    {{- include "sonic.image" . | nindent 4 }}
    {{- include "sonic.container" . | nindent 4 }}
    {{- if not .Values.workers.ray.kuberay }}
    command: [ray, start]
    args:
      - --address={{ include "sonic.rayHead" . }}:6379
      - --block
      {{- range $name, $value := (include "sonic.rayWorkerParams" . | fromYaml) }}
      - {{ printf "--%s=%s" $name $value | quote }}
      {{- end }}
    {{- end }}
    env:
      {{- include "sonic.rayEnv" . | nindent 6 }}
      {{- include "sonic.env" . | nindent 6 }}
      {{- if not $npu }}
      {{- include "sonic.withoutNpu" . | nindent 6 }}
      {{- end }}
    ports:
      - name: node
        containerPort: 6380
    livenessProbe:
      tcpSocket:
        port: node
      periodSeconds: 10
      failureThreshold: 6
      initialDelaySeconds: 60
    readinessProbe:
      tcpSocket:
        port: node
      periodSeconds: 5
    {{- include "sonic.resources" (dict "of" .Values.workers.ray.resources "npu" .Values.workers.npu) | nindent 4 }}
    volumeMounts:
      {{- include "sonic.rayVolumeMounts" . | nindent 6 }}
      {{- with .Values.volumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  {{- include "sonic.rayVolumes" . | nindent 2 }}
  {{- with .Values.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Flags of `ray start`, and rayStartParams of a RayCluster. No jobs on the head; frames never go through Ray. */ -}}
{{- define "sonic.rayHeadParams" -}}
num-cpus: "0"
object-store-memory: "100000000"
{{- if not .Values.workers.ray.kuberay }}
port: "6379"
ray-client-server-port: "10001"
include-dashboard: "false"
{{- end }}
{{- end }}

{{- define "sonic.rayWorkerParams" -}}
node-manager-port: "6380"
object-store-memory: "100000000"
{{- if .Values.workers.npu.count }}
{{- $json := printf "{\"NPU\":%d}" (int .Values.workers.npu.count) }}
resources: {{ ternary (printf "'%s'" $json) $json .Values.workers.ray.kuberay | quote }}
{{- end }}
{{- with .Values.workers.npu.soc }}
labels: {{ printf "soc=%s" . | quote }}
{{- end }}
{{- end }}
