"""sonic_ms: one portrait and one speech recording become a talking video, on Huawei Ascend and on any CPU."""

__version__ = "0.1.0"
