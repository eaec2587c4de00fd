"""The Pulumi program of a repository of clusters."""
