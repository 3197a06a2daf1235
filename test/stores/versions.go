package main

// What runs natively. PostgreSQL's version is internal/embedpg's; Redis is what the
// system has. docker/docker-compose.yml names the same releases.
const (
	elasticsearchVersion = "8.19.4"
	neo4jVersion         = "5.26.10"
	javaVersion          = 17 // at least
)
