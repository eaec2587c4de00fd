"""The Pulumi component package: `RayCluster` for programs in other languages."""
