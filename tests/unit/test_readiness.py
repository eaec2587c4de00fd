"""The judgement of a starting cluster, over literal snapshots: each rule, by its words."""

from __future__ import annotations

import pytest

from infra.readiness import Expected, Seen, Snapshot, Verdict, has_not_begun, is_outdated, judge
from tests.unit.snapshots import (
    NOW,
    ONE_WORKER,
    TEMPLATES,
    UNSCHEDULABLE,
    Body,
    at,
    event,
    head,
    judged,
    pod,
    ray_cluster,
    unschedulable,
    waiting,
    worker,
    written,
)

# Ready and not yet


def test_a_head_and_the_least_number_of_workers_are_ready() -> None:
    assert judged(head(), worker()) == Verdict(ready=True)


@pytest.mark.parametrize(
    ("pods", "progress"),
    [
        ([], "head 0/1, cpu 0/1"),
        ([pod()], "head 0/1, cpu 0/1"),
        ([head()], "cpu 0/1"),
        ([head(), worker(ready=False)], "cpu 0/1"),
        ([pod(), worker()], "head 0/1"),
        ([head(), worker(template="c0")], "cpu 0/1, 1 old pods to end"),
        ([head(), worker(), worker(1, template="c0"), worker(2, template="c0")], "2 old pods to end"),
        ([head(), worker(), pod("dev-gone-0", "gone", "g1", ready=True)], "1 old pods to end"),
    ],
)
def test_what_is_waited_for(pods: list[Body], progress: str) -> None:
    assert judged(*pods) == Verdict(progress=progress)


def pull(reason: str, about: Body, image: str) -> Body:
    """An event in the kubelet's words."""
    said = {"Pulling": 'Pulling image "{}"', "Pulled": 'Successfully pulled image "{}" in 21.5s (21.5s including waiting).'}
    return event(reason, about, message=said[reason].format(image))


def test_images_that_are_pulled_are_named_each_once() -> None:
    workers = [worker(0, ready=False), worker(1, ready=False)]
    expected = Expected(TEMPLATES, {"headgroup": 1, "cpu": 2})
    pulls = [pull("Pulling", one, "ray:gpu") for one in workers]
    assert judged(head(), *workers, expected=expected, events=pulls) == Verdict(progress="cpu 0/2 (pulling ray:gpu)")
    pulls += [pull("Pulled", workers[0], "ray:gpu"), pull("Pulling", workers[0], "side:1")]
    assert judged(head(), *workers, expected=expected, events=pulls).progress == "cpu 0/2 (pulling side:1, pulling ray:gpu)"
    pulls += [pull("Pulled", workers[0], "side:1"), pull("Pulled", workers[1], "ray:gpu")]
    assert judged(head(), *workers, expected=expected, events=pulls).progress == "cpu 0/2"


def test_as_many_workers_as_the_group_has_at_least() -> None:
    expected = Expected(TEMPLATES, {"headgroup": 1, "cpu": 3})
    assert judged(head(), worker(0), worker(1), expected=expected) == Verdict(progress="cpu 2/3")
    assert judged(head(), worker(0), worker(1), worker(2), expected=expected).ready


def test_a_group_of_none_at_least_is_not_waited_for() -> None:
    none = Expected(TEMPLATES, {"headgroup": 1, "cpu": 0})
    assert judged(head(), expected=none).ready
    assert judged(head(), worker(ready=False), expected=none).ready


def test_a_pod_that_is_being_deleted_does_not_count() -> None:
    going = worker()
    going["metadata"]["deletionTimestamp"] = at(0)
    assert judged(head(), going) == Verdict(progress="cpu 0/1")


def test_old_pods_that_are_to_be_kept_count_and_are_not_waited_for() -> None:
    keep = Expected(TEMPLATES, {"headgroup": 1, "cpu": 1}, keep_old=True)
    assert judged(head(), worker(template="c0"), expected=keep) == Verdict(ready=True)
    assert judged(head(), worker(template="c0", ready=False), expected=keep) == Verdict(progress="cpu 0/1")


