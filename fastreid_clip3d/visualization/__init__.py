"""Pictures of what a model does. This package only reads runs; verbs, tools and one hook import it."""
