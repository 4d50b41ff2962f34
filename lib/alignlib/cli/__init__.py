"""What every command has: options, exits, paths, tables."""
