"""How does a client prove who it is? One way a file; `choose` finds the one that a request uses."""
