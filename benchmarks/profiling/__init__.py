"""What each layer of a model costs on a runtime, by the runtime's own profile, joined with the nodes of the file."""
