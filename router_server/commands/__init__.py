"""What each subcommand of `router-server` does and prints; one file each, imported when it is asked for."""
