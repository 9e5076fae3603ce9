"""Published checkpoints of other projects: one file a project, its layout to our config and state dict."""
