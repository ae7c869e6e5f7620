"""A CANN and a MindSpore Lite that are none: doubles of `atc` and `converter_lite` that fail where the real ones do."""

import sys

import pytest

from tests.support.ascend_toys import conv_model, write_bundle

# Flags as in ATC's manual: an unknown one, a missing file or an input that the graph does not have is an error.
ATC = """#!{python}
import sys
from pathlib import Path

KNOWN = set("framework model output soc_version input_format input_shape precision_mode log keep_dtype"
            " external_weight host_env_os host_env_cpu op_debug_level".split())
flags = {{}}
for argument in sys.argv[1:]:
    name, equals, value = argument.removeprefix("--").partition("=")
    if not argument.startswith("--") or not equals or name not in KNOWN:
        sys.exit(f"ATC run failed\\nE10001: unknown flag {{argument}}")
    flags[name] = value
import onnx
model = onnx.load(flags["model"])
inputs = [f"{{one.name}}:" + ",".join(str(d.dim_value) for d in one.type.tensor_type.shape.dim)
          for one in model.graph.input]
if flags["framework"] != "5" or flags["input_shape"].split(";") != inputs:
    sys.exit(f"E10002: input_shape {{flags['input_shape']}}, the graph has {{inputs}}")
if "keep_dtype" in flags:
    names = {{node.name for node in model.graph.node}}
    if not set(Path(flags["keep_dtype"]).read_text().split()) <= names:
        sys.exit("E10003: keep_dtype names a layer that does not exist")
with open("{calls}", "a") as calls:
    calls.write(flags["output"].rpartition("/")[2] + "\\n")
if Path("{broken}").exists():
    sys.exit("EZ3002: Optype [Conv2D] is not supported on this chip")
suffix = f"_{{flags['host_env_os']}}_{{flags['host_env_cpu']}}" if "host_env_cpu" in flags else ""
Path(flags["output"] + suffix + ".om").write_bytes(b"om of " + flags["output"].encode())
Path("kernel_meta").mkdir(exist_ok=True)
if flags.get("external_weight") == "1":
    Path("weight").mkdir(exist_ok=True)
    Path("weight/weight_0").write_bytes(b"weights")
print("ATC run success")
"""

CONVERTER = """#!{python}
import configparser, sys
from pathlib import Path

KNOWN = "fmk modelFile outputFile saveType optimize configFile inputShape".split()
flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
if list(flags) != KNOWN or flags["fmk"] != "MINDIR" or flags["optimize"] != "ascend_oriented":
    sys.exit(f"INPUT_PARAM_INVALID {{flags}}")
config = configparser.ConfigParser()
config.optionxform = str
config.read(flags["configFile"])
if not config["acl_init_options"]["ge.socVersion"].startswith("Ascend") or not Path(flags["modelFile"]).is_file():
    sys.exit("CONVERT RESULT FAILED:-1")
Path(flags["outputFile"] + ".mindir").write_bytes(b"lite")
print("CONVERT RESULT SUCCESS:0")
"""


@pytest.fixture
def bundle(tmp_path):
    """Bundle of two float32 units, neither of them audited."""
    return write_bundle(tmp_path / "bundle", {"first": conv_model(), "second": conv_model((1, 2, 5, 5))})


@pytest.fixture
def audited(bundle):
    (bundle.folder / "audit").mkdir()
    (bundle.folder / "audit" / "first.keep_dtype.cfg").write_text("the_Conv_c\n")
    (bundle.folder / "audit" / "second.keep_dtype.cfg").write_text("")
    return bundle


class Cann:
    """Folders of the double. opp: ASCEND_OPP_PATH; calls(): units the fake atc was asked for."""

    def __init__(self, folder):
        self.folder, self.bin, self.opp = folder, folder / "bin", folder / "opp"
        self.broken = folder / "broken"  # while this file exists, the fake atc fails
        self.log = folder / "calls.txt"

    def calls(self):
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def cann(tmp_path, monkeypatch):
    """CANN 8.2 with the operators of Ascend310P and Ascend310, in the environment."""
    double = Cann(tmp_path / "cann")
    double.bin.mkdir(parents=True)
    for name, text in (("atc", ATC), ("converter_lite", CONVERTER)):
        path = double.bin / name
        path.write_text(text.format(python=sys.executable, calls=double.log, broken=double.broken))
        path.chmod(0o755)
    for family in ("ascend310p", "ascend310"):
        (double.opp / "built-in/op_impl/ai_core/tbe/config" / family).mkdir(parents=True)
    (double.folder / "version.info").write_text("Version=8.2.RC1\nversion_dir=8.2\n")
    monkeypatch.setenv("ASCEND_OPP_PATH", str(double.opp))
    monkeypatch.setenv("PATH", f"{double.bin}:/usr/bin:/bin")
    return double
