"""The command line: flags, one file a mode, starting up several hosts, advice on memory."""
