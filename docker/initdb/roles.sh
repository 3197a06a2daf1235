#!/bin/sh
# Run once by PostgreSQL's image, on an empty volume: the API's login, which may only
# read what `layers migrate` and the indexer grant to the role.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set password="$(cat /run/secrets/postgres-api-password)" <<'SQL'
CREATE ROLE layers_reader NOLOGIN;
CREATE ROLE layers_api LOGIN IN ROLE layers_reader PASSWORD :'password';
SQL
