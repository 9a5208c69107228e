"""The command line `cled-edge`: a module per command."""
