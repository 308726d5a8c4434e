"""One self-contained page about a run: settings, curves, scores by protocol, pictures."""
