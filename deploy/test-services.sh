#!/usr/bin/env bash
# Real services for tests, on this host only, without containers.
#
#   deploy/test-services.sh install    fetches and builds what is missing, into target/tools
#   deploy/test-services.sh dynamodb   the same, then a DynamoDB API on a free loopback port: prints its address on one line,
#                                      and runs until its standard input ends or it is told to stop
#   deploy/test-services.sh kafka      the same with a single Apache Kafka. The line it prints has three words: the address of
#                                      a plain listener, that of one with TLS and SCRAM-SHA-512 (user machinegun, password
#                                      machinegun-secret), and the file of its certificate. Of the lines of its standard input
#                                      `kill` kills the broker, and `start` starts it anew on the same ports and data, if it does
#                                      not run
set -euo pipefail
cd "$(dirname "$0")/.."

readonly DYNOXIDE_VERSION="3.2.0"
readonly TOOLS="$PWD/target/tools"
readonly DYNOXIDE="$TOOLS/bin/dynoxide"
readonly KAFKA_VERSION="4.3.1"
readonly KAFKA="$TOOLS/kafka-$KAFKA_VERSION"
# Each jar by its checksum and its place in Maven Central. `mvn dependency:copy-dependencies` of
# org.apache.kafka:kafka_2.13 names them.
readonly KAFKA_JARS="$PWD/deploy/kafka-jars.txt"
readonly MAVEN_CENTRAL="https://repo1.maven.org/maven2"
readonly KAFKA_PASSWORD="machinegun-secret"
# Below those that connections get for themselves: the port of a broker that was killed is free when it comes back.
readonly LOWEST_PORT=20000 PORTS=12000

service=""
data=""

fail() {
    echo "test-services: $*" >&2
    exit 1
}

install_dynoxide() {
    mkdir -p "$TOOLS"
    # Two at once would build the same.
    exec 9>"$TOOLS/.lock"
    if command -v flock >/dev/null; then
        flock 9
    fi
    # Cargo's own note of what is installed: the program's idea of its version is another one.
    if [ ! -x "$DYNOXIDE" ] || ! grep -qF "dynoxide-rs $DYNOXIDE_VERSION " "$TOOLS/.crates.toml" 2>/dev/null; then
        command -v cargo >/dev/null ||
            fail "needs cargo to build dynoxide $DYNOXIDE_VERSION; or name a running service in TEST_DYNAMODB_ENDPOINT"
        # It answers tests, so it is built with less care.
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            cargo install dynoxide-rs --locked --version "$DYNOXIDE_VERSION" --root "$TOOLS" --force \
            --no-default-features --features native-sqlite,http-server,cli >&2 9>&- ||
            fail "dynoxide $DYNOXIDE_VERSION can't be built: it needs crates.io and a C compiler;" \
                "or name a running service in TEST_DYNAMODB_ENDPOINT"
    fi
    exec 9>&-
}

install_kafka() {
    local elsewhere="or name a running broker in TEST_KAFKA_BOOTSTRAP" version jars missing
    command -v java >/dev/null || fail "Kafka needs Java 17 or newer: apt-get install openjdk-17-jre-headless; $elsewhere"
    command -v keytool >/dev/null || fail "Kafka's certificate needs keytool, which is part of Java"
    version="$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')"
    [ "${version:-0}" -ge 17 ] || fail "Kafka needs Java 17 or newer, and this is Java ${version:-unknown}; $elsewhere"
    mkdir -p "$KAFKA"
    exec 9>"$KAFKA/.lock"
    if command -v flock >/dev/null; then
        flock 9
    fi
    # Checked each time: a download that broke off is noticed.
    jars="$(sed 's|  .*/|  |' "$KAFKA_JARS")"
    missing="$(cd "$KAFKA" && sha256sum --check --quiet <<<"$jars" 2>/dev/null | sed 's|: .*||')" || true
    local path
    for path in $(sed 's|.*  ||' "$KAFKA_JARS"); do
        grep -qxF "$(basename "$path")" <<<"$missing" || continue
        command -v curl >/dev/null || fail "needs curl to fetch Kafka $KAFKA_VERSION: apt-get install curl; $elsewhere"
        curl --fail --silent --show-error --location --retry 3 --output "$KAFKA/$(basename "$path")" \
            "$MAVEN_CENTRAL/$path" 9>&- >&2 || fail "$path can't be fetched from Maven Central; $elsewhere"
    done
    (cd "$KAFKA" && sha256sum --check --quiet <<<"$jars" >&2) ||
        fail "a jar of Kafka $KAFKA_VERSION is not what deploy/kafka-jars.txt says: remove $KAFKA and try again"
    exec 9>&-
}

answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

stop() {
    # Only what was started here, by its id.
    if [ -n "$service" ]; then
        kill "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
    fi
    if [ -n "$data" ]; then
        rm -rf "$data"
    fi
}