@pytest.mark.parametrize(
    ("made", "outdated"), [(worker(), False), (worker(template="c0"), True), (pod("x", "gone", "c1"), True), (head(), False)]
)
def test_a_pod_of_another_template_or_of_no_group_is_out_of_date(made: Body, outdated: bool) -> None:
    assert is_outdated(made, ONE_WORKER) is outdated


def test_a_suspended_cluster_is_ready_without_pods() -> None:
    suspended = Expected(TEMPLATES, {"headgroup": 1, "cpu": 1}, suspended=True)
    assert judged(expected=suspended) == Verdict(ready=True, progress="0 pods to end")
    assert judged(head(), worker(), expected=suspended) == Verdict(progress="2 pods to end")


def test_a_cluster_that_is_gone() -> None:
    verdict = judge(ONE_WORKER, Snapshot(None, [], [], NOW), Seen())
    assert verdict == Verdict(failure="the RayCluster is gone; something else deleted it")


# Containers that cannot start


@pytest.mark.parametrize(
    "reason",
    [
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
    ],
)
@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
def test_a_container_that_cannot_start_is_a_failure_at_once(reason: str, kind: str) -> None:
    stuck: Body = {kind: [waiting(reason)]}
    verdict = judged(head(), worker(ready=False, **stuck))
    assert verdict == Verdict(failure=f"pod dev-cpu-0, container ray-head: {reason}: the words")


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_a_container_that_still_starts_is_none(reason: str) -> None:
    assert judged(head(), worker(ready=False, containerStatuses=[waiting(reason)])) == Verdict(progress="cpu 0/1")


def test_a_crash_loop_of_kubernetes_tells_how_it_ended() -> None:
    last = {"terminated": {"reason": "OOMKilled", "exitCode": 137, "message": "out of memory"}}
    verdict = judged(pod(containerStatuses=[waiting("CrashLoopBackOff", "back-off 10s", lastState=last)]))
    assert verdict.failure == (
        "pod dev-head, container ray-head: CrashLoopBackOff: back-off 10s (OOMKilled, exit code 137: out of memory)"
    )
    assert str(judged(pod(containerStatuses=[waiting("CrashLoopBackOff", "soon")])).failure).endswith("CrashLoopBackOff: soon")
    assert str(judged(pod(containerStatuses=[waiting("ErrImagePull", "none", lastState=last)])).failure).endswith("none")


# Nodes


@pytest.mark.parametrize(("waited", "failure"), [(59, None), (60, f"pod dev-head: Unschedulable for 60 s: {UNSCHEDULABLE}")])
def test_unschedulable_only_after_the_grace(waited: float, failure: str | None) -> None:
    assert judged(unschedulable(waited)).failure == failure


def test_the_grace_is_the_spec_s() -> None:
    assert judged(unschedulable(5), expected=Expected(TEMPLATES, {}, unschedulable_seconds=5)).failure is not None
    assert judged(unschedulable(4), expected=Expected(TEMPLATES, {}, unschedulable_seconds=5)).failure is None


@pytest.mark.parametrize("reason", ["TriggeredScaleUp", "Nominated"])
def test_longer_where_a_node_is_on_its_way(reason: str) -> None:
    lonely = unschedulable(600)
    assert judged(lonely, events=[event(reason, lonely)]) == Verdict(progress="head 0/1 (a node comes for it), cpu 0/1")


def test_at_once_where_no_node_will_come() -> None:
    lonely = unschedulable(3)
    failure = judged(lonely, events=[event("NotTriggerScaleUp", lonely)]).failure
    assert failure == f"pod dev-head: Unschedulable for 3 s: {UNSCHEDULABLE}"


def test_events_of_another_pod_say_nothing_of_this_one() -> None:
    lonely = unschedulable(600)
    assert judged(lonely, events=[event("TriggeredScaleUp", worker())]).failure is not None
    assert judged(unschedulable(3), events=[event("NotTriggerScaleUp", worker())]).failure is None


