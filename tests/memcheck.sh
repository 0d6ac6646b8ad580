#!/bin/sh
# Loads the plugin, sends 1,000 requests through both of its layers, exports their spans and stops, all
# under valgrind's memcheck: no invalid access, no use of what was never written, no definite leak.
#
# Usage: tests/memcheck.sh [HOST PLUGIN]; builds both, unoptimised, where none are given. The host is
# its own upstream, and a second one the collector: nothing is needed but valgrind, curl and a minute.
set -eu

requests=1000
cd "$(dirname "$0")/.."
if [ $# -eq 2 ]; then
    host=$1 plugin=$2
else
    cargo build --lib --bins
    target=${CARGO_TARGET_DIR:-target}
    host=$target/debug/host plugin=$target/debug/libplugin_otel.so
fi
plugin=$(realpath "$plugin")

folder=$(mktemp -d)
running= collector=
trap 'kill $running $collector 2>/dev/null || true; rm -rf "$folder"' EXIT
# Not below 20000, where the system takes the ports of outgoing connections from 32768 on.
public=${MEMCHECK_PORT:-$((20000 + $$ % 12000))}
admin=$((public + 1))
cat >"$folder/collector.toml" <<TOML
[server]
listen = "127.0.0.1:$((public + 2))"
[admin]
listen = "127.0.0.1:$((public + 3))"
[[route]]
path = "/v1/traces"
respond = { status = 200, body = "" }
TOML
cat >"$folder/host.toml" <<TOML
[server]
listen = "127.0.0.1:$public"
request-timeout = "60s"
drain-timeout = "60s"
[client]
connect-timeout = "60s"
request-timeout = "60s"
[admin]
listen = "127.0.0.1:$admin"
[discovery.static]
itself = ["http://127.0.0.1:$public"]
[[route]]
path = "/hello/{name}"
service = "itself"
rewrite = "/greeter/{name}"
[[route]]
path = "/greeter/{name}"
respond = { status = 200, body = "hello {name}\n" }
[otel]
enabled = true
required = true
library = "$plugin"
endpoint = "http://127.0.0.1:$((public + 2))"
protocol = "http/protobuf"
timeout = "60s"
schedule-delay = "500ms"
TOML

"$host" --config "$folder/collector.toml" 2>/dev/null &
collector=$!
valgrind --tool=memcheck --error-exitcode=9 --leak-check=full --show-leak-kinds=definite \
    --errors-for-leak-kinds=definite --num-callers=30 --log-file="$folder/valgrind.log" \
    "$host" --config "$folder/host.toml" 2>"$folder/stderr.log" &
running=$!

show() {
    cat "$folder/stderr.log" "$folder/valgrind.log" >&2
    exit 1
}

until curl -fsS -o /dev/null "http://127.0.0.1:$admin/readyz" 2>/dev/null; do
    kill -0 "$running" 2>/dev/null || show
    sleep 0.2
done
answers=$(curl -fsS --fail-early --max-time 300 "http://127.0.0.1:$public/hello/[1-$requests]" | grep -c '^hello') || show
status=$(curl -fsS --max-time 60 "http://127.0.0.1:$admin/plugins") || show
kill -TERM "$running"
code=0
wait "$running" || code=$?
running=

echo "$answers answers; $status"
tail -n 4 "$folder/valgrind.log"
[ "$code" -eq 0 ] && [ "$answers" -eq "$requests" ] || show
