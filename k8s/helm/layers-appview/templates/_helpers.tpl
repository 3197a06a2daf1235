{{- define "layers.labels" -}}
app.kubernetes.io/name: layers-appview
app.kubernetes.io/part-of: layers
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* An image by its digest, where that is known, or by its tag. */}}
{{- define "layers.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end }}

{{- define "layers.settings" -}}
layers-settings-{{ .Values.settings | toJson | sha256sum | trunc 10 }}
{{- end }}
