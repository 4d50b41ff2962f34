"""The toy world: small seeded languages with oracles."""