@pytest.mark.parametrize(
    "condition",
    [
        {"type": "PodScheduled", "status": "True"},
        {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"},
        {"type": "Initialized", "status": "False", "reason": "Unschedulable"},
    ],
)
def test_other_conditions_of_pods_are_waited_for(condition: Body) -> None:
    stuck = pod(conditions=[{**condition, "lastTransitionTime": at(-600)}])
    assert judged(stuck, worker()) == Verdict(progress="head 0/1")


def test_a_pod_of_which_little_is_known_yet_is_waited_for() -> None:
    fresh, undated = worker(), unschedulable(600)
    del fresh["status"]
    del undated["status"]["conditions"][0]["lastTransitionTime"]
    assert judged(undated, fresh) == Verdict(progress="head 0/1 (no node has room for it yet), cpu 0/1")
    assert judged(pod(conditions=[{"type": "Initialized", "status": "True"}]), worker()) == Verdict(progress="head 0/1")


# Volumes


def mounting(made: float, *, ready: bool = False, message: str = 'configmap "none" not found') -> Verdict:
    """Of a head that was made so many seconds ago and whose volume is not there."""
    stuck = pod(ready=ready)
    stuck["metadata"]["creationTimestamp"] = at(-made)
    return judged(stuck, worker(), events=[event("FailedMount", stuck, message=message)])


def test_a_volume_of_something_that_is_not_there_is_a_failure_after_the_grace() -> None:
    assert mounting(59) == Verdict(progress="head 0/1")
    assert mounting(60) == Verdict(failure='pod dev-head: FailedMount: configmap "none" not found')
    assert mounting(60, ready=True).ready
    assert mounting(60, message="timed out waiting for the volume") == Verdict(progress="head 0/1")


def test_a_volume_of_another_pod_or_another_event_says_nothing_of_this_one() -> None:
    stuck, other = pod(), worker(1)
    stuck["metadata"]["creationTimestamp"] = at(-600)
    missing = 'configmap "none" not found'
    events = [event("FailedMount", other, message=missing), event("FailedAttachVolume", stuck, message=missing)]
    assert judged(stuck, worker(), events=events) == Verdict(progress="head 0/1")


@pytest.mark.parametrize(
    ("states", "begun"),
    [([], False), (["waiting"], False), (["running"], True), (["terminated"], True), (["waiting", "running"], True)],
)
def test_whether_a_pod_has_begun(states: list[str], begun: bool) -> None:
    statuses = [{"name": str(number), "state": {state: {}}} for number, state in enumerate(states)]
    assert has_not_begun(pod(containerStatuses=statuses)) is not begun


def test_a_pod_that_is_being_deleted_cannot_fail() -> None:
    going = worker(ready=False, containerStatuses=[waiting("ErrImagePull")])
    going["metadata"]["deletionTimestamp"] = at(0)
    assert judged(head(), worker(1), going) == Verdict(ready=True)


# What KubeRay says


def test_pods_that_the_api_server_refuses() -> None:
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreateHeadPod",
        "message": 'pods "dev-head" is forbidden: exceeded quota: small, requested: requests.cpu=300m, limited: requests.cpu=100m',
    }
    verdict = judged(cluster=ray_cluster(conditions=[condition]))
    assert verdict == Verdict(failure=f"KubeRay: FailedCreateHeadPod: {condition['message']}")
    assert verdict.tried_again
    for other in ({"status": "False"}, {"type": "HeadPodReady"}):
        assert judged(cluster=ray_cluster(conditions=[{**condition, **other}])).failure is None


@pytest.mark.parametrize(
    ("failed", "changed", "failure"),
    [
        (-50, -5, False),  # of the spec before: KubeRay has not looked again
        (-50, -10, True),  # it has, and found the same
        (-5, -5, True),  # said in the second of the change
        (-3, -5, True),
        (-50, -60, True),
    ],
)
def test_pods_refused_of_the_spec_before_are_no_failure_of_the_one_just_written(failed: int, changed: int, failure: bool) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": "quota"}
    cluster = ray_cluster(conditions=[{**condition, "lastTransitionTime": at(failed)}], managed=[written(changed)])
    assert (judged(cluster=cluster).failure is not None) is failure


