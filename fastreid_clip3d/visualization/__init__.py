"""Pictures of what a model does; read-only, and imported only by tools."""
