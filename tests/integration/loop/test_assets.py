"""The loop with everything on a real S3 server: images, checkpoints, scores, orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.integration.harness import DIGITS_CONFIG, Api, Bucket, Project
from tests.integration.loop.running import RunningKdal, drain


def s3_project(ls_api: Api, bucket: Bucket, make_project: Callable[..., Project], images: list[bytes]) -> Project:
    """A project whose tasks come from a source storage in Label Studio: their addresses are s3://."""
    for index, image in enumerate(images):
        bucket.client.put_object(Bucket=bucket.name, Key=f"digits/{index:03}.png", Body=image, ContentType="image/png")
    project = make_project(DIGITS_CONFIG)
    storage = ls_api.post(
        "/api/storages/s3",
        {
            "project": project.id,
            "bucket": bucket.name,
            "prefix": "digits",
            "regex_filter": ".*png",
            "use_blob_urls": True,
            "presign": True,
            "recursive_scan": True,
            "s3_endpoint": bucket.url,
            "region_name": "us-east-1",
            "aws_access_key_id": bucket.env["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": bucket.env["AWS_SECRET_ACCESS_KEY"],
        },
    )
    ls_api.post(f"/api/storages/s3/{storage['id']}/sync")
    project.task_ids.extend(task["id"] for task in sorted(project.tasks(), key=lambda t: t["data"]["image"]))
    assert len(project.task_ids) == len(images)
    return project


def label_a_batch(kdal: RunningKdal, api: Api, project: Project, labels: list[int]) -> None:
    truth = dict(zip(project.task_ids, labels, strict=True))
    kdal.connect(project)
    kdal.wait_open(project, 0)
    assert drain(project, [api], 8, truth.__getitem__) == kdal.order(project, 0)[:8]
    kdal.wait_open(project, 1)
    assert kdal.report(project)["set_aside"] == []
    assert drain(project, [api], 3, truth.__getitem__) == kdal.order(project, 1)[:3]


def test_images_and_assets_live_on_s3(
    make_kdal: Callable[..., RunningKdal],
    ls_api: Api,
    s3: Bucket,
    make_project: Callable[..., Project],
    digits: Callable[..., Any],
    monkeypatch: Any,
) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    found = digits(24)
    project = s3_project(ls_api, s3, make_project, found.images)
    kdal = make_kdal(KDAL_ASSETS=f"s3://{s3.name}/kdal", **s3.env).start()
    label_a_batch(kdal, ls_api, project, found.labels)
    names = [item["Key"] for item in s3.client.list_objects_v2(Bucket=s3.name, Prefix="kdal/")["Contents"]]
    assert {name.rpartition("/")[2] for name in names} >= {
        "snapshot.json",
        "order.json",
        "student.safetensors",
        "teacher.safetensors",
        "distilled.safetensors",
    }
    assert not (kdal.home / "assets").exists()


def test_a_kdal_without_s3_keys_reads_the_images_through_label_studio(
    make_kdal: Callable[..., RunningKdal],
    ls_api: Api,
    s3: Bucket,
    make_project: Callable[..., Project],
    digits: Callable[..., Any],
) -> None:
    found = digits(24)
    project = s3_project(ls_api, s3, make_project, found.images)
    kdal = make_kdal(AWS_EC2_METADATA_DISABLED="true", AWS_ENDPOINT_URL=s3.url).start()
    label_a_batch(kdal, ls_api, project, found.labels)