dynamodb() {
    install_dynoxide
    trap stop EXIT
    trap 'exit 0' TERM INT HUP
    data="$(mktemp -d)"
    local port
    for _ in 1 2 3 4 5 6 7 8; do
        port=$((LOWEST_PORT + RANDOM % PORTS))
        answers "$port" && continue
        "$DYNOXIDE" serve --host 127.0.0.1 --port "$port" --db-path "$data/$port.db" </dev/null >"$data/log" 2>&1 &
        service=$!
        for _ in $(seq 100); do
            kill -0 "$service" 2>/dev/null || break
            if answers "$port"; then
                echo "http://127.0.0.1:$port"
                # The reader's end of the pipe goes with the test's process, however that ends.
                cat >/dev/null
                exit 0
            fi
            sleep 0.1
        done
        kill "$service" 2>/dev/null || true
        wait "$service" 2>/dev/null || true
        service=""
    done
    fail "dynoxide does not start: $(tail -n 5 "$data/log")"
}

# In the place of the shell that runs it. By default a small heap, and no more compiling than a short life is worth.
kafka_java() {
    local options=${TEST_KAFKA_JAVA_OPTIONS:--Xmx320m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC}
    # Several words on purpose.
    # shellcheck disable=SC2086
    exec java $options -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
        -cp "$KAFKA/*" "$@"
}

kafka_settings() {
    local plain=$1 secure=$2 controller=$3
    cat <<SETTINGS
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAIN://127.0.0.1:$plain,SECURE://127.0.0.1:$secure,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAIN://127.0.0.1:$plain,SECURE://127.0.0.1:$secure
listener.security.protocol.map=PLAIN:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PKCS12
ssl.keystore.location=$data/keys.p12
ssl.keystore.password=$KAFKA_PASSWORD
log.dirs=$data/topics
num.partitions=12
auto.create.topics.enable=true
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
SETTINGS
}

# Returns once the broker answers, or with an error once it has ended.
start_kafka() {
    local plain=$1 secure=$2
    kafka_java kafka.Kafka "$data/settings" </dev/null >>"$data/log" 2>&1 &
    service=$!
    local _
    for _ in $(seq 600); do
        kill -0 "$service" 2>/dev/null || return 1
        if answers "$plain" && answers "$secure"; then
            return 0
        fi
        sleep 0.1
    done
    return 1
}

kill_kafka() {
    kill -KILL "$service" 2>/dev/null || true
    wait "$service" 2>/dev/null || true
    service=""
}

kafka() {
    install_kafka
    # It may take its time to stop in order, and nobody needs its data.
    trap 'if [ -n "$service" ]; then kill_kafka; fi; stop' EXIT
    trap 'exit 0' TERM INT HUP
    data="$(mktemp -d)"
    keytool -genkeypair -alias broker -keyalg EC -dname CN=127.0.0.1 -ext san=ip:127.0.0.1 -validity 2 \
        -storetype PKCS12 -keystore "$data/keys.p12" -storepass "$KAFKA_PASSWORD" >&2
    keytool -exportcert -rfc -alias broker -keystore "$data/keys.p12" -storepass "$KAFKA_PASSWORD" \
        -file "$data/certificate.pem" 2>/dev/null
    local plain secure controller up="" line
    for _ in 1 2 3 4 5 6 7 8; do
        plain=$((LOWEST_PORT + RANDOM % PORTS)) secure=$((LOWEST_PORT + RANDOM % PORTS)) controller=$((LOWEST_PORT + RANDOM % PORTS))
        if answers "$plain" || answers "$secure" || answers "$controller"; then
            continue
        fi
        rm -rf "$data/topics"
        kafka_settings "$plain" "$secure" "$controller" >"$data/settings"
        (kafka_java kafka.tools.StorageTool format --cluster-id AAAAAAAAAAAAAAAAAAAAAQ --config "$data/settings" \
            --add-scram "SCRAM-SHA-512=[name=machinegun,password=$KAFKA_PASSWORD]" >>"$data/log" 2>&1) ||
            fail "Kafka's folder can't be made: $(tail -n 5 "$data/log")"
        if start_kafka "$plain" "$secure"; then
            up=yes
            break
        fi
        kill_kafka
    done
    [ -n "$up" ] || fail "Kafka does not start: $(tail -n 20 "$data/log")"
    echo "127.0.0.1:$plain 127.0.0.1:$secure $data/certificate.pem"
    # The writer's end of the pipe goes with the test's process, however that ends.
    while read -r line; do
        case "$line" in
            kill)
                kill_kafka
                echo "killed"
                ;;
            start)
                kill -0 "${service:-none}" 2>/dev/null || start_kafka "$plain" "$secure" || fail "Kafka does not start again: $(tail -n 20 "$data/log")"
                echo "started"
                ;;
            *) fail "say kill, or start" ;;
        esac
    done
}

case "${1:-}" in
    install)
        install_dynoxide
        install_kafka
        ;;
    dynamodb) dynamodb ;;
    kafka) kafka ;;
    *) fail "say install, dynamodb, or kafka" ;;
esac