@pytest.mark.parametrize(
    "reason", ["InvalidRayClusterSpec", "InvalidRayClusterMetadata", "InvalidRayClusterStatus", "AutoscalerServiceAccountNotFound"]
)
def test_an_event_in_which_kuberay_refuses_the_cluster(reason: str) -> None:
    assert judged(events=[event(reason)]) == Verdict(failure=f"KubeRay: {reason}: the message")


@pytest.mark.parametrize("part", ["Service", "ServiceAccount", "Role", "RoleBinding", "PVC"])
@pytest.mark.parametrize(
    ("message", "lasts"),
    [
        ('services "dev-head-svc" is forbidden: exceeded quota: small', True),
        ('roles.rbac.authorization.k8s.io is forbidden: User "op" cannot create resource "roles"', True),
        ('Service "dev-head-svc" is invalid: metadata.labels: Invalid value', True),
        ('services "dev-head-svc" already exists', False),
        ("etcdserver: request timed out", False),
    ],
)
def test_a_part_that_the_api_server_refuses_to_kuberay(part: str, message: str, lasts: bool) -> None:
    found = judged(events=[event(f"FailedToCreate{part}", message=message)])
    assert found.failure == (f"KubeRay: FailedToCreate{part}: {message}" if lasts else None)
    assert found.tried_again is lasts


@pytest.mark.parametrize(("reason", "fails"), [("FailedToCreateService", False), ("InvalidRayClusterSpec", True)])
def test_a_part_that_was_refused_is_overcome_when_a_pod_was_made_since(reason: str, fails: bool) -> None:
    made = pod()
    for seconds, failure in ((-11, True), (-10, fails), (-9, fails)):
        made["metadata"]["creationTimestamp"] = at(seconds)
        verdict = judged(made, events=[event(reason, seconds=-10, message="is forbidden")])
        assert (verdict.failure is not None) is failure
        assert verdict.tried_again is (failure and not fails)


@pytest.mark.parametrize("reason", ["CreatedHeadPod", "FailedToCreateHeadPod", "FailedToCreateWorkerPod", "DeletedWorkerPod"])
def test_other_events_of_the_cluster_are_no_refusal(reason: str) -> None:
    assert judged(events=[event(reason, message="is forbidden")]).failure is None


def test_the_same_reason_of_another_kind_of_object_is_none() -> None:
    assert judged(events=[event("InvalidRayClusterSpec", head())]).failure is None


@pytest.mark.parametrize(
    ("managed", "refused"),
    [
        ([written(-50)], True),  # the spec is older than the event
        ([written(-10)], True),  # of the same second
        ([written(-50), written(-5)], False),  # changed since
        ([written(-50), written(-5, subresource="status")], True),  # KubeRay's own writing is no change
        ([written(-50), written(-5, what="f:metadata")], True),  # nor is a label
        ([], True),  # only the creation is known
    ],
)
def test_a_refusal_counts_since_the_spec_last_changed(managed: list[Body], refused: bool) -> None:
    verdict = judged(cluster=ray_cluster(managed=managed), events=[event("InvalidRayClusterSpec", seconds=-10)])
    assert (verdict.failure is not None) is refused


@pytest.mark.parametrize(
    ("times", "refused"),
    [
        ({"series": {"lastObservedTime": at(-1)}, "lastTimestamp": at(-40)}, True),
        ({"lastTimestamp": None, "eventTime": "2026-01-01T11:59:59.123456Z"}, True),
        ({"lastTimestamp": None, "eventTime": "2026-01-01T11:59:00.123456Z"}, False),
        ({"lastTimestamp": None}, True),  # created at the time of the snapshot
        ({"lastTimestamp": at(-40)}, False),
    ],
)
def test_an_event_is_of_the_time_it_was_last_seen(times: Body, refused: bool) -> None:
    cluster = ray_cluster(managed=[written(-20)])
    assert (judged(cluster=cluster, events=[event("InvalidRayClusterSpec", **times)]).failure is not None) is refused
