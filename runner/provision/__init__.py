"""On-demand clusters: Pulumi stacks that come with the first client and go with the last, or when their time to live is over.

`life` makes, joins, renews, releases and removes them; `collect` lists them and removes what killed clients left. Both bring the
packages of Kubernetes along: import them in functions. `deadline` needs the standard library only: a driver on the cluster renews
the time to live by it.
"""
