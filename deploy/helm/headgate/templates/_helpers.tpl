{{/* The name of everything, at most 63 characters with the suffixes. */}}
{{- define "headgate.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "headgate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headgate.labels" -}}
{{ include "headgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* An empty tag is left out, for a repository with a digest. */}}
{{- define "headgate.image" -}}
{{- $tag := kindIs "invalid" .Values.image.tag | ternary .Chart.AppVersion .Values.image.tag -}}
{{- .Values.image.repository }}{{ with $tag }}:{{ . }}{{ end }}
{{- end }}

{{- define "headgate.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "headgate.name" .) }}
{{- end }}

{{- define "headgate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "headgate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The store's URL, and what the operator adds. */}}
{{- define "headgate.env" -}}
- name: HEADGATE_STORE
  valueFrom:
    secretKeyRef: {name: {{ .Values.store.existingSecret | quote }}, key: {{ .Values.store.key | quote }}}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A probe: on the port for probes if there is one, since a kubelet speaks no TLS. */}}
{{- define "headgate.probe" -}}
grpc: {port: {{ ternary 50061 50051 (ne .root.Values.tls.existingSecret "") }}, service: {{ .service | quote }}}
timeoutSeconds: 5
{{- end }}
