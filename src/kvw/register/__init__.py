"""The register of requests to forget: who asked, when, which run answered, and which models still hold it."""
