"""Where rows live: tables, the online store, metadata, the prediction log and sinks."""
