"""The HTTP face of the server: metrics and health for those who speak no gRPC."""
