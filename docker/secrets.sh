#!/bin/sh
# Makes the secrets of docker-compose.prod.yml in docker/secrets, those that are not
# there yet. The directory is its owner's alone; the files can be read by the accounts
# that the containers run as.
set -eu
umask 022
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
cd secrets

password() { [ -s "$1" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$1"; }
from() { [ -s "$1" ] || printf '%s' "$2" >"$1"; }

for name in postgres-password postgres-api-password redis-password elastic-password neo4j-password admin-token; do
	password "$name"
done
from database-url "postgres://layers:$(cat postgres-password)@postgres/layers?sslmode=disable"
from api-database-url "postgres://layers_api:$(cat postgres-api-password)@postgres/layers?sslmode=disable"
from redis-url "redis://:$(cat redis-password)@redis:6379/0"
from redis.conf "requirepass $(cat redis-password)
save \"\"
appendonly no
maxmemory 768mb
maxmemory-policy noeviction
"
from elasticsearch-url "http://elastic:$(cat elastic-password)@elasticsearch:9200"
from neo4j-auth "neo4j/$(cat neo4j-password)"
echo "docker/secrets: $(ls | wc -l) files"
