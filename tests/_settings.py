"""Deployment settings for tests."""

from __future__ import annotations

from rexport.choices import Goal
from rexport.deployment_settings import (
    DeploymentSettings,
    Expected,
    Goals,
    RunSettings,
    TunedMachine,
    TunedModel,
)

SETTINGS = DeploymentSettings(
    model=TunedModel(file="sub/m.onnx", sha256="0" * 64, precision="int8", regroup="off"),
    run=RunSettings(runtime="cpu", threads=2, batch=8),
    asked=Goals(goal=Goal.THROUGHPUT, latency_bound_ms=20.0),
    expected=Expected(
        images_per_second=100.0,
        images_per_second_interval=(90.0, 110.0),
        p50_ms=80.0,
        p50_ms_interval=(73.0, 89.0),
        p90_ms=85.0,
        p90_ms_interval=(80.0, 99.0),
        calls=64,
    ),
    machine=TunedMachine(cpu='a "fast" one\\', int8="AVX-512 VNNI", cores=2),
    versions={"rexport": "0.1.0", "onnx runtime": "1"},
)
