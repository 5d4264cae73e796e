"""The laboratory: real daemons on one machine, each in network, mount and uts namespaces.

Root is needed, a container engine is not. Nothing of the host's own network is touched, and
`down` removes all that was made: namespaces, processes, mounts, files.
"""
