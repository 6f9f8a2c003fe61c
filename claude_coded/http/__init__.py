"""The HTTP face of the daemon: the app, its resources, and the guard around each connection."""
