{{/* The name of all objects. */}}
{{- define "kprof.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The namespace in which the points run. */}}
{{- define "kprof.pointsNamespace" -}}
{{- .Values.points.namespace | default (printf "%s-points" (.Release.Namespace | trunc 56 | trimSuffix "-")) -}}
{{- end -}}

{{- define "kprof.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "kprof.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "kprof.selectorLabels" -}}
app.kubernetes.io/name: kprof
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "kprof.labels" -}}
{{- $own := dict
  "app.kubernetes.io/part-of" "kprof"
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/version" .Chart.AppVersion
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version) -}}
{{- $selector := include "kprof.selectorLabels" . | fromYaml -}}
{{- mustMergeOverwrite (deepCopy .Values.commonLabels) $own $selector | toYaml -}}
{{- end -}}

{{/* Labels of a pod: of all objects, of the pod, and the component, given as (list $ component). */}}
{{- define "kprof.podLabels" -}}
{{- $top := index . 0 -}}
{{- $labels := include "kprof.labels" $top | fromYaml -}}
{{- $component := dict "app.kubernetes.io/component" (index . 1) -}}
{{- mustMergeOverwrite (deepCopy $top.Values.pod.labels) $labels $component | toYaml -}}
{{- end -}}

{{- define "kprof.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "kprof.matricesConfigMap" -}}
{{- .Values.matrices.existingConfigMap | default (printf "%s-matrices" (include "kprof.fullname" .)) -}}
{{- end -}}

{{- define "kprof.resultsClaim" -}}
{{- .Values.store.claim.existingClaim | default (printf "%s-results" (include "kprof.fullname" .)) -}}
{{- end -}}

{{- define "kprof.modelCacheClaim" -}}
{{- if .Values.modelCache.existingClaim -}}
{{- .Values.modelCache.existingClaim -}}
{{- else if .Values.modelCache.enabled -}}
{{- printf "%s-model-cache" (include "kprof.fullname" .) -}}
{{- end -}}
{{- end -}}

{{/* Refuse whole numbers beyond 2^53 in an inline mapping, given as (list path value): helm has rounded them by now. */}}
{{- define "kprof.exact" -}}
{{- $path := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "map" $value -}}
{{- range $name, $part := $value -}}
{{- include "kprof.exact" (list (printf "%s.%s" $path $name) $part) -}}
{{- end -}}
{{- else if kindIs "slice" $value -}}
{{- range $index, $part := $value -}}
{{- include "kprof.exact" (list (printf "%s[%d]" $path $index) $part) -}}
{{- end -}}
{{- else if kindIs "float64" $value -}}
{{- if or (ge $value 9007199254740992.0) (le $value -9007199254740992.0) -}}
{{- fail (printf "%s is too large a number for helm, which would change it: give this matrix as a text" $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* One inline matrix, given as (list $ matrix name): a text as it stands, a mapping with secret and cache filled in. */}}
{{- define "kprof.matrix" -}}
{{- $top := index . 0 -}}
{{- $matrix := index . 1 -}}
{{- if kindIs "string" $matrix -}}
{{- $matrix -}}
{{- else -}}
{{- include "kprof.exact" (list (printf "matrices.inline.%s" (index . 2)) $matrix) -}}
{{- $defaults := dict -}}
{{- with $top.Values.huggingFaceToken -}}
{{- if .secretName -}}
{{- $_ := set $defaults "huggingFaceToken" (dict "secretName" .secretName "key" .key) -}}
{{- end -}}
{{- end -}}
{{- with include "kprof.modelCacheClaim" $top -}}
{{- $_ := set $defaults "cache" (dict "claimName" .) -}}
{{- end -}}
{{- $own := deepCopy (default dict $matrix.defaults) -}}
{{- range $name, $value := $defaults -}}
{{- if not (hasKey $own $name) -}}
{{- $_ := set $own $name $value -}}
{{- end -}}
{{- end -}}
{{- mustMergeOverwrite (deepCopy $matrix) (dict "defaults" $own) | toYaml -}}
{{- end -}}
{{- end -}}

{{/* Pod Security `restricted`, for the pod. */}}
{{- define "kprof.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Pod Security `restricted`, for the container. */}}
{{- define "kprof.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end -}}

{{/* Where kprof's pods may run. */}}
{{- define "kprof.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.pod.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
