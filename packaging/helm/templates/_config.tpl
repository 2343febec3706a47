{{/* The daemon's config of a component, with the component's own keys merged into it. */}}
{{- define "recodex-monitor.config" -}}
{{- $ := index . 0 -}}
{{- $component := index . 1 -}}
{{- $config := dict "logger" (dict "file" "/dev/null") -}}
{{- $api := dict "uri" (list "*" 9000) "tokens_file" "${CREDENTIALS_DIRECTORY}/tokens.yml" -}}
{{- $_ := set $config "api" $api -}}
{{- if eq $component "relay" -}}
{{- $_ := set $config "websocket_uri" (list "*" 4567) -}}
{{- $_ := set $config "zeromq_uri" (list "*" 7894) -}}
{{- $_ := set $config "relay" (dict "history_file" "history.db") -}}
{{- else -}}
{{- $_ := set $config "relay" false -}}
{{- $_ := set $config "database" (dict "url" "${DATABASE_URL}" "password_file" "database-password") -}}
{{- end -}}
{{- if has $component (list "producer" "consumer" "cluster") -}}
{{- $kafka := dict "bootstrap_servers" (list "${KAFKA_SERVER}") "replication_factor" "${KAFKA_REPLICATION}" -}}
{{- $_ := set $config "kafka" (mustMergeOverwrite $kafka (deepCopy $.Values.kafka)) -}}
{{- end -}}
{{- if eq $component "producer" -}}
{{- $_ := set $config "probes" (dict "source" "database" "websites_per_container" 1000) -}}
{{- else if eq $component "consumer" -}}
{{- $_ := set $config "aggregation" dict -}}
{{- else if eq $component "logs" -}}
{{- $_ := set $config "logs" dict -}}
{{- else if eq $component "cluster" -}}
{{- $cluster := dict "name" "${CLUSTER_NAME}" "namespaces" $.Values.cluster.namespaces -}}
{{- $_ := set $cluster "kinds" $.Values.cluster.kinds -}}
{{- if $.Values.cluster.customKinds -}}
{{- $_ := set $cluster "custom_kinds" $.Values.cluster.customKinds -}}
{{- end -}}
{{- $_ := set $config "cluster" $cluster -}}
{{- end -}}
{{- $own := deepCopy (index $.Values $component).config -}}
{{- toYaml (mustMergeOverwrite $config $own) -}}
{{- end -}}
