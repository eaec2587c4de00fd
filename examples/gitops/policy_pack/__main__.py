"""What `pulumi preview --policy-pack` runs, in this folder."""

from infra.policy_pack import policy_pack

policy_pack("../policy.yaml")
