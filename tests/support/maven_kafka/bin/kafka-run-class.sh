#!/bin/sh
# kafka-run-class.sh CLASS ARGS...: runs one of Kafka's programs on the jars in ../libs.
set -eu
home=$(cd "$(dirname "$0")/.." && pwd)
log4j=${KAFKA_LOG4J_OPTS:--Dlog4j2.configurationFile=$home/config/log4j2.yaml}
# The variables hold several options each, so they stay unquoted.
# shellcheck disable=SC2086
exec java ${KAFKA_HEAP_OPTS:--Xmx512m} $log4j ${KAFKA_OPTS:-} -cp "$home/libs/*" "$@"
